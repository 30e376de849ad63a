"""Tests of reactive_orch/runtime/reading that need a server."""
