"""Tests of reactive_orch/runtime/handling that need a server."""
