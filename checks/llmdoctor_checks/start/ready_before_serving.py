"""A pod that counts as ready before its model answers."""

import itertools
import re
from collections.abc import Iterable, Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Phase,
    Pod,
    Subject,
    Workload,
    answered,
    check,
    clients,
    count_of,
    current_logs,
    endings,
    engines_in,
    fixes,
    follow,
    k8s,
    log_evidence,
    logs_of,
    phase_of,
    pod_evidence,
    seconds_ago,
    selector_of,
    signs_of_life,
    sought,
    told_by,
    written_before,
)
from llmdoctor_checks import _unreached
from llmdoctor_checks._nobody_left import LITERALS as NOBODY_LEFT
from llmdoctor_checks._nobody_left import nobody_left
from llmdoctor_checks._services import service_of
from llmdoctor_checks.start._forwarded import FAILED, forwarded_elsewhere

#: Engines that open it only then.
_LATE = frozenset({"vllm", "sglang", "tgi", "tei", "tensorrt-llm", "lmdeploy", "huggingfaceserver"})

#: Paths that answer while the model loads, and the path that waits for it. Sources: Triton and NIM's HTTP endpoints.
_ALIVE = {"triton": ("/v2/health/live", "/v2/health/ready"), "nim": ("/v1/health/live", "/v1/health/ready")}

#: Paths that answer with an error until the model is loaded, and the statuses. Sources: llama-server's README, Triton's and
#: NIM's HTTP endpoints.
_NOT_YET = {
    "llama.cpp": ("/health", (503,)),
    "triton": ("/v2/health/ready", (400, 503)),
    "nim": ("/v1/health/ready", (503,)),
}

#: What a client or a gateway prints of a port that nobody listens on yet.
_TURNED_AWAY = (
    "onnection refused",
    "onnection_refused",
    "Cannot connect to host",  # aiohttp, of a refusal as well
    "ECONNREFUSED",
    "no healthy upstream",
    "503 Service Unavailable",
    "ServiceUnavailable",
    # Envoy's access log: the flags of a connection that did not come about, in either form, and its own word for why
    '":"UF',
    " 503 UF",
    "delayed_connect_error",
)

#: What it prints when it got no answer in time, and what it had asked for.
_GAVE_UP = ("imed out", "imeout exceeded", "timeout of ", "deadline exceeded", "ReadTimeout")
_ASKS = r"/(?:chat/)?completions\b|/v1/(?:messages|responses|embeddings)\b|/api/(?:chat|generate)\b|/generate\b"

#: The same of clients in Python, which name nobody: OpenAI's (LiteLLM, too) and httpx.
_NAMELESS = ("Connection error.", "All connection attempts failed")

#: llama-server's `main` and `server_context`, before and after the model is loaded; `log_server_r` ends with the status.
_LLAMA_LOADS, _LLAMA_LOADED = "loading model", "model loaded"

#: Commands that succeed whatever the server does.
_ALWAYS = r"(?:(?:/usr)?(?:/bin/)?(?:ba)?sh -c )?(?:(?:/usr)?(?:/bin/)?true|:|exit 0|(?:/bin/)?echo [\w .-]+)"

#: Labels by which a Service leads to one of the replicas, the first of a StatefulSet: there is nobody else to answer.
_OF_ONE = r"/(?:pod-name|pod-index)$"

#: An address of a server, with its port where it has one.
_TOLD = r"\bhttps?://([\w.-]{1,253})(?::(\d{1,5}))?"

#: The options by which routers (SGLang's, vLLM's, the production stack's) are told the labels of their servers, and the namespace.

#: A line of the log that is older says nothing of now.
_FRESH_SECONDS = 300


