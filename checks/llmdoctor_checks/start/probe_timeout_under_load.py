"""A probe that gives up on a busy server."""

import math
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Ending,
    Engine,
    Event,
    Events,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    check,
    count_of,
    endings,
    event_evidence,
    expression,
    fixes,
    k8s,
    log_evidence,
    log_of,
    phase_of,
    pod_evidence,
    probe_kills,
    say_seconds,
    seconds_ago,
    seconds_between,
    served,
    stopped_at,
)
from llmdoctor_checks._listening import listens
from llmdoctor_checks._load import last_load
from llmdoctor_checks._no_token import UNHEALTHY, ended_silent
from llmdoctor_checks._nobody_left import LITERALS as NOBODY_LEFT
from llmdoctor_checks._sandbox import ended_together, node_came_back
from llmdoctor_checks.start import _dropped
from llmdoctor_checks.start._probes import came_up, failures
from llmdoctor_checks.start._readiness_late import (
    ANSWERED_200,
    ANSWERED_503,
    LONG_SECONDS,
    PATIENT_SECONDS,
    SLOW,
    no_answer,
    probe_evidence,
    taken_out,
    unready_program,
)

#: The variable for how many seconds SGLang's health check waits for a token.
_HEALTH_WAITS = "SGLANG_HEALTH_CHECK_TIMEOUT"

#: What Text Generation Inference prints when it refuses requests, as many wait as it allows; its `/health` then answers 503, too.
_OVERLOADED = "Model is overloaded"

#: What shows that the scheduler worked on: a step, or an answer.
_WORKED = r"\b(?:Prefill|Decode) batch\b|\"POST /\S+ HTTP/1\.1\" 200\b"

#: What Istio's agent prints of a probe that it passes on (`pilot-agent/status/server.go`), and answers 500 to.
_PASSED_ON = "Request to probe app failed: "

#: What makes a probe a request of its own, which waits in the queue behind all others.
_GENERATES = expression(r"/v1/(?:chat/)?completions\b|/generate\b|/health_generate\b|/api/(?:generate|chat)\b")

#: How vLLM says that a request waits for a kernel to be compiled (`jit_monitor.py`), and for how long it may answer nobody else then.
_COMPILES, _COMPILING_SECONDS = "JIT compilation during inference: ", 300

#: What kept it from answering stands among so many last lines.
_AT_LAST = 100

#: So long an event is there in any case: API servers keep them for an hour, some clouds' for less.
_KEPT_SECONDS = 900

#: A probe that allows less than this in all may be missed by a healthy server during one long step.
_SHORTEST_SECONDS = 5

#: So long may a server that is only busy leave a probe without an answer.
_MINUTE = 60

#: An instance that lives so many times as long as its liveness probe is patient with one that never answers has answered it.
_OUTLIVED = 2

#: The controller of Ray Serve (deployment_state.py): a replica did not answer its health check, did not so several times and is ended,
#: and another one is up. What belongs to one ending stands within so many lines.
_MISSED, _IN_A_ROW = "Didn't receive health check response for replica", "times in a row, marking it unhealthy"
_REPLICA_UP, _CLOSE, _STATEMENTS = " started successfully on node ", 60, 200

#: Who has come up so long ago, and was not ended since, is over it.
_LONG_AGO = 6 * 3600


