"""The web process: it appends in the transaction in which it writes its own tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.db import connection, transaction
from django.http import HttpResponse, JsonResponse
from django.urls import path

from examples.django_shop.models import Customer, Order
from reactive_orch import Conflict, Expected, NewEvent, append

if TYPE_CHECKING:
    from django.http import HttpRequest


def place(_request: HttpRequest, customer: str, order: str) -> HttpResponse:
    """Note the customer, and that something was ordered: both, or neither."""
    event = NewEvent(
        aggregate_type="Delivery",
        aggregate_id=order,
        event_type="DeliveryOrdered",
        payload={"customer": customer},
    )
    try:
        with transaction.atomic():
            Customer.objects.get_or_create(id=customer, defaults={"name": customer.title()})
            append(connection, [event], Expected.NO_STREAM)
    except Conflict:
        return HttpResponse("this order is there already\n", status=409)
    return HttpResponse("accepted\n", status=202)


def orders(_request: HttpRequest) -> JsonResponse:
    """Show the read model, by the ORM."""
    return JsonResponse({order.id: {"owner": order.owner, "state": order.state} for order in Order.objects.all()})


urlpatterns = [path("customers/<customer>/orders/<order>", place), path("orders", orders)]
