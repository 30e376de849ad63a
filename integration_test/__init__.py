"""Real PostgreSQL servers, real worker processes."""
