"""A process of torchrun that ends with an exit code and says nothing."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Finding,
    Line,
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
    seconds_ago,
    seconds_between,
    tracebacks,
)
from llmdoctor_checks._consequences import FAILED_START

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
#: How a rank says that the connection to another one broke (gloo, c10d).
_PEER_GONE = expression(
    r"^\[rank(?P<rank>\d{1,6})\]: .{0,400}?(?:Connection (?:reset by peer|closed by peer \[)|Broken pipe)"
)
#: How far above the table a process may have said why.
_ABOVE = 2000


#: The controller of Ray Serve (deployment_state.py, 2.9 to 2.60) of a replica whose process is gone: it starts another.
_CRASHED = " crashed, marking it unhealthy immediately"
_REPLICA = expression(
    r"\bActor for .{0,40}?(?P<id>\w{4,12})'?, deployment='(?P<deployment>[^']{1,200})'|\bActor for (?:replica )?(?P<other>\S{1,200}) "
)
#: Uvicorn's supervisor (multiprocess.py) of a worker whose process is gone, or which it ended as it did not answer in 5 s; and the last
#: words of one that ended by itself, as with --limit-max-requests.
_DIED, _BEGUN, _FINISHED = "] died", "Started server process [", "Finished server process ["
_CHILD = expression(r"\bChild process \[(?P<pid>\d{1,10})\] died\s*$")
#: Of a ready pod so many within an hour.
_HOUR = 3600

#: So many, so far apart, say that the next one will end as well.
_AGAIN, _APART_SECONDS = 2, 20
#: A ready pod whose last one ended so long ago is over it, and one that is not ready fails of something else.
_LONG_AGO_SECONDS, _LONGER_AGO_SECONDS = 900, 3600


@check("worker-lost", since="0.1", literals=(_FIRST, _CRASHED, _DIED))
def worker_lost(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """One of the engine's processes was killed, or ended without a word.

    An engine on several GPUs consists of several processes. One of them ended without an error of its own: killed by the kernel for memory
    (signal 9), by a bus error because /dev/shm was full (7), by a crash in a library (11), or by itself with an exit code and no word.
    The others notice a broken connection or wait until a timeout, and what they print is only the consequence. The container may
    show exit code 1 and no OOMKilled, since only a child was killed.

    Ray Serve starts a new replica for one whose process is gone, so the pod lives on while each of them ends a while after it has started.
    So does uvicorn with `--workers`, in one line of its log and without the reason: it also ends workers that hold up their own threads
    for 5 s, as while they load a model.

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
    yield from _replicas(pod, logs)
    yield from _children(pod, logs)
    for ending in endings(pod):
        log = log_of(ending, logs)
        if log is None or ending.oom_killed or ending.code in (0, 130, 137, 143):
            continue
        heading = log.last(_FIRST)
        if heading is None:
            continue
        rows = log.lines(heading.number + 1, heading.number + _ROW_LINES)
        row = {found["key"]: (int(found["value"]), line) for line in rows if (found := _ROW.match(line.text))}
        if {"rank", "exitcode"} - set(row) or row["exitcode"][0] <= 0:
            continue
        (rank, _), (code, line) = row["rank"], row["exitcode"]
        if _said_why(log, heading.number, rank):
            continue
        yield Finding(
            # where it broke the connection to another rank, more than the table says that it went first
            confidence="likely" if any(_of_another(one, rank) for one in log.find("[rank")) else "possible",
            summary=f"The process of rank {rank} ended with exit code {code} and nothing above reads as its error; "
            "torchrun then ended the others.",
            evidence=(log_evidence(heading), log_evidence(line)),
            explains=("nccl-timeout", *FAILED_START, "engine-dead", "rollout-stuck"),
            fix=fixes.advice(
                f"See in the program who ends with {code}, and have torchrun pass on what its processes print "
                "(no --redirects, or --tee=3; @record of torch.distributed.elastic around main brings the traceback into the table)",
                f"kubectl -n {pod.namespace} logs {pod.name} -c {ending.container.name} --previous",
            ),
            order=line.order,
        )
        return


