"""Measures the suite beside what it replaces, on real servers of its own."""