@check(
    "probe-timeout-under-load",
    since="0.1",
    literals=(
        UNHEALTHY,
        _OVERLOADED,
        _PASSED_ON,
        _COMPILES,
        _MISSED,
        _IN_A_ROW,
        _REPLICA_UP,
        'HTTP/1.1" 503',
        *_dropped.LITERALS,
        *NOBODY_LEFT,
    ),
)
def probe_timeout_under_load(
    pod: Pod, subject: Subject, cluster: Cluster, events: Events | None, logs: Logs | None
) -> Iterator[Finding]:
    """A probe gives up on a server that is up and too busy to answer in time.

    The server had started and served. Then its health endpoint did not answer within the probe's `timeoutSeconds` (1 second
    by default), a few times in a row, and the kubelet restarted it: all requests are lost, and the model is loaded again.
    Engines answer `/health` from the process that also tokenizes, parses images and streams tokens, so under load, or with
    too little CPU, a second is soon over. A probe that sends a completion of its own waits in the queue behind all other
    requests, and fails first when the queue is longest. A server that truly hangs looks the same from outside; then its log shows no
    progress before the kill. SGLang's `/health` computes a token itself: it answers 503 when that waits for more than 20 seconds
    behind a long prefill or a kernel that is being compiled (`SGLANG_HEALTH_CHECK_TIMEOUT`). It looks for the token once a second:
    a probe that allows one second, which is what Kubernetes takes for granted, gets no answer even from an idle server. Text
    Generation Inference's answers 503 while as many requests wait as it allows. Other servers ask their engine, too, and answer 503
    where it takes too long; one that answers 200 to the same question afterwards was not dead.

    In a mesh the probe goes to a sidecar, which asks the server and answers 500 where it got no answer in time: Istio's says so in its log.

    Of a program that is no known engine its own words are taken: it answered what the probe asks before, or it said that it listens
    there, and the kubelet's connections were taken and not answered in time. That it does not hang is a guess in the latter case.

    A startup probe with as little time restarts a server that has come up, again and again.

    A readiness probe with as little time takes the busy replica out of its Service. Its requests go to the others, which
    become busier in turn; where it is the only one, or all are as busy, nobody serves although all of them work.
    When it answers again it is ready as if nothing had been: the events, and since when it is ready, tell of it.

    Ray Serve has a health check of its own: its controller asks each replica, and ends one that does not answer several times in a row
    (`health_check_timeout_s`). One that is flooded with requests does not come to answer.

    So has many a router: it takes a server off its list that does not answer in time, and refuses all requests where none is left. Its
    log says both; the server's shows that it worked on, and answered the router again afterwards. One that answered its health check with
    503 amidst its work, as SGLang does, says so in its own access log.

    ## Fix

    Give the liveness probe time: it is there for a server that is stuck for good.

        livenessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10, timeoutSeconds: 10, failureThreshold: 6}

    Let the readiness probe take a busy replica out of the Service instead, after some failures with 5 seconds or more, and
    give the server CPU.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    """
    if logs is not None and (found := _of_serve(pod, logs)) is not None:
        yield found
        return
    for ending in endings(pod):
        found = _restarted(pod, ending, events, logs) if events is not None else None
        if (found := found or _stopped_while_well(pod, ending, events, logs)) is not None:
            yield found
            return
    for engine in subject.engines(pod):
        if events is not None and (found := taken_out(pod, engine, events, logs)) is not None:
            yield found
            return
        if found := _dropped.dropped(pod, engine, cluster, logs):
            yield found
            return
        yield from _risk(pod, engine)
    if events is not None and logs is not None and not subject.engines(pod):
        yield from islice(filter(None, (unready_program(pod, c, events, logs) for c in pod.containers)), 1)


def _of_serve(pod: Pod, logs: Logs) -> Finding | None:
    """Replicas that the controller of Ray Serve ended, since they did not answer its health check in time, of a pod that lives on."""
    for container in pod.containers if pod.ready or pod.log_only else ():
        log = logs.current(container.name)
        missed = list(log.find(_MISSED)) if log is not None else []
        ended = [
            line
            for line in (log.find(_IN_A_ROW) if log is not None and missed else ())
            if "eplica" in line.text and any(0 < line.number - one.number <= _CLOSE for one in missed)
        ]
        if log is None or not ended:
            continue
        last = ended[-1]
        up = any(line.number > last.number for line in log.find(_REPLICA_UP))
        # one now and then has been overcome
        ago = seconds_ago(last, pod.cluster.now)
        again = len(ended) > 1 and (ago is None or ago <= _LONG_AGO)
        waited = re.search(r" after (\d{1,6}(?:\.\d{1,6})?)s, marking it unhealthy", missed[-1].text)
        # what the engine says of its load around that
        said = [one for one in last_load(container, logs, _STATEMENTS) if abs(one.line.number - last.number) <= _CLOSE]
        load = max(said, key=lambda one: one.running + one.waiting, default=None)
        busy = load is not None and load.running > 0 and any(one.tokens for one in said)
        within = f" within {say_seconds(float(waited[1]))}" if waited else ""
        shown = f"; its engine had {load.running} requests running and {load.waiting} waiting" if load and busy else ""
        return Finding(
            role="cause" if again or not up else "note",
            severity="warning",
            confidence="likely" if busy else "possible",
            summary=f"Ray Serve ended {count_of(len(ended), 'replica')} that did not answer its health check{within}, as one that is too "
            f"busy does not{shown}.",
            evidence=(
                log_evidence(last),
                log_evidence(missed[-1]),
                *((log_evidence(load.line),) if load and busy else ()),
            ),
            fix=fixes.advice(
                "Set health_check_timeout_s: 60"
                + (f" and max_ongoing_requests: {load.running}, as many as it runs at once," if load and busy else "")
                + f" for the deployment in the Serve configuration of {fixes.edited(pod)}"
            ),
            order=last.order,
        )
    return None


