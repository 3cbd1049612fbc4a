"""A readiness probe that gets no answer in time from a server which works, and takes it out of its Services."""

from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Phase,
    Pod,
    count_of,
    event_evidence,
    expression,
    fixes,
    k8s,
    log_evidence,
    looks_like_error,
    parse_time,
    phase_of,
    pod_evidence,
    say_seconds,
    seconds_ago,
)
from llmdoctor_checks._load import last_load, works
from llmdoctor_checks._no_token import UNHEALTHY, runs_silent
from llmdoctor_checks.start._probes import failures

#: The kubelet's words for a probe that got no answer in time, as opposed to a refused connection or an error.
SLOW = ("context deadline exceeded", "Client.Timeout exceeded", "command timed out", "i/o timeout", "timed out after")

#: The release whose `/health` computes a token as `/health_generate` does; and how many failures are no chance.
_HEALTH_COMPUTES, _SEVERAL = "0.5.0", 3

#: How uvicorn and gunicorn log these answers.
ANSWERED_503, ANSWERED_200 = expression(r'HTTP/1\.[01]" 503\b'), expression(r'HTTP/1\.[01]" 200\b')

#: The last answer of a program that works on stands among so many last lines.
_BELOW = 20

#: Where SGLang's `health_generate` stands; without SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION `/health` answers at once.
_COMPUTED = ("/health", "/health_generate")

#: How long before a probe that got no answer another one's answer may lie.
_RECENT_SECONDS = 120

#: So often has a probe got no answer that it is no hesitation, and so many seconds ago the server came back.
_OFTEN, _LATELY = 10, 900

#: A server that works answers a probe within this time.
PATIENT_SECONDS = 10

#: Without a log: who ran so long had come up, and lost its answers later.
LONG_SECONDS = 1800


def no_answer(event: Event) -> bool:
    """Whether the kubelet waited in vain, and was not told anything."""
    return any(words in event.message for words in SLOW)


def taken_out(pod: Pod, engine: Engine, events: Events, logs: Logs | None) -> Finding | None:
    found = _unready(pod, engine, events, logs)
    return found or (_flaps(pod, engine, events, logs) if logs is not None else None)


def _unready(pod: Pod, engine: Engine, events: Events, logs: Logs | None) -> Finding | None:
    """A readiness probe that gets no answer in time from a server of which something shows that it works."""
    container, probe = engine.container, engine.container.spec.readiness_probe
    trouble, late = container.trouble("not-ready"), _late(container, events)
    log = container.own_log(logs)
    phase = phase_of(log)
    if runs_silent(log, pod.cluster.now) is not None:
        return None  # it is not busy, it stands still
    if late is None or trouble is None or probe is None or (phase is not None and phase.name != "serving"):
        return None
    if log is None or logs is None:
        return _never_in_time(pod, engine, probe, late)
    why, shown = _shown_at_work(pod, engine, probe, logs, phase, late)
    if shown is None or _broke_off(shown):
        return None
    return Finding(
        summary=f"{pod.name} counts as not ready because {container.name} does not answer within the "
        f"{say_seconds(probe.timeout_seconds)} that its readiness probe allows; {why}.",
        evidence=(event_evidence(late, pod.cluster), log_evidence(shown), *probe_evidence(pod, probe, [], "readiness")),
        explains=("not-ready",),
        fix=_readiness_fix(pod, container, probe, _late_too(container, events, trouble.since)),
        order=shown.order,
    )


def unready_program(pod: Pod, container: Container, events: Events, logs: Logs) -> Finding | None:
    """The same of a program that is no engine (a proxy before engines): its log of access ends with requests that it answered well."""
    trouble, probe, late = container.trouble("not-ready"), container.spec.readiness_probe, _late(container, events)
    log, now = container.own_log(logs), pod.cluster.now
    if trouble is None or probe is None or late is None or log is None or probe.timeout_seconds >= PATIENT_SECONDS:
        return None
    posted = list(log.find('"POST /'))
    well = [line for line in posted if ANSWERED_200.search(line.text[:2000])]
    if not well or well[-1] is not posted[-1] or len(log) - well[-1].number > _BELOW:
        return None
    shown = well[-1]
    # its readiness may hang on what it then says that it misses, such as a database
    if _broke_off(shown) or any(looks_like_error(line.text) for line in log.lines(shown.number + 1)):
        return None
    ago = seconds_ago(shown, now)
    if ago is not None and (
        now is None or late.last is None or ago > (now - late.last).total_seconds() + _RECENT_SECONDS
    ):
        return None
    return Finding(
        confidence="likely" if ago is not None else "possible",
        summary=f"{pod.name} counts as not ready because {container.name} does not answer within the "
        f"{say_seconds(probe.timeout_seconds)} that its readiness probe allows; it answered {count_of(len(well), 'request')} with 200.",
        evidence=(event_evidence(late, pod.cluster), log_evidence(shown), *probe_evidence(pod, probe, [], "readiness")),
        explains=("not-ready",),
        fix=_readiness_fix(pod, container, probe, _late_too(container, events, trouble.since)),
        order=shown.order,
    )


