"""Variants and abilities that the core works without, one to a file."""
