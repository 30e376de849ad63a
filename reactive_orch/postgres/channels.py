"""What is notified: that somebody has appended, while the bell is armed; and which replica set has changed."""

EVENTS_CHANNEL = "reactive_orch_events"
"""Without a payload."""
GENERATIONS_CHANNEL = "reactive_orch_generations"
"""The payload is the name of a replica set: it has another generation, or a projection of it another state."""
