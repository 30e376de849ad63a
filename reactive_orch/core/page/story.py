"""What is remembered of one replica set from look to look: what has moved, what was wrong, who has gone, how fast."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

HISTORY_S = 180
"""So many seconds of rates and lags are kept, a column each."""
KNOWN_S = 5
"""What a look shows is taken for so many seconds before it; of a longer silence nothing else is known."""
GONE_S = 6.0
"""For so long a worker that has gone is shown."""
INCIDENTS_MOST = 40

Page = dict[str, Any]
_Series = dict[str, list[float | None]]


class Story:
    """That of one replica set. Times are seconds by the database's clock."""

    def __init__(self) -> None:
        """Begin with nothing seen."""
        self._before: Page | None = None
        self._gone: dict[str, tuple[Mapping[str, Any], float]] = {}
        self._incidents: list[dict[str, Any]] = []
        self._columns: dict[str, _Series] = {"rate": {}, "lag": {}, "handled": {}}
        self._until_s: int | None = None

    def told(self, page: Page, now_s: float) -> Page:
        """Return a page with what is remembered, and remember what it shows."""
        told = page | {
            "workers": self._with_gone(page, now_s),
            "projections": {key: self._with_moves(key, each, page) for key, each in page["projections"].items()},
            "incidents": self._with_problems(page),
        }
        self._fill(told, int(now_s))
        self._before = told
        return told

    def history(self, at: str) -> Mapping[str, Any]:
        """Return what goes before the present, which is `at`, a column a second."""
        return {"until": at, **self._columns}

    def _with_gone(self, page: Page, now_s: float) -> Mapping[str, Any]:
        there: Mapping[str, Any] = page["workers"]
        before = self._before["workers"] if self._before else {}
        for key, each in before.items():
            if key not in there and key not in self._gone:
                self._gone[key] = each | {"state": "dead", "per_s": None, "partitions": 0}, now_s
        self._gone = {
            key: (each, since_s)
            for key, (each, since_s) in self._gone.items()
            if now_s - since_s < GONE_S and key not in there
        }
        return {**there} | {key: each for key, (each, _) in self._gone.items()}

    def _with_moves(self, key: str, projection: Mapping[str, Any], page: Page) -> Mapping[str, Any]:
        before = self._before["projections"].get(key) if self._before else None
        owners, number = projection["owners"], max(map(int, page["generations"]), default=0)
        if before is None or len(before["owners"]) != len(owners):
            return {**projection, "moved": [0] * len(owners)}
        moved = [
            number if owner != owned_before else moved_before
            for owner, owned_before, moved_before in zip(owners, before["owners"], before["moved"], strict=True)
        ]
        return {**projection, "moved": moved}

    def _with_problems(self, page: Page) -> list[Mapping[str, Any]]:
        present = {(each["code"], each["text"]): each for each in page["problems"]}
        lasting = {(each["code"], each["text"]): each for each in self._incidents if each["to"] is None}
        for of in lasting.keys() - present.keys():
            lasting[of]["to"] = page["at"]
        for of in present.keys() - lasting.keys():
            each = present[of]
            begun = {"code": each["code"], "level": each["level"], "text": each["text"]}
            self._incidents.append({**begun, "from": each["since"] or page["at"], "to": None})
        self._incidents = self._incidents[-INCIDENTS_MOST:]
        return [dict(each) for each in self._incidents]

    def _fill(self, page: Page, now_s: int) -> None:
        columns = 1 if self._until_s is None else min(max(now_s - self._until_s, 0), HISTORY_S)
        self._until_s = now_s
        for name, of, field in (
            ("rate", "workers", "per_s"),
            ("lag", "projections", "lag_s"),
            ("handled", "projections", "per_s"),
        ):
            self._columns[name] = grown(self._columns[name], {k: v[field] for k, v in page[of].items()}, columns)


def grown(past: _Series, present: Mapping[str, float | None], columns: int) -> _Series:
    """Return each series with so many columns more, of the present value. One of which nothing is known is left out."""
    unknown: list[float | None] = [None] * HISTORY_S
    known = min(columns, KNOWN_S)
    series = {
        key: [*past.get(key, unknown)[columns:], *[None] * (columns - known), *[present.get(key)] * known]
        for key in past.keys() | present.keys()
    }
    return {key: values for key, values in series.items() if any(value is not None for value in values)}
