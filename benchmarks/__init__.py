"""Scripts behind every figure we print."""
