"""The evidence of the book: runs, records, and what they can tell apart."""