def _compiling(log: Log) -> Line | None:
    """The last kernel that vLLM was compiling for a request when the log ends."""
    return next((line for line in log.find(_COMPILES) if line.number > len(log) - _AT_LAST), None)


class _Late(msgspec.Struct, frozen=True, kw_only=True):
    """The line that tells why a server that is up answers its probe late, or with an error in the place of an answer."""

    #: its health check waited for a token in vain
    token: Line | None
    #: its queue was full
    full: Line | None
    #: it said 503 now and then, and 200 after that
    busy: Line | None
    #: a mesh's sidecar asked it for the kubelet, in vain
    passed_on: Line | None

    @property
    def line(self) -> Line | None:
        return self.token or self.full or self.busy or self.passed_on

    def stands_for(self, event: Event) -> bool:
        """Whether a failure of the probe with an error is of that as well."""
        late = (("503", self.token or self.full or self.busy), ("500", self.passed_on))
        return any(line and event.message.endswith(f"statuscode: {code}") for code, line in late)


def _why_late(probe: k8s.Probe | None, log: Log | None, told: Log | None, logs: Logs | None) -> _Late:
    """The same of one instance, by its log, and by one that may stand for it (`told`)."""
    token = _no_token(log)
    full = next(told.find(_OVERLOADED), None) if told is not None and token is None else None
    busy = _well_again(log, probe) if log is not None and not (token or full) else None
    return _Late(token=token, full=full, busy=busy, passed_on=_passed_on(probe, logs))


def _restarted(pod: Pod, ending: Ending, events: Events, logs: Logs | None) -> Finding | None:
    """An instance that was up when its probe ended it."""
    container = ending.container
    if ending.oom_killed or ending.code not in (0, 1, 130, 137, 143):
        return None
    killed = list(probe_kills(pod, events, container))
    which = killed[-1][0] if killed else ""
    log = log_of(ending, logs)
    if ended_silent(ending, log) is not None:
        return None  # the probe was right
    # where its log is not there, the one of now may show the same
    told = log or (container.own_log(logs) if pod.exists else None)
    probe = container.spec.probes.get(which)
    why = _why_late(probe, log, told, logs)
    failed = [event for kind, event in failures(container, events) if kind == which]
    slow = [event for event in failed if no_answer(event) or why.stands_for(event)]
    phase = phase_of(log)
    sure = served(log) and slow[-1:] == failed[-1:] if which == "startup" else _was_up(ending, probe, which, log, told)
    listened = None if sure or phase is not None else _listened(container, which, failed, slow, logs)
    if not (slow and (sure or listened)):
        return None
    span = f" after {say_seconds(ending.seconds)}" if ending.seconds is not None else ""
    compiles = _compiling(log) if log is not None else None
    said = why.line or compiles or (phase.line if phase else listened)
    return Finding(
        confidence="possible" if listened else "likely",
        summary=f"The kubelet restarted {container.name}{span}: it was up and {_lacked(slow[-1], which, probe, why)}.",
        evidence=(
            *probe_evidence(pod, probe, [event_evidence(e, pod.cluster) for e in (slow[-1], killed[-1][1])], which),
            pod_evidence(pod, ending.path, ending.text),
            *((log_evidence(said),) if said else ()),
        ),
        explains=("crash-loop", "not-ready", "probe-too-short"),
        fixes=(
            *((_fix_of_token(container, probe),) if why.token and which == "liveness" else ()),
            *(_fix_of_full(pod, container.pointer, probe) if why.full and which == "liveness" else ()),
            *_fixes(pod, container.pointer, probe, which, _COMPILING_SECONDS if compiles else _MINUTE, why.line),
        ),
        # what the log says went wrong before the kill comes first
        order=float(len(log)) if log else None,
    )


