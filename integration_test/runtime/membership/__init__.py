"""Tests of reactive_orch/runtime/membership that need a server."""
