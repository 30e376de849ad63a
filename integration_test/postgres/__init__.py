"""Tests of reactive_orch/postgres that need a server."""
