"""JSON objects that keep the text they were read from, as Python's numbers are not always those of the text."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


class JsonText(dict[str, Any]):
    """What a JSON object says, and its text."""

    def __init__(self, text: str, values: Mapping[str, Any]) -> None:
        """Keep both."""
        super().__init__(values)
        self.text = text


def text_of(values: Mapping[str, Any]) -> str:
    """Return the JSON text of an object: the one it was read from, if it has kept it."""
    return values.text if isinstance(values, JsonText) else json.dumps(dict(values))
