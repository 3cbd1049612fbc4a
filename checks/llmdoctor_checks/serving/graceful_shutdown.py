"""A pod that is killed before what it was told to finish is finished."""

import math
import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Events,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Setting,
    Subject,
    askers,
    check,
    count_of,
    current_logs,
    dig,
    event_evidence,
    fixes,
    in_order,
    k8s,
    log_evidence,
    often,
    parse_time,
    pod_evidence,
    say_seconds,
    seconds_between,
    setting_evidence,
    written_ago,
)
from llmdoctor_checks._clients import asked_as_one, asks_as_one
from llmdoctor_checks._load import Load, last_load
from llmdoctor_checks.serving._with_the_pod import LITERALS as BROKEN_OFF
from llmdoctor_checks.serving._with_the_pod import with_the_pod

#: Kubernetes' own.
_DEFAULT_SECONDS = 30

#: The exit code of SIGKILL.
_KILLED = 137

#: How an engine is told to finish running requests after SIGTERM: setting or variable, seconds when it is not set.
_DRAINS = {"vllm": "shutdown_timeout"}
_TGI = "GRACEFUL_TERMINATION_TIMEOUT"

_SLEEP = r"(?:^|[\s;&'\"])sleep\s+(?P<seconds>\d+(?:\.\d+)?)(?P<unit>[smh]?)(?=$|[\s;&'\"])"
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600}


#: What servers print when they are told to end: uvicorn (vLLM, SGLang up to its own word), SGLang, TGI.
_TOLD = (
    "Waiting for connections to close",
    "Waiting for background tasks to complete",
    "Gracefully exiting",
    "Shutting down",
)
#: What uvicorn prints when connections are left, and when none is any more (`Server.shutdown`).
_OPEN = ("Waiting for connections to close", "Waiting for background tasks to complete")
_CLOSED = "Waiting for application shutdown"
#: Who lost an answer so long ago has long asked again.
_A_DAY = 86400
#: SGLang's count of what is left.
_LEFT = r"remaining number of requests (\d{1,9})"

#: vLLM's engine, told to end, drops what runs (`v1/engine/core.py`, the older words last); then how many that were, or what its
#: server says of each.
_DROPS = ("[shutdown] EngineCore: start mode=abort", "Shutdown initiated (timeout=0)")
_DROPPED = r"\bAborting [1-9]\d{0,8} requests\b|\bRequest \S{1,200} failed \(engine dead\)"

#: uvicorn, told to end, ends what runs when its own time for that is over (`Server.shutdown`).
_CANCELS = "timeout graceful shutdown exceeded"
_CANCELLED = r"Cancel ([1-9]\d{0,8}) running task|Task cancelled, timeout"

#: gunicorn, told to end, and a worker that it kills when its time for that is over; a shorter time is nobody's setting.
_SIGNALLED, _BUSY_KILLED, _SHORTEST = "Handling signal: term", "was sent SIGKILL! Perhaps out of memory?", 5
_GUNICORN_SKEW, _MASTER_ENDS = 3, "Shutting down: Master"

#: Triton, told to end, waits for what runs, then takes its models away one by one, while its ports stay open (`server.cc`,
#: `InferenceServer::Stop`). Who asks for one meanwhile gets one of these answers (`model_lifecycle.cc`); so does a start that failed.
_BY_SIGNAL, _UNLOADS = "Signal (15) received", "All models are stopped, unloading models"
_HAD, _UNKNOWN = r"successfully (?:un)?loaded '([^']{1,200})'", "Request for unknown model: "
_GONE = (
    r"Request for unknown model: '(?P<model>[^']{1,200})' (?:version \d{1,9} )?"
    r"(?:is not (?:at ready state|found)|has no available versions)"
)

#: A connection that nobody takes: Go's and curl's, Envoy's, aiohttp's, httpx'.
_NOT_TAKEN = (
    "onnection refused",
    "onnection_refused",
    "Connect call failed",
    "Cannot connect to host",
    "connection reset by peer",
)
#: The API server sets a deletion's time to the end of the grace period; so shortly before it nothing that runs gets done.
_NEARLY_OVER = 2