def _stopped_while_well(pod: Pod, ending: Ending, events: Events | None, logs: Logs | None) -> Finding | None:
    """A server that was well and was told to stop, in a pod that stays: in that only a failed probe does so, as a rule.

    What the probe got is not known, as the events that would say it have expired. It was no server that stood still: it obeyed at once.
    """
    container, probe, log = ending.container, ending.container.spec.liveness_probe, log_of(ending, logs)
    if log is None or probe is None or probe.timeout_seconds >= PATIENT_SECONDS or probe.tcp_socket is not None:
        return None  # the kernel takes a connection while the server does not get to it
    if not container.restarts or ending.code not in (0, 143) or pod.obj.metadata.deletion_timestamp:
        return None
    kills = list(probe_kills(pod, events, container)) if events is not None else []
    if any(kind != "liveness" for kind, _ in kills) or (not kills and _by_another(pod, ending, events)):
        return None
    if events is not None and any(kind == "liveness" for kind, _ in failures(container, events)):
        return None
    line = stopped_at(log)
    if line is None or not served(log) or not (came_up(container) or _outlived(ending, probe, "liveness")):
        return None
    span = f" after {say_seconds(ending.seconds)}" if ending.seconds is not None else ""
    who, expired = (
        ("its liveness probe", "") if kills else ("most likely its liveness probe", ", and no event of that is at hand")
    )
    return Finding(
        confidence="possible",
        summary=f"{container.name} was up when it was told to stop{span}: {who} had failed {probe.failure_threshold} times, which allows "
        f"{say_seconds(probe.timeout_seconds)} for an answer; the log shows nothing that had gone wrong{expired}.",
        evidence=(
            *probe_evidence(pod, probe, [event_evidence(kills[-1][1], pod.cluster)] if kills else []),
            pod_evidence(pod, ending.path, ending.text),
            log_evidence(line),
        ),
        explains=("crash-loop", "not-ready", "told-to-stop"),
        fixes=tuple(_fixes(pod, container.pointer, probe)),
        order=line.order,
    )


def _by_another(pod: Pod, ending: Ending, events: Events | None) -> bool:
    """Whether something else than a probe ended an instance, by what the kubelet says of it or should, by its pod or by its node."""
    if events is not None and events.of("Killing"):
        return True
    return _would_be_told(pod, ending, events) or ended_together(ending.container) or bool(node_came_back(ending))


def _would_be_told(pod: Pod, ending: Ending, events: Events | None) -> bool:
    """Whether the kubelet's word for the end of an instance would be there still: something older is, or the list is of right after it."""
    end = ending.finished
    if end is None or events is None:
        return False
    if any(e.kind == "Pod" and e.name == pod.name and e.last is not None and e.last < end for e in events):
        return True
    ago = pod.cluster.seconds_since(ending.terminated.finished_at)
    return pod.cluster.complete("Event", pod.namespace) and ago is not None and ago < _KEPT_SECONDS


def _outlived(ending: Ending, probe: k8s.Probe | None, which: str) -> bool:
    """Whether an instance ran for much longer than its liveness probe is patient with one that never answers."""
    spec = ending.container.spec
    if which != "liveness" or probe is None or spec.startup_probe is not None or ending.seconds is None:
        return False
    grace = probe.termination_grace_period_seconds or ending.container.pod.spec.termination_grace_period_seconds or 30
    times = (probe.failure_threshold + 1) * (probe.period_seconds + probe.timeout_seconds)
    return ending.seconds >= _OUTLIVED * (probe.initial_delay_seconds + times + grace)


def _listened(
    container: Container, which: str, failed: list[Event], slow: list[Event], logs: Logs | None
) -> Line | None:
    """Where a server of one's own, of whose start nothing is known, said that it listens on the port that the liveness probe asks.

    Its kernel then takes a connection and the program answers late: one that is not up yet refuses, or answers with an error.
    """
    probe = container.spec.probes.get(which)
    action = (probe.http_get or probe.tcp_socket) if probe is not None else None
    if which != "liveness" or action is None or len(slow) != len(failed):
        return None
    found = listens(container, logs, {str(container.port_number(action.port))})
    return found[1] if found is not None else None


def _passed_on(probe: k8s.Probe | None, logs: Logs | None) -> Line | None:
    """The last line by which a mesh's sidecar says that the server did not answer what this probe asks in time, and never why else."""
    path = probe.path if probe is not None else ""
    asked = f"original URL path = {path}"
    told = [x for x in logs.find(_PASSED_ON) if x.text.rstrip().endswith(asked)] if logs and path else []
    late = [x for x in told if any(words in x.text for words in SLOW)]
    return late[-1] if late and len(late) == len(told) else None


