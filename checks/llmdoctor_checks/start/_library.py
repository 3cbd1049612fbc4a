"""Models of Ollama's library that manifests have pulled, and the least that they take."""

import re
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import Cluster, Engine, Evidence, Pod, Workload, k8s, object_evidence, pod_evidence, words
from llmdoctor_checks.start._storage import Store, other_user, store

#: How a script or a request asks for one: the program, or a body for /api/pull.
_PULLS = (
    r"\bollama\s{1,9}(?:pull|run)\s{1,9}(?P<name>[a-z][\w.-]{1,60}(?::[\w.-]{1,60})?)(?![\w/:.-])"
    r"|\"(?:name|model)\"\s{0,9}:\s{0,9}\"(?P<body>[a-z][\w.-]{1,60}(?::[\w.-]{1,60})?)\""
)
_ASKS = "/api/pull"

#: Billions of parameters of the tag `latest`. Source: the library's pages.
_LATEST = {
    "codellama": 7,
    "deepseek-r1": 7,
    "gemma2": 9,
    "gemma3": 4,
    "gpt-oss": 20,
    "llama2": 7,
    "llama3": 8,
    "llama3.1": 8,
    "llama3.2": 3,
    "llama3.3": 70,
    "mistral": 7,
    "mixtral": 46,
    "phi4": 14,
    "qwen2.5": 7,
    "qwen2.5-coder": 7,
    "qwen3": 8,
    "qwen3-coder": 30,
}

#: Bytes for a parameter that a tag names, at the least: the library's are of 4 bits, with the scales of their blocks 4.5, unless
#: they say otherwise, and one of "7b" has 6.7 billions and more.
_BYTES = 0.53
_OTHER_BITS = (
    (r"[-_]iq", 0.18),
    (r"[-_]q[12]", 0.31),
    (r"[-_]q3", 0.4),
    (r"[-_]q5", 0.65),
    (r"[-_]q6", 0.78),
    (r"[-_]q8", 1.0),
    (r"fp16|bf16|f16", 1.9),
)


class Pulled(msgspec.Struct, frozen=True):
    """What one server is to pull together, and the room that it has."""

    names: tuple[str, ...]
    needed: int
    place: Store
    evidence: Evidence


def pulled(pod: Pod, engine: Engine, cluster: Cluster) -> Pulled | None:
    """What the pod, or a Job beside it, has the server pull; None where its size or the room is not known."""
    container = engine.container
    variable = container.env.get("OLLAMA_MODELS")
    named = "HOME" in container.env or other_user(container)
    path = (variable.value or "") if variable else "" if named else "/root/.ollama/models"
    place = store(container, path) if path.startswith("/") else None
    if place is None or place.size is None or place.evidence is None:
        return None
    found = asked(pod, cluster)
    sizes = {name: size for name in found if (size := least_bytes(name))}
    # `llama3.1` and `llama3.1:8b` are one model
    needed = sum(size for _, size in {(name.partition(":")[0], size) for name, size in sizes.items()})
    return Pulled(tuple(sizes), needed, place, found[next(iter(sizes))]) if sizes else None


def least_bytes(name: str) -> int | None:
    """The least that a model of the library takes on a disk; None where its tag does not say how large it is."""
    model, _, tag = name.partition(":")
    if tag.endswith("cloud"):
        return None  # it stays at ollama.com
    stated = re.match(r"(?:[a-z]+-)?(\d{1,4}(?:\.\d{1,3})?)b(?![\w.])", tag)
    billions = float(stated[1]) if stated else _LATEST.get(model) if tag in ("", "latest") else None
    each = next((size for pattern, size in _OTHER_BITS if re.search(pattern, tag)), _BYTES)
    return int(billions * 1e9 * each) if billions else None


def asked(pod: Pod, cluster: Cluster) -> dict[str, Evidence]:
    """The models that the pod, or a Job that calls one of its Services, has the server pull, and where that stands."""
    return dict(_asked(pod, cluster))


def _asked(pod: Pod, cluster: Cluster) -> Iterator[tuple[str, Evidence]]:
    for container in pod.containers:
        for path, text in _texts(container.spec):
            yield from ((name, pod_evidence(container, path, said)) for name, said in _names(text))
    services = [item.name for item in pod.services]
    for job in cluster.items("Job", pod.namespace) if services else ():
        if not any(_names_host(str(job.raw.get("spec")), name) for name in services):
            continue
        for _, template in Workload(job, cluster).templates:
            for spec in template.spec.containers:
                for path, text in _texts(spec):
                    at = f"spec.template.spec.containers[{spec.name}].{path}"
                    yield from ((name, object_evidence(job, at, said)) for name, said in _names(text))


def _names_host(text: str, service: str) -> bool:
    """Whether a text has an address of a Service: a URL, a host and its port, or the value of a variable."""
    host = rf"{re.escape(service)}(?:\.[\w.-]{{1,200}})?"
    return bool(
        re.search(rf"(?:://|\bOLLAMA_HOST\W{{1,40}}(?:value\W{{1,40}})?){host}(?![\w.-])|(?<![\w./-]){host}:\d", text)
    )


def _texts(spec: k8s.Container) -> Iterator[tuple[str, str]]:
    hook = spec.lifecycle.post_start if spec.lifecycle else None
    yield "lifecycle.postStart.exec.command", " ".join(words(hook, "exec.command")) if hook else ""
    yield "command", " ".join(map(str, spec.command))
    yield "args", " ".join(map(str, spec.args))


def _names(text: str) -> Iterator[tuple[str, str]]:
    for found in re.finditer(_PULLS, text):
        line = text[: found.start()].rpartition("\n")[2]
        if found["name"] and not line.lstrip().startswith("#"):
            yield found["name"], found[0]
        elif found["body"] and _ASKS in text:
            yield found["body"], found[0]
