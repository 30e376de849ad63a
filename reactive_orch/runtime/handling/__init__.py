"""What a worker does with events: runners, their lanes, batches, and the one place that calls handlers."""
