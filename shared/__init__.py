"""Mechanism that every service is built from; it knows no service."""