def _late(container: Container, events: Events) -> Event | None:
    """The last failure of the readiness probe since the container is not ready, where it got no answer in time."""
    trouble = container.trouble("not-ready")
    since = trouble.since if trouble else None
    failed = [event for kind, event in failures(container, events) if kind == "readiness" and _in(event, since)]
    return failed[-1] if failed and no_answer(failed[-1]) else None


def _broke_off(shown: Line) -> bool:
    """Whether a program said after a line that something failed, or that it ends: what stands still, or has died, says no more."""
    rest = shown.log.lines(shown.number + 1)
    return any(text in line.text for line in rest for text in ("Traceback (most recent call last)", "Shutting down"))


def _late_too(container: Container, events: Events, since: datetime | None) -> k8s.Probe | None:
    """The liveness probe where it gets no answer in time either: it kills the server next."""
    late = [e for kind, e in failures(container, events) if kind == "liveness" and _in(e, since) and no_answer(e)]
    return container.spec.liveness_probe if late else None


def _flaps(pod: Pod, engine: Engine, events: Events, logs: Logs) -> Finding | None:
    """A busy server that is ready again, after its readiness probe, which got no answer in time, had taken it out of its Services."""
    container, probe, now = engine.container, engine.container.spec.readiness_probe, pod.cluster.now
    ready, started = pod.condition("Ready"), container.started
    since = parse_time(ready.last_transition_time) if ready else None
    if not pod.ready or probe is None or now is None or since is None or started is None or container.restarts:
        return None
    if probe.timeout_seconds >= PATIENT_SECONDS:
        return None  # a server that only has much to do answers within that
    # it was not its start that made it ready, and it is not long ago
    if (since - started).total_seconds() < LONG_SECONDS or (now - since).total_seconds() > _LATELY:
        return None
    failed = [event for kind, event in failures(container, events) if kind == "readiness" and _in(event, started)]
    slow = [event for event in failed if no_answer(event) and event.last is not None and event.last <= since]
    times, said = sum(event.count for event in slow), last_load(container, logs)
    last = slow[-1].last if slow else None
    if times < _OFTEN or slow[-1] is not failed[-1] or last is None or (since - last).total_seconds() > _RECENT_SECONDS:
        return None
    if not said or not said[-1].running or not works(pod, said) or _came_up_after(last, said[-1].line.log, now):
        return None
    return Finding(
        severity="warning",
        summary=f"{pod.name} was taken out of its Services and is ready again for {say_seconds((now - since).total_seconds())}: "
        f"{container.name} did not answer its readiness probe within {say_seconds(probe.timeout_seconds)}, {times} times so far, while "
        f"it works, with {said[-1].running} requests running and {said[-1].waiting} waiting.",
        evidence=(
            event_evidence(slow[-1], pod.cluster),
            log_evidence(said[-1].line),
            *probe_evidence(pod, probe, [], "readiness"),
        ),
        explains=("not-ready", "http-5xx"),
        fix=_readiness_fix(pod, container, probe),
        order=said[-1].line.order,
    )


def _came_up_after(failure: datetime, log: Log, now: datetime) -> bool:
    """Whether a log shows a start that ended after a failure of the probe, so that the server was then ready for the first time."""
    phase = phase_of(log)
    if phase is None or phase.name != "serving":
        return False
    since = (seconds_ago(line, now) for line in log.lines(phase.line.number))
    up = next((seconds for seconds in since if seconds is not None), None)
    return up is not None and up < (now - failure).total_seconds()


