"""Tests of reactive_orch/postgres."""
