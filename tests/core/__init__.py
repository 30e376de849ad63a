"""Tests of reactive_orch/core."""
