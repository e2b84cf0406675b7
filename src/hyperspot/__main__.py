"""`python -m hyperspot` is the command line."""

import sys
from pathlib import Path

# Python puts the working folder first: a file in it named like a package would be run. `-P` and the command `hyperspot`
# do not; a checkout that is run where its package lies needs it.
if not sys.flags.safe_path and Path(sys.path[0]).resolve() not in Path(__file__).resolve().parents:
    del sys.path[0]

from hyperspot.cli.app import main

main()
