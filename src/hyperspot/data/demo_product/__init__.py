"""The synthetic product of `hyperspot demo`, rendered with and without defects."""
