"""A method and a backbone for hyperspot."""
