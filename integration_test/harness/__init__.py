"""What the tests stand on: servers, processes, load, faults, checkers."""
