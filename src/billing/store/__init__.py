"""Everything that is kept in PostgreSQL; the only place with SQL."""
