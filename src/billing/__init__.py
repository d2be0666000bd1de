"""Turns usage into money exactly once."""
