"""The source https://…."""
