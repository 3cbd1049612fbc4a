"""A probe that gives up before the model is loaded."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    GIB,
    Container,
    Ending,
    Engine,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Log,
    Logs,
    Phase,
    Pod,
    Sizing,
    Subject,
    answered,
    check,
    endings,
    event_evidence,
    fixes,
    k8s,
    log_evidence,
    log_of,
    phase_of,
    pod_evidence,
    probe_kills,
    say_bytes,
    say_seconds,
    seconds_ago,
    served,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.models import find
from llmdoctor_checks._blocked import BLOCKED, stands_still, waited
from llmdoctor_checks.start._probes import asking_the_same, came_up, failures
from llmdoctor_checks.start._storage import cache_path, hub_model, store

#: Engines that open their port only when the model is loaded, so that every earlier probe fails.
_LATE = frozenset({"vllm", "sglang", "tgi", "tensorrt-llm", "triton", "nim", "lmdeploy", "huggingfaceserver"})

#: What such an engine usually takes beside the model's files: imports, CUDA's start, memory profiling and graph capture. A small
#: model on a warm node is there in half of it.
_USUAL_START_SECONDS, _QUICKEST_START_SECONDS = 90, 40

#: What servers print on SIGTERM before they serve; whoever deletes the pod sends it as well, but then nothing starts again.
_TERMINATED = ("KeyboardInterrupt: terminated", "SIGTERM received. signum=", "Signal (15) received.")

#: What the kubelet says where nobody listens, and what a server prints when it does.
_REFUSED, _LISTENS = "connection refused", "running on http"

#: How servers end that are told to, or are killed. Others have numbers of their own for it, below those of signals.
_STOPPED, _SIGNALS = (0, 1, 130, 137, 143), 128

#: What vLLM and SGLang print when one of their processes has failed while it started. What is left of the server may wait for it.
_FAILED = (
    "WorkerProc failed to start.",
    "WorkerProc hit an exception.",
    "EngineCore failed to start.",
    "Scheduler hit an exception: Traceback",
)

#: Longer than a server that is told to stop takes to print so of processes that stop with it, beside the grace period.
_STOPS_SECONDS = 60

#: What a model's files come in at when all is well, in bytes a second: from the Hub, and from a volume; and from the Hub on many days.
_DOWNLOAD, _READING = 500_000_000, GIB
_SLOW_DOWNLOAD = 200_000_000

#: A probe's command that asks a port of the container itself, and what makes it succeed without an answer.
_ASKS = r"\b(?:curl|wget|nc)\b.{0,200}?(?:\[::1\]|127\.0\.0\.1|localhost|0\.0\.0\.0)[: ](?P<port>\d{2,5})\b"
_ANYHOW = r"\|\|(?!\s*exit\s+[1-9])|;|\bif\b"

#: By which vLLM writes down each call of a function (vllm/logger.py), and a start takes many times as long.
_TRACED = "VLLM_TRACE_FUNCTION"


@check("probe-too-short", since="0.1", literals=(_LISTENS, BLOCKED, *_FAILED))
def probe_too_short(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A probe gives up before the model is loaded.

    vLLM, SGLang and Text Generation Inference refuse connections until the weights are loaded, graphs are captured
    and the engine is ready: minutes for a large model, longer from a cold disk or with a download. A startup probe,
    or a liveness probe without a startup probe before it, restarts the container when its budget (initial delay +
    period × failures) is over; the next start begins again from nothing, forever. vLLM then prints
    `KeyboardInterrupt: terminated`.

    Where a process of the engine had failed before, and what was left of the server waited for it until the probe ended it,
    the failure is the cause, and no longer budget helps. A start that has printed nothing for many minutes but that its workers take
    no work may stand still forever: then it is a guess.

    In a manifest it is a risk where the budget is no longer than a usual start: 90 s, and the time in which the model's files, whose
    size is known from its shape, are downloaded into the container's own file system at 500 MB/s, or are read from a volume at 1 GiB/s.
    It is a possible one where 40 s in place of the 90 s, which a small model takes on a warm node, would do, and where a download at
    200 MB/s would not come in, which begins again in each start. Of Triton it is one where it serves language models and loads them
    before it listens. What lies in a volume outlives the restart, so a download to it goes on where it stopped.

    ## Fix

    Add a startup probe whose budget is two to three times the load time; liveness begins only after it:

        startupProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10, failureThreshold: 180}

    A cache on a volume shortens later starts.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    """
    for ending in endings(pod):
        if (found := _killed_in_its_start(pod, ending, subject, events, logs)) is not None:
            yield found
            return
    if not pod.failing:
        for engine in subject.engines(pod):
            yield from _risk(pod, engine, subject.sizing(engine))


