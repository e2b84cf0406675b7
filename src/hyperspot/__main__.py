"""`python -m hyperspot` is the command line."""

from hyperspot.cli.app import main

main()