#: So many seconds clocks of a cluster differ at most.
_SKEW = 5

#: What breaks off within this share of the grace period the server ended itself.
_EARLY = 0.5

#: So long no connection stays busy after the server was told to end, but for a request that does not get done.
_LONG = 60

#: A statement of its load that is older says nothing of what ran at the end: it prints one in ten seconds.
_LATELY = 30


#: A hook that does nothing else (its own action `sleep` has no command).
_ONLY_SLEEPS = r"(?:(?:/bin/)?(?:ba)?sh -c )?(?:(?:/bin/)?sleep \d{1,5}s?)?"

#: Seconds that most answers take at most, those until no Service sends requests to a pod, and those that a pod has after its hook.
_LONG_ANSWER, _UNTIL_NOBODY_ASKS, _AFTER = 240, 15, 60


@check(
    "graceful-shutdown",
    since="0.2",
    severity="warning",
    literals=(
        *_TOLD,
        "remaining number of requests",
        *_DROPS,
        _CANCELS,
        _SIGNALLED,
        _BUSY_KILLED,
        _BY_SIGNAL,
        _UNLOADS,
        _UNKNOWN,
        "loaded '",
        *_NOT_TAKEN,
        *BROKEN_OFF,
    ),
)
def graceful_shutdown(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """The termination grace period cuts running requests.

    A pod that is deleted, drained or replaced runs its preStop hook, gets SIGTERM after it, and SIGKILL when
    `terminationGracePeriodSeconds` (30 by default) are over, counted from the beginning of the hook. What is left is what
    the engine has to finish its generations. vLLM drops them at SIGTERM unless `--shutdown-timeout` says how long it shall
    wait (from 0.18.1 on); Text Generation Inference waits for `GRACEFUL_TERMINATION_TIMEOUT`.

    It is a risk where the pod's own numbers contradict each other: a hook or a drain time that the grace period ends.
    That no drain is set at all is true of most deployments, and not reported.

    It is the cause where a pod that was told to go ended by SIGKILL, or its grace period is over, and its log says that requests
    were running then, or where vLLM was told to go and dropped them: its server then says that its engine is dead, which is no fault
    of the engine. So it is where a client lost its answers within the grace period of pods that its controller deleted, and hardly any at
    another time. So it is where its server cancelled them itself, or where somebody still sends it some. Triton takes its models away
    as soon as nothing runs, and answers who still asks for one that it knows no such model.

    gunicorn, in front of many a gateway and server of one's own, has a time of its own for that (`--graceful-timeout`, 30 s by
    default): it kills workers that are busy longer, however long the pod may take, and says that it was perhaps for want of memory.

    ## Fix

    Let the grace period be longer than the hook and the longest generation together:

        terminationGracePeriodSeconds: 330
        lifecycle: {preStop: {sleep: {seconds: 15}}}
        args: [--shutdown-timeout=300]

    ## References

    - https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-termination
    """
    engines = subject.engines(pod)
    for engine in engines:
        yield from _of_engine(pod, engine, events, logs)
    if engines:
        return
    # a gateway that is asked as a server of models is
    served = pod.ready and (asked_as_one(pod) or asks_as_one(pod))
    container = next((x for x in pod.containers if x.role != "init"), None) if served else None
    found = (_by_gunicorn(pod, logs) or _cut_by_uvicorn(pod, logs)) if logs is not None else None
    if found is None and container is not None:
        found = _broken_off(pod, container, events)
    if found is not None:
        yield found


def _of_engine(pod: Pod, engine: Engine, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    ways = (_cut, _dropped, _cancelled, _still_asked, _unloaded) if logs is not None else ()
    by_log = next((found for way in ways if logs is not None and (found := way(pod, engine, logs))), None)
    # where the engine states how many requests run, that counts
    if by_log is None and logs is not None and not last_load(engine.container, logs):
        by_log = _cut_by_uvicorn(pod, logs)
    found = by_log or _broken_off(pod, engine.container, events, engine.name)
    if found is not None:
        yield found
        return
    container = engine.container
    grace = pod.spec.termination_grace_period_seconds
    allowed = _DEFAULT_SECONDS if grace is None else grace
    hook = _hook(container)
    drain = _drain(engine)
    needed = (hook[0] if hook else 0) + (drain[0] if drain else 0)
    if not needed or needed <= allowed or pod.completed or pod.log_only:
        return
    parts = []
    if hook:
        parts.append(f"its preStop hook takes {say_seconds(hook[0])}")
    if drain:
        parts.append(f"{engine.title} may take {say_seconds(drain[0])} for running requests")
    stated = f"{allowed} s" if grace is not None else f"the default of {allowed} s"
    longer = int(needed) + _DEFAULT_SECONDS
    hooks = [e for e in events.of("FailedPreStopHook", kind="Pod") if e.name == pod.name] if events else []
    cut = hooks[-1:] if hook and hook[0] > allowed and pod.obj.metadata.deletion_timestamp else []
    yield Finding(
        role="cause" if cut else "risk",
        confidence="certain",
        summary=f"The grace period of {container.name} is {stated}, but {' and '.join(parts)}: "
        "it is killed in the middle, and what it still generates is lost.",
        evidence=(
            _stated(pod),
            *(part[1] for part in (hook, drain) if part),
            *(event_evidence(event, pod.cluster) for event in cut),
        ),
        fix=_more_time(pod, longer),
    )


def _grace(pod: Pod) -> int:
    grace = pod.spec.termination_grace_period_seconds
    return _DEFAULT_SECONDS if grace is None else grace


def _stated(pod: Pod) -> Evidence:
    grace = pod.spec.termination_grace_period_seconds
    return pod_evidence(pod, "terminationGracePeriodSeconds", "not set" if grace is None else str(grace))


def _more_time(pod: Pod, seconds: int) -> Fix:
    return fixes.set_spec(pod, "/terminationGracePeriodSeconds", seconds, f"Give the pod {say_seconds(seconds)} to end")


def _cut(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A pod that is being deleted, whose engine was killed, or is any moment, while it finishes its requests."""
    container = engine.container
    ended = container.status.state.terminated if container.status else None
    log = logs.current(container.name)
    killed = ended is not None and ended.exit_code == _KILLED and ended.reason != "OOMKilled"
    due, now = parse_time(pod.obj.metadata.deletion_timestamp), pod.cluster.now
    over = container.running and due is not None and now is not None and (due - now).total_seconds() <= _NEARLY_OVER
    if due is None or log is None or not (killed or over):
        return None
    told = next(log.find(*_TOLD), None)
    left = _running(container, logs, told) if told is not None else None
    seconds = _grace(pod)
    waited = told is not None and any(words in told.text for words in _OPEN) and seconds >= _LONG
    if told is None or left is None or not (killed or waited or left[1].number > told.number):
        return None  # of one that is not killed yet a word since says that something runs, or that it waits for so long
    count, line = left
    longer = max(2 * seconds, 300)
    return Finding(
        summary=f"{pod.name} was told to end and {'killed' if killed else 'is killed'} {seconds} s later, after its grace period, while "
        f"{count_of(count, 'request')} still {'ran' if killed else 'runs' if count == 1 else 'run'}: "
        f"{'its answer is' if count == 1 else 'their answers are'} cut off.",
        evidence=(
            log_evidence(told),
            log_evidence(line),
            pod_evidence(container, "state.terminated.exitCode", str(ended.exit_code))
            if ended
            else pod_evidence(pod, "metadata.deletionTimestamp", str(pod.obj.metadata.deletion_timestamp)),
            _stated(pod),
        ),
        explains=("pod-failed", "crash-loop", "not-ready"),
        fix=_more_time(pod, longer),
        order=told.order,
    )


def _cut_off(
    pod: Pod, summary: str, lines: tuple[Evidence, ...], ways: tuple[Fix, ...], told: Line, more: tuple[str, ...] = ()
) -> Finding:
    """What a pod that is being deleted did to requests."""
    since = pod_evidence(pod, "metadata.deletionTimestamp", str(pod.obj.metadata.deletion_timestamp))
    return Finding(
        summary=summary,
        evidence=(*lines, since),
        explains=("pod-failed", "crash-loop", "not-ready", *more),
        fixes=ways,
        order=told.order,
    )


def _sleeping(pod: Pod, container: Container, seconds: int, summary: str) -> Fix:
    """A preStop hook, in which the server goes on and no new request comes, and the time to end that it takes.

    A hook that is there and does more than sleep stays as it is; one that sleeps as long already sleeps for longer.
    """
    own: Any = container.spec.lifecycle.pre_stop if container.spec.lifecycle else None
    sleeps = _hook(container)
    seconds = max(seconds, 2 * math.ceil(sleeps[0]) if sleeps else 0)
    at = f"{container.pointer}/lifecycle"
    longer = seconds + _AFTER if _grace(pod) < seconds + _UNTIL_NOBODY_ASKS else None
    if longer is not None:
        summary += f", and give the pod {longer} s to end"
    if own and not (sleeps and re.fullmatch(_ONLY_SLEEPS, " ".join(map(str, dig(own, "exec.command") or [])))):
        return fixes.advice(
            f"{summary}: let the preStop hook of {container.name} in {fixes.edited(pod)} sleep {seconds} s as well"
        )
    hook = {"exec": {"command": ["sleep", str(seconds)]}}
    value, path = (hook, f"{at}/preStop") if container.spec.lifecycle is not None else ({"preStop": hook}, at)
    operations: list[dict[str, Any]] = [{"op": "add", "path": path, "value": value}]
    if longer is not None:
        operations.append({"op": "add", "path": "/terminationGracePeriodSeconds", "value": longer})
    takes = ", which each pod then takes to end" if seconds >= _LONG else ""
    return fixes.patch(pod, f"{summary} (preStop: exec sleep {seconds}{takes})", operations)


def _finishing(pod: Pod, container: Container, drain: str) -> tuple[Fix, ...]:
    """What lets answers end that are under way when a pod is told to."""
    return (
        _sleeping(
            pod,
            container,
            _LONG_ANSWER,
            "Let what runs be answered in a preStop hook, before the server is told to end",
        ),
        fixes.advice(
            f"Let the server finish what runs itself ({drain}) in {fixes.edited(pod)}, within the time that the pod has to end"
        ),
    )


def _dropped(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A pod that is being deleted, whose vLLM threw away at SIGTERM what ran."""
    container = engine.container
    log = logs.current(container.name)
    told = next(log.find(*_DROPS), None) if log is not None and pod.obj.metadata.deletion_timestamp else None
    if told is None:
        return None
    since = (line for line in told.log.lines(told.number + 1) if re.search(_DROPPED, line.text[:1000]))
    before = _load_before(told, container, logs)
    lately = before and before.running and (seconds_between(before.line, told) or 0) <= _LATELY
    line = next(since, before.line if before and lately else None)
    if line is None:
        return None
    return _cut_off(
        pod,
        f"{pod.name} was told to end, and {engine.title} threw away the requests that ran: their answers are cut off.",
        (log_evidence(told), log_evidence(line)),
        _finishing(pod, container, "--shutdown-timeout, from vLLM 0.18.1 on"),
        told,
        ("engine-dead",),
    )


def _cancelled(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A pod that is being deleted, whose server ended its requests itself, its own time for them being over."""
    log = logs.current(engine.container.name)
    lines = log.find(_CANCELS) if log is not None and pod.obj.metadata.deletion_timestamp else ()
    line = next((one for one in lines if re.search(_CANCELLED, one.text[:2000])), None)
    if line is None:
        return None
    said = re.search(_CANCELLED, line.text[:2000])
    count = int(said[1]) if said and said[1] else None
    what = count_of(count, "request") if count else "requests"
    drain = "--shutdown-timeout, from vLLM 0.18.1 on" if engine.name == "vllm" else "its own time for running requests"
    return _cut_off(
        pod,
        f"{pod.name} was told to end, and its server cut {what} off that still ran.",
        (log_evidence(line, _CANCELS),),
        _finishing(pod, engine.container, drain),
        line,
    )


def _by_gunicorn(pod: Pod, logs: Logs) -> Finding | None:
    """A pod that is being deleted, whose gunicorn killed busy workers itself, its own time for them being over (`arbiter.py`)."""
    told = next(reversed(list(logs.find(_SIGNALLED))), None) if pod.obj.metadata.deletion_timestamp else None
    killed = [x for x in told.log.find(_BUSY_KILLED) if x.number > told.number] if told is not None else []
    # it may be gone before it says whom it killed
    ends = killed or ([x for x in told.log.find(_MASTER_ENDS) if x.number > told.number] if told is not None else [])
    seconds = seconds_between(told, ends[0]) if told is not None and ends else None
    if told is None or not seconds or seconds < _SHORTEST:
        return None
    if seconds >= _grace(pod):
        return None
    # a file of settings may have another time, and so may the kernel
    in_time = abs(seconds - _gunicorns_seconds(pod.container(told.log.container))) <= _GUNICORN_SKEW
    waited = [x for x in told.log.find(*_OPEN) if x.number > told.number]
    if not killed and not (in_time and waited and not any(x.number > told.number for x in told.log.find(_CLOSED))):
        return None
    what = (
        f"lost {count_of(len(killed), 'worker')} to SIGKILL {say_seconds(round(seconds))} later, as it kills those that still have requests"
        if killed
        else f"ended {say_seconds(round(seconds))} later, when its own time for that was over, while requests still ran"
    )
    return _cut_off(
        pod,
        f"{pod.name} was told to end, and gunicorn in {told.log.container} {what}: their answers are cut off."
        + (" It was not short of memory." if in_time and killed else ""),
        (log_evidence(told), *(log_evidence(x) for x in ([] if killed else waited[:1])), log_evidence(ends[0])),
        (_longer(pod, pod.container(told.log.container), pod.spec.termination_grace_period_seconds or 0),),
        told,
        ("worker-lost",),
    )


def _longer(pod: Pod, container: Container | None, grace: int) -> Fix:
    """More time for gunicorn's workers: what the pod has, where that is long enough, else more of that as well."""
    if grace >= _LONG_ANSWER + _AFTER and container is not None:
        text = f"Give gunicorn --graceful-timeout {grace - _AFTER}, of the {grace} s that the pod has to end"
        variable = container.env.get("GUNICORN_CMD_ARGS")
        if variable is None and "--graceful-timeout" not in " ".join(container.spec.argv):
            return fixes.set_env(container, "GUNICORN_CMD_ARGS", f"--graceful-timeout {grace - _AFTER}", text)
        return fixes.advice(f"{text}, in {fixes.edited(pod)}")
    return fixes.set_spec(
        pod,
        "/terminationGracePeriodSeconds",
        _LONG_ANSWER + _AFTER,
        f"Give gunicorn --graceful-timeout {_LONG_ANSWER} (GUNICORN_CMD_ARGS sets it, too), and the pod "
        f"{_LONG_ANSWER + _AFTER} s to end",
    )


def _cut_by_uvicorn(pod: Pod, logs: Logs) -> Finding | None:
    """A pod that is being deleted, whose uvicorn was killed while it waited for connections that were busy (`Server.shutdown`)."""
    due = parse_time(pod.obj.metadata.deletion_timestamp)
    for container in pod.containers if due is not None else ():
        ended = container.status.state.terminated if container.status and container.role != "init" else None
        if due is None or ended is None or ended.exit_code != _KILLED or ended.reason == "OOMKilled":
            continue
        log, at = logs.current(container.name), parse_time(ended.finished_at)
        told = next(log.find(*_OPEN), None) if log is not None else None
        if log is None or told is None or log.holds(_CLOSED):
            continue  # nobody was connected, or all were done
        # the kubelet kills when the time is over, and not before
        if at is not None and abs((at - due).total_seconds()) > _SKEW:
            continue
        seconds = _grace(pod)
        given = pod.obj.metadata.deletion_grace_period_seconds
        if given is not None and given != seconds:
            continue  # who deleted it gave it another time
        hook = _hook(container)
        slept = f", of which its preStop hook took {say_seconds(hook[0])}" if hook else ""
        longer = max(2 * seconds, _LONG_ANSWER + _AFTER)
        return _cut_off(
            pod,
            f"{pod.name} was told to end and killed {seconds} s later, after its grace period{slept}, while {container.name} still waited "
            "for requests that ran: their answers are cut off.",
            (
                log_evidence(told),
                pod_evidence(container, "state.terminated.exitCode", str(ended.exit_code)),
                _stated(pod),
            ),
            (_more_time(pod, longer),),
            told,
        )
    return None


def _gunicorns_seconds(container: Container | None) -> int:
    """For how long gunicorn lets workers end, by the arguments and variables of its container."""
    if container is None:
        return _DEFAULT_SECONDS
    variable = container.env.get("GUNICORN_CMD_ARGS")
    arguments = " ".join([*container.spec.argv, variable.value or "" if variable is not None else ""])
    told = re.search(r"--graceful-timeout[= ](\d{1,6})\b", arguments)
    return int(told[1]) if told is not None else _DEFAULT_SECONDS


def _still_asked(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A pod that is being deleted, and what sends it requests all the same: nobody takes them any more."""
    over, port = pod.cluster.seconds_since(pod.obj.metadata.deletion_timestamp), engine.value("port")
    grace = pod.obj.metadata.deletion_grace_period_seconds
    log = logs.current(engine.container.name)
    told = next(log.find(*_TOLD), None) if log is not None else None
    if over is None or told is None or not pod.status.pod_ip or grace is None:
        return None
    since = over + grace
    said = pod.cluster.once("connections not taken", lambda: list(_refused(pod.cluster)))
    if not said:
        return None
    there = re.compile(rf"(?<![\d.]){re.escape(pod.status.pod_ip)}(?:', |:){port}(?!\d)|{_by_service(pod, since)}")
    asked = [
        line
        for line in said
        if line.log.pod != pod.name and there.search(line.text)
        # a clock of another zone tells nothing
        if (ago := written_ago(line, pod.cluster.now)) is not None and -_SKEW <= ago <= since
    ]
    if not asked:
        return None
    return _cut_off(
        pod,
        f"{asked[0].log.pod} still sent requests to {pod.name} after it was told to end, {often(len(asked))} in its "
        "log; its server takes none any more.",
        (log_evidence(asked[-1]), log_evidence(told)),
        (
            _sleeping(
                pod, engine.container, _UNTIL_NOBODY_ASKS, "Wait 15 s in a preStop hook, until nobody sends it requests"
            ),
            fixes.advice(f"Have {asked[0].log.pod} leave out pods that have a deletionTimestamp"),
        ),
        told,
    )


def _unloaded(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """A Triton that is being deleted and has taken its models away, and requests for them that came all the same."""
    log = logs.current(engine.container.name)
    if engine.name != "triton" or log is None or not pod.obj.metadata.deletion_timestamp:
        return None
    signal = log.last(_BY_SIGNAL)
    told = next((line for line in log.find(_UNLOADS) if signal is not None and line.number > signal.number), None)
    asked = _asked_of(pod, log, told) if told is not None else []
    if told is None or not asked:
        return None
    who = "its own log says so" if asked[0].log.pod == pod.name else f"{asked[0].log.pod} says so"
    return _cut_off(
        pod,
        f"{pod.name} was told to end and took its models away, while requests for them still came: {who} {often(len(asked))}.",
        (log_evidence(told), log_evidence(asked[-1])),
        (
            _sleeping(
                pod, engine.container, _UNTIL_NOBODY_ASKS, "Wait 15 s in a preStop hook, until nobody sends it requests"
            ),
        ),
        told,
        ("model-not-found",),
    )


def _broken_off(pod: Pod, container: Container, events: Events | None, engine: str = "") -> Finding | None:
    """A server that runs, and a client whose answers broke off when other pods of its workload were deleted, and not else."""
    seconds = _grace(pod)
    status = container.status
    if not pod.ready or pod.obj.metadata.deletion_timestamp or status is None or status.restart_count:
        return None
    found = with_the_pod(pod, pod.cluster, events, seconds)
    if found is None:
        return None
    who, longer = found.lines[0].log, max(2 * seconds, 300)
    early = found.after < seconds * _EARLY
    drain = " (of vLLM with --shutdown-timeout, from 0.18.1 on)" if engine == "vllm" else ""
    return Finding(
        role="risk" if found.ago >= _A_DAY else "cause",  # the next rollout meets it, too
        severity="warning",
        summary=f"{who.pod} lost its connection {often(len(found.lines))} when pods of {fixes.edited(pod)} were deleted, within the "
        f"{seconds} s that they are given to end, and hardly at another time: what was still generated was cut off.",
        evidence=(
            *(log_evidence(line) for line in found.lines[:2]),
            event_evidence(found.event, pod.cluster),
            _stated(pod),
        ),
        fix=fixes.advice(
            f"Raise the time that {container.name} gives itself to end what runs in {fixes.edited(pod)} (a shutdown, drain or graceful "
            f"timeout of its HTTP server{drain}) towards the {seconds} s that its pods have: answers broke off "
            f"{say_seconds(max(round(found.after), 1))} after they were told to end"
        )
        if early
        else _sleeping(
            pod,
            container,
            longer - _AFTER,
            "Let what runs be answered in a preStop hook, before the server is told to end",
        ),
        order=found.lines[0].order,
    )


def _asked_of(pod: Pod, log: Log, told: Line) -> list[Line]:
    """Who asked for a model that was taken away, since: by the log of the server, or those of its clients."""
    had = {found[1] for _, found in log.matching(_HAD, "loaded '", most=2000)}
    own = [line for line in log.find(_UNKNOWN) if line.number > told.number and _taken(line, had)]
    meta, now = pod.obj.metadata, pod.cluster.now
    over, grace = pod.cluster.seconds_since(meta.deletion_timestamp), meta.deletion_grace_period_seconds
    if own or over is None or grace is None:
        return own
    since = over + grace
    said = pod.cluster.once("models that are unknown", lambda: list(_unknown(pod.cluster)))
    names = {item.name for item in pod.services}
    clients = {(c.pod.namespace, c.pod.name) for c, _, _ in askers(pod, names, pod.cluster)}
    return [
        line
        for line in said
        if (line.log.source.namespace, line.log.pod) in clients
        and _taken(line, had)
        and (ago := written_ago(line, now)) is not None
        and -_SKEW <= ago <= since + _SKEW
    ]


def _taken(line: Line, had: set[str]) -> bool:
    """Whether a model that is asked for in vain is one that the server had."""
    gone = re.search(_GONE, line.text[:2000])
    return gone is not None and gone["model"] in had


def _unknown(cluster: Cluster) -> Iterator[Line]:
    return (line for log in current_logs(cluster) if log.pod for line in log.find(_UNKNOWN))


def _by_service(pod: Pod, since: float) -> str:
    """How a client names the pod's Services, where another pod stood behind them all the time: without one all are refused."""
    names = [item.name for item in pod.services]
    found = pod.cluster.once(f"ready behind {pod.namespace} {names}", lambda: list(_ready_behind(pod)))
    ready = [time for name, time in found if name != pod.name]
    if not names or not any((pod.cluster.seconds_since(time) or 0) > since for time in ready):
        return "(?!)"
    space = rf"(?:\.{re.escape(pod.namespace)}(?![\w-])|(?![\w.-]))"
    return rf"https?://(?:{'|'.join(map(re.escape, names))}){space}"


def _ready_behind(pod: Pod) -> Iterator[tuple[str, datetime]]:
    """Pods that stand behind all Services of a pod and are ready, and since when."""
    for other in pod.cluster.all(k8s.Pod, "Pod", pod.namespace):
        for condition in other.status.conditions if _behind_all(other, pod) else ():
            since = parse_time(condition.last_transition_time) if condition.type == "Ready" else None
            if since is not None and condition.status == "True":
                yield other.metadata.name, since


def _behind_all(other: k8s.Pod, pod: Pod) -> bool:
    """Whether each Service of a pod leads to another pod, too."""
    labels = other.metadata.labels
    wanted = [dig(item.raw, "spec.selector") for item in pod.services]
    return all(isinstance(one, dict) and all(labels.get(k) == str(v) for k, v in one.items()) for one in wanted)


def _refused(cluster: Cluster) -> Iterator[Line]:
    """Lines of connections that nobody took, each once."""
    return (line for log in current_logs(cluster) for line in in_order(log.find(*_NOT_TAKEN)))


def _running(container: Container, logs: Logs, told: Line) -> tuple[int, Line] | None:
    """How many requests ran at the end, by the last statement after the server was told to end, or before, if it waited."""
    if last := [load for load in last_load(container, logs) if load.line.number > told.number]:
        return (last[-1].running, last[-1].line) if last[-1].running else None
    log = logs.current(container.name)
    lines = list(log.find("remaining number of requests")) if log else []
    said = re.search(_LEFT, lines[-1].text) if lines else None
    if said:
        return (int(said[1]), lines[-1]) if int(said[1]) else None
    # uvicorn waits for connections only where some are busy, and says when they are closed
    waits = any(words in told.text for words in _OPEN) and not told.log.holds(_CLOSED)
    before = _load_before(told, container, logs)
    return (before.running, before.line) if waits and before and before.running else None


def _load_before(told: Line, container: Container, logs: Logs) -> Load | None:
    """The last statement of an engine's load before a line."""
    return next((one for one in reversed(last_load(container, logs)) if one.line.number < told.number), None)


def _hook(container: Container) -> tuple[float, Evidence] | None:
    """How long the preStop hook surely takes: the sleeps of its command, or its sleep action."""
    hook: Any = container.spec.lifecycle.pre_stop if container.spec.lifecycle else None
    seconds = dig(hook, "sleep.seconds")
    if isinstance(seconds, int):
        return float(seconds), pod_evidence(container, "lifecycle.preStop.sleep.seconds", str(seconds))
    command = dig(hook, "exec.command")
    text = " ".join(map(str, command)) if isinstance(command, list) else ""
    if re.search(r"\b(?:for|while|until|if|case)\b", text):
        return None  # how often it sleeps cannot be told
    total = sum(float(found["seconds"]) * _UNITS[found["unit"]] for found in re.finditer(_SLEEP, text))
    return (total, pod_evidence(container, "lifecycle.preStop.exec.command", text)) if total else None


def _drain(engine: Engine) -> tuple[float, Evidence] | None:
    """How long the engine was told to wait for running requests; its own default is nobody's wish."""
    setting: Setting | None = engine.explicit(_DRAINS[engine.name]) if engine.name in _DRAINS else None
    if setting is not None and isinstance(setting.value, int | float) and setting.value > 0:
        return float(setting.value), setting_evidence(engine.container, setting)
    variable = engine.container.env.get(_TGI) if engine.name == "tgi" else None
    if variable is not None and variable.value and variable.value.isdecimal():
        return float(variable.value), pod_evidence(engine.container, f"env[{_TGI}]", variable.value)
    return None
