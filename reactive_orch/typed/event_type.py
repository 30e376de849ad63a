"""One type of event and its class: the newest version as the class says, older ones upcast to it step by step."""

from __future__ import annotations

import json
from functools import cached_property
from typing import TYPE_CHECKING, Any
from uuid import UUID

from reactive_orch.errors import ConfigError, Undecodable, described
from reactive_orch.model.projections import called, is_async, is_whole, takes
from reactive_orch.typed.codecs import maker_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from reactive_orch.model import Event
    from reactive_orch.typed.codecs import Codec


class EventType:
    """What is registered of one class."""

    def __init__(
        self, name: str, version: int, cls: type, aggregate_type: str | None = None, id_from: str | None = None
    ) -> None:
        """Raise ConfigError for a class of none of the kinds, and for an attribute that it does not have."""
        self.name, self.version, self.cls = name, version, cls
        self.aggregate_type, self._id_from = aggregate_type, id_from
        self._make_codec = maker_of(cls)
        self._upcasters: dict[int, Callable[[Any], Any]] = {}
        if id_from is not None and not _has(cls, id_from):
            msg = f"{cls.__qualname__} has no attribute {id_from!r} to take the aggregate id from"
            raise ConfigError(msg)

    @cached_property
    def _codec(self) -> Codec:
        """Made when it is used first: what the annotations name may stand below the class, and upcasters do."""
        missing = [
            v for v in range(min(self._upcasters, default=self.version), self.version) if v not in self._upcasters
        ]
        if missing:
            msg = f"{self.name}: no upcaster from version {missing[0]}, to which older ones are upcast; write it"
            raise ConfigError(msg)
        return self._make_codec(self.cls)

    def get_ready(self) -> None:
        """Do now what the first event would do. Raises ConfigError for a gap, and for what cannot be decoded."""
        self._codec  # noqa: B018 - made by being looked at

    def add_upcaster(self, version: int, upcaster: Callable[[Any], Any]) -> None:
        """Let events of a version be upcast to the next one. Raises ConfigError where that cannot be."""
        of = f"{self.name}: an upcaster from version {version!r}"
        if not is_whole(version) or not 1 <= version < self.version:
            msg = f"{of}, but {self.cls.__qualname__} is version {self.version}: it is from an older one to the next"
            raise ConfigError(msg)
        if is_async(upcaster) or not takes(upcaster, 1):
            msg = f"{of} is a plain function that takes (payload) and returns it, not {called(upcaster)}"
            raise ConfigError(msg)
        if version in self._upcasters:
            msg = f"{of} is registered twice"
            raise ConfigError(msg)
        if "_codec" in vars(self):
            msg = f"{of} comes too late: register it above the first projection that handles the type"
            raise ConfigError(msg)
        self._upcasters[version] = upcaster

    def decode(self, event: Event) -> Any:
        """Return the object. Raises Undecodable, with what a user's code has raised as its cause."""
        if event.event_version == self.version:
            return self._decode(event.payload, self.version)
        return self._decode(self._upcast(event), event.event_version)

    def encode(self, value: object) -> bytes:
        """Return the payload of an object.

        Raises Undecodable for one that could not be read again, as dataclasses and structs may hold anything: better
        now than when it is in the log for good. TypeError or ValueError for what JSON cannot carry.
        """
        payload = self._codec.encode(value)
        self._decode(payload, self.version)
        return payload

    def id_of(self, value: object) -> str | None:
        """Return the aggregate id that an object names; None where its class does not say. Raises TypeError."""
        if self._id_from is None:
            return None
        named = getattr(value, self._id_from)
        if not isinstance(named, str | int | UUID) or isinstance(named, bool):
            where, what = f"{self.cls.__qualname__}.{self._id_from}", type(named).__name__
            msg = f"{where}: an aggregate id is text, a whole number or a UUID, not {what}"
            raise TypeError(msg)
        return str(named)

    def _decode(self, payload: bytes, version: int) -> Any:
        try:
            return self._codec.decode(payload)
        except Exception as error:  # noqa: BLE001 - of validators and __post_init__, too
            complaint = self._codec.complaint(error)
            # The library's own frames say nothing to anybody, but what a validator or __post_init__ has raised does.
            cause = error if complaint is None else error.__cause__
            upcast = "" if version == self.version else f"upcast to {self.version}, "
            raise self._undecodable(version, f"{upcast}{complaint or described(error)}") from cause

    def _upcast(self, event: Event) -> bytes:
        """Return the payload as one of the newest version: as JSON, so that the class is as strict with it."""
        version = event.event_version
        if version > self.version:
            known = f"this code knows it up to version {self.version}; deploy what knows it, then retry the key"
            raise self._undecodable(version, known)
        if version not in self._upcasters:
            write = f"no upcaster from it is registered; write one, @events.upcast({self.cls.__name__}, {version})"
            raise self._undecodable(version, write)
        try:
            payload = event.json()
        except ValueError as error:
            raise self._undecodable(version, described(error)) from None
        for step in range(version, self.version):
            payload = self._step(step, version, payload)
        try:
            return json.dumps(payload).encode()
        except (TypeError, ValueError) as error:
            raise self._undecodable(version, f"its upcasters made what JSON cannot carry: {described(error)}") from None

    def _step(self, step: int, version: int, payload: Any) -> Any:
        upcaster = f"its upcaster from version {step}"
        try:
            upcast = self._upcasters[step](payload)
        except Exception as error:
            raise self._undecodable(version, f"{upcaster} failed: {described(error)}") from error
        if upcast is None:
            raise self._undecodable(version, f"{upcaster} returned None, not the payload")
        return upcast

    def _undecodable(self, version: int, text: str) -> Undecodable:
        return Undecodable(f"{self.name} version {version}: {text}")


def _has(cls: type, attribute: str) -> bool:
    fields = getattr(cls, "__dataclass_fields__", None) or getattr(cls, "__pydantic_fields__", {})
    return attribute in fields or hasattr(cls, attribute)  # a property, or a slot
