"""Tests of reactive_orch/runtime/membership."""
