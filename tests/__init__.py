"""What needs no database: the pure core, and the rules of this code base."""