def _was_up(ending: Ending, probe: k8s.Probe | None, which: str, log: Log | None, told: Log | None) -> bool:
    """Whether an instance had come up, by its log, by the time that it ran, or as a readiness or startup probe found it well."""
    if served(log) or (which == "liveness" and came_up(ending.container)):
        return True
    if log is None and _outlived(ending, probe, which) and _answered_well(told, probe):
        return True
    return phase_of(log) is None and ((ending.seconds or 0) >= LONG_SECONDS or _answered_well(log, probe))


def _lacked(last: Event, which: str, probe: k8s.Probe | None, why: _Late) -> str:
    """What the probe did not get, in words."""
    if why.busy and not no_answer(last):
        return "what its probe asks answered 503 now and then, and 200 again after that, while it answered requests: it was busy"
    if why.full and not no_answer(last):
        return "its health check answered 503 while its queue was full"
    if why.token and not no_answer(last):
        waited = why.token.text.partition(UNHEALTHY)[2].split(".")[0]
        return f"did not answer within the {waited} that SGLang's health check allows for a token"
    if probe is None:
        return f"did not answer within its {which} probe's timeout"
    return f"did not answer within the {say_seconds(probe.timeout_seconds)} that its {which} probe allows"


def _well_again(log: Log, probe: k8s.Probe | None) -> Line | None:
    """The last 503 of what a probe asks after which the same instance answered the probe and requests well: it was not dead, but busy.

    An engine that is dead stays so, and says 503 until it is ended, and answers no request well then. One that loads says 503, too: what
    was before the first good answer does not count.
    """
    path = probe.path if probe is not None else ""
    asked = list(log.find(f'"GET {path} HTTP/1')) if path else []
    well = [x.number for x in asked if ANSWERED_200.search(x.text[:2000])]
    busy = [x for x in asked if well and x.number > well[0] and ANSWERED_503.search(x.text[:2000])]
    if not busy or busy[0].number > well[-1]:
        return None
    since = next((x.number for x in busy if x.number > well[-1]), busy[0].number)
    posted = (x for x in log.find('"POST /') if x.number > since)
    return busy[-1] if any(ANSWERED_200.search(x.text[:2000]) for x in posted) else None


def _answered_well(log: Log | None, probe: k8s.Probe | None) -> bool:
    """Whether a log of access, as uvicorn and gunicorn write it, shows a good answer to what a probe asks."""
    path = probe.path if probe is not None else ""
    asked = log.find(f'"GET {path} HTTP/1') if log is not None and path else ()
    return any(ANSWERED_200.search(line.text[:2000]) for line in asked)


def _no_token(log: Log | None) -> Line | None:
    """Where SGLang says first that its health check got no token, of a server that worked meanwhile or after that."""
    first = next(log.find(UNHEALTHY), None) if log is not None else None
    if log is None or first is None:
        return None
    said = first.text.partition(UNHEALTHY)[2].split(" ")[0]
    waited = int(said) if said.isdecimal() else 0
    worked = (line for line in log.find("HTTP/1.1", " batch") if re.search(_WORKED, line.text))
    return first if any(line.number > first.number or _begun(line, first, waited) for line in worked) else None


def _begun(line: Line, complaint: Line, waited: int) -> bool:
    """Whether a line was printed while the health check waited, so many seconds up to its complaint."""
    seconds = seconds_between(line, complaint)
    return seconds is not None and seconds <= waited


def _fix_of_token(container: Container, probe: k8s.Probe | None) -> Fix:
    """More time for a token, in SGLang's health check and in the probe that asks for it."""
    at, own = f"{container.pointer}/env", container.spec.env
    entry = {"name": _HEALTH_WAITS, "value": "120"}
    index = next((n for n, variable in enumerate(own) if variable.name == _HEALTH_WAITS), None)
    path, value = (f"{at}/-", entry) if own else (at, [entry])
    operations: list[dict[str, Any]] = [{"op": "add", "path": path, "value": value}]
    if index is not None:
        operations = [{"op": "replace", "path": f"{at}/{index}", "value": entry}]
    if probe is not None:
        operations.append({"op": "add", "path": f"{container.pointer}/livenessProbe/timeoutSeconds", "value": 130})
    summary = f"Have SGLang's health check wait 120 s for a token ({_HEALTH_WAITS}=120), and the liveness probe 130 s (timeoutSeconds)"
    return fixes.patch(container.pod, summary, operations)


