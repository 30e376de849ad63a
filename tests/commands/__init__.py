"""Tests of reactive_orch/commands."""
