"""A PostgreSQL server for trying out and for tests: it starts programs, and speaks no SQL."""