def _fix_of_full(pod: Pod, pointer: str, probe: k8s.Probe | None) -> Iterator[Fix]:
    """A probe that asks for no more than that the port is open: the health of a full queue stays 503 as long as that is full."""
    if probe is not None and probe.http_get is not None:
        at = f"{pointer}/livenessProbe"
        yield fixes.patch(
            pod,
            "Have the liveness probe only connect to the port: what it asks answers 503 as long as the queue is full",
            [
                {"op": "remove", "path": f"{at}/httpGet"},
                {"op": "add", "path": f"{at}/tcpSocket", "value": {"port": probe.http_get.port}},
            ],
        )


def _risk(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A liveness probe that a queue of requests, or one slow answer, fails."""
    container, probe = engine.container, engine.container.spec.liveness_probe
    if probe is None:
        return
    script = probe.script
    path = probe.path if probe.http_get else script
    asked = _GENERATES.search(path)
    own = re.search(r"(?:--max-time|-m|--timeout)[ =](\d+)", script)
    allowed = min(probe.timeout_seconds, int(own[1])) if own else probe.timeout_seconds
    kill = f"{probe.failure_threshold} failures, {probe.period_seconds} s apart, and the busy server is killed"
    if asked:
        what = (
            f"The liveness probe of {container.name} sends a request of its own to {asked[0]} and waits {allowed} s; it "
            f"stands in the queue behind the others: {kill}"
        )
    elif path == engine.value("health_path") and probe.failure_threshold == 1 and allowed < _SHORTEST_SECONDS:
        what = (
            f"The liveness probe of {container.name} allows {allowed} s and one failure: a single late answer under load "
            "kills the server"
        )
    else:
        return
    yield Finding(
        role="risk",
        summary=f"{what}, and {engine.title} loads its model again.",
        evidence=tuple(probe_evidence(pod, probe, []))
        + ((pod_evidence(container, "livenessProbe", " ".join(path.split())),) if asked else ()),
        fixes=tuple(_health_fix(pod, engine, probe) if asked else _fixes(pod, container.pointer, probe)),
    )


def _health_fix(pod: Pod, engine: Engine, probe: k8s.Probe) -> Iterator[Fix]:
    """Ask the health endpoint instead, which needs no place in the queue."""
    port, path = engine.value("port"), str(engine.value("health_path", "/health")).replace("/ready", "/live")
    if not isinstance(port, int):
        yield fixes.advice(f"Have the liveness probe ask {path} instead of sending a request, in {fixes.edited(pod)}")
        return
    value = {
        "httpGet": {"path": path, "port": port},
        "periodSeconds": max(10, probe.period_seconds),
        "timeoutSeconds": max(10, probe.timeout_seconds),
        "failureThreshold": max(6, probe.failure_threshold),
    }
    if probe.initial_delay_seconds:
        value["initialDelaySeconds"] = probe.initial_delay_seconds
    yield fixes.set_probe(engine.container, "livenessProbe", value, f"Have the liveness probe ask {path}")


def _fixes(
    pod: Pod,
    pointer: str,
    probe: k8s.Probe | None,
    which: str = "liveness",
    stalls: int = _MINUTE,
    refused: Line | None = None,
) -> Iterator[Fix]:
    """Longer patience of a probe, in all for as many seconds as the server may stand still.

    The kubelet asks again when the period is over and the probe before has an answer, which one that was refused has at once.
    """
    at, known = f"{pointer}/{which}Probe", probe or k8s.Probe()
    seconds = max(10, known.timeout_seconds)
    failed = max(
        6, known.failure_threshold, math.ceil(stalls / max(1, known.period_seconds, 0 if refused else seconds))
    )
    if (seconds, failed) == (known.timeout_seconds, known.failure_threshold):
        failed *= 2
    fields = {
        name: (words, value)
        for name, words, value, now in (
            ("timeoutSeconds", f"wait {seconds} s for an answer", seconds, known.timeout_seconds),
            ("failureThreshold", f"give up after {failed} failures", failed, known.failure_threshold),
        )
        if probe is None or value != now
    }
    summary = f"Have the {which} probe {', and '.join(words for words, _ in fields.values())}"
    if probe is None:  # the kubelet has one that the object no longer shows
        yield fixes.advice(f"{summary} (timeoutSeconds, failureThreshold), in {fixes.edited(pod)}")
        return
    yield fixes.patch(
        pod,
        summary,
        [{"op": "add", "path": f"{at}/{name}", "value": value} for name, (_, value) in fields.items()],
    )
