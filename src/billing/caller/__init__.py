"""How a command line calls the service: over its contract alone."""
