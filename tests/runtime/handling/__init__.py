"""Tests of reactive_orch/runtime/handling."""
