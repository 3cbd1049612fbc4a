"""Probes that no server answers as they ask, or whose program the image does not have, and clients that are refused alike."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Event,
    Events,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    Setting,
    Subject,
    check,
    event_evidence,
    expression,
    fixes,
    k8s,
    log_evidence,
    pod_evidence,
    probe_kills,
    setting_evidence,
)
from llmdoctor_checks.start._balancers import LITERALS as BALANCERS
from llmdoctor_checks.start._balancers import refused_balancer
from llmdoctor_checks.start._client_paths import LITERALS, refused_client, refused_clients
from llmdoctor_checks.start._grpc_probes import KNOWN, unknown_service
from llmdoctor_checks.start._images import Lacking, lacking
from llmdoctor_checks.start._probes import KINDS, SIDECAR_PROBE, failures

#: Where an engine tells that it is up.
_HEALTH = {
    "vllm": "/health",
    "sglang": "/health",
    "tgi": "/health",
    "tei": "/health",
    "llama.cpp": "/health",
    "triton": "/v2/health/ready",
    "nim": "/v1/health/ready",
    "tensorrt-llm": "/health",
    "lmdeploy": "/health",
    "ollama": "/",
}

#: Paths that tell of other servers' health (Triton and KServe's protocol, NIM, Ray Serve, Kubernetes' own programs) and
#: that no release of the engine serves. Sources: the routes of vLLM, SGLang, Ollama, Text Generation Inference, Text Embeddings
#: Inference, LMDeploy, llama-server and Triton (`http_server.cc`; what it has for SageMaker and Vertex AI listens elsewhere).
_OTHERS = r"-/healthz|healthz|livez|api/health(?:/|$)|health/(?:live|ready)"
_FOREIGN = {
    "vllm": rf"/(?:v[12]/health(?:/|$)|{_OTHERS})",
    "sglang": rf"/(?:v[12]/health(?:/|$)|{_OTHERS})",
    "ollama": rf"/(?:v[12]/health(?:/|$)|{_OTHERS}|health$|readyz|ready$|live$)",
    "tgi": rf"/(?:v1/health(?:/|$)|{_OTHERS}|readyz|ready$|live$)",
    "tei": rf"/(?:v[12]/health(?:/|$)|{_OTHERS}|readyz|ready$|live$)",
    "lmdeploy": rf"/(?:v[12]/health(?:/|$)|{_OTHERS}|readyz|ready$|live$)",
    "llama.cpp": rf"/(?:v2/health(?:/|$)|{_OTHERS}|readyz|ready$|live$)",
    "triton": rf"/(?:v1/health(?:/|$)|v2/health(?!/(?:live|ready)(?:$|\?))|{_OTHERS}|health$|readyz|ready$|live$|ping$)",
}

#: Options that put the paths of vLLM, SGLang and llama-server below another one.
_PREFIXES = frozenset({"--root-path", "--fastapi-root-path", "--api-prefix"})

#: Servers that live while they are not ready: where they tell the one and the other. Triton is not ready while any of its models is
#: being loaded (`--strict-readiness`, the default), and says 400; NIM says 503.
_LIVE = {"triton": ("/v2/health/ready", "/v2/health/live"), "nim": ("/v1/health/ready", "/v1/health/live")}
_NOT_READY = ("400", "503")

#: Triton's `model_lifecycle.cc`, of a model that never will be there.
_NEVER_READY = "failed to load '"

#: The same of one that it begins to load, and that it has; it listens when it has loaded what it loads at its start.
_LOADING, _LOADED, _LISTENS = "loading: ", "successfully loaded '", "Started HTTPService at "
_MODEL = expression(r'model_lifecycle\.cc:\d{1,6}\] "?loading: (?P<model>[^\s"]{1,200}):\d{1,12}')

#: Answers of a server that is up to a question that it will never answer otherwise.
_ANSWERS = {
    "404": "that it has no such path",
    "401": "that this path needs a key",
    "403": "that this path needs a key",
    "405": "that this path takes no GET",
}

#: The path of one model in KServe's protocols, TensorFlow Serving and servers that copy it. Ray Serve has no route of an application
#: before its replicas are up (`proxy.py`), but for its own below `/-/`.
_OF_A_MODEL = r"/models/[^/?]"
_RAY_SERVE = r"\brayproject/|\bray-llm\b|\bserve (?:run|start|deploy)\b|\bray start\b"

#: These open their port when the model is loaded, or answer 503 until then: 404 is of a path or model that they do not have.
_WITHOUT_MODELS = frozenset({"vllm", "sglang", "tgi", "tei", "llama.cpp"})

#: A model has so long to be loaded.
_LOADING_SECONDS = 600

#: How the runtime (runc, crun) and the shell of a probe's command say that a program is not there, on the last line: what
#: the command prints after it is another matter (`wget … || curl …`).
_PROGRAM = (
    r'exec: \\?"(?P<runc>[^"\\]+)\\?": (?:executable file not found in \$PATH|stat [^:]+: no such file or directory)'
    r"|executable file `(?P<crun>[^`]+)` not found in \$PATH"
    r"|(?:^|[\s:/])(?:ba|da|a)?sh: (?:(?:line )?\d+: )?(?P<shell>[\w./-]+): (?:command )?not found$"
)

#: How the kubelet (Go's net/http) says that it asked by HTTPS a server that speaks plain HTTP.
_PLAIN = "server gave HTTP response to HTTPS client"

#: What it says of a server that speaks TLS and was asked by plain HTTP: uvicorn and llama-server close the connection.
_CLOSED = r": (?:EOF|.{0,200}: connection reset by peer|net/http: HTTP/1\.x transport connection broken: malformed HTTP response .{0,60})$"

#: The kind of probe whose failures restart a container.
_LIVENESS = "liveness"
#: What servers beside the engines answer at, whether they live and whether they are ready: Weaviate and what computes its vectors (the
#: interface of its modules for inference), LiteLLM.
_ANSWER_AT: tuple[tuple[re.Pattern[str], tuple[str, str]], ...] = (
    (
        expression(r"(?:^|/)semitechnologies/(?:[\w-]{1,60}-inference|multi2vec-\w{1,40}|[\w-]{1,40}-transformers)$"),
        ("/.well-known/live", "/.well-known/ready"),
    ),
    (expression(r"(?:^|/)semitechnologies/weaviate$"), ("/v1/.well-known/live", "/v1/.well-known/ready")),
    (expression(r"(?:^|/)berriai/litellm(?:-\w{1,30})?$"), ("/health/liveliness", "/health/readiness")),
)

#: What gives vLLM, SGLang and llama-server a certificate, so that they speak HTTPS and nothing else.
_CERTIFICATES = ("ssl_certfile", "ssl_keyfile", "ssl_cert_file", "ssl_key_file")

#: What each probe does that never succeeds.
_EFFECTS = {
    "startup": "the container is restarted forever",
    "liveness": "the container is restarted forever",
    "readiness": "the pod stays out of its Service",
}


@check(
    "probe-path-wrong", since="0.1", literals=(*LITERALS, *BALANCERS, KNOWN, _LOADING, _LOADED, _LISTENS, _NEVER_READY)
)
def probe_path_wrong(pod: Pod, subject: Subject, events: Events | None, logs: Logs | None) -> Iterator[Finding]:
    """A probe, health check or client is refused for how it asks, or a probe's program is missing.

    The server is up and answers the probe with 404, or with 401 where an API key guards the path (`/v1/models` with
    `--api-key`). To the kubelet that is a failure like any other: a startup or liveness probe restarts the container for
    ever, and a readiness probe keeps it out of its Service.

    A probe of the kind `exec` runs a command inside the container. Images of engines are built without much of what scripts
    rely on: many have no curl, no wget, no `grpc_health_probe`. The command then fails whatever the server does, and where not
    even it can be run, a startup or readiness probe never succeeds.

    The path of one model (`/v1/models/NAME` of KServe and TensorFlow Serving) and the routes of Ray Serve's applications are there only
    when the model is: in the first minutes of such a server 404 means that it loads.

    Triton and NIM have a path for each question. A liveness probe that asks for the one that says whether they are ready
    (`/v2/health/ready`) ends a Triton that lives and loads another model; a readiness probe that asks for it takes the models that are
    loaded out of their Service for that time (`--strict-readiness`, on by default).

    A probe by gRPC names a health service, or none for the server as a whole: what the server has no such service for, or knows by another
    name, never succeeds.

    A probe with `scheme: HTTPS` is no less wrong where the server has no certificate and answers in plain HTTP, nor is one without it
    where the server has one (`--ssl-certfile`).

    Clients meet with the same: a base URL with `/v1` twice or not at all, or of another server's API (`/api/generate` of Ollama's), is
    answered with 404, a request without the server's key (`--api-key`, VLLM_API_KEY) with 401, one that does not say that it is JSON with
    415. It is said where a ready server's log shows at least three requests for its API, and all were refused alike. So does a route or
    an Ingress that passes its own prefix on, a gateway that checks its servers itself (HAProxy, Envoy, Contour, Traefik, as their
    policies say), and a load balancer of a cloud: GKE's Gateway asks for `/` where no HealthCheckPolicy says another path, AWS' load
    balancers where no annotation does, and vLLM has nothing there.

    In a manifest this is said of the health paths of other servers (`/health` of Ollama, `/healthz` of any), of paths of vLLM
    below `/v1` where `--api-key` or VLLM_API_KEY guards them, of commands with curl or wget in Ollama's image, which has
    neither, and of HTTPS to a vLLM or Ollama without a certificate, or HTTP to a vLLM with one.

    ## Fix

    Ask for the engine's own path: `/health` of vLLM, SGLang, Text Generation Inference and llama.cpp, `/v2/health/ready` of
    Triton, `/v1/health/ready` of NIM. With `--root-path` the paths stay as they are in the pod. In place of a command that needs a
    program let the kubelet ask (`httpGet`), or use what the image has: `python3 -c` with urllib in most.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/configure-liveness-readiness-startup-probes/
    """
    if not pod.exists:
        for server in subject.engines(pod):
            yield from _risk(pod, subject, server)
    crashed = [trouble.container for trouble in pod.troubles if trouble.kind == "crashed"]
    for engine in subject.engines(pod) if pod.exists else ():
        yield from refused_clients(pod, engine, pod.cluster, logs)
        yield from refused_balancer(pod, engine, _HEALTH.get(engine.name, "/health"), logs)
    yield from refused_client(pod, pod.cluster)
    for container in pod.containers:
        ready = container.running is True and container.status.ready
        if not pod.failing or container.role == "init" or (ready and container not in crashed):
            continue
        last = dict(failures(container, events))
        # what restarts the container is told first
        for kind, event in sorted(last.items(), key=lambda one: KINDS.index(one[0])):
            if ready and kind == "readiness":
                continue
            if scheme := _other_scheme(container, kind, event, subject):
                yield _asked_by(container, kind, scheme, event_evidence(event, pod.cluster))
                return
            refused = _refused(container, kind, event, subject) or unknown_service(
                container, kind, event, logs, loading=_may_be_loading(container)
            )
            if refused is not None:
                yield refused
                return
        found = (
            _lacking(pod, subject, container, events)
            or _asked_if_ready(pod, subject, container, events, logs)
            or _out_while_loading(pod, subject, container, events, logs)
        )
        if found:
            yield found
            return


def _refused(container: Container, kind: str, event: Event, subject: Subject) -> Finding | None:
    """A probe that a server answers with a status that says that it knows no such path or method, or does not let it in."""
    pod, code = container.pod, event.message.rstrip().rpartition("statuscode: ")[2]
    if code not in _ANSWERS:
        return None
    probe = container.spec.probes.get(kind)
    path = probe.path if probe else ""
    known = subject.engine_of(container)
    appears = code == "404" and _comes_with_its_model(container, known, path)
    if appears and _may_be_loading(container):
        return None
    # some servers of one's own say 405 as long as their model is not there
    of_ones_own = code == "405" or known is None or known.announced
    return Finding(
        confidence="possible" if appears else "likely" if of_ones_own else "certain",
        summary=f"The {kind} probe asks {container.name} for {path or 'a path'}, and the server answers "
        f"{_ANSWERS[code]} ({code}).",
        evidence=(
            event_evidence(event, pod.cluster),
            *((pod_evidence(container, f"{kind}Probe.httpGet.path", path),) if path else ()),
        ),
        explains=("crash-loop", "not-ready", "probe-too-short", "rollout-stuck"),
        fixes=tuple(
            _fixes(
                container,
                _alike(container, kind),
                path,
                _told_at(known) or _beside(container, kind),
                code,
                _LIVE[known.name][1] if known and known.name in _LIVE else _beside(container, _LIVENESS),
            )
        ),
    )


def _comes_with_its_model(container: Container, engine: Engine | None, path: str) -> bool:
    """Whether a server may say of a path that it has none as long as the model behind it is not loaded."""
    if re.search(_RAY_SERVE, " ".join([container.spec.image, *container.spec.argv])):
        return not path.startswith("/-/")
    if engine is not None and engine.own_image and engine.name in _WITHOUT_MODELS:
        return False
    return re.search(_OF_A_MODEL, path) is not None


def _may_be_loading(container: Container) -> bool:
    """Whether it was started only minutes ago and has not ended since: what answers with the model has not had its time."""
    ran = container.pod.cluster.seconds_since(container.started)
    return ran is not None and ran < _LOADING_SECONDS and not container.status.restart_count


def _other_scheme(container: Container, kind: str, event: Event, subject: Subject) -> str:
    """What a probe asks by where the server speaks the other of HTTP and HTTPS; empty where that is not said."""
    said = event.message.rstrip()
    probe = container.spec.probes.get(kind)
    plain = probe is not None and probe.http_get is not None and probe.http_get.scheme == "HTTP"
    if said.endswith(_PLAIN):
        return "" if plain else "HTTPS"  # the server sends one that asks by HTTP on to HTTPS, and the kubelet follows
    engine = subject.engine_of(container)
    return "HTTP" if engine and plain and _certified(engine) and re.search(_CLOSED, said[-400:]) else ""


def _certified(engine: Engine) -> bool:
    return any(map(engine.explicit, _CERTIFICATES))


def _asked_by(container: Container, kind: str, scheme: str, *said: Evidence) -> Finding:
    """A probe that asks by another scheme than the server speaks: as the kubelet says, or by a manifest."""
    probe, pod = container.spec.probes.get(kind), container.pod
    written = probe.http_get.scheme if probe and probe.http_get else ""
    right = "HTTP" if scheme == "HTTPS" else "HTTPS"
    return Finding(
        role="cause" if said else "risk",
        severity="critical",
        confidence="certain" if said and right == "HTTP" else "likely",
        summary=f"The {kind} probe asks {container.name} by {scheme}, and the server speaks {right} alone: it never succeeds, and "
        f"{_EFFECTS[kind]}.",
        evidence=(*said, *((pod_evidence(container, f"{kind}Probe.httpGet.scheme", written),) if written else ())),
        explains=("not-ready", "rollout-stuck", *(("crash-loop", "probe-too-short") if kind != "readiness" else ())),
        fix=fixes.set_spec(
            pod, f"/containers/{container.index}/{kind}Probe/httpGet/scheme", right, f"Have the probe ask by {right}"
        )
        if written == scheme
        else fixes.advice(f"Have the probe ask by {right} in {fixes.edited(pod)}"),
    )


def _asked_if_ready(
    pod: Pod, subject: Subject, container: Container, events: Events | None, logs: Logs | None
) -> Finding | None:
    """A liveness probe that asks whether the server is ready, and restarts it for being busy with a model."""
    engine, probe = subject.engine_of(container), container.spec.liveness_probe
    if engine is None or engine.name not in _LIVE or probe is None or probe.http_get is None or events is None:
        return None
    path, right = _LIVE[engine.name]
    said = [event for kind, event in failures(container, events) if kind == "liveness"]
    killed = any(kind == "liveness" for kind, _ in probe_kills(pod, events, container))
    if probe.http_get.path != path or not killed or not said or not said[-1].message.rstrip().endswith(_NOT_READY):
        return None
    if any(next(iter(log.find(_NEVER_READY)), None) for log in container.own_logs(logs)):
        return None  # what keeps it from being ready is another matter
    return Finding(
        summary=f"The liveness probe asks {container.name} for {path}, which {engine.title} refuses "
        f"({said[-1].message.rstrip()[-3:]}) while any of its models is not loaded: the kubelet restarts a server that lives.",
        evidence=(event_evidence(said[-1], pod.cluster), pod_evidence(container, "livenessProbe.httpGet.path", path)),
        explains=("crash-loop", "not-ready", "probe-too-short", "rollout-stuck"),
        fixes=tuple(_fixes(container, ("liveness",), path, right)),
    )


def _out_while_loading(
    pod: Pod, subject: Subject, container: Container, events: Events | None, logs: Logs | None
) -> Finding | None:
    """A readiness probe that asks Triton whether all of its models are ready, while it loads one beside those that it serves."""
    engine = next((e for e in subject.engines(pod) if e.container is container and e.name == "triton"), None)
    probe, path = container.spec.readiness_probe, _LIVE["triton"][0]
    log = container.own_log(logs) if engine is not None else None
    if log is None or not container.running or probe is None or probe.http_get is None:
        return None
    said = [event for kind, event in failures(container, events) if kind == "readiness"]
    listens, last = log.last(_LISTENS), log.last(_LOADING)
    model = _MODEL.search(last.text[:1000]) if last is not None else None
    if probe.http_get.path != path or not said or not said[-1].message.rstrip().endswith(_NOT_READY):
        return None
    if listens is None or last is None or model is None or last.number < listens.number:
        return None
    done = log.last(_LOADED)
    if log.last(_NEVER_READY) is not None or (done is not None and done.number > last.number):
        return None
    return Finding(
        summary=f"The readiness probe asks {container.name} for {path}, which Triton refuses ({said[-1].message.rstrip()[-3:]}) while it "
        f"loads a model, now {model['model']}: those that it serves are out of their Service for that time.",
        evidence=(
            event_evidence(said[-1], pod.cluster),
            log_evidence(last, _LOADING),
            pod_evidence(container, "readinessProbe.httpGet.path", path),
        ),
        explains=("not-ready", "probe-too-short", "rollout-stuck"),
        fixes=(
            fixes.advice(
                f"Have Triton count as ready whatever it loads, --strict-readiness=false in {fixes.edited(pod)}, or let the probe ask for "
                "one model that is always there, /v2/models/NAME/ready"
            ),
        ),
        order=last.order,
    )


def _lacking(pod: Pod, subject: Subject, container: Container, events: Events | None) -> Finding | None:
    """A probe whose command calls a program that the image does not have."""
    said: dict[str, tuple[Event, str]] = {}
    for verb in ("failed", "errored"):
        for kind, event in failures(container, events, verb):
            found = re.search(_PROGRAM, (event.message.rstrip().splitlines() or [""])[-1])
            # a liveness probe that cannot be run restarts nothing
            if found is None or (verb == "errored" and kind == "liveness"):
                said.pop(kind, None)
            else:
                said[kind] = event, found["runc"] or found["crun"] or found["shell"]
    if container.status.ready:
        said.pop("readiness", None)
    kind = next((kind for kind in _EFFECTS if kind in said), "")
    if not kind:
        return None
    event, program = said[kind]
    killed = events is not None and any(probe == kind for probe, _ in probe_kills(pod, events, container))
    if not container.running and not killed:
        return None  # it ended by itself, whatever its probe met with
    probe = container.spec.probes.get(kind)
    command = probe.script if probe else ""
    return Finding(
        confidence="certain",
        summary=f"The {kind} probe of {container.name} runs {program}, which its image does not have: it never succeeds, and "
        f"{_EFFECTS[kind]}.",
        evidence=(
            event_evidence(event, pod.cluster),
            *((pod_evidence(container, f"{kind}Probe.exec.command", command),) if command else ()),
        ),
        explains=("crash-loop", "not-ready", "probe-too-short", "rollout-stuck"),
        fix=_asked_over_http(subject, container, kind, probe, program),
    )


def _asked_over_http(subject: Subject, container: Container, kind: str, probe: k8s.Probe | None, program: str) -> Fix:
    """The same probe by the kubelet itself, where the path and port of the engine's health are known."""
    pod = container.pod
    engine = subject.engine_of(container)
    port = engine.value("port") if engine else None
    if engine is None or engine.name not in _HEALTH or probe is None or not isinstance(port, int):
        return fixes.advice(
            f"Have the kubelet ask over HTTP (httpGet) in {fixes.edited(pod)}, or take an image that has {program}"
        )
    value = {
        "httpGet": {"path": _HEALTH[engine.name], "port": port},
        "initialDelaySeconds": probe.initial_delay_seconds,
        "periodSeconds": probe.period_seconds,
        "timeoutSeconds": probe.timeout_seconds,
        "failureThreshold": probe.failure_threshold,
    }
    return fixes.set_probe(container, f"{kind}Probe", value, f"Ask for {_HEALTH[engine.name]} over HTTP instead")


