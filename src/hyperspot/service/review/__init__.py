"""Labels of reviewers, and what they say about a model."""