class _ByProbe(msgspec.Struct, frozen=True):
    """An instance that a probe ended: which one, the kubelet's words, how far its log had come, and whether it is but a guess."""

    kind: str
    probe: k8s.Probe | None
    kills: list[tuple[str, Event]]
    phase: Phase | None
    guess: bool


def _ended_by_a_probe(
    ending: Ending, kills: list[tuple[str, Event]], log: Log | None, subject: Subject, events: Events | None
) -> _ByProbe | None:
    """The probe that ended an instance before it was ready, by the kubelet's events, else by its log or by how long it ran."""
    container, phase = ending.container, phase_of(log)
    if served(log):
        if not (kills and log and _too_late(log, container, kills[-1][0], events)):
            return None
        phase = None  # by then it was lost
    told = None if kills or phase is None else _told(log, container, events)
    kind = kills[-1][0] if kills else told or _by_time(ending)
    probe = container.spec.probes.get(kind or "")
    if kind is None or (probe is None and not kills):
        return None
    if kind == "liveness" and _had_answered(ending, kills, phase, subject, events):
        return None
    guess = kind == "liveness" and not kills and phase is None
    if guess and not (log is None and probe and _killed_in_time(ending, probe)):
        return None
    return _ByProbe(kind, probe, kills, phase, guess)


def _killed_in_its_start(
    pod: Pod, ending: Ending, subject: Subject, events: Events | None, logs: Logs | None
) -> Finding | None:
    """An instance that a probe ended before it was ready."""
    container = ending.container
    kills = list(probe_kills(pod, events, container)) if events else []
    if container.role == "init" or ending.oom_killed or (ending.code not in _STOPPED and not _killed(ending, kills)):
        return None
    log = log_of(ending, logs)
    found = None if _had_failed(log, ending) else _ended_by_a_probe(ending, kills, log, subject, events)
    if found is None:
        return None
    still = stands_still(log) if log else []
    traced = _traced(container)
    return Finding(
        confidence="possible" if found.guess or still else "certain" if kills and found.phase else "likely",
        summary=_summary(ending, found.kind, found.probe, found.phase, still=waited(still)),
        evidence=(
            *_evidence(ending, found.kind, found.probe, kills, found.phase),
            *(log_evidence(line) for line in still[:1]),
            *([pod_evidence(container, f"env[{_TRACED}]", "1")] if traced else []),
        ),
        explains=("crash-loop", "not-ready", "slow-load"),
        fixes=(
            *([fixes.remove_env(container, _TRACED, f"Leave {_TRACED} out")] if traced else []),
            *_fixes(container, found.kind, found.probe, int(ending.seconds or 0)),
        ),
    )


def _had_answered(
    ending: Ending, kills: list[tuple[str, Event]], phase: Phase | None, subject: Subject, events: Events | None
) -> bool:
    """Whether a liveness probe ended an instance that had answered it before: it was not the start that took too long."""
    container = ending.container
    return (
        came_up(container)
        or (_answered_once(ending, kills) and not (phase and _late(container, subject)))
        or _answers(container, events, subject)
    )