def _risk(pod: Pod, subject: Subject, engine: Engine) -> Iterator[Finding]:
    """A probe of a manifest that the engine will refuse, or that its image cannot run."""
    container, key = engine.container, engine.explicit("api_key") if engine.name == "vllm" else None
    foreign = _FOREIGN.get(engine.name)
    if not foreign or not engine.found.argv_known or engine.explicit("middleware"):
        return
    prefixed = _below_a_prefix(engine)
    for kind in ("startup", "liveness", "readiness"):
        probe = container.spec.probes.get(kind)
        absent = lacking(container, probe.exec.command) if probe and probe.exec else None
        # a liveness probe that cannot be run restarts nothing
        if probe and absent and not (absent.direct and kind == "liveness"):
            yield _cannot_run(subject, container, kind, probe, absent)
            return
        get = probe.http_get if probe else None
        if (
            get is None
            or prefixed
            or get.http_headers
            or get.host
            or container.port_number(get.port) != engine.value("port")
        ):
            continue
        # an operator may give the server a certificate, as KServe does for an LLMInferenceService
        if (
            engine.name in ("vllm", "ollama")
            and not (pod.partial or pod.lent)
            and (get.scheme == "HTTPS") != _certified(engine)
        ):
            yield _asked_by(container, kind, get.scheme)
            return
        guarded = key if get.path.startswith("/v1/") and key and key.value else None
        if not guarded and not (re.match(foreign, get.path) and (engine.name == "vllm" or engine.own_image)):
            continue
        yield _warned(engine, kind, get.path, guarded)
        return


