"""The `broadcast` command: what the services can do, from a terminal or a script."""
