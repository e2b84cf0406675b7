"""Atomic files, progress, prefetching, arrays out of core, optional packages."""
