"""The story that the tests look at: it happens once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest_asyncio

from integration_test.environments.jaeger.story import Story
from integration_test.harness.cluster import copied

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from integration_test.harness.cluster import Cluster


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def story(cluster: Cluster, template: str) -> AsyncIterator[Story]:
    """All that happens; the tests only look at it."""
    with copied(cluster, "story", template) as url:
        async with Story(url) as happened:
            yield happened
