"""Scripts that made, or measured, what the package carries."""
