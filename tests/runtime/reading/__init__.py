"""Tests of reactive_orch/runtime/reading."""
