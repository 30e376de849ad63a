"""Which limits of connections are nearly reached, and the words for them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from reactive_orch.config import CONNECTIONS_MAX, CONNECTIONS_MIN, OWN_CONNECTIONS, Config
from reactive_orch.core.connections import IDLE_MOST, in_use, is_short, kept_warm
from reactive_orch.core.problems import problems
from reactive_orch.model.overview import ConnectionsSeen, Overview


def seen(used: int, most: int) -> ConnectionsSeen:
    return ConnectionsSeen(of="server", name="", used=used, most=most, reserved=3)


@pytest.mark.parametrize(
    ("used", "most", "level"),
    [(87, 97, None), (88, 97, "warn"), (96, 97, "warn"), (97, 97, "bad"), (99, 97, "bad"), (7, 8, None), (8, 8, "bad")],
)
def test_when_a_limit_is_a_problem(used: int, most: int, level: str | None) -> None:
    assert is_short(seen(used, most)) is (level is not None)
    found = problems(Overview(at=datetime.now(UTC), logs=[], replica_sets=[], connections=[seen(used, most)]))
    assert [(each.code, each.level) for each in found] == ([("connections_short", level)] if level else [])


def test_the_words() -> None:
    assert (
        in_use(seen(90, 97)) == "90 of the 97 connections that the server takes are in use, besides 3 that are reserved"
    )
    of_role = ConnectionsSeen(of="role", name="worker", used=8, most=8, reserved=0)
    assert in_use(of_role) == "role worker has 8 of the 8 connections that its CONNECTION LIMIT allows"


@pytest.mark.parametrize(("own", "warm"), [(0, 3), (2, 1), (3, 0), (5, 0)])
def test_how_many_stay_warm(own: int, warm: int) -> None:
    assert kept_warm(own) == warm


@pytest.mark.parametrize("most", [CONNECTIONS_MIN, 7, 8, 11, 17, 40, CONNECTIONS_MAX])
def test_all_connections_of_a_process_are_dealt(most: int) -> None:
    config = Config(database_url="postgresql://", connections_max=most)
    assert OWN_CONNECTIONS + config.coordination_connections + config.work_connections == most
    assert config.coordination_connections >= 2
    assert config.work_connections >= 1
    assert OWN_CONNECTIONS == IDLE_MOST
