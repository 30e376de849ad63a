"""Tests of reactive_orch/embedded that need a server."""