def _replicas(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """Replicas of Ray Serve that end one after the other, each a while after it has started, in a pod that lives on."""
    for log in logs:
        if log.previous or tracebacks(log):
            continue  # of an exception others read
        of: dict[str, dict[str, Line]] = {}
        for line, found in log.matching(_REPLICA, _CRASHED, most=2000):
            deployment = found["deployment"] or found["other"].rpartition("#")[0]
            of.setdefault(deployment, {})[found["id"] or found["other"]] = line
        if not of:
            continue
        deployment, crashed = max(of.items(), key=lambda one: len(one[1]))
        lines = list(crashed.values())
        first, last = lines[0], lines[-1]
        ago, apart = seconds_ago(last, pod.cluster.now), seconds_between(first, last)
        if len(crashed) < _AGAIN or (apart is not None and apart < _APART_SECONDS):
            continue  # all at once, as with the node that they were on
        if _over(pod, len(crashed), ago):
            continue
        name = f" of {deployment}" if deployment else ""
        yield Finding(
            confidence="possible",
            summary=f"The processes of {len(crashed)} replicas{name} have ended one after the other, a while after they had started, and "
            "Ray Serve starts the next; what ended them is not in this log.",
            evidence=(log_evidence(first), log_evidence(last)),
            explains=("engine-dead", "not-ready", "rollout-stuck"),
            fix=fixes.advice(
                "Read what the replicas' processes say (in session_latest/logs of Ray: serve/replica_*.log, worker-*.err, raylet.out, "
                "which has the exit code; -9 is a kill, usually for memory)",
                f"kubectl -n {pod.namespace} exec {pod.name} -c {log.container} -- ray list workers --detail --filter is_alive=false",
            ),
            order=last.order,
        )
        return


def _over(pod: Pod, count: int, ago: float | None) -> bool:
    """Whether the pod got over it: the last one of so many went so long ago."""
    if ago is not None and ago > (_LONG_AGO_SECONDS if pod.ready else _LONGER_AGO_SECONDS):
        return True
    return pod.ready and (ago is None or count <= _AGAIN)


def _children(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """Workers of uvicorn that are gone one after the other, in a pod that lives on."""
    for log in logs:
        if log.previous or tracebacks(log):
            continue  # of an exception others read
        begun, ended = _processes(log, _BEGUN), _processes(log, _FINISHED)
        said = ((line, _CHILD.search(line.text[-200:])) for line in log.find(_DIED))
        # uvicorn ends one that does not answer in 5 s while it imports the application: overcome, once another has imported it
        imported = max((line.number for line in begun.values()), default=-1)
        lines = [
            line
            for line, found in said
            if found and found["pid"] not in ended and (found["pid"] in begun or line.number > imported)
        ]
        if pod.ready:
            lines = [line for line in lines if (seconds_between(line, lines[-1]) or 0) <= _HOUR]
        if len(lines) < _AGAIN or _over(pod, len(lines), seconds_ago(lines[-1], pod.cluster.now)):
            continue
        yield Finding(
            confidence="possible",
            summary=f"{len(lines)} workers of uvicorn in {log.container} were gone one after the other without a word, and it started the "
            "next: killed, usually for memory, or ended by uvicorn itself as they did not answer in 5 s.",
            evidence=(log_evidence(lines[0]), log_evidence(lines[-1])),
            explains=("engine-dead", "not-ready", "rollout-stuck"),
            fix=fixes.advice(
                "Compare the memory limit with what one worker needs times --workers (each loads the model for itself); run one "
                "worker and more replicas, or where a load holds up the worker raise --timeout-worker-healthcheck of newer releases",
                f"kubectl -n {pod.namespace} exec {pod.name} -c {log.container} -- cat /sys/fs/cgroup/memory.events",
            ),
            order=lines[-1].order,
        )


def _processes(log: Log, words: str) -> dict[str, Line]:
    """By the number of its process, the line in which each server of uvicorn says so."""
    return {line.text.rpartition(words)[2].rstrip("] \n"): line for line in log.find(words)}


def _of_another(line: Line, rank: int) -> bool:
    """Whether another rank than this one says that the connection to its peer broke."""
    found = _PEER_GONE.search(line.text)
    return found is not None and int(found["rank"]) != rank


def _said_why(log: Log, end: int, rank: int) -> bool:
    """Whether something other than torchrun itself, or a rank that lost this one, says above a line that it went wrong."""
    if any(_LAUNCHER not in one.error and not _of_another(one.last, rank) for one in tracebacks(log)):
        return True
    first = max(log.first, end - _ABOVE)
    own = next((line.number for line in log.find(_LAUNCHER) if line.number >= first), end)
    return any(
        looks_like_error(line.text)
        and not any(x in line.text for x in _OF_THE_LAUNCHER)
        and not _of_another(line, rank)
        and not re.match(r"Traceback ", line.text)
        for line in log.lines(first, own)
    )