def _killed(ending: Ending, kills: list[tuple[str, Event]]) -> bool:
    """Whether it was this instance that the kubelet ended, with a number of its own."""
    began, over = ending.started, ending.finished
    last = kills[-1][1].last if kills else None
    return bool(last and began and over and began < last <= over and (ending.code or 0) < _SIGNALS)


def _had_failed(log: Log | None, ending: Ending) -> bool:
    """Whether a process of the engine had failed long before the end, and the probe only ended what waited for it.

    By the engine's own clock this is known only where that shows the zone of the cluster's: the line is of this instance.
    """
    grace = ending.container.pod.spec.termination_grace_period_seconds or 30
    lasted = (ending.finished - ending.started).total_seconds() if ending.finished and ending.started else 0.0
    lines = log.find(*_FAILED) if log else ()
    return any(grace + _STOPS_SECONDS < (seconds_ago(line, ending.finished) or 0) <= lasted for line in lines)


def _answered_once(ending: Ending, kills: list[tuple[str, Event]]) -> bool:
    """Whether an instance ran far longer than probes give one that never answers: then it had, and stopped.

    The kubelet says when it gave up; how long the instance took to end after that is no matter then.
    """
    container, longest, attempts, graces = ending.container, 0, 0, 0
    for probe in (container.spec.startup_probe, container.spec.liveness_probe):
        if probe:
            grace = probe.termination_grace_period_seconds or container.pod.spec.termination_grace_period_seconds or 30
            attempt = max(probe.period_seconds, probe.timeout_seconds)
            longest += probe.initial_delay_seconds + attempt * probe.failure_threshold
            attempts, graces = attempts + attempt, graces + grace
    if not longest:
        return False
    began, over = ending.started, ending.finished
    gave_up = next((event.last for _, event in reversed(kills) if event.last), None)
    if began and over and gave_up and began < gave_up <= over:
        return (gave_up - began).total_seconds() > 1.5 * (longest + attempts)
    return (ending.seconds or 0) > 2 * (longest + graces) + _USUAL_START_SECONDS


def _answers(container: Container, events: Events | None, subject: Subject) -> bool:
    """Whether the kubelet got an answer, if a bad one, from an engine that opens its port only when it is ready."""
    answered = [event for kind, event in failures(container, events) if kind == "liveness"][-1:]
    return _late(container, subject) and any("statuscode" in event.message for event in answered)


def _late(container: Container, subject: Subject) -> bool:
    """Whether the engine of a container answers nothing before it is ready, whatever its instance was given."""
    return any(e.container is container and e.name in _LATE for e in subject.engines(container.pod))


def _too_late(log: Log, container: Container, kind: str, events: Events | None) -> bool:
    """Whether a server began to listen when the probe had given up: nobody had listened, and it was asked nothing since.

    A first process without a handler for SIGTERM goes on with its start until the grace period is over.
    """
    probe = container.spec.probes.get(kind or "")
    action = (probe.http_get or probe.tcp_socket) if probe else None
    refused = [event for of, event in failures(container, events) if of == kind][-1:]
    if action is None or not any(_REFUSED in event.message for event in refused) or answered(log):
        return False
    port = container.port_number(action.port)
    return any(re.search(rf"://(?:0\.0\.0\.0|\[::\]):{port}\b", line.text) for line in log.find(_LISTENS))


def _by_time(ending: Ending) -> str | None:
    """The probe whose budget the instance's life equals: when events have expired, this is what is left."""
    if ending.seconds is None or ending.code not in (130, 137, 143):
        return None
    container = ending.container
    grace = container.pod.spec.termination_grace_period_seconds or 30
    for kind, probe in (("startup", container.spec.startup_probe), ("liveness", container.spec.liveness_probe)):
        if probe and (kind == "startup" or container.spec.startup_probe is None):
            budget = probe.budget
            if budget * 0.9 - 5 <= ending.seconds <= budget * 1.1 + grace + 15:
                return kind
    return None


