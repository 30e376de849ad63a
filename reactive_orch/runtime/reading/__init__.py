"""How far the log may be read, and its windows: one follower for a process, windows read ahead and shared."""
