"""What is known of the log: nothing before it was looked at, and nothing of another incarnation."""

from __future__ import annotations

from reactive_orch import Config, Node
from reactive_orch.runtime.wakeup import Wakeup


def unconnected() -> Node:
    return Node(Config(database_url="postgresql://nobody@127.0.0.1:1/none"), observers=())


def test_nothing_is_known_before_the_first_look() -> None:
    node = unconnected()
    follower = node.follower
    assert follower.settled is None
    assert follower.settled_in(node.database.incarnation) is None
    assert follower.settled_since(0.0) is None
    assert (follower.held_s, follower.missed) == (0.0, False)
    assert set(follower.holders.values()) == {0}


def test_who_asks_for_a_look_makes_it_look_and_is_told_then() -> None:
    follower, asking = unconnected().follower, Wakeup()
    follower.look(asking)
    assert follower.wakeup.is_set
    assert not asking.is_set
