"""The edge to PostgreSQL: the only importer of asyncpg. It reads and writes, and decides nothing."""