def _killed_in_time(ending: Ending, probe: k8s.Probe) -> bool:
    """Whether an instance ran exactly as long as a probe and the grace period give it, and others before it did not last."""
    grace = probe.termination_grace_period_seconds or ending.container.pod.spec.termination_grace_period_seconds or 30
    given = probe.budget + (grace if ending.code == 137 else 0)
    ran = ending.seconds or 0
    return ending.container.restarts >= 3 and given - probe.period_seconds <= ran <= given + probe.period_seconds + 5


def _told(log: Log | None, container: Container, events: Events | None) -> str | None:
    """The probe that failed last, where a server was told to stop while it started: inside a pod only a failed probe does that."""
    stopped = log is not None and any(next(log.find(text), None) for text in _TERMINATED)
    kinds = [kind for kind, _ in failures(container, events) if kind in ("startup", "liveness")] if stopped else []
    return kinds[-1] if kinds else None


def _traced(container: Container) -> bool:
    variable = container.env.get(_TRACED)
    return variable is not None and variable.value == "1"


def _arithmetic(probe: k8s.Probe) -> str:
    delay = f"{probe.initial_delay_seconds} + " if probe.initial_delay_seconds else ""
    return f"{delay}{probe.failure_threshold} x {probe.period_seconds} s"


def _numbers(probe: k8s.Probe) -> str:
    return (
        f"initialDelaySeconds: {probe.initial_delay_seconds}, periodSeconds: {probe.period_seconds}, "
        f"failureThreshold: {probe.failure_threshold}"
    )


def _summary(ending: Ending, kind: str, probe: k8s.Probe | None, phase: Phase | None, *, still: int) -> str:
    text = f"The {kind} probe restarted container {ending.container.name}"
    if ending.seconds is not None:
        text += f" after {say_seconds(ending.seconds)}"
    text += f" while it was {phase.doing}" if phase else " before it was ready"
    if probe:
        most = "at most " if ending.seconds is not None and ending.seconds < probe.budget else ""
        text += f"; its budget is {most}{say_seconds(probe.budget)} ({_arithmetic(probe)})"
    if _traced(ending.container):
        text += f". {_TRACED} makes vLLM write down each call of a function, by which a start takes many times as long"
    if still:
        text += f". For its last {say_seconds(still)} it printed only that its workers take no work: it may not have been loading any more"
    return text + "."


def _evidence(
    ending: Ending, kind: str, probe: k8s.Probe | None, kills: list[tuple[str, Event]], phase: Phase | None
) -> Iterator[Evidence]:
    pod = ending.container.pod
    yield from (event_evidence(event, pod.cluster) for _, event in kills[-1:])
    if probe:
        yield pod_evidence(ending.container, f"{kind}Probe", _numbers(probe))
    yield pod_evidence(pod, ending.path, ending.text)
    if phase:
        yield log_evidence(phase.line)


