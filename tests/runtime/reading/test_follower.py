"""What is known of the log: nothing before it was looked at, and nothing of another incarnation."""

from __future__ import annotations

from reactive_orch.model import OWN_LOG, Log
from reactive_orch.postgres.database import Database
from reactive_orch.runtime.reading.follower import LogFollower
from reactive_orch.runtime.wakeup import Wakeup


def unconnected() -> LogFollower:
    database = Database("postgresql://nobody@127.0.0.1:1/none", label="test", connections_max=1, handler_timeout_s=1)
    return LogFollower(Log(OWN_LOG, 64), database, lambda: True, lambda _: None)


def test_nothing_is_known_before_the_first_look() -> None:
    follower = unconnected()
    assert follower.settled is None
    assert follower.settled_in(follower.database.incarnation) is None
    assert follower.settled_since(0.0) is None
    assert (follower.held_s, follower.ringing.missed) == (0.0, False)
    assert set(follower.holders.values()) == {0}


def test_who_asks_for_a_look_makes_it_look_and_is_told_then() -> None:
    follower, asking = unconnected(), Wakeup()
    follower.look(asking)
    assert follower.wakeup.is_set
    assert not asking.is_set
