"""How much Hypothesis tries: the same examples in each `make test`, several times as many by chance in `make test-all`.

`--hypothesis-profile random` chooses the latter.
"""

from __future__ import annotations

from hypothesis import HealthCheck, settings

TIMES = 5
_USUAL = 100

# A busy machine is no fault of a test: Hypothesis makes its table of characters in the first draw of a fresh clone.
_COMMON = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True)
settings.register_profile("repeatable", _COMMON, derandomize=True, max_examples=_USUAL)
settings.register_profile("random", _COMMON, derandomize=False, max_examples=TIMES * _USUAL)


def examples(number: int) -> settings:
    """Return the settings of a test that tries this many examples, and more in a long run."""
    chosen = settings().max_examples
    return settings(max_examples=number * chosen // _USUAL)