def _fixes(container: Container, kind: str, probe: k8s.Probe | None, ran: int) -> tuple[Fix, ...]:
    """A longer startup probe, or one at all; `ran` is how many seconds a start took, or takes at least."""
    budget = max(1800, ran * 3, probe.budget * 3 if probe else 0)
    if kind == "startup" and probe:
        failures = -(-budget // probe.period_seconds)
        at = f"/containers/{container.index}/startupProbe/failureThreshold"
        summary = f"Give the start {say_seconds(failures * probe.period_seconds)}: failureThreshold {failures} in the startup probe"
        return (fixes.set_spec(container.pod, at, failures, summary),)
    action = asking_the_same(probe) if probe else {}
    if not action:
        return ()
    startup = {**action, "periodSeconds": 10, "failureThreshold": -(-budget // 10)}
    summary = f"Add a startup probe that waits {say_seconds(budget)}; liveness begins only after it"
    return (fixes.set_probe(container, "startupProbe", startup, summary),)


def _risk(pod: Pod, engine: Engine, sizing: Sizing) -> Iterator[Finding]:
    """A probe that no start can survive."""
    container = engine.container
    kind = "startup" if container.spec.startup_probe else "liveness"
    probe = container.spec.probes.get(kind or "")
    if engine.name not in _LATE or probe is None or container.restarts or (pod.exists and pod.ready):
        return
    asks = probe.http_get or probe.tcp_socket or _by_command(probe, engine)
    if not asks or (engine.name == "triton" and not (_of_language(engine) and _loads_at_its_start(engine))):
        return
    if pod.partial or (pod.completed and kind == "liveness"):
        return  # the operator's own startup probe, or the rest of this one, may come from elsewhere
    # what is downloaded into the container itself is lost with it, so that a slow download never comes to its end
    for download in (_DOWNLOAD, _SLOW_DOWNLOAD):
        files, how, evidence = _files(engine, sizing, download)
        usual = _USUAL_START_SECONDS + files
        if probe.budget <= usual:
            break
    else:
        return
    long = f", in about {say_seconds(usual)}: {how} takes {say_seconds(files)}" if files else ""
    tail = ", and there is no startup probe" if kind == "liveness" else ""
    yield Finding(
        role="risk",
        confidence="possible"
        if probe.budget >= _QUICKEST_START_SECONDS + files or download == _SLOW_DOWNLOAD
        else "likely",
        summary=f"The {kind} probe of {container.name} restarts it after {say_seconds(probe.budget)} ({_arithmetic(probe)}); "
        f"{engine.title} answers only when the model is loaded{long or tail}.",
        evidence=(pod_evidence(container, f"{kind}Probe", _numbers(probe)), *(evidence if long else ())),
        fixes=_fixes(container, kind, probe, usual),
    )


def _by_command(probe: k8s.Probe, engine: Engine) -> bool:
    """Whether its command asks the engine's own port over the network, and fails where nobody listens."""
    command = probe.script
    asked = re.search(_ASKS, command)
    return asked is not None and int(asked["port"]) == engine.value("port") and not re.search(_ANYHOW, command)


def _of_language(engine: Engine) -> bool:
    """Whether a Triton serves a language model: others of its models are loaded in seconds."""
    image, backend = engine.container.spec.image, engine.value("backend")
    if "llm" in image or backend in ("tensorrtllm", "vllm") or engine.explicit("tensor_parallel_size") is not None:
        return True
    # a model of the Python backend that loads one of the Hub, of which a variable tells it; those that embed are small
    named = (v.value for v in engine.container.env.values() if v.value and "/" in v.value)
    found = (one for name in named if (one := find(name)))
    return any(one.exact and "For" in one.architecture.name for one in found)


def _loads_at_its_start(engine: Engine) -> bool:
    """Whether a Triton loads models before it listens: none that it is to load when somebody asks for it."""
    return engine.value("model_control_mode") != "explicit" or engine.explicit("load_model") is not None


def _files(engine: Engine, sizing: Sizing, download: int) -> tuple[int, str, tuple[Evidence, ...]]:
    """Seconds that the model's files take in every start at that speed of a download, what happens to them, and what says so."""
    model, size = engine.explicit("model"), sizing.file_bytes
    if model is None or size is None or engine.value("load_format", "auto") not in ("auto", "safetensors"):
        return 0, "", ()
    evidence = (setting_evidence(engine.container, model),)
    path = cache_path(engine) if hub_model(engine) else ""
    place = store(engine.container, path) if path and not engine.pod.completed else None
    if place is not None and place.kind == "layer":
        nothing = pod_evidence(engine.container, "volumeMounts", f"nothing at {path}")
        how = f"downloading {say_bytes(size)} of {model.value} at {download // 10**6} MB/s, again in each start,"
        return size // download, how, (*evidence, nothing)
    return size // _READING, f"reading {say_bytes(size)} of {model.value} at 1 GiB/s alone", evidence
