"""The source file:///…."""
