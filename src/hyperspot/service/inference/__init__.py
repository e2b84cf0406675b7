"""Worker processes that predict, and what they return."""
