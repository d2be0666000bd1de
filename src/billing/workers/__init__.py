"""Jobs that run outside of calls."""
