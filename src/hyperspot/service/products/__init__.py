"""Products and the versions of their models."""
