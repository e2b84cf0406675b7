"""Patch features, nearest neighbors, coresets and clustering."""
