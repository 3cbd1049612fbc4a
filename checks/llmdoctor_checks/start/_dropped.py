"""A server that a router or a gateway took off its list, since it was too busy to answer the health check in time."""

import re
from bisect import bisect_left
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    answered,
    current_logs,
    dig,
    fixes,
    follow,
    in_order,
    leads_here,
    log_evidence,
    logs_of,
    often,
    written_ago,
    written_before,
)
from llmdoctor_checks._nobody_left import nobody_left

#: How they speak of their own health checks, and of one that got no answer in time; a connection that did not come about is none.
LITERALS = ("ealth check", "ealth probe", "ealthcheck", "ealth_check", "unhealthy", "is DOWN, reason: ")
_HEALTH = r"(?i)health[ _-]?(?:check|probe)|\bunhealthy\b|is DOWN, reason: "
_LATE = r"(?i)read ?timeout|timed?[ -]?out|timeout(?! ?[=:]? ?\d)|deadline exceeded|awaiting (?:response )?headers|Layer7 timeout"
_CONNECTING = r"(?i)connect(?:ion|ing)?\W{0,3}time|ConnectTimeout|while connecting|Layer4"
_ADDRESS = r"https?://[^\s\"'<>),]{1,300}|(?<![\d.])\d{1,3}(?:\.\d{1,3}){3}(?![\d.])"

#: What shows that the server worked: a step of its scheduler, or an answer. vLLM's statement counts where requests run.
_STEPS = (" batch, #", 'HTTP/1.1" 200', "Running: ")
_WORKED = r"\b(?:Prefill|Decode) batch\b|\"POST /\S{1,300} HTTP/1\.1\" 200\b|Running: [1-9]\d{0,5} reqs"

#: By which engines say that they serve; SGLang's HTTP server is there before that.
_UP = ("The server is fired up and ready to roll!", "Application startup complete.")

#: How an access log says that a health check was refused.
_CHECKED = r"\b((?:\d{1,3}\.){3}\d{1,3}):\d{1,5} - \"GET /(?:health\w{0,20}|ping|v2/health/\w{1,10}) HTTP/1\.1\" 503"

#: So soon after the check it has to work again, or else it hung, and so soon nobody was left, or else for another reason.
_SOON_SECONDS, _LONG_AGO = 900, 6 * 3600
#: So many answers to the router since nobody was left to it: it has the server on its list again.
_OVERCOME = 10


class _Late(msgspec.Struct, frozen=True):
    """A log that speaks of health checks which got no answer in time: its lines by each address that they name."""

    log: Log
    by_address: dict[str, list[Line]]
    #: its lines which say that nobody is left
    alone: list[Line]


