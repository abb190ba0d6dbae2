"""The source postgresql://…."""
