"""The services: each knows the others by contract alone."""
