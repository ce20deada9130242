"""Owns the whole suite on one machine: servers from wheels, migrations, demo data and the services."""