def _beside(container: Container, kind: str) -> str:
    """What a server that is no engine answers a probe at, by the name of its image; empty where that is not known."""
    repository = container.spec.image.partition("@")[0].rpartition("/")
    name = f"{repository[0]}/{repository[2].partition(':')[0]}"
    return next((paths[0 if kind == _LIVENESS else 1] for words, paths in _ANSWER_AT if words.search(name)), "")


def _below_a_prefix(engine: Engine) -> bool:
    """Whether somebody has put the server's paths below another one, so that `/api/health` may be right."""
    words = (str(word).partition("=")[0] for word in engine.found.argv)
    return "LLAMA_ARG_API_PREFIX" in engine.container.env or any(word in _PREFIXES for word in words)


def _told_at(engine: Engine | None) -> str:
    """Where an engine tells its health, below the path that llama-server is told to put before all of its own; empty for others."""
    if engine is None or engine.name not in _HEALTH:
        return ""
    words = [str(word) for word in engine.found.argv]
    told = engine.container.env.get("LLAMA_ARG_API_PREFIX")
    pairs = (
        (word.partition("=")[::2] if "=" in word else (word, after))
        for word, after in zip(words, [*words[1:], ""], strict=True)
    )
    prefix = next((value for flag, value in pairs if flag == "--api-prefix"), (told.value if told else "") or "")
    return prefix.rstrip("/") + _HEALTH[engine.name]


