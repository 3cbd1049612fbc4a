"""A process of torchrun that ends with an exit code and says nothing."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Finding,
    Log,
    Logs,
    Pod,
    check,
    endings,
    expression,
    fixes,
    log_evidence,
    log_of,
    looks_like_error,
    tracebacks,
)

#: The heading over the process that ended first, in the table which torchrun prints at its end (torch/distributed/elastic/multiprocessing).
_FIRST = "Root Cause (first observed failure)"
_ROW = expression(r"\s{1,4}(?P<key>rank|exitcode) {1,8}: (?P<value>-?\d{1,6})\b")
#: So many lines the row has.
_ROW_LINES = 8
#: torchrun's own exception, and where its own words are from, as newer and older ones write it.
_LAUNCHER, _OF_THE_LAUNCHER = (
    "ChildFailedError",
    ("torch/distributed/", "torch.distributed.elastic.multiprocessing.api"),
)
#: How far above the table a process may have said why.
_ABOVE = 2000


@check("worker-lost", since="0.1", literals=(_FIRST,))
def worker_lost(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """One of the engine's processes was killed.

    An engine on several GPUs consists of several processes. One of them ended without an error of its own: killed by the kernel for memory
    (signal 9), by a bus error because /dev/shm was full (7), by a crash in a library (11), or by itself with an exit code and no word.
    The others notice a broken connection or wait until a timeout, and what they print is only the consequence. The container may
    show exit code 1 and no OOMKilled, since only a child was killed.

    ## Fix

    Find the process that went first and what killed it. For signal 9 compare the memory limit with the size of the weights; for signal 7
    enlarge /dev/shm; for signal 11 look for an Xid or a library that does not fit. For an exit code without a word look into the program
    for who ends with it, and let torchrun pass on what its processes print (no `--redirects`, or `--tee=3`).

    ## References

    - https://pytorch.org/docs/stable/elastic/errors.html
    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if logs is None:
        return
    for ending in endings(pod):
        log = log_of(ending, logs)
        if log is None or ending.oom_killed or ending.code in (0, 130, 137, 143):
            continue
        heading = next(reversed(list(log.find(_FIRST))), None)
        if heading is None:
            continue
        rows = log.lines(heading.number + 1, heading.number + _ROW_LINES)
        row = {found["key"]: (int(found["value"]), line) for line in rows if (found := _ROW.match(line.text))}
        if {"rank", "exitcode"} - set(row) or row["exitcode"][0] <= 0 or _said_why(log, heading.number):
            continue
        (rank, _), (code, line) = row["rank"], row["exitcode"]
        yield Finding(
            role="cause",
            confidence="possible",
            summary=f"The process of rank {rank} ended with exit code {code} and nothing above reads as its error; "
            "torchrun then ended the others.",
            evidence=(log_evidence(heading), log_evidence(line)),
            explains=(
                "nccl-timeout",
                "engine-init-failed",
                "engine-dead",
                "crash-loop",
                "not-ready",
                "pod-failed",
                "rollout-stuck",
            ),
            fixes=(
                fixes.advice(
                    f"See in the program who ends with {code}, and have torchrun pass on what its processes print "
                    "(no --redirects, or --tee=3; @record of torch.distributed.elastic around main brings the traceback into the table)",
                    f"kubectl -n {pod.namespace} logs {pod.name} -c {ending.container.name} --previous",
                ),
            ),
            order=line.order,
        )
        return


def _said_why(log: Log, end: int) -> bool:
    """Whether something other than torchrun itself says above a line that it went wrong."""
    if any(_LAUNCHER not in one.error for one in tracebacks(log)):
        return True
    first = max(log.first, end - _ABOVE)
    own = next((line.number for line in log.find(_LAUNCHER) if line.number >= first), end)
    return any(
        looks_like_error(line.text)
        and not any(x in line.text for x in _OF_THE_LAUNCHER)
        and not re.match(r"Traceback ", line.text)
        for line in log.lines(first, own)
    )
