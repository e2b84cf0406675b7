"""The honest benchmark: runs at the last checkpoint, kept as JSON lines, from which every table is drawn."""
