"""Each worker and PostgreSQL on a host of its own, and the network between them."""
