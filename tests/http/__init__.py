"""Tests of reactive_orch/http."""
