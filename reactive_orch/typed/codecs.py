"""From JSON to objects of a class, and back, by the library that the class belongs to.

The class alone says which, never what happens to be installed: so the same payloads are taken, and the same refused, on
every machine. What is strict about a class is its own affair and its library's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from reactive_orch.errors import ConfigError, described

if TYPE_CHECKING:
    from collections.abc import Callable

COMPLAINTS_MOST = 5
"""Of one payload; a list of a thousand items may be wrong a thousand times."""


class Codec(NamedTuple):
    """How objects of one class are read and written."""

    decode: Callable[[bytes], Any]
    encode: Callable[[Any], bytes]
    complaint: Callable[[Exception], str | None]
    """What the library says of a payload, fields by their paths; None of an error that is not the library's."""


def maker_of(cls: type) -> Callable[[type], Codec]:
    """Return what makes the codec of a class, once all that its annotations name is there.

    Raises ConfigError for a class of none of the kinds, and where its library is missing.
    """
    # Its own, as what it inherits is not of its own fields: somebody has forgotten the decorator.
    if "__pydantic_validator__" in vars(cls):
        return _by_pydantic
    if hasattr(cls, "__struct_fields__"):
        return _by_msgspec
    if "__dataclass_fields__" in vars(cls):
        _demand_msgspec(cls)
        return _by_msgspec
    msg = (
        f"{cls.__qualname__} is neither a dataclass nor a model of pydantic 2 nor a struct of msgspec; "
        f"a decorator that makes it one stands below that of its event type"
    )
    raise ConfigError(msg)


def _demand_msgspec(cls: type) -> None:
    try:
        import msgspec  # noqa: F401 - whether it is there
    except ModuleNotFoundError as error:
        msg = f"dataclasses such as {cls.__qualname__} are decoded by msgspec: pip install 'reactive_orch[msgspec]'"
        raise ConfigError(msg) from error


def _by_msgspec(cls: type) -> Codec:
    import msgspec

    try:
        decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(cls)
    except (NameError, TypeError, ValueError) as error:
        raise _unusable(cls, error) from error
    return Codec(decoder.decode, msgspec.json.encode, _complaint_of_msgspec)


def _complaint_of_msgspec(error: Exception) -> str | None:
    import msgspec

    return str(error) if isinstance(error, msgspec.DecodeError) else None


def _by_pydantic(cls: type) -> Codec:
    from pydantic import PydanticUserError, TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(cls)
    try:
        adapter.rebuild()
    except (NameError, PydanticUserError) as error:
        raise _unusable(cls, error) from error

    def encode(value: Any) -> bytes:
        return adapter.dump_json(value, by_alias=True, round_trip=True)  # as it will be read

    return Codec(adapter.validate_json, encode, _complaint_of_pydantic)


def _complaint_of_pydantic(error: Exception) -> str | None:
    from pydantic import ValidationError

    if not isinstance(error, ValidationError):
        return None
    wrong = error.errors(include_url=False, include_context=False, include_input=False)
    told = [f"{_path(each['loc'])}: {each['msg']}" for each in wrong[:COMPLAINTS_MOST]]
    more = len(wrong) - COMPLAINTS_MOST
    return "; ".join(told) + (f"; and {more} more" if more > 0 else "")


def _path(place: tuple[int | str, ...]) -> str:
    """Return where something is, as in `$.lines[2].price`: as msgspec writes it."""
    return "$" + "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)


def _unusable(cls: type, error: Exception) -> ConfigError:
    return ConfigError(f"{cls.__qualname__} cannot be decoded, as one of its annotations cannot: {described(error)}")
