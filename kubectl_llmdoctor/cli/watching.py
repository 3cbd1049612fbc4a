"""`diagnose --watch`: looks again until the pods are ready and nothing is wrong; writes only what is new."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from kubectl_llmdoctor.cli import output
from kubectl_llmdoctor.cli.options import progress
from kubectl_llmdoctor.errors import AccessError

if TYPE_CHECKING:
    from kubectl_llmdoctor.report.document import Report
    from kubectl_llmdoctor.snapshot import Snapshot


def until_healthy(
    read: Callable[[float], Snapshot],
    judge: Callable[[Snapshot], Report],
    write: Callable[[Report, Snapshot], None],
    *,
    fail_on: str,
    pause: float,
    bound: float,
) -> int:
    """The exit code: 0 once all pods are ready and nothing reaches `fail_on`, 1 when that is not so within `bound`.

    `pause` and `bound` are in seconds, a `bound` of 0 means none; `read` gets what is left of it. A cluster that cannot
    be asked ends the first look, later ones are repeated. Raises AccessError.
    """
    over = time.monotonic() + bound if bound else float("inf")
    shown: object = None
    trouble = ""
    while True:
        try:
            snapshot = read(max(over - time.monotonic(), 0.001) if bound else 0.0)
        except AccessError as error:
            if shown is None or not error.passing:
                raise
            if trouble != str(error):
                trouble = str(error)
                print(f"warning: {' '.join(trouble.split())}", file=sys.stderr)
        else:
            trouble = ""
            report = judge(snapshot)
            waiting = _not_ready(snapshot)
            state = _state(report)
            if state != shown:
                write(report, snapshot)
                shown = state
            if not output.exit_code(report, fail_on) and not waiting:
                return 0
            if waiting:
                progress(f"waiting for {', '.join(waiting[:3])}{' …' if len(waiting) > 3 else ''} to be ready")
        left = over - time.monotonic()
        if left <= 0:
            break
        time.sleep(min(pause, left))
        if left <= pause:
            break
    progress("")
    print(f"not healthy within {bound:g} s", file=sys.stderr)
    return 1


def _state(report: Report) -> object:
    """What makes a report news; ages and counts of restarts change with every look."""
    return [
        (t.kind, t.namespace, t.name, t.verdict, t.pods, [(f.id, f.role, f.severity) for f in t.findings])
        for t in report.targets
    ]


def _not_ready(snapshot: Snapshot) -> list[str]:
    """The pods that were asked about and are neither ready nor done, and workloads that have none."""
    from kubectl_llmdoctor.facts.cluster import Cluster
    from kubectl_llmdoctor.target import subjects

    waiting = []
    for subject in subjects(Cluster(snapshot)):
        if subject.workload is not None and subject.workload.replicas == 0:
            continue
        waiting += [
            f"{pod.namespace}/{pod.name}"
            for pod in subject.pods
            if not (pod.exists and (pod.ready or pod.status.phase == "Succeeded"))
        ]
    return waiting