def _cannot_run(subject: Subject, container: Container, kind: str, probe: k8s.Probe, absent: Lacking) -> Finding:
    """A probe by a program that the image is known not to have."""
    return Finding(
        role="risk",
        severity="critical",
        summary=f"The {kind} probe of {container.name} runs {absent.program}, which {container.spec.image} does not have: it never "
        f"succeeds, and {_EFFECTS[kind]}.",
        evidence=(pod_evidence(container, f"{kind}Probe.exec.command", absent.text),),
        explains=("probe-too-short",),
        fix=_asked_over_http(subject, container, kind, probe, absent.program),
    )


def _warned(engine: Engine, kind: str, path: str, key: Setting | None) -> Finding:
    container = engine.container
    answer, (_, live) = _ANSWERS["401"] if key else _ANSWERS["404"], _LIVE.get(engine.name, ("", ""))
    follows = "stays out of its Service" if kind == "readiness" else "is restarted forever"
    return Finding(
        role="risk",
        severity="critical",
        summary=f"The {kind} probe asks {container.name} for {path}, and {engine.label} answers {answer} "
        f"({401 if key else 404}): the pod {follows}.",
        evidence=(
            pod_evidence(container, f"{kind}Probe.httpGet.path", path),
            *((setting_evidence(container, key),) if key else ()),
        ),
        explains=("probe-too-short",),
        fixes=tuple(_fixes(container, _alike(container, kind), path, _HEALTH[engine.name], live=live)),
    )


