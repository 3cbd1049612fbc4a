"""Runs pairs and keeps count."""

from __future__ import annotations

import dataclasses
import re
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from kubectl_llmdoctor.snapshot import to_json
from tests.e2e.controlplane import ControlPlane

from . import generate, live, simulate
from .arena import Arena, Outcome
from .compare import Comparison, compare, snapshot_of
from .model import Case

#: How often a pair that differs is tried again: the scheduler may not have seen all of the cluster yet.
_AGAIN = 2


class Arguments(Protocol):
    """What is to be run."""

    pairs: int
    seed: str
    world: str | None
    pod: str | None
    only: str | None
    without: str
    keep: Path | None
    simulate: int
    live: int


@dataclass
class Tally:
    """The count."""

    outcomes: Counter[str] = field(default_factory=Counter)
    comparisons: Counter[str] = field(default_factory=Counter)
    texts: Counter[str] = field(default_factory=Counter)
    features: Counter[str] = field(default_factory=Counter)
    whys: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    simulated: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    gathered: int = 0
    lost: list[str] = field(default_factory=list)
    retried: int = 0
    restarted: int = 0
    worlds: int = 0
    seconds: float = 0.0

    @property
    def pairs(self) -> int:
        """How many pods the scheduler has judged."""
        return self.comparisons.total()

    @property
    def applied(self) -> int:
        """How many first fixes were applied for real."""
        return sum(number for what, number in self.simulated.items() if what.startswith(("bound", "not bound")))

    @property
    def placed(self) -> int:
        """After how many of them the scheduler bound the pod."""
        return sum(number for what, number in self.simulated.items() if what.startswith("bound"))

    @property
    def share(self) -> float:
        """How many of them we judge as it does."""
        return self.comparisons["agrees"] / self.pairs if self.pairs else 0.0

    def lines(self) -> list[str]:
        """The result in words."""
        rows = [
            f"{self.pairs} pairs in {self.worlds} clusters, {self.seconds:.0f} s "
            f"({100 * self.seconds / max(self.pairs, 1):.1f} s for 100)",
            f"agreement {self.share:.2%}: {_said(self.comparisons)}",
            f"the scheduler: {_said(self.outcomes)}",
            f"tried again because they differed at first: {self.retried}, of these with a new scheduler {self.restarted}",
            f"features: {_said(self.features)}",
            "reasons (pods that met them):",
            *(f"  {number:5} {text}" for text, number in self.texts.most_common()),
        ]
        if self.simulated:
            rows += [
                f"first fixes applied for real: {self.applied}, and then the scheduler bound "
                f"{self.placed / max(self.applied, 1):.1%}: {_said(self.simulated)}",
                *(f"  {text}" for text in self.stuck),
            ]
        if self.gathered:
            rows += [f"gathered live: {self.gathered}, of these with other verdicts {len(self.lost)}"]
            rows += [f"  {text[:600]}" for text in self.lost[:20]]
        if self.whys:
            rows += ["not agreed:", *(f"  {number:5} {text}" for text, number in self.whys.most_common(40))]
        if self.refused:
            rows += ["not taken by the API server:"]
            rows += [f"  {number:5} {text}" for text, number in self.refused.most_common(15)]
        return rows


def _plain(text: str) -> str:
    """A refusal without the names of this cluster."""
    return re.sub(r'"[\w.-]+" is invalid', "is invalid", text)[:300]


def _said(counter: Counter[str]) -> str:
    return ", ".join(f"{number} {text}" for text, number in counter.most_common())


def pairs(plane: ControlPlane, arguments: Arguments, say: Callable[[str], None]) -> Tally:
    """Judges pods on clusters until there are enough pairs."""
    tally, arena, started = Tally(), Arena(plane), time.monotonic()
    allowed = set(arguments.only.split(",")) if arguments.only is not None else set(generate.FEATURES)
    allowed -= set(arguments.without.split(","))
    try:
        while tally.pairs < arguments.pairs:
            seed = arguments.world or f"{arguments.seed}-{tally.worlds}"
            world = generate.world(seed, allowed=allowed)
            arena.enter(world)
            tally.worlds += 1
            tally.refused.update(_plain(text) for text in arena.refused)
            for case in world.cases:
                if not arguments.pod or case.pod["metadata"]["name"] in arguments.pod.split(","):
                    _pair(arena, case, seed, tally, arguments, say)
            tally.seconds = time.monotonic() - started
            if arguments.world:
                break
    finally:
        arena.close()
    return tally


def _pair(arena: Arena, case: Case, seed: str, tally: Tally, arguments: Arguments, say: Callable[[str], None]) -> None:
    outcome, found = _judged(arena, case)
    for attempt in range(_AGAIN):
        if found is None or found.what != "differs":
            break
        tally.retried += 1
        time.sleep(0.5)
        if (
            attempt == _AGAIN - 1
        ):  # what was put back into the store behind its back may have left something in its memory
            arena.restart()
            tally.restarted += 1
        outcome, found = _judged(arena, case)
    if found is None:
        tally.refused[_plain(outcome.message)] += 1
        return
    tally.outcomes[outcome.what] += 1
    tally.comparisons[found.what] += 1
    tally.texts.update(found.theirs.keys())
    tally.features.update(case.features)
    name = case.pod["metadata"]["name"]
    if outcome.what == "unschedulable" and tally.applied < arguments.simulate:
        result, text = simulate.simulate(arena, case)
        tally.simulated[result] += 1
        if result.startswith("not bound"):
            tally.stuck.append(f"{seed} {name}: {text}")
    if outcome.what == "unschedulable" and tally.gathered < arguments.live:
        tally.gathered += 1
        lost = live.live(arena, case)
        tally.lost += [f"{seed} {name}: {len(lost)} nodes, {lost[0]}"] if lost else []
    if outcome.what == "error":
        tally.texts[f"error: {outcome.message[:160]}"] += 1
    if found.what != "agrees":
        tally.whys[f"{found.what}: {_short(found)}"] += 1
    if found.what != "agrees":
        say(
            f"{seed} {name}: {found.what}, {found.why}\n  theirs {outcome.what} {outcome.node}{outcome.message}\n"
            f"  ours   {_counts(found)}"
        )
        if arguments.keep:
            arguments.keep.mkdir(parents=True, exist_ok=True)
            (arguments.keep / f"{seed}-{name}.json").write_bytes(to_json(snapshot_of(outcome)))


def _judged(arena: Arena, case: Case) -> tuple[Outcome, Comparison | None]:
    outcome = arena.judge(case)
    if outcome.what == "refused":
        return outcome, None
    found = compare(outcome)
    if found.what == "differs" and outcome.after is not None:
        then = compare(dataclasses.replace(outcome, objects=outcome.after))
        found = then if then.what == "agrees" else found
    return outcome, found


def _counts(found: Comparison) -> str:
    return ", ".join(f"{number} {text}" for text, number in sorted(found.ours.items()))


def _short(found: Comparison) -> str:
    """A difference without names and numbers: the texts that only one side has."""
    if found.what == "not judged" or not found.theirs:
        return found.why.split(" we say ")[0]
    more = sorted((found.theirs - found.ours).keys()), sorted((found.ours - found.theirs).keys())
    return f"theirs more {more[0]}, ours more {more[1]}"
