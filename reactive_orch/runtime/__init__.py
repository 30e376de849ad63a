"""Where the core and the edge meet: lanes that run batches, and a worker's life."""
