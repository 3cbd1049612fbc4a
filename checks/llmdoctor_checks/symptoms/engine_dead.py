"""The symptom of an engine whose process died while it served."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Abstain,
    Cluster,
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    check,
    ended_runner,
    fixes,
    gone,
    log_evidence,
    often,
    phase_at,
    said,
    seconds_between,
    written_ago,
)
from llmdoctor_checks._clients import told

from .engine_init_failed import FAILED, recovered

#: A server that is told to stop ends its engine, and then says the same of it.
_STOPPING = ("[shutdown]", "Shutting down", "SIGTERM", "KeyboardInterrupt")

#: Lines of a server whose engine has died; those of the engine itself first. The cause stands in the traceback below or above.
_DEATHS = (
    "EngineCore encountered a fatal error.",  # vLLM 0.8.5+, engine core
    "died unexpectedly, shutting down client",  # vLLM 0.10+, API server
    "MPClient: engine core exited unexpectedly",  # vLLM 0.32, API server
    "EngineCore encountered an issue. See stack trace (above) for the root cause.",  # vLLM 0.8.5+, API server
    *FAILED,
    "MQLLMEngine is already dead, terminating server process",  # vLLM, V0
    "AsyncLLMEngine has failed, terminating server process",  # vLLM, V0
    "Background loop has errored already.",  # vLLM, V0
    "Task finished unexpectedly. This should never happen!",  # vLLM up to 0.5
    "AsyncEngineDeadError: Background loop is stopped.",  # vLLM, V0
    "coro=<RouterManager.loop_for_fwd() done,",  # LightLLM
)

#: What Triton answers for a model of its Python backend (vLLM's, too) whose process has ended: only clients print it. So often, and for
#: so many seconds, the last time of late; a release that starts the process again answers the next request.
_STUB = (("is not healthy", r"Stub process(?: '(?P<name>[\w.-]{1,200})')? is not healthy"),)
_OFTEN, _SECONDS, _LATELY = 3, 60, 3600
#: What ggml, Go and C++ print first of what ends a process; so many lines above what is said of its end.
_ABORTED = r"^(?:\S{1,300}\.(?:cpp|cuh?|c|h):\d{1,6}: \S|panic: |fatal error: |terminate called |[A-Z]{3,6} error: )"
_OF_ITS_END = 1500
#: How a client logs that a model of Triton answered.
_INFERRED = r"/v2/models/\S{1,300}?/(?:infer|generate).{0,60}\b200\b"


@check("engine-dead", since="0.1", literals=(*_DEATHS, *(words for words, _ in _STUB)))
def engine_dead(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding | Abstain]:
    """The engine's process died while the server ran.

    The server in front of it answers all requests with an error from then on, and ends or is restarted. It is always a
    consequence: the process that died has printed why, in the first traceback, or was killed.

    A server that stays up although its engine is dead says so on its own port: `/health` of vLLM and TensorRT-LLM answers 503;
    where nobody asked it, its log ends with the death of its engine, and no request is answered after that. Triton says it only to
    its clients, of the process of a model.
    Without a liveness probe on that path the pod stays Ready, and nothing restarts it.

    ## Fix

    Read the first traceback of the engine or of a worker. If there is none, look at how the container and its processes
    ended: out of memory, a signal, an Xid in the kernel's log of the node.

    ## References

    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if pod.ready:
        for engine in subject.engines(pod):
            yield from _by_port(pod, engine, logs)
            yield from _by_clients(pod, engine, cluster, logs)
        for container in pod.containers if logs is not None else ():
            current = container.own_log(logs)
            log = current if container.engine_dead else None
            line = gone(log) if log else None
            if line is not None:
                yield Finding(
                    role="symptom",
                    confidence="certain",
                    summary=f"{pod.name} counts as ready, and the last that its log says of its engine is: "
                    f"{said(line.text).text.strip()[:160]}",
                    evidence=(log_evidence(line),),
                    fix=_restart(pod, container),
                    order=float(line.number),
                )
            yield from _by_a_runner(pod, current) if current is not None else ()
    elif pod.failing and logs is not None:
        for line in (death for death in _deaths(logs) if not recovered(pod, death)):
            yield Finding(
                role="symptom",
                # a pod that fails has a critical symptom of its own
                severity="critical" if pod.log_only else "warning",
                confidence="certain",
                summary=f"{line.log.container or 'The engine'} says: {said(line.text).text.strip()[:160]}",
                evidence=(log_evidence(line),),
                fixes=(_always(pod),) if pod.status.phase == "Succeeded" else (),
                order=float(line.number),
            )
            return
    elif pod.failing and (reason := subject.unread(pod)):
        yield Abstain(reason=reason)


def _deaths(logs: Logs) -> Iterator[Line]:
    """What the log says of an engine that died, the surest words first."""
    for line in logs.find(*_DEATHS):
        source = said(line.text).text.lstrip().startswith(("raise ", '"', 'f"', "logger."))  # of a traceback
        starting = any(text in line.text for text in FAILED) and phase_at(line) not in ("", "serving")
        if not source and not starting and not _stopping(line):
            yield line


