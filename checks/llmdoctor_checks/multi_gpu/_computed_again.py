"""Servers that answer, and compute again what a connector or a cache had promised them, of every other request or more."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Finding,
    Logs,
    Pod,
    answered,
    count_of,
    expression,
    fixes,
    log_evidence,
    long_past,
    pod_evidence,
    reach,
)

#: vLLM's scheduler (`v1/core/sched/scheduler.py`), of a cache that did not come (`kv_load_failure_policy: recompute`).
_RECOVERED, _AGAIN = (
    "Recovered from KV load failure: ",
    expression(r"KV load failure: (\d{1,6}) request\(s\) rescheduled"),
)

#: LMCache (`remote_backend.py`), of each prompt that it looks for or stores while its remote cache does not do; and of one that it found.
_REMOTE = (
    "Remote connection failed in ",
    "LMCache WARNING: Error occurred in ",
    "LMCache WARNING: Connection is None in ",
)
_OF_REMOTE = expression(
    r"LMCache (?:WARNING|ERROR): (?:(?:Remote connection failed|Error occurred) in \w{1,40}: (?P<why>.{3,160}?)"
    r"|Connection is None in \w{1,40})"
    r"(?:, return\w{0,3} [\w ]{1,20})?(?: \([\w.]{1,80}:\d+:lmcache\b|$)"
)
_FROM_REMOTE = ("LMCache INFO: Retrieved ", "Connection initialized/re-established at ")

#: So many are more than what happens now and then.
_SEVERAL = 3
LITERALS = (_RECOVERED, *_REMOTE, *_FROM_REMOTE)


def computed_again(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """What a server of vLLM, or LMCache in it, says of each request whose cache did not come."""
    yield from _by_the_scheduler(pod, logs)
    yield from _not_from_remote(pod, logs)


def _by_the_scheduler(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """An engine that gets the cache which it was promised of every other request at most, and computes the prompts itself."""
    for container in pod.containers:
        log = logs.current(container.name)
        again = [(x, int(said[1])) for x in log.find(_RECOVERED) if (said := _AGAIN.search(x.text))] if log else []
        count, done = sum(number for _, number in again), answered(log)
        if log is None or count < _SEVERAL or not done or 2 * count < done or long_past([x for x, _ in again]):
            continue
        yield Finding(
            severity="warning",
            summary=f"{container.name} computed the prompts of {count_of(count, 'request')} itself, of {done} that it answered, since the "
            "KV cache that its connector had promised did not come.",
            evidence=(log_evidence(again[0][0]), log_evidence(again[-1][0])),
            explains=("queue-growing", "gateway-timeout"),
            fix=fixes.advice(
                "See in the lines above what the connector met: a peer that was restarted, keys that the store had dropped by then (its "
                "memory, how long it leases them), or the network between the two",
                f"kubectl -n {shlex.quote(pod.namespace)} get pods -o wide",
            ),
            order=again[0][0].order,
        )


def _not_from_remote(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """A server whose LMCache gets nothing from its remote cache, again and again: it answers, and computes what is kept there."""
    for container in pod.containers:
        log = logs.current(container.name)
        got = max((x.number for x in log.find(*_FROM_REMOTE)), default=0) if log else 0
        lines = (
            [(x, said) for x in log.find(*_REMOTE) if x.number > got and (said := _OF_REMOTE.search(x.text[:2000]))]
            if log
            else []
        )
        if (
            log is None
            or len(lines) < _SEVERAL
            or 2 * len(lines) < answered(log, after=got)
            or long_past([x for x, _ in lines])
        ):
            continue
        why = next((said["why"] for _, said in reversed(lines) if said["why"]), "no connection")
        named = container.env.get("LMCACHE_REMOTE_URL")
        there = reach(named.value, pod, container) if named is not None and named.value else None
        yield Finding(
            severity="warning",
            summary=f"LMCache in {container.name} got nothing from its remote cache in the last {len(lines)} attempts ({why}): every "
            "prompt that is kept there is computed again.",
            evidence=(
                log_evidence(lines[0][0]),
                log_evidence(lines[-1][0]),
                *((pod_evidence(container, "env", f"{named.name}: {named.value}"),) if named is not None else ()),
            ),
            explains=("queue-growing", "gateway-timeout"),
            fixes=(
                *((there,) if there is not None else ()),
                fixes.advice(
                    "See that the cache server which LMCACHE_REMOTE_URL (remote_url) names runs, is not restarted for lack of memory, "
                    "answers in time (its CPU, the network to it), and that its Service selects it",
                    f"kubectl -n {shlex.quote(pod.namespace)} get pods,services,endpointslices -o wide",
                ),
            ),
            order=lines[0][0].order,
        )
