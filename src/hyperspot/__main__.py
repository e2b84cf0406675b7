"""`python -m hyperspot` is the command line."""

from hyperspot.cli import main

main()
