"""How a process begins, speaks and ends: standard streams, errors explained, an end that waits for nobody."""
