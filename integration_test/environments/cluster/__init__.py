"""PostgreSQL by Patroni, which fails over, and the ways to reach its primary."""
