"""What is recorded of traces: W3C's traceparent."""

from __future__ import annotations

import re

TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def trace_id(traceparent: str | None) -> str | None:
    """Return the trace's id; None when there is none or it is malformed."""
    match = TRACEPARENT.fullmatch(traceparent or "")
    return match[1] if match else None
