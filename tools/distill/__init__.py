"""Makes the weights of the backbone that is shipped; `python -m tools.distill --help` tells how."""