#: Who asks itself, to warm up, in such a log; and paths of those who run the server, which are no questions to a model.
_ITSELF = r"(?:^|[\s\[(])(?:127\.0\.0\.1|::1|localhost)(?:\]|\))?(?::\d{1,5})? - "
_RUN_BY = r"(?i)/(?:admin|(?:un|re)?load|warm[-_]?up|pull)\b"
#: A request and its answer in an access log of uvicorn's or nginx's form.
_ANSWER = r'"POST (?P<path>/[^\s?"]{1,200})\S{0,500} HTTP/[\d.]{1,3}" (?P<status>\d{3})\b'
#: MLServer's word of it (`mlserver/registry.py`, with one s at first), and its answers before (`mlserver/errors.py`).
_MLSERVER_LOADED = "Loaded model '"
_OF_MLSERVER = r"\[mlserver\S{0,80}\] INFO - Loaded model '(?P<name>[^'\s]{1,200})' succ"
_AT_STARTUP = "MLSERVER_LOAD_MODELS_AT_STARTUP"
#: How servers say that they have their model.
_IS_LOADED = (
    r"(?i)\b(?:model|weights?|pipeline|checkpoint)\b.{0,80}\b(?:loaded|warm(?:ed)?[- ]?up|ready|initiali[sz]ed)\b"
    r"|\b(?:loaded|warm(?:ed)?[- ]?up)\b.{0,80}\b(?:model|weights?|pipeline|checkpoint|completed?|finished|done)\b"
)
_IS_NOT = r"(?i)\bnot\b|\bfail|\berror\b|\bunload"
#: So many answers of both kinds are no chance; what failed longer ago than this is over.
_SEVERAL, _RECENT_SECONDS = 2, 3600
#: So many answers for each that failed, and it is over.
_MANY = 10


@check(
    "ready-before-serving",
    since="0.2",
    severity="warning",
    literals=(
        _MLSERVER_LOADED,
        *_TURNED_AWAY,
        *_GAVE_UP,
        *_NAMELESS,
        _LLAMA_LOADS,
        _LLAMA_LOADED,
        FAILED,
        *NOBODY_LEFT,
    ),
)
def ready_before_serving(
    pod: Pod, subject: Subject, workload: Workload | None, cluster: Cluster, logs: Logs | None
) -> Iterator[Finding]:
    """The pod turns Ready before the model answers.

    A pod without a readiness probe is Ready as soon as its containers run. Loading a model takes minutes, in which the
    Service sends it requests that are refused, and a rolling update takes the old pod away while the new one still loads.

    A readiness probe can be deceived as well: llama-server opens its port first and answers 503 until the model is loaded,
    so that a tcpSocket probe succeeds at once; Triton's and NIM's `live` paths answer while models load. vLLM, SGLang and
    Text Generation Inference open their port last: for them a tcpSocket probe is right.

    So is one that asks a program in front of an engine: it lists its models at once, and refuses or holds requests until the engine
    that it started has loaded one. A router is ready at once as well, and some of prefill and decode servers when one of the two is:
    it refuses requests, for nobody is there to compute them, while its servers load. A program that starts servers when it is asked to
    (a launcher) answers its probe all the time, and who asks at another port that its container declares is refused.

    A missing probe is only noted, since most deployments have none, and only where other replicas could answer meanwhile; a
    deceived one is a risk. So it is where Knative's queue-proxy asks the server and forwards to an agent before it, which was not
    up when requests came. Where the pod is Ready and its own port says that the model is not loaded, requests fail now; so they
    do where it loads by its own log, and that of a gateway, router or proxy says that it was turned away, or its probe cannot
    fail. Without a probe that is a risk while it lasts. Of a server that is not known its own log tells: requests that all failed until
    it says that the model is loaded, and none of them since. MLServer opens its ports first, and refuses who asks a model before it has it.

    ## Fix

    Ask what is true only when the model answers:

        readinessProbe: {httpGet: {path: /health, port: 8000}, periodSeconds: 10}

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    - https://github.com/ggml-org/llama.cpp/tree/master/tools/server#get-health-returns-heath-check-result
    """
    yield from forwarded_elsewhere(pod, logs)
    # a program that starts one by itself may have a port and a health of its own
    engines = [engine for engine in subject.engines(pod) if not engine.announced]
    for engine in engines:
        yield from _of(pod, engine, workload, cluster, logs)
    if engines or not pod.ready or not logs:
        return
    # whoever found nobody says more than who gave up waiting
    launched = list(_launched(pod, logs, waits=False)) or list(_launched(pod, logs, waits=True))
    yield from (
        launched
        or list(_elsewhere_probed(pod, logs))
        or list(_before_its_servers(pod, cluster, logs))
        or list(_failed_at_first(pod, logs))
        or _before_mlserver_loaded(pod, logs)
    )


