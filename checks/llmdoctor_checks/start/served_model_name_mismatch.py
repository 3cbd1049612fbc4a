"""Clients that ask for a model name which the server does not serve."""

import re
import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    Subject,
    answered,
    askers,
    check,
    expression,
    few,
    fixes,
    log_evidence,
    object_evidence,
    often,
    pod_evidence,
    rows,
    rules_of,
    stating,
    top_of,
)
from llmdoctor_checks._clients import astray, refused, told
from llmdoctor_checks.start._aibrix import UNKNOWN, other_label, own_names

#: Engines that refuse a name they do not serve; the others answer whatever name they are asked for.
_STRICT = frozenset({"vllm", "nim", "lmdeploy", "huggingfaceserver", "ollama"})

#: Variables that name a server, and those that name a model, after a prefix that both share: `OPENAI_BASE_URL` and
#: `OPENAI_MODEL`, `LLM_ENDPOINT` and `LLM_MODEL_NAME`.
_SERVER = expression(r"(?:^|_)(?:API_BASE_URL|API_BASE|BASE_URL|API_URL|ENDPOINT|HOST|URL)$")
_MODEL = expression(r"(?:^|_)MODEL(?:_NAME|_ID)?$")

#: What a gateway's body-based routing fills from the `model` of a request; and objects that may send another name on.
_HEADER = "X-Gateway-Model-Name"
_REWRITES = ("InferenceModel", "InferenceModelRewrite")

#: What servers answer, as clients print it: vLLM, KServe, Ollama, and vLLM's router before one. Not every release prints it itself.
_ANSWERS = (
    # with more behind it that is a hosted one's
    (" does not exist", r"The model [`'\\\"]{1,4}(?P<name>[^`'\"\\]{1,120})[`'\\\"]{1,4} does not exist\b(?! or)"),
    ("Model with name ", r"Model with name (?P<name>\S{1,120}) does not exist"),
    (
        "model '",
        r"model '(?P<name>[^'\s\"]{1,160})' not found(?:, try pulling it first| \(status code: 404\)|\\{0,2}\"(?:\}|, 'type'))",
    ),
    (" not found or vLLM engine is sleeping", r"Model (?P<name>\S{1,160}) not found or vLLM engine is sleeping"),
)

#: llama-server that has no model of its own, and starts a process for each that it is asked for (`server-models.cpp`): it takes a name
#: for what it says, as it does not with one model. What it answers, and the list of what it has, below its own line.
_OF_A_ROUTER = ("router server", "starting server in router mode")
_LISTED = "Available models ("
_LISTS = r"operator\(\): +(?:\* )?(?P<name>[^\s:]{1,200})\s*$"
_OF_ROUTERS = (
    ("model not found", r"\bmodel not found\b"),
    ("' not found", r"\bmodel '(?P<name>[^'\s]{1,160})' not found"),
    ("model name is missing from the request", r"model name is missing from the request"),
)
_POSTED = r"^srv +log_server_r: (?:done )?request: POST /\S{1,200} \S{1,45} (\d{3})$"

#: An access log's line of a request to generate that is answered with 404, and what shows that its path is served: only the name can be
#: unknown then. vLLM lists its routes when it starts; of what it serves its `serving_chat.py` speaks, in NIM as well.
_GENERATES, _UNNAMED = r"\"POST /v1/((?:chat/)?completions) HTTP/[\d.]{1,3}\" (\d{3})", 3
_SPEAKS_OF = {"chat/completions": "serving_chat.py:", "completions": "serving_completion.py:"}
_SERVED_PATHS = ("Route: /v1/", *_SPEAKS_OF.values())

#: So many requests that were answered since the last one that was not: somebody set the name right.
_OVERCOME = 10

#: So many times as often as the server says it a proxy repeats what it was told, and so many models are looked at of a list.
_REPEATED, _MOST_LISTED = 3, 20

#: A model's name: anything else, such as a list of settings, is left alone.
_NAME = expression(r"\w[\w.:/@+-]{0,199}", re.ASCII)


class Asked(msgspec.Struct, frozen=True):
    """A client of the server, and the variable by which it names a model."""

    container: Container
    server: str
    variable: str
    model: str


class Routed(msgspec.Struct, frozen=True):
    """A rule that chooses a server by a model's name: the route, the rule's place, the name."""

    item: Item
    path: str
    model: str


