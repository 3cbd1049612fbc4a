"""What is enough, by a message and a specification."""

from __future__ import annotations

import pytest

from kubectl_llmdoctor.facts.units import GIB
from kubectl_llmdoctor.room import Room, amount, quantity


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("41.2 GiB", 41.2 * GIB),
        ("448.00M", 448 * 1024**2),
        ("17179869184", 17179869184.0),
        ("14.10", 14.1 * GIB),
        ("320. GiB", 320.0 * GIB),
        ("", None),
        (None, None),
        ("1.2.3 GiB", None),
        ("cuda>=12.2", None),
    ],
)
def test_an_amount(text: str | None, size: float | None) -> None:
    assert amount(text) == size


def test_a_quantity_is_a_usual_one() -> None:
    assert [quantity(n * GIB) for n in (0.5, 33, 49.5, 3000)] == ["1Gi", "48Gi", "64Gi", "3000Gi"]


def test_nothing_is_counted_of_what_is_not_known() -> None:
    values = Room(None, None, {"need": "cuda>=12.2", "have": "sm_120", "want": "?"}, "", None).values()
    assert {name for name, value in values.items() if value} == {"share_unknown", "spread_why", "limit_written"}