def _failed_at_first(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """A server that answered each request with an error until it said that its model is loaded, and none of them after that."""
    for container in pod.containers:
        log = logs.current(container.name)
        asked = _questions(log, alone=len(pod.containers) == 1) if log else []
        first = next(((x, said) for x, said in asked if said["status"][0] == "5"), None)
        if log is None or first is None:
            continue
        same = [(x, said["status"]) for x, said in asked if said["path"] == first[1]["path"]]
        failed = [x for x, status in itertools.takewhile(lambda one: one[1][0] == "5", same)]
        well = same[len(failed) :]
        if min(len(failed), len(well)) < _SEVERAL or any(status[0] != "2" for _, status in well):
            continue
        loaded = _loaded(log.lines(failed[-1].number + 1, well[0][0].number - 1))
        # one that is loaded once more was let go, or failed, after it had answered
        if loaded is None or _loaded(log.lines(1, failed[0].number - 1)) is not None:
            continue
        age = pod.cluster.seconds_since(container.started)
        yield Finding(
            role="cause" if age is not None and age <= _RECENT_SECONDS else "risk",
            summary=f"{container.name} answered {count_of(len(failed), 'request')} to {first[1]['path']} with an error before its model "
            f"was loaded, and all of the {len(well)} since: it counts as ready too early.",
            evidence=(log_evidence(failed[-1]), log_evidence(loaded), _readiness(container)),
            fix=fixes.advice(
                f"Have the readiness probe in {fixes.edited(pod)} ask what succeeds only when the model is loaded (a path of the "
                "server that says so, or a small request by a command)"
            ),
            order=failed[0].order,
        )
        return


def _before_mlserver_loaded(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """MLServer opens its ports before it loads its models, and answers 404, then 400, to who asks one before that."""
    for container in pod.containers:
        log = logs.current(container.name)
        at_startup = container.env.get(_AT_STARTUP)
        # else models are loaded by requests, and refused before that rightly
        if log is None or (at_startup is not None and str(at_startup.value).lower() in ("false", "0")):
            continue
        first: dict[str, Line] = {}
        for line in log.find(_MLSERVER_LOADED):
            if found := re.search(_OF_MLSERVER, line.text[:1000]):
                first.setdefault(found["name"], line)
        for name, loaded in first.items():
            path = f"/v2/models/{name}/ready"
            if any(log.find(f'"POST /v2/repository/models/{name}/load')) or path in _asks_of(container):
                continue
            asked = _questions(log, alone=len(pod.containers) == 1)
            mine = [(x, said["status"]) for x, said in asked if said["path"] == f"/v2/models/{name}/infer"]
            # that path says no from the moment on that a model is there to wait for, which is then refused with 400
            refusal = ("404",) if "/v2/health/ready" in _asks_of(container) else ("404", "400")
            refused = [x for x, status in mine if x.number < loaded.number and status in refusal]
            well = sum(x.number > loaded.number and status[0] == "2" for x, status in mine)
            if not refused or any(x.number < loaded.number and status[0] == "2" for x, status in mine):
                continue
            age = pod.cluster.seconds_since(container.started)
            recent = age is not None and age <= _RECENT_SECONDS
            yield Finding(
                role="note"
                if well >= (_MANY * len(refused) if recent else _SEVERAL)
                else "cause"
                if recent
                else "risk",
                summary=f"MLServer refused {count_of(len(refused), 'request')} to {name} before it had loaded it: "
                f"{container.name} counts as ready too early.",
                evidence=(log_evidence(refused[-1]), log_evidence(loaded), _readiness(container)),
                fix=fixes.advice(
                    f"Have the readiness probe of {container.name} in {fixes.edited(pod)} ask {path} (httpGet), which succeeds when the "
                    "model is loaded: its port is open before that, and /v2/health/ready has no model to wait for at first"
                ),
                order=refused[0].order,
            )
            return


def _asks_of(container: Container) -> str:
    """What the readiness probe of a container asks: a path, or a command."""
    probe = container.spec.readiness_probe
    if probe is None:
        return ""
    return probe.path if probe.http_get else probe.script


def _loaded(lines: Iterable[Line]) -> Line | None:
    """The first of some lines that says that a model is loaded."""
    told = (x for x in lines if re.search(_IS_LOADED, x.text[:2000]) and not re.search(_IS_NOT, x.text[:2000]))
    return next(told, None)


def _questions(log: Log, *, alone: bool) -> list[tuple[Line, re.Match[str]]]:
    """Requests to a model and their answers; those of the server itself, which is alone in its pod, are none."""
    said = ((x, re.search(_ANSWER, x.text[:2000])) for x in log.find("POST /"))
    return [
        (x, found)
        for x, found in said
        if found and not re.search(_RUN_BY, found["path"]) and not (alone and re.search(_ITSELF, x.text[:200]))
    ]


def _before_its_servers(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A router that counts as ready and refuses requests, since the servers of one of the addresses that it is told all load still."""
    for container in pod.containers:
        log = logs.current(container.name)
        refused = next(reversed(list(nobody_left(log))), None) if log is not None else None
        if log is None or refused is None or answered(log, after=refused.number):
            continue
        words = [text for _, text in told_by(container)]
        behind = _behind(words, pod, cluster) | _chosen(container, cluster)
        up = {
            host
            for host, loads in behind.items()
            if any(one.ready or (not one.failing and (not phase or phase.name == "serving")) for one, phase in loads)
        }
        # one that takes a server of each sort for a request; another passes requests on to those that are up
        sorts = all(
            any(word in text for text in (*words, *(said for _, said in container.words)))
            for word in ("prefill", "decode")
        )
        for host, loads in behind.items():
            if host in up or (up and not sorts and not re.search(rf"\b{re.escape(host)}\b", refused.text)):
                continue
            # an answer to a request that came before the server was made is about another
            if all(
                written_before(refused, one.container, cluster) for server, _ in loads for one in engines_in(server)
            ):
                continue
            yield _turns_away(pod, container, host, loads, refused)
            return


def _turns_away(
    pod: Pod, container: Container, host: str, loads: list[tuple[Pod, Phase | None]], refused: Line
) -> Finding:
    """That a router is ready, and none of its servers at an address, with how far the one is that is worst off."""
    server, phase = min(loads, key=lambda load: not load[0].failing)
    down = _down(server, phase)
    return Finding(
        summary=f"{pod.name} counts as ready and refuses requests: of the servers at {host} none is ready, and {server.name} "
        f"is {down or _how_far(phase)}.",
        awaits=tuple(f"{one.namespace}/{one.name}" for one, _ in loads) if down else (),
        evidence=(log_evidence(refused), *((log_evidence(phase.line),) if phase else ()), _readiness(container)),
        explains=("service-selects-nothing",),  # by the same words: whom it leaves out has not come up
        fix=fixes.advice(
            f"Have the readiness probe in {fixes.edited(pod)} ask what succeeds only when each of its servers answers "
            "(/readiness of SGLang's router knows of one server alone), or send requests only when these are ready"
        ),
        order=refused.order,
    )


def _down(server: Pod, phase: Phase | None) -> str:
    """In which state a server is that does more than load its model, or says nothing of that; else empty."""
    ended = server.failing and (phase is None or any(endings(server)))
    return f"not up ({server.troubles[0].text})" if ended else ""


def _how_far(phase: Phase | None) -> str:
    return f"{phase.doing if phase else 'starting'} by its log"


def _behind(words: list[str], pod: Pod, cluster: Cluster) -> dict[str, list[tuple[Pod, Phase | None]]]:
    """The servers of each host that the words of a router name, with how far they have come."""
    found = {}
    for host, port in sorted({url for text in words for url in re.findall(_TOLD, text)}):
        to = follow(host, int(port) if port else None, pod, cluster)
        loads = [(one, _phase(one)) for one in to.others if engines_in(one)] if to is not None else []
        if loads:
            found[host] = loads
    return found


def _chosen(container: Container, cluster: Cluster) -> dict[str, list[tuple[Pod, Phase | None]]]:
    """The same of the labels by which a router looks for its servers."""
    found = {}
    for text, namespace, wanted in sought(container):
        items = (item for item in cluster.items("Pod", namespace) if wanted.items() <= item.labels.items())
        pods = [Pod.of(item, cluster) for item in items]
        if loads := [(one, _phase(one)) for one in pods if engines_in(one) and not one.leaving]:
            found[text] = loads
    return found


def _phase(pod: Pod) -> Phase | None:
    """How far the engine of a pod has come by its log, which each replica of a router asks."""

    def found() -> Phase | None:
        logs = logs_of(pod)
        return next((phase for one in engines_in(pod) if (phase := phase_of(logs.current(one.container.name)))), None)

    return pod.cluster.once(f"phase of {pod.namespace}/{pod.name}", found)


def _works(log: Log, loading: Line) -> bool:
    """Whether it has answered since a line of its loading: then it has loaded, though no line says so."""
    return any(x > loading.number for x in signs_of_life(log))


def _launched(pod: Pod, logs: Logs, *, waits: bool) -> Iterator[Finding]:
    """A program that starts an engine by itself counts as ready while that loads its model, and a client finds it so.

    Some hold a request until the model is there: then its client gives up.
    """
    for container in pod.containers:
        log = logs.current(container.name)
        phase, begun = phase_of(log), _llama_loads(log) if log else None
        if (phase is None and begun is None) or (phase is not None and phase.name == "serving"):
            continue
        # one that loads a model on demand may be at the next one
        if waits and log is not None and log.holds(_LLAMA_LOADED):
            continue
        began = phase.line if phase is not None else begun
        client = _turned_away(pod, container, waits=waits)
        if client is None or (waits and answered(client.log, after=client.number)):
            continue
        if log is not None and began is not None and _works(log, began):
            continue
        doing = phase.doing if phase is not None else "loading its model"
        yield Finding(
            summary=f"{pod.name} counts as ready, and the engine that {container.name} starts is {doing} by its log; "
            f"{client.log.pod} {'waited in vain' if waits else 'was turned away'}.",
            evidence=(log_evidence(client), *((log_evidence(began),) if began else ()), _readiness(container)),
            fix=_of_its_engine(pod, container, client, waits=waits),
        )
        return


def _elsewhere_probed(pod: Pod, logs: Logs) -> Iterator[Finding]:
    """A client was refused at a port that a container declares and no readiness probe of the pod asks: whoever serves there is not up."""
    probed = {port for one in pod.containers if (port := _port_probed(one)) is not None}
    for container in pod.containers if probed and pod.exists else ():
        client = _turned_away(pod, container)
        port = _refused_at(pod, client) if client is not None else None
        if client is None or port in probed or port not in container.declared_ports or _unreached.scrapes(client):
            continue
        log = logs.current(container.name)
        phase = phase_of(log)
        came = log is not None and (signs_of_life(log) or (phase is not None and phase.name == "serving"))
        if came or answered(client.log, after=client.number):
            continue
        yield Finding(
            summary=f"{pod.name} counts as ready by port {_port_probed(container) or min(probed)}, and nobody listens on port {port} yet, "
            f"which {container.name} declares as well: {client.log.pod} was turned away there.",
            evidence=(log_evidence(client), _readiness(container)),
            fix=_of_its_engine(pod, container, client, waits=False),
            order=client.order,
        )
        return


def _port_probed(container: Container) -> int | None:
    """The port that the readiness probe of a container asks."""
    probe = container.spec.readiness_probe
    action = (probe.http_get or probe.tcp_socket) if probe else None
    return container.port_number(action.port) if action else None


def _refused_at(pod: Pod, client: Line) -> int | None:
    """The port of the pod at which a line of a client says that nobody was."""
    found = re.search(rf"(?<![\d.]){re.escape(pod.status.pod_ip or '-')}:(\d{{2,5}})\b", client.text[:4000])
    return int(found[1]) if found else None


def _of_its_engine(pod: Pod, container: Container, client: Line, *, waits: bool) -> Fix:
    """A probe of the engine that a program starts: where a client was refused at another port than the probe asks, that is the engine's."""
    own = _port_probed(container)
    port = _refused_at(pod, client) if not waits else None
    if port is None or port == own or port not in container.declared_ports:
        return fixes.advice(
            f"Let the readiness probe ask the engine's own port in {fixes.edited(pod)}, not the program's"
        )
    value = {"httpGet": {"path": "/health", "port": port}, "periodSeconds": 10, "timeoutSeconds": 5}
    asked = f", not the program on port {own}" if own else ""
    summary = f"Have the readiness probe ask the engine itself, /health on port {port}{asked}"
    return fixes.set_probe(container, "readinessProbe", value, summary)


def _of(pod: Pod, engine: Engine, workload: Workload | None, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    container = engine.container
    if pod.ready and (
        found := _observed(pod, engine, logs) or _loading(pod, engine, cluster, logs) or _answered(pod, engine, logs)
    ):
        yield found
        return
    if (
        pod.log_only
        or pod.completed
        or (container.spec.startup_probe and _honest(engine, container.spec.startup_probe))
    ):
        return
    service = service_of(pod)
    probe = container.spec.readiness_probe
    if service is None:
        return
    if probe is None:
        replicas = workload.replicas if workload else None
        of_one = any(re.search(_OF_ONE, key) for key in selector_of(service))
        if engine.name in _LATE and (replicas or 0) > 1 and not of_one:
            yield _finding(
                "note",
                f"{container.name} has no readiness probe: Service {service.name} sends a new one of the {replicas} replicas its "
                f"share of requests at once, and {engine.title} refuses them until the model is loaded.",
                pod_evidence(container, "readinessProbe", "none"),
                _probe(engine, "/health"),
            )
        return
    if _honest(engine, probe):
        return
    action = _action(probe)
    right = _ALIVE[engine.name][1] if engine.name in _ALIVE else "/health"
    yield _finding(
        "risk",
        f"The readiness probe of {container.name} ({action}) succeeds while {engine.title} still loads the model: "
        f"Service {service.name} sends requests that fail.",
        pod_evidence(container, "readinessProbe", action),
        _probe(engine, right),
    )


def _observed(pod: Pod, engine: Engine, logs: Logs | None) -> Finding | None:
    """A pod that counts as ready, and whose own port does not answer yet, or says that the model is not loaded."""
    container, probe = engine.container, engine.container.spec.readiness_probe
    path, statuses = _NOT_YET.get(engine.name, ("/health", ()))
    answer = engine.answers.at(path)
    log = container.own_log(logs)
    phase, port = phase_of(log), engine.value("port")
    if answer is None or not isinstance(port, int) or answer.port != port:
        return None
    if answer.status in statuses:
        says = f"answers GET {path} with {answer.status}"
    elif probe is None and phase and phase.name != "serving" and "connection refused" in answer.error:
        says = f"is {phase.doing} and does not listen on port {port} yet"
    else:
        return None
    action = _action(probe)
    return Finding(
        confidence="certain",
        summary=f"{pod.name} counts as ready, and {engine.title} in {container.name} {says}: requests fail until the model is loaded.",
        evidence=(
            engine.answers.evidence(answer),
            *((log_evidence(phase.line),) if phase else ()),
            pod_evidence(container, "readinessProbe", action),
        ),
        fix=_probe(engine, path),
    )


def _loading(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """A pod that counts as ready while its log says that the model is being loaded, and requests that find it so.

    The log of who sent one says that it was refused; or a Service sends them, no probe stands before them, and the log is of now.
    """
    container, probe, service = engine.container, engine.container.spec.readiness_probe, service_of(pod)
    log = container.own_log(logs)
    phase = phase_of(log)
    if log is None or phase is None or phase.name == "serving" or engine.name not in _LATE or _works(log, phase.line):
        return None
    evidence = [_readiness(container)]
    blind = probe is None or _nothing(probe)
    if client := _turned_away(pod, container) or _beside(engine, logs) or _asked_in_vain(pod, engine, cluster):
        who = client.log.container if client.log.pod == pod.name else client.log.pod
        summary = f"{pod.name} counts as ready, and {engine.title} in {container.name} is {phase.doing} by its log; {who} was "
        summary += "turned away."
        evidence = [log_evidence(client), log_evidence(phase.line), *evidence]
    elif service and blind and (last := _newest(log, pod.cluster.now)):
        has = f"a readiness probe that cannot fail (`{' '.join(_words(probe))}`)" if probe else "no readiness probe"
        summary = f"{pod.name} counts as ready, since {container.name} has {has}, and {engine.title} is {phase.doing}: Service "
        summary += f"{service.name} sends it requests that are refused until the model is loaded."
        evidence = [log_evidence(last), *evidence]
    else:
        return None
    return Finding(
        role="cause" if client or probe else "risk",  # most have no probe, and none has asked yet
        confidence="likely" if client or probe else "possible",
        summary=summary,
        evidence=tuple(evidence),
        fix=_probe(engine, "/health"),
    )


def _answered(pod: Pod, engine: Engine, logs: Logs | None) -> Finding | None:
    """llama-server, which answers 503 to whoever asks before the model is loaded, by its own log; its probe does not ask it."""
    container, probe = engine.container, engine.container.spec.readiness_probe
    log = container.own_log(logs)
    if log is None or engine.name != "llama.cpp" or (probe is not None and _honest(engine, probe)):
        return None
    if (begun := _llama_loads(log)) is None:
        return None
    failed = [line for line in log.find("request: POST ") if line.number > begun.number and line.text.endswith(" 503")]
    if not failed:
        return None
    action = _action(probe)
    return Finding(
        summary=f"{pod.name} counts as ready, and {engine.title} in {container.name} still loads the model: it has answered "
        f"{count_of(len(failed), 'request')} with 503 meanwhile.",
        evidence=(log_evidence(failed[-1]), log_evidence(begun), pod_evidence(container, "readinessProbe", action)),
        fix=_probe(engine, "/health"),
    )


def _llama_loads(log: Log) -> Line | None:
    """Where llama-server says that it begins to load its model, and not yet that it has."""
    begun = log.last(_LLAMA_LOADS)
    return None if begun is None or any(x.number > begun.number for x in log.find(_LLAMA_LOADED)) else begun


def _turned_away(pod: Pod, server: Container, *, waits: bool = False) -> Line | None:
    """What a client or a gateway has printed since a server started that found nobody behind its pod's name, address or Service.

    Where it `waits`, that it got no answer.
    """
    names = {pod.name, pod.status.pod_ip, *(item.name for item in pod.services)} - {""}
    named = re.compile(rf"(?<![\w.-])(?:{'|'.join(map(re.escape, sorted(names)))})(?![\w-])")
    said = pod.cluster.once(
        f"turned away {waits}", lambda: list(_nobody_there(pod.cluster, _GAVE_UP if waits else _TURNED_AWAY))
    )
    found = (line for line in said if line.log.pod != pod.name and named.search(line.text))
    asked = (line for line in found if not waits or re.search(_ASKS, line.text[:4000]))
    return next((line for line in _last_of_each(asked) if not written_before(line, server, pod.cluster)), None)


def _asked_in_vain(pod: Pod, engine: Engine, cluster: Cluster) -> Line | None:
    """The same of a client that asks this server alone, and does not name it; one that has been answered since found it before."""
    said = cluster.once("asked in vain", lambda: list(_nobody_named(cluster)))
    asking = clients(pod, {item.name for item in pod.services}, cluster) if said else set()
    return next(
        (
            line
            for line in _last_of_each(said)
            if line.log.whose in asking
            and not answered(line.log, after=line.number)
            and not written_before(line, engine.container, cluster)
        ),
        None,
    )


def _last_of_each(lines: Iterable[Line]) -> Iterable[Line]:
    """The last of the lines of each log: where that is too old, all are."""
    last = dict[tuple[str, ...], Line]()
    for line in lines:
        key = (line.log.source.namespace, line.log.pod, line.log.container, str(line.log.previous))
        if key not in last or last[key].number < line.number:
            last[key] = line
    return last.values()


def _nobody_named(cluster: Cluster) -> Iterator[Line]:
    """Lines of clients that found nobody, and do not say where."""
    return _nobody_there(cluster, _NAMELESS)


def _nobody_there(cluster: Cluster, words: tuple[str, ...]) -> Iterator[Line]:
    """Lines of pods that found nobody where they asked, or got no answer in time."""
    return (line for log in current_logs(cluster) if log.pod for line in log.find(*words))


def _beside(engine: Engine, logs: Logs | None) -> Line | None:
    """The same of a proxy in the pod itself (llm-d's routing-proxy), which finds nobody at the engine's port."""
    at = re.compile(rf"(?:127\.0\.0\.1|localhost|\[::1\]|0\.0\.0\.0):{engine.value('port')}(?!\d)")
    beside = [c.name for c in engine.container.beside]
    lines = (
        line
        for log in (logs.current(name) for name in beside if logs)
        for words in _TURNED_AWAY
        for line in (log.find(words) if log else ())
        if at.search(line.text)
    )
    return next(lines, None)


def _newest(log: Log, now: datetime | None) -> Line | None:
    """The last line of a log that has a time, where that is but some minutes ago."""
    for line in reversed(log.tail(20)):
        if (ago := seconds_ago(line, now)) is not None:
            return line if -5 <= ago <= _FRESH_SECONDS else None
    return None


def _words(probe: k8s.Probe) -> list[str]:
    return [str(word) for word in (probe.exec.command if probe.exec else ())]


def _nothing(probe: k8s.Probe) -> bool:
    """Whether a probe asks nobody: a command that always succeeds."""
    return re.fullmatch(_ALWAYS, " ".join(_words(probe))) is not None


def _readiness(container: Container) -> Evidence:
    """What the kubelet asks before it calls a container ready."""
    return pod_evidence(container, "readinessProbe", _action(container.spec.readiness_probe))


def _action(probe: k8s.Probe | None) -> str:
    if probe is None:
        return "none"
    return f"httpGet {probe.http_get.path}" if probe.http_get else "tcpSocket" if probe.tcp_socket else "exec or grpc"


def _honest(engine: Engine, probe: k8s.Probe) -> bool:
    """Whether a probe succeeds only when the model answers, as far as it can be told."""
    if probe.tcp_socket:
        return engine.name != "llama.cpp" and engine.name not in _ALIVE
    if probe.http_get and engine.name in _ALIVE:
        return probe.http_get.path.rstrip("/") != _ALIVE[engine.name][0]
    return not _nothing(probe)


def _finding(role: str, summary: str, evidence: Evidence, fix: Fix) -> Finding:
    return Finding(role="risk" if role == "risk" else "note", summary=summary, evidence=(evidence,), fix=fix)


def _probe(engine: Engine, path: str) -> Fix:
    port, container = engine.value("port"), engine.container
    if not isinstance(port, int):
        return fixes.advice(f"Add a readiness probe on {path} in {fixes.edited(container.pod)}")
    value = {"httpGet": {"path": path, "port": port}, "periodSeconds": 10, "timeoutSeconds": 5}
    return fixes.set_probe(container, "readinessProbe", value, f"Have the readiness probe ask {path} on port {port}")
