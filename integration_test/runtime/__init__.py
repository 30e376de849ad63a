"""Tests of reactive_orch/runtime that need a server."""