@check(
    "served-model-name-mismatch",
    since="0.1",
    severity="warning",
    literals=(UNKNOWN, *_OF_A_ROUTER, _LISTED, *_SERVED_PATHS, *(words for words, _ in (*_ANSWERS, *_OF_ROUTERS))),
)
def served_model_name_mismatch(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """Clients ask for a model name that the server does not serve.

    The server answers to the name it was started with: the repository or the path as it was given, unless `--served-model-name` says
    otherwise. A model served from a folder is called by the folder's path. Requests with any other name fail with status 404,
    while the server is healthy and ready.

    The server's log shows such requests, or that of a client which asks this server alone. Where no line has the name, the access log
    does: a request to a path that the server has is answered with 404 for its name alone. That is a note where other requests are
    answered. AIBrix' gateway knows a model by the label `model.aibrix.ai/name` of its pods, which has to be the name that the server
    answers to.

    Where its port was asked which models it serves, the variables of other pods that name both this server and a model
    (`OPENAI_BASE_URL` and `OPENAI_MODEL`) are held against the list, and so is the name by which an HTTPRoute chooses this server
    (the header `X-Gateway-Model-Name`, which a gateway fills from the request's `model`). SGLang, Text Generation Inference and
    llama-server take any name, unless llama-server is a router: started without a model, it refuses a name that it does not list.

    ## Fix

    Set `--served-model-name` to the name (or names) that clients use; look at `/v1/models` to see what is served now.

    ## References

    - https://docs.vllm.ai/en/latest/serving/openai_compatible_server/
    - https://gateway-api-inference-extension.sigs.k8s.io/guides/serve-multiple-genai-models/
    """
    engines = subject.engines(pod)
    for engine in engines:
        yield from _of(pod, engine, cluster, logs)
    if not engines and (found := other_label(pod, ())) is not None:
        yield found


def _of(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    found = _told_to_clients(pod, engine, cluster, logs) or _told_by_router(pod, engine, cluster, logs)
    found = found or other_label(pod, (engine,))
    if (found := found or _by_status(pod, engine, cluster, logs)) is not None:
        yield found
        return
    models = engine.answers.models if pod.ready and engine.name in _STRICT else None
    if models is None:
        return
    names, answer = models
    wrong = [asked for asked in _clients(pod, cluster) if not _serves(names, asked.model)]
    routed = [] if wrong else [route for route in _routes(pod, cluster) if not _serves(names, route.model)]
    if routed:
        yield _by_route(engine, routed[0], names, engine.answers.evidence(answer, few(names, 5)))
    if not wrong:
        return
    first, listed = wrong[0], few(names, 5)
    yield Finding(
        role="risk",
        summary=f"{first.container.pod.name} asks {engine.container.name} for the model {first.model}, and it serves {listed}: "
        "such requests fail with 404.",
        evidence=(engine.answers.evidence(answer, listed), *(e for asked in wrong[:3] for e in _quoted(asked))),
        fixes=tuple(_fixes(engine, first, names)),
    )


def _told_to_clients(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Clients that ask this server alone, and print that it does not know the model; its own log has no word of it."""
    own = own_names(engine)
    all_told = told(pod, engine, cluster, logs, _ANSWERS, "404") or _repeated(pod, engine, cluster, logs)
    answers = [(line, said) for line, said in all_told if said["name"] not in own]
    if engine.name not in _STRICT or not answers:
        return None
    line, said = answers[-1]
    count, all_of = refused(engine.container.own_log(logs), "404")
    known = f", which serves {few(own, 5)}" if own else ""
    return Finding(
        role="note" if astray(len(answers), count, all_of) else "cause",
        severity="warning",
        summary=f"{line.log.pod} asks {engine.container.name}{known}, for the model {said['name']}: it is refused, "
        f"{often(len(answers))} in its log.",
        evidence=(log_evidence(line, said[0]),),
        fix=stating.serving_as(engine, said["name"])
        or (_pulled(engine, said["name"]) if engine.name == "ollama" else None)
        or fixes.advice(f"Have {fixes.edited(pod)} answer to {said['name']}, or correct the name in {line.log.pod}"),
        order=line.order,
    )


def _pulled(engine: Engine, model: str) -> Fix:
    inside = f"kubectl -n {engine.pod.namespace} exec {engine.pod.name} -c {engine.container.name} --"
    # a variable of somebody's pod
    return fixes.advice(f"Load {model} into the server", f"{inside} ollama pull {shlex.quote(model)}")


def _repeated(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> list[tuple[Line, re.Match[str]]]:
    """What a proxy answers to all of its clients since the server refused it once: it does not ask again for a while."""
    log = engine.container.own_log(logs)
    once = sum(1 for words, _ in _ANSWERS for _ in log.find(words)) if log is not None else 0
    said = told(pod, engine, cluster, None, _ANSWERS, "404") if once else []
    again = len(said) >= max(_REPEATED * once, _UNNAMED)
    return said if again and not answered(said[-1][0].log, after=said[0][0].number) else []


def _told_by_router(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Clients of a llama-server without a model of its own, which are refused for the name of the model that they ask for."""
    log = engine.container.own_log(logs) if engine.name == "llama.cpp" else None
    if log is None or not any(log.holds(words) for words in _OF_A_ROUTER):
        return None
    answers = told(pod, engine, cluster, logs, _OF_ROUTERS, "400")
    posted = [m[1] for _, m in log.matching(_POSTED, "request: POST ", most=2000)]
    if not answers:
        return None
    line, said = answers[-1]
    begun = log.last(_LISTED)
    below = log.lines(begun.number + 1, begun.number + _MOST_LISTED) if begun is not None else ()
    names = tuple(m["name"] for x in below if (m := re.search(_LISTS, x.text[:1000])) is not None)
    name = said.groupdict().get("name")
    lacks = (
        f"the model {name}"
        if name
        else "a model by no name that it lists"
        if names
        else "a model that it does not have"
    )
    return Finding(
        role="note" if astray(len(answers), posted.count("400"), len(posted)) else "cause",
        severity="warning",
        summary=f"{line.log.pod} asks {engine.container.name} for {lacks}, and is refused, {often(len(answers))} in its log: as a router, "
        f"llama-server answers to the names of its models alone{f' ({few(names, 5)})' if names else ''}.",
        evidence=(log_evidence(line, said[0]), *((log_evidence(begun),) if begun is not None else ())),
        fix=fixes.advice(
            f"Have {line.log.pod} ask for a name that stands at /v1/models of {pod.name}, or give the model an alias in "
            "--models-preset; with --model llama-server has one, and answers to any name"
        ),
        order=line.order,
    )


def _by_status(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Requests to generate that the access log has as not found, at a path that the server has."""
    log = engine.container.own_log(logs) if pod.ready else None
    if log is None or engine.name not in ("vllm", "nim"):
        return None
    if any(next(log.find(words), None) for words, _ in _ANSWERS):
        return None  # a line that has the name says more
    if not all(_alone(pod, service, cluster) for service in pod.services):
        return None  # requests for another model may come here
    asked = [(line, said) for line, said in log.matching(_GENERATES, '"POST /v1/', most=2000)]
    lost = [(line, said[1]) for line, said in asked if said[2] == "404"]
    served = {said[1] for _, said in asked if said[2] in ("200", "400")}
    told_paths = [line.text for line in log.find(*_SERVED_PATHS)]
    lost = [
        (line, path)
        for line, path in lost
        if path in served or any(f"Route: /v1/{path}," in text or _SPEAKS_OF[path] in text for text in told_paths)
    ]
    if len(lost) < _UNNAMED or astray(len(lost), len(lost), len(asked)):
        return None
    line, path = lost[-1]
    answered = [other for other, said in asked if said[2] == "200"]
    if len(answered) >= len(lost) or sum(other.number > line.number for other in answered) >= _OVERCOME:
        return None  # some client's own fault, without a name to tell which; or somebody set it right
    own = own_names(engine)
    known = f", which answers to {few(own, 5)}" if own else ""
    return Finding(
        # where others are answered, the server does what it is there for
        role="note" if answered else "cause",
        severity="warning",
        summary=f"{len(lost)} of {len(asked)} requests to {engine.container.name}{known}, were answered with 404, though it serves "
        f"/v1/{path}: they ask for a model by another name.",
        evidence=(log_evidence(line, "404"), log_evidence(lost[0][0], "404")),
        fix=fixes.advice(
            f"Have the clients ask for a name that stands at /v1/models of {pod.name}, or let {fixes.edited(pod)} answer to theirs"
        ),
        order=line.order,
    )


def _by_route(engine: Engine, route: Routed, names: tuple[str, ...], said: Evidence) -> Finding:
    return Finding(
        role="risk",
        summary=f"HTTPRoute {route.item.name} sends requests for the model {route.model} to {engine.container.name}, which serves "
        f"{few(names, 5)}: they fail with 404.",
        evidence=(said, object_evidence(route.item, route.path, f"{_HEADER}: {route.model}")),
        fix=_answering(engine, names, route.model)
        if engine.name == "vllm"
        else fixes.advice(f"Have {fixes.edited(engine.pod)} serve {route.model}, or the route name what it serves"),
    )


def _answering(engine: Engine, names: tuple[str, ...], asked: str) -> Fix:
    """A vLLM that answers to one more name. One of an adapter is none of the model's: that would answer in its place."""
    where = fixes.edited(engine.pod)
    if stating.takes_adapters(engine):
        return fixes.advice(
            f"Where {asked} is a LoRA adapter, have each start load it: --lora-modules {asked}=ITS-PATH in {where}; where it should be "
            f"the model itself, have it asked for as {few(names, 5)}"
        )
    known = stating.serving_as(engine, asked)
    change = f"--served-model-name {' '.join(names)} {asked} in {where}"
    return known or fixes.advice(f"Have the server answer to {asked}, too: {change}")


def _routes(pod: Pod, cluster: Cluster) -> Iterator[Routed]:
    """Rules of HTTPRoutes that choose this server by the name of a model, where nothing is there that changes the name."""
    if any(next(cluster.items(kind, pod.namespace), None) for kind in _REWRITES):
        return
    backends = {("Service", service.name) for service in pod.services if _alone(pod, service, cluster)}
    backends |= {("InferencePool", pool.name) for pool in pod.pools}
    for item in cluster.items("HTTPRoute", pod.namespace) if backends else ():
        for rule in rules_of(item):
            led = {
                (one.kind, one.name)
                for one in rule.backends
                if one.namespace == pod.namespace and one.raw.get("weight", 1) != 0
            }
            if not led & backends or any(f.get("type") == "ExtensionRef" for f in rows(rule.raw, "filters")):
                continue
            for match in rows(rule.raw, "matches"):
                for header in rows(match, "headers"):
                    exact = (
                        header.get("type", "Exact") == "Exact"
                        and str(header.get("name", "")).lower() == _HEADER.lower()
                    )
                    value = header.get("value")
                    if exact and isinstance(value, str) and _NAME.fullmatch(value):
                        yield Routed(item, f"{rule.path}.matches.headers", value)


def _clients(pod: Pod, cluster: Cluster) -> Iterator[Asked]:
    """Containers of other pods that name this server's Service, and a model beside it, in their environment."""
    names = {service.name for service in pod.services if _alone(pod, service, cluster)}
    for container, server, _ in askers(pod, names, cluster):
        prefix = _before(_SERVER, server)
        for name, variable in container.env.items() if prefix is not None else ():
            if variable.value and _before(_MODEL, name) == prefix and _NAME.fullmatch(variable.value):
                yield Asked(container, server, name, variable.value)


def _alone(pod: Pod, service: Item, cluster: Cluster) -> bool:
    """Whether a Service leads to replicas of this pod only: another model may stand behind it, too."""
    top = top_of(pod.item, cluster)
    for item in cluster.items("Pod", pod.namespace):
        other = Pod.of(item, cluster)
        if item is not pod.item and any(one is service for one in other.services):
            beside = top_of(item, cluster)
            if top is None or beside is None or beside.item is not top.item:
                return False
    return True


def _before(pattern: re.Pattern[str], name: str) -> str | None:
    """What stands before the part of a variable's name that says what it is; None where it is another sort of variable."""
    found = pattern.search(name)
    return name[: found.start()] if found else None


def _serves(names: tuple[str, ...], asked: str) -> bool:
    """Whether a server answers to a name, as it stands or without the provider that LiteLLM is told before it."""
    return any({name, name.removesuffix(":latest")} & {asked, asked.partition("/")[2]} for name in names)


def _quoted(asked: Asked) -> Iterator[Evidence]:
    for name in (asked.server, asked.variable):
        variable = asked.container.env[name]
        yield pod_evidence(asked.container, f"env[{name}]", f"{asked.container.pod.name}: {name}={variable.value}")


def _fixes(engine: Engine, asked: Asked, names: tuple[str, ...]) -> Iterator[Fix]:
    client, server = asked.container, fixes.edited(engine.pod)
    if engine.name == "ollama":
        yield _pulled(engine, asked.model)
    elif engine.name == "vllm":
        yield _answering(engine, names, asked.model)
    else:
        known = stating.serving_as(engine, asked.model)
        yield known or fixes.advice(f"Have the server answer to {asked.model}, in {server}")
    if len(names) == 1:
        yield fixes.set_env(client, asked.variable, names[0], f"Have {client.pod.name} ask for {names[0]}")
