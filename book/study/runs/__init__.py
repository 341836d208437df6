"""Each module trains what is missing of its runs and keeps their records."""