def _alike(container: Container, kind: str) -> tuple[str, ...]:
    """The probes that ask the same as one of them, which a server answers alike."""
    asked = {name: probe.http_get for name, probe in container.spec.probes.items() if probe.http_get}
    return tuple(name for name in asked if asked[name] == asked.get(kind)) or (kind,)


def _given_path(container: Container) -> str:
    """The path at which KServe's agent, which is asked in the server's place, was told to ask the server."""
    told = container.env.get(SIDECAR_PROBE) if container.name == "agent" else None
    found = re.search(r'"path": ?"(/[^"]{1,200})"', str(told.value)[:2000]) if told and told.value else None
    return found[1] if found else ""


def _fixes(
    container: Container, kinds: tuple[str, ...], path: str, right: str, code: str = "", live: str = ""
) -> Iterator[Fix]:
    """`live` is what a liveness probe asks for, where a server says by `right` that it waits for something else as well."""
    pod, names = container.pod, " and ".join(", ".join(kinds).rsplit(", ", 1))
    probes = f"{names} probe{'s' if len(kinds) > 1 else ''}"
    if right and path and right != path:
        asked = {kind: live if kind == _LIVENESS and live else right for kind in kinds}
        operations = [
            {"op": "add", "path": f"/containers/{container.index}/{kind}Probe/httpGet/path", "value": value}
            for kind, value in asked.items()
        ]
        told = dict.fromkeys(asked.values())
        what = (
            " and ".join(f"{value} in the {kind} probe" for kind, value in asked.items())
            if len(told) > 1
            else f"{right if right in told else live}{f' in the {probes}' if len(kinds) > 1 else ''}"
        )
        yield fixes.patch(pod, f"Ask for {what}", operations)
    elif code == "404" and (own := _given_path(container)) not in ("", path):
        was = path or "/"
        yield fixes.platform(
            f"Let KServe's injector give the {probes} of {container.name} the path of the server's own probe, {own}, in place of {was}: "
            "KServe does from 0.18 on"
        )
        yield fixes.advice(
            f"Until then leave out of {fixes.edited(pod)} what puts {container.name} before the server (a logger, a batcher), or run a "
            f"server that answers {was}"
        )
    elif code == "404" and path:
        known = " (servers of OpenAI's API have /v1/models)" if path in _HEALTH.values() else ""
        yield fixes.advice(
            f"Have the {probes} in {fixes.edited(pod)} ask for a path that this image serves{known}, or take a release of it "
            f"that has {path}"
        )
    else:
        yield fixes.advice(f"Correct the path of the {probes} in {fixes.edited(pod)}")
