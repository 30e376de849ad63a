"""Tests of reactive_orch/http that need a server."""