def _by_port(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """A server that counts as ready, and whose own port says that its engine is dead."""
    health, smoke = engine.answers.at("/health"), engine.answers.smoke
    dead = [health] if health and engine.container.engine_dead else []
    dead += [smoke] if smoke and (smoke.status or 0) >= 500 and "EngineDead" in smoke.error else []
    if not dead:
        return
    name = engine.container.name
    said_so = (line for line in (_deaths(logs) if logs else ()) if line.log.container == name and not line.log.previous)
    line = next(said_so, None)
    yield Finding(
        role="symptom",
        confidence="certain",
        summary=f"{pod.name} counts as ready, and {engine.at} answers {dead[0].method} {dead[0].path} "
        f"with {dead[0].status}: its engine is dead, and every request fails.",
        evidence=(*map(engine.answers.evidence, dead), *((log_evidence(line),) if line else ())),
        fix=_restart(pod, engine.container, health=True),
    )


def _by_a_runner(pod: Pod, log: Log) -> Iterator[Finding]:
    """Ollama, of which a process that answered requests with a model ended, and none has answered since."""
    line = ended_runner(log)
    if line is None or (written_ago(line, pod.cluster.now) or 0) > _LATELY:
        return
    above = line.above(_OF_ITS_END)
    why = next((x for x in above if re.search(_ABORTED, x.text[:400])), line)
    yield Finding(
        role="symptom",
        confidence="certain",
        summary=f"{pod.name} counts as ready, and the process that ran its model has ended: {said(why.text).text.strip()[:160]}",
        evidence=(*((log_evidence(why),) if why is not line else ()), log_evidence(line)),
        fix=fixes.advice(
            "Read what that process printed right above its end, and send one request by hand: Ollama starts the next process for it",
            f"kubectl -n {pod.namespace} logs {pod.name} -c {log.container} --tail=300",
        ),
        order=line.order,
    )


def _by_clients(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """Triton, whose clients are told again and again that the process of a model is gone."""
    every = told(pod, engine, cluster, logs, _STUB, "500") if engine.name == "triton" else []
    by_client: dict[tuple[str, str], list[tuple[Line, re.Match[str]]]] = {}
    for line, words in every:
        by_client.setdefault((line.log.pod, line.log.container), []).append((line, words))
    answers = next((one for one in by_client.values() if _still_told(one, cluster)), [])
    if not answers:
        return
    line, words = answers[-1]
    yield Finding(
        role="symptom",
        summary=f"{pod.name} counts as ready, and {line.log.pod} is told {often(len(answers))} that the process of "
        f"{words['name'] or 'a model'} is gone: its requests fail.",
        evidence=(log_evidence(line, words[0]),),
        fix=fixes.advice(
            f"Save the log of {pod.name} and recreate it; read in the log how that process ended (too little /dev/shm or memory, a "
            f"crash of the model); Triton's /v2/health stays 200, so let the liveness probe ask the model itself{fixes.lone(pod)}",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        ),
        order=line.order,
    )


def _still_told(answers: list[tuple[Line, re.Match[str]]], cluster: Cluster) -> bool:
    """Whether a client is told something again and again, and up to now."""
    first, last = answers[0][0], answers[-1][0]
    if len(answers) < _OFTEN or (seconds_between(first, last) or 0) < _SECONDS:
        return False
    if (written_ago(last, cluster.now) or 0) > _LATELY:
        return False
    return not any(re.search(_INFERRED, x.text[:2000]) for x in last.log.lines(last.number + 1))


def _restart(pod: Pod, container: Container, *, health: bool = False) -> Fix:
    """What ends the state, and what would end it the next time."""
    asks = "on /health" if health else "that asks the engine itself"
    probe = "" if container.spec.liveness_probe else f"; a liveness probe {asks}, behind a startup probe, would do that"
    command = f"kubectl -n {pod.namespace} delete pod {pod.name}"
    return fixes.advice(f"Save the log of {pod.name}, then recreate it{probe}{fixes.lone(pod)}", command)


def _always(pod: Pod) -> Fix:
    """What starts a server again that ended with status 0 as its engine had died."""
    return fixes.advice(
        f"Run it with restartPolicy: Always (in a Deployment), as the server ended with status 0 and {pod.spec.restart_policy} "
        f"does not start it again; save the log of {pod.name} first, and read what ended the engine",
        f"kubectl -n {pod.namespace} logs {pod.name} --tail=-1",
    )


def _stopping(line: Line) -> bool:
    """Whether the server was told to stop shortly before a line."""
    for other in line.log.lines(max(1, line.number - 60), line.number):
        if "engine core exited unexpectedly" in other.text:  # what it then shuts down is what is left
            return False
        if any(text in other.text for text in _STOPPING):
            return True
    return False
