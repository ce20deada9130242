"""The service that knows who people are, which weddings they work on, and what they want to be told."""
