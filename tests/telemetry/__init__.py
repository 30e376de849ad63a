"""Tests of reactive_orch/telemetry."""
