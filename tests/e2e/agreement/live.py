"""The same pod through the program's own gathering: what a live diagnosis reads must lead to the same verdicts."""

from __future__ import annotations

from kubectl_llmdoctor.api import Pending
from kubectl_llmdoctor.gather.cluster import Query, gather
from kubectl_llmdoctor.gather.connection import Connection
from kubectl_llmdoctor.gather.session import connect

from .arena import Arena
from .compare import pending_of, snapshot_of
from .model import Case


def live(arena: Arena, case: Case) -> list[str]:
    """What differs between the verdicts over all that there is and those over what is gathered."""
    try:
        outcome = arena.attempt(case)
        if outcome.what != "unschedulable":
            return []
        metadata = case.pod["metadata"]
        connection = Connection(kubeconfig=str(arena.admin), namespace=metadata["namespace"])
        gathered = gather(connect(connection), Query(names=(f"pod/{metadata['name']}",)))
        whole, read = _said(pending_of(snapshot_of(outcome))), _said(pending_of(gathered))
        found = []
        for node in sorted({*whole, *read}):
            one, other = whole.get(node), read.get(node)
            if one != other:
                mine, theirs = set(one[1] if one else ()), set(other[1] if other else ())
                found.append(
                    f"{node}: only of all {sorted(mine - theirs)}, only of what is gathered {sorted(theirs - mine)}"
                )
        return found
    finally:
        arena.restore()


def _said(pending: Pending) -> dict[str, tuple[bool | None, tuple[str, ...]]]:
    """What each node says, and what could not be judged."""
    return {
        v.node.name: (
            v.fits,
            (*(f"{r.text}: {r.detail}" for r in v.reasons), *(f"{gap.plugin} not judged: {gap.why}" for gap in v.gaps)),
        )
        for v in pending.verdicts
    }
