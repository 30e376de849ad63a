"""A process's side of a database, before it has a connection."""

from __future__ import annotations

from reactive_orch import Config, Node


def test_a_node_that_has_not_been_entered_tells_how_it_stands() -> None:
    status = Node(Config(database_url="postgresql://nobody@127.0.0.1:1/none"), observers=()).status()
    assert (status.listening_s, status.logs, status.pools, status.workers) == (0.0, (), {}, ())
