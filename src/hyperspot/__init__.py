"""hyperspot: show it what is right, and it finds what is wrong."""

__version__ = "0.1.0"
