"""Reports made into spans, and the traces that the engine asks for. A module for each kind of trace."""
