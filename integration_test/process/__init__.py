"""Tests of reactive_orch/process that need a server."""