def dropped(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Where somebody's health check of this server got no answer in time, and nobody was left to him, while it worked on.

    The server has answered him afterwards, so that the way between them is open.
    """
    log = engine.container.own_log(logs) if pod.ready else None
    said = cluster.once("late health checks", lambda: list(_late(cluster))) if log is not None else []
    names = {item.name for item in pod.services}
    for late in said if log is not None else ():
        other = late.log
        if log is None or (other.source.namespace, other.pod) == (pod.namespace, pod.name):
            continue
        mine = [line for line in _about(pod, names, late) if not written_before(line, engine.container, cluster)]
        ago = written_ago(mine[-1], cluster.now) if mine else None
        if ago is None or ago > _LONG_AGO:
            continue
        alone = next((line for line in reversed(late.alone) if _soon_after(line, mine, cluster)), None)
        after = _worked_after(log, ago, cluster) if alone is not None else None
        answers = _answers(log, after, other, cluster) if after is not None else 0
        if alone is None or after is None or not answers:
            continue
        last = written_ago(alone, cluster.now)
        went_on = max(answers, answered(other, after=alone.number)) >= _OVERCOME
        return Finding(
            role="note" if went_on and last is not None and last > _SOON_SECONDS else "cause",
            severity="warning",
            summary=f"{other.pod} took {pod.name} off its list: its health check got no answer in time, {often(len(mine))} in its log, "
            f"and no server was left to it. {engine.title} was up, busy, and answered again afterwards.",
            evidence=(log_evidence(mine[-1]), log_evidence(alone), log_evidence(after)),
            fixes=(
                fixes.advice(
                    f"Give the router in {other.pod} --health-check-timeout-secs 120 and --health-failure-threshold 10"
                ),
                fixes.advice(f"Run a second replica of {fixes.edited(pod)}, so that one is left"),
            ),
            order=mine[-1].order,
        )
    return _refused_checks(pod, engine, cluster, log) if log is not None else None


def _refused_checks(pod: Pod, engine: Engine, cluster: Cluster, log: Log) -> Finding | None:
    """Where the server answered the health checks of a router with 503 amidst its work, and soon nobody was left to that router.

    SGLang does, whose health check computes a token; its access log says who asked. Until it has warmed up it refuses them, too.
    """
    up = max((x.number for x in log.find(*_UP)), default=-1)
    refused = [
        (said[1], x)
        for x in log.find('HTTP/1.1" 503')
        if x.number > up and (said := re.search(_CHECKED, x.text[:1000])) is not None
    ]
    at_work = [x for x in log.find(*_STEPS) if re.search(_WORKED, x.text[:2000])] if refused else []
    mode = engine.value("disaggregation_mode")
    numbers = sorted(x.number for x in at_work)
    for address in sorted({asker for asker, _ in refused} if at_work else ()):
        mine = [x for asker, x in refused if asker == address and numbers[0] < x.number < numbers[-1]]
        router, ago = follow(address, None, pod, cluster), written_ago(mine[-1], cluster.now) if mine else None
        found = router.pods if router is not None and ago is not None and ago <= _LONG_AGO else ()
        for container in (one for each in found for one in each.containers):
            other = logs_of(container.pod).current(container.name)
            left = [x for x in nobody_left(other) if _of_mode(x.text, mode)] if other is not None else []
            when = sorted(then for x in mine if (then := written_ago(x, cluster.now)) is not None)
            soon = [(x, last) for x in left if (last := _soon_since(x, when, cluster)) is not None]
            if not soon:
                continue
            alone, last = soon[-1]
            return Finding(
                role="note" if last > _SOON_SECONDS else "cause",
                severity="warning",
                summary=f"{container.pod.name} had no server left, {often(len(soon))} in its log: {pod.name} had answered its health check "
                f"with 503, {often(len(mine))} in its log, while it worked on: it was busy.",
                evidence=(
                    log_evidence(mine[-1]),
                    log_evidence(alone),
                    log_evidence(max(at_work, key=lambda x: x.number)),
                ),
                fix=_longer(engine, container.pod),
                order=mine[-1].order,
            )
    return None


def _soon_since(line: Line, when: list[float], cluster: Cluster) -> float | None:
    """How long ago a line was written, where that was soon after one of these moments, the latest first."""
    ago = written_ago(line, cluster.now)
    at = bisect_left(when, ago) if ago is not None else len(when)
    return ago if ago is not None and at < len(when) and when[at] - ago <= _SOON_SECONDS else None


def _longer(engine: Engine, router: Pod) -> Fix:
    if engine.name == "sglang":
        say = "Have SGLang's health check wait 120 s for its token"
        return fixes.set_env(engine.container, "SGLANG_HEALTH_CHECK_TIMEOUT", "120", say)
    return fixes.advice(
        f"Have the health check of {router.name} fail more often before it drops a server, and run a second replica"
    )


def _of_mode(text: str, mode: object) -> bool:
    """Whether a router that knows prefill and decode servers speaks of this kind."""
    kind = re.search(r"available (prefill|decode) ", text[:4000])
    return kind is None or kind[1] == mode


def _late(cluster: Cluster) -> Iterator[_Late]:
    for log in current_logs(cluster):
        by_address: dict[str, list[Line]] = {}
        for line in in_order(log.find(*LITERALS)) if log.pod else ():
            if _says_so(line.text[:4000]):
                for address in set(re.findall(_ADDRESS, line.text[:4000])):
                    by_address.setdefault(address, []).append(line)
        if by_address and (alone := list(nobody_left(log))):
            yield _Late(log, by_address, alone)


def _says_so(text: str) -> bool:
    return bool(re.search(_HEALTH, text) and re.search(_LATE, text)) and not re.search(_CONNECTING, text)


def _about(pod: Pod, names: set[str], late: _Late) -> list[Line]:
    """The lines that name this server: by an address that leads to it alone, or its own."""
    here = late.log.source.namespace
    found: list[Line] = []
    own = pod.status.pod_ip if not pod.spec.host_network else None
    for address, lines in late.by_address.items():
        if address == own or ("://" in address and leads_here(pod, names, address, here)):
            found += lines
    return in_order(found)


def _soon_after(line: Line, checks: list[Line], cluster: Cluster) -> bool:
    """Whether a line was written soon after the last of these that stands before it."""
    before_it = bisect_left(checks, line.number, key=lambda one: one.number)
    then = written_ago(checks[before_it - 1], cluster.now) if before_it else None
    ago = written_ago(line, cluster.now) if then is not None else None
    return then is not None and ago is not None and 0 <= then - ago <= _SOON_SECONDS


def _worked_after(log: Log, ago: float, cluster: Cluster) -> Line | None:
    """The first line by which the server shows, soon after so many seconds ago, that it works."""
    for line in in_order(log.find(*_STEPS)):
        then = written_ago(line, cluster.now) if re.search(_WORKED, line.text[:2000]) else None
        if then is not None and ago - _SOON_SECONDS <= then <= ago:
            return line
    return None


def _answers(log: Log, after: Line, router: Log, cluster: Cluster) -> int:
    """How many answers to that router the access log has from a line on."""
    item = cluster.item("Pod", router.source.namespace, router.pod)
    address = str(dig(item.raw, "status.podIP") or "") if item is not None else ""
    lines = (line for line in log.find('HTTP/1.1" 200') if line.number >= after.number)
    return sum(f" {address}:" in line.text for line in lines) if address else 0
