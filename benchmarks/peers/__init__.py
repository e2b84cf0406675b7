"""Other implementations, each timed in an environment of its own."""
