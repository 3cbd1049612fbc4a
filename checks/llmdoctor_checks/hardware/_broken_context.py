"""A server that lives on after a fault of its kernels, while CUDA refuses all that the process still asks of it."""

import re
from collections.abc import Iterator
from datetime import datetime
from itertools import islice

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Line,
    Log,
    Logs,
    Pod,
    answered,
    expression,
    fixes,
    in_order,
    log_evidence,
    often,
    superseded,
    written_ago,
)
from llmdoctor_checks.hardware._gpu import CONSEQUENCES

#: Errors after which a context of CUDA or HIP is of no use any more (driver_types.h: "the process must be terminated and relaunched").
LITERALS = (
    "an illegal memory access was encountered", "device-side assert triggered", "misaligned address",
    "an illegal instruction was encountered", "unspecified launch failure", "CUDA_ERROR_ILLEGAL_ADDRESS",
    "cudaErrorIllegalAddress",
)  # fmt: skip
#: Who says so: a library or a source file of theirs.
_OF_A_GPU = r"(?i)cuda|hip|\brocm|\bgpu\b|\.cuh?\b"
#: What somebody quotes, or asked another server for.
_QUOTED = r"https?://|\\?\"(?:role|content|messages|prompt)\\?\": ?"
#: So many times, each of another moment, are no fault that a worker was replaced for; of two lines that stand closer together, or were
#: written within so many seconds, the second is of the same. Where no time stands by them, one traceback may say it several times.
_FEWEST, _CLOSE, _SECONDS = 3, 1, 2
_ONE_TRACEBACK, _MOST = 60, 200
#: What a server says of other things than a fault, in the middle of none.
_ORDINARY = expression(
    r"^\W{0,3}(?:INFO|DEBUG)\b|\bHTTP/1\.\d\" \d{3}\b|^\W{0,2}\d\d:\d\d:\d\d\b(?!.{0,80}(?i:error|fail|exception|traceback))"
)
#: How gunicorn, uvicorn, Ollama, TorchServe and others say that another process takes the place of one that ended.
REPLACED = (
    *("Booting worker with pid", "Started server process [", "starting runner", "Backend worker process died"),
    *("spawning ", "respawn", "estarting", "estarted", "eloading model", "eloaded model"),
)
#: Where so many requests are answered for each fault, others are well. A stream says 200 before it fails.
_ANSWERS = 1.5


def broken_context(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A ready pod in whose log the same process meets such an error again and again, and hardly answers anything meanwhile."""
    if logs is None or not pod.ready:
        return
    for container in pod.containers:
        log = logs.current(container.name) if container.running and container.role != "init" else None
        lines = _moments(log, pod) if log is not None else []
        if log is None or len(lines) < _FEWEST or answered(log, after=lines[0].number) > _ANSWERS * len(lines):
            continue
        yield _finding(pod, container, lines)
        return


def _finding(pod: Pod, container: Container, lines: list[Line]) -> Finding:
    words = next(one for one in LITERALS if one in lines[0].text)
    return Finding(
        summary=f"A kernel of {container.name} failed on the GPU, and the process lives on with a context that CUDA refuses from then on "
        f"({often(len(lines))} in its log): it counts as ready, and its requests fail or are answered with nonsense until it is "
        "started again.",
        evidence=(log_evidence(lines[0], words), log_evidence(lines[-1], words)),
        explains=CONSEQUENCES,
        fix=fixes.advice(
            f"Start {fixes.edited(pod)} again, and let its liveness probe ask for an answer of the model, so that this ends it; "
            "then look for what makes it happen: another release of the engine or of its kernels, one request at a time where its "
            "code is not made for several; CUDA_LAUNCH_BLOCKING=1 names the true kernel"
        ),
        order=lines[0].order,
    )


def _moments(log: Log, pod: Pod) -> list[Line]:
    """The lines of the last start, and of the last worker, that say so, one of each moment."""
    begun = max((line.number for words in REPLACED for line in log.marks(words)), default=0)
    all_of = (line for line in log.find(*LITERALS) if line.number > begun)
    found = in_order(line for line in all_of if not superseded(line))
    moments: list[Line] = []
    last: Line | None = None
    for line in found[-_MOST:]:
        text = line.text[:2000]
        if not re.search(_OF_A_GPU, text) or re.search(_QUOTED, text):
            continue
        if last is None or _apart(last, line, pod.cluster.now):
            moments.append(line)
        last = line
    return moments


def _apart(last: Line, line: Line, now: datetime | None) -> bool:
    """Whether a line is of another moment: by the times by them, else by what stands between them that no traceback has."""
    if line.number - last.number <= _CLOSE:
        return False
    before, ago = written_ago(last, now), written_ago(line, now)
    if before is not None and ago is not None:
        return before - ago >= _SECONDS
    between = islice(line.log.lines(last.number + 1, line.number - 1), _ONE_TRACEBACK)
    return line.number - last.number > _ONE_TRACEBACK or any(_ORDINARY.search(x.text[:200]) for x in between)
