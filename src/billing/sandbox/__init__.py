"""Everything a laptop needs to run the service: a database, an invoicing server, sample records."""
