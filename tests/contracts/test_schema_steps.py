"""A step of the schema that was released stays as it is, to the letter: databases have recorded its digest."""

from __future__ import annotations

from reactive_orch.postgres import migrations

RELEASED = {
    "001_initial": "0fd7f4d3f97015d9292dd31d1018850fea08a6db91fb14beffbdb3445a29ec1d",
}
"""Step → digest, of every release. What has to change is another step: CONTRIBUTING.md says what it may do."""


def test_no_released_step_has_changed() -> None:
    digests = {step.stem: migrations._digest(step) for step in migrations._STEPS}  # noqa: SLF001 - what is recorded
    assert {step: digests.get(step) for step in RELEASED} == RELEASED, "leave it, and write a new step"


def test_steps_are_numbered_without_a_gap() -> None:
    assert [migrations._number(step) for step in migrations._STEPS] == list(range(1, migrations.NEWEST + 1))  # noqa: SLF001
