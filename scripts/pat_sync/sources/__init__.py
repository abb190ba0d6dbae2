"""The sources of tokens."""