def _readiness_fix(pod: Pod, container: Container, probe: k8s.Probe, liveness: k8s.Probe | None = None) -> Fix:
    """More time for an answer, and for the liveness probe as well where that does not get one either."""
    seconds = max(PATIENT_SECONDS, 2 * probe.timeout_seconds, liveness.timeout_seconds if liveness else 0)
    wanted = [("readiness", max(3, probe.failure_threshold))]
    if liveness is not None:
        wanted.append(("liveness", max(6, liveness.failure_threshold)))
    return fixes.patch(
        pod,
        f"Have the {' and the '.join(which for which, _ in wanted)} probe wait {seconds} s for an answer",
        [
            {"op": "add", "path": f"{container.pointer}/{which}Probe/{field}", "value": value}
            for which, times in wanted
            for field, value in (("timeoutSeconds", seconds), ("failureThreshold", times))
        ],
    )


def _shown_at_work(
    pod: Pod, engine: Engine, probe: k8s.Probe, logs: Logs, phase: Phase | None, failure: Event
) -> tuple[str, Line | None]:
    """In words, why the server works though its probe fails, and the line that shows it; None where none does.

    Of a log that no longer has the start, only what the engine says of its load does.
    """
    said = last_load(engine.container, logs)
    if said and said[-1].running:
        last = said[-1]
        why = f"it is up and works, with {last.running} requests running and {last.waiting} waiting"
        return why, last.line if works(pod, said) else None
    if phase is None:
        return "", None
    if _computes(engine, probe, phase.line.log):
        why = "SGLang computes a token for it and looks for that after one second, so that no answer comes sooner"
        return why, phase.line
    return "it is up, and answered others like it with 200", _answered(pod, probe, phase.line.log, failure)


def _never_in_time(pod: Pod, engine: Engine, probe: k8s.Probe, slow: Event) -> Finding | None:
    """A readiness probe that cannot be answered in time, of a server whose log nobody read: it takes the connection and answers late."""
    if not _computes(engine, probe) or engine.at_least(_HEALTH_COMPUTES) is not True or slow.count < _SEVERAL:
        return None
    return Finding(
        summary=f"{pod.name} counts as not ready because {engine.container.name} does not answer within the "
        f"{say_seconds(probe.timeout_seconds)} that its readiness probe allows: SGLang computes a token for it and looks for that after "
        "one second, so that no answer comes sooner.",
        evidence=(event_evidence(slow, pod.cluster), *probe_evidence(pod, probe, [], "readiness")),
        explains=("not-ready",),
        fix=_readiness_fix(pod, engine.container, probe),
    )


def _computes(engine: Engine, probe: k8s.Probe, log: Log | None = None) -> bool:
    """Whether the probe asks SGLang for a token and allows a second, which nothing can keep (`http_server.py`, `health_generate`)."""
    path = probe.path
    switch = engine.container.env.get("SGLANG_ENABLE_HEALTH_ENDPOINT_GENERATION")
    off = path == "/health" and switch is not None and str(switch.value).lower() in ("0", "false", "no", "n")
    return (
        engine.name == "sglang"
        and path in _COMPUTED
        and probe.timeout_seconds == 1
        and not off
        and not (log is not None and log.holds(UNHEALTHY))
    )


def _answered(pod: Pod, probe: k8s.Probe, log: Log, slow: Event) -> Line | None:
    """The last answer to what the probe asks, where it was given shortly before a probe that got none, or after it."""
    now = pod.cluster.now
    if probe.http_get is None or slow.last is None or now is None:
        return None
    asked = f'"GET {probe.http_get.path} HTTP/1.1" 200'
    line = log.last(asked)
    ago = seconds_ago(line, now) if line else None
    return line if ago is not None and 0 <= ago <= (now - slow.last).total_seconds() + _RECENT_SECONDS else None


def _in(event: Event, since: datetime | None) -> bool:
    """Whether an event is of the instance that started then."""
    return event.last is None or since is None or event.last >= since


def probe_evidence(
    pod: Pod, probe: k8s.Probe | None, quoted: list[Evidence], which: str = "liveness"
) -> Iterator[Evidence]:
    yield from quoted
    if probe:
        numbers = f"periodSeconds: {probe.period_seconds}, timeoutSeconds: {probe.timeout_seconds}"
        yield pod_evidence(pod, f"{which}Probe", f"{numbers}, failureThreshold: {probe.failure_threshold}")
