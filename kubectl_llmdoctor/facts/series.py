"""Values over time, as exporters count and measure: a series, a counter's increase, a gauge, a histogram."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from kubectl_llmdoctor.facts.units import parse_time
from kubectl_llmdoctor.report.document import Evidence

#: A time and a value.
Point = tuple[float, float]


def points_of(values: Any, base: float) -> Iterator[Point]:
    """The points of a series in the order of time; what is no number is passed over."""
    found = []
    for pair in values if isinstance(values, list) else ():
        if not isinstance(pair, list) or len(pair) != 2:
            continue
        at, value = pair
        if isinstance(at, str):
            moment = parse_time(at)
            at = moment.timestamp() - base if moment else None
        if _is_number(at) and _is_number(value):
            found.append((base + at, float(value)))
    yield from sorted(found)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class Series(msgspec.Struct, frozen=True):
    """One series with its labels; `source` is who said it, `queried` whether it is an answer over a window."""

    labels: dict[str, str]
    points: tuple[Point, ...]
    source: str
    queried: bool
    #: when it was asked
    end: float


class Increase(msgspec.Struct, frozen=True):
    """How much a counter grew: `seconds` is over how long; `lifetime`: since the process began, not over a window."""

    amount: float
    seconds: float
    lifetime: bool

    @property
    def rate(self) -> float:
        """Per second."""
        return self.amount / self.seconds if self.seconds > 0 else 0.0


class Span(msgspec.Struct, frozen=True):
    """A gauge over time, all series of one pod together."""

    metric: str
    points: tuple[Point, ...]
    source: str

    @property
    def last(self) -> float:
        """The latest value."""
        return self.points[-1][1]

    @property
    def seconds(self) -> float:
        """Seconds from the first point to the last."""
        return self.points[-1][0] - self.points[0][0]

    @property
    def values(self) -> list[float]:
        """The values, oldest first."""
        return [value for _, value in self.points]

    @property
    def mean(self) -> float:
        """The mean of its points."""
        return sum(self.values) / len(self.points)

    def tail(self, seconds: float) -> Span:
        """The end of it."""
        return msgspec.structs.replace(
            self, points=tuple(p for p in self.points if p[0] >= self.points[-1][0] - seconds)
        )

    def third(self, number: int) -> float:
        """The mean of its first (0), second or last (2) third by time."""
        start, length = self.points[0][0], self.seconds / 3
        low, high = start + number * length, start + (number + 1) * length
        chosen = [v for t, v in self.points if low <= t <= high]
        return sum(chosen) / len(chosen) if chosen else self.mean

    def share(self, holds: Callable[[float], bool]) -> float:
        """The share of its points for which something holds, 0 to 1."""
        return sum(map(holds, self.values)) / len(self.points)

    @property
    def slope(self) -> float:
        """The straight line through its points (least squares), per second; 0 for a single point."""
        at = [t for t, _ in self.points]
        middle, mean = sum(at) / len(at), self.mean
        spread = sum((t - middle) ** 2 for t in at)
        return sum((t - middle) * (v - mean) for t, v in self.points) / spread if spread else 0.0

    def evidence(self, show: Callable[[float], str] = lambda v: f"{v:g}") -> Evidence:
        """Up to five of its points with their time, the last among them."""
        last = len(self.points) - 1
        chosen = sorted({round(n * last / 4) for n in range(5)})
        days = self.seconds > 86_000
        said = [f"{show(self.points[n][1])} at {_clock(self.points[n][0], days=days)}" for n in chosen]
        return Evidence(source="metric", ref=self.source, text=f"{self.metric}: {', '.join(said)}")


def _clock(at: float, *, days: bool) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M" if days else "%H:%M:%S")


class Histogram(msgspec.Struct, frozen=True):
    """Observations by bucket: `bounds` are the upper ones, `counts` what lies at or below each; the last bound is infinite."""

    metric: str
    bounds: tuple[float, ...]
    counts: tuple[float, ...]
    seconds: float
    lifetime: bool
    source: str

    @property
    def observed(self) -> float:
        """How many observations there are."""
        return self.counts[-1]

    def quantile(self, share: float) -> float:
        """A quantile by linear interpolation inside its bucket; beyond the last finite bound that bound, as PromQL has it."""
        wanted = share * self.observed
        at = min(bisect_left(self.counts, wanted), len(self.counts) - 1)
        low = self.bounds[at - 1] if at else 0.0
        below = self.counts[at - 1] if at else 0.0
        if math.isinf(self.bounds[at]):
            return low
        inside = self.counts[at] - below
        return low + (self.bounds[at] - low) * ((wanted - below) / inside if inside else 1.0)

    def above(self, value: float) -> float:
        """The share of observations that surely lie above a value, 0 to 1."""
        at = bisect_left(self.bounds, value)
        return 1 - self.counts[at] / self.observed if self.observed else 0.0

    def below(self, value: float) -> float:
        """The share of observations that surely lie at or below a value, 0 to 1."""
        at = bisect_left(self.bounds, value)
        at = at if at < len(self.bounds) and self.bounds[at] == value else at - 1
        return self.counts[at] / self.observed if self.observed and at >= 0 else 0.0

    def evidence(self, text: str) -> Evidence:
        """A statement about it, with how many observations it rests on."""
        over = "since the server started" if self.lifetime else f"in {self.seconds / 60:.0f} min"
        said = f"{self.metric}: {text} ({self.observed:.0f} requests {over})"
        return Evidence(source="metric", ref=self.source, text=said)
