"""The worker's side: a projection that reads Django's models, and writes one, all in the transaction of its batch.

The ORM itself cannot be in that transaction: it has connections of its own, of psycopg. But it can say in SQL what it
would ask, and `tx` asks that; so a handler sees what its batch has written.
"""

from __future__ import annotations

import os
from itertools import count
from typing import TYPE_CHECKING, Any

import django

from reactive_orch import Event, projection

if TYPE_CHECKING:
    import asyncpg
    from django.db.models import QuerySet

    Tx = asyncpg.Connection[asyncpg.Record]

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "examples.django_shop.settings")
django.setup()

from examples.django_shop.models import Customer  # noqa: E402 - a model needs the settings


@projection("django_orders", aggregate_types=["Delivery"])
async def django_orders(event: Event, tx: Tx) -> None:
    """Keep each order with the name of who has ordered."""
    (customer,) = await found(Customer.objects.filter(id=event.json()["customer"]), tx)
    await tx.execute(
        "INSERT INTO django_shop_order VALUES ($1, $2, 'placed')",
        *(event.aggregate_id, customer.name),
    )


async def found(queryset: QuerySet[Any], tx: Tx) -> list[Any]:
    """Return the models that a queryset of whole models finds, asked by `tx`."""
    numbers = count(1)
    sql, arguments = queryset.query.sql_with_params()
    numbered = "".join(part if at == 0 else f"${next(numbers)}{part}" for at, part in enumerate(sql.split("%s")))
    rows = await tx.fetch(numbered.replace("%%", "%"), *arguments)
    return [queryset.model.from_db(None, list(row.keys()), list(row.values())) for row in rows]
