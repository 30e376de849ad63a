"""Tests of reactive_orch/model."""
