"""Lengths of time as Go writes them."""

import pytest

from kubectl_llmdoctor.facts.units import duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("600s", 600),
        ("1h30m", 5400),
        ("2m3.5s", 123.5),
        ("250ms", 0.25),
        ("31.127µs", 31.127e-6),
        ("-1s", -1),
        ("0s", 0),
    ],
)
def test_a_length_of_time_is_read_as_go_reads_it(text: str, seconds: float) -> None:
    """Units may follow each other, and the sign is that of the whole."""
    assert duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "5 m", "m", "1d", "1h x", "--1s", None, 5, "9" * 30 + "s"])
def test_what_go_would_refuse_is_no_length_of_time(text: object) -> None:
    """A number without a unit above all, which every program takes for something else."""
    assert duration(text) is None
