"""Tests of reactive_orch/telemetry that need a server."""
