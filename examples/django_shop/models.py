"""Customers, which Django writes, and orders, a read model which a projection writes."""

from __future__ import annotations

from django.db import models


class Customer(models.Model):
    """Somebody who orders."""

    id: models.TextField[str, str] = models.TextField(primary_key=True)
    name: models.TextField[str, str] = models.TextField()

    class Meta:
        """Its table, made by tables.sql here; by a migration in an application."""

        app_label = "django_shop"
        db_table = "django_shop_customer"

    def __str__(self) -> str:
        return self.name


class Order(models.Model):
    """An order, as its events have left it. Nobody saves one: the projection does."""

    id: models.TextField[str, str] = models.TextField(primary_key=True)
    owner: models.TextField[str, str] = models.TextField()
    state: models.TextField[str, str] = models.TextField()

    class Meta:
        """`managed = False`: its table is the projection's."""

        app_label = "django_shop"
        db_table = "django_shop_order"
        managed = False

    def __str__(self) -> str:
        return self.id
