"""The cluster that all other tests stand on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import asyncpg
import pytest

if TYPE_CHECKING:
    from integration_test.harness.cluster import Cluster, StopMode


pytestmark = pytest.mark.each_server


async def _value(url: str, sql: str) -> object:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(sql)
    finally:
        await connection.close()


async def test_it_is_the_version_asked_for(cluster: Cluster) -> None:
    assert str(await _value(cluster.url(), "show server_version")).startswith(cluster.version)


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_databases_survive_a_restart(cluster: Cluster, empty_database: str, mode: StopMode) -> None:
    await _value(empty_database, "create table kept as select 7 as seven")
    cluster.restart(mode)
    assert await _value(empty_database, "select seven from kept") == 7


async def test_a_database_is_cloned_with_its_rows(cluster: Cluster, empty_database: str) -> None:
    await _value(empty_database, "create table kept as select 7 as seven")
    clone = cluster.clone_database(empty_database.rpartition("/")[2], "clone")
    try:
        assert await _value(clone, "select seven from kept") == 7
    finally:
        cluster.drop_database("clone")


async def test_a_database_is_dropped_under_its_users(cluster: Cluster) -> None:
    connection = await asyncpg.connect(cluster.create_database("in_use"))
    cluster.drop_database("in_use")
    with pytest.raises((asyncpg.AdminShutdownError, asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError)):
        await connection.fetchval("select 1")
