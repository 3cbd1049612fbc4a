"""NVIDIA's NIM operator: NIMService (api/apps/v1alpha1/nimservice_types.go and manifests/deployment.yaml, 1.0 to 3.x).

It names the container `<name>-ctr`, mounts memory at /dev/shm, gives it three probes, tells the server its port and its
cache, and where a NIMCache names an optimized profile asks for as many GPUs as that profile has ranks.
"""

from __future__ import annotations

from typing import Any

from .pointer import Json
from .template import Finder, Stated, Template, dig, name_of, named, namespace_of, rows, table, with_shm

_GPU = "nvidia.com/gpu"
_PORT = 8000

#: Fields of a pod spec that NIMService has under its own name.
_POD_FIELDS = ("nodeSelector", "tolerations", "affinity", "runtimeClassName", "priorityClassName", "schedulerName")

_PROBES: dict[str, tuple[str, Json]] = {
    "livenessProbe": ("/v1/health/live", {"initialDelaySeconds": 15, "periodSeconds": 10, "failureThreshold": 3}),
    "readinessProbe": ("/v1/health/ready", {"initialDelaySeconds": 15, "periodSeconds": 10, "failureThreshold": 3}),
    "startupProbe": ("/v1/health/ready", {"initialDelaySeconds": 30, "periodSeconds": 10, "failureThreshold": 120}),
}


def nim_service(raw: Json, find: Finder) -> list[Template]:
    """The server, or with `multiNode` the leader and the workers of a LeaderWorkerSet."""
    spec = table(raw.get("spec"))
    multi = spec.get("multiNode")
    if not isinstance(multi, dict):
        return [_template(raw, find, {})]
    tensor, pipeline = dig(multi, "parallelism", "tensor"), dig(multi, "parallelism", "pipeline")
    sizes = {"NIM_MULTI_NODE": 1, "NIM_NUM_COMPUTE_NODES": pipeline or 1}
    sizes |= {"NIM_TENSOR_PARALLEL_SIZE": tensor or 1, "NIM_PIPELINE_PARALLEL_SIZE": pipeline or 1}
    nodes = pipeline if isinstance(pipeline, int) else 1
    return [
        _template(raw, find, {**sizes, "NIM_LEADER_ROLE": role}, part=part, nodes=nodes)
        for part, role in (("leader", 1), ("worker", 0))
    ]


def _template(raw: Json, find: Finder, more: dict[str, Any], part: str = "", nodes: int = 1) -> Template:
    spec, name = table(raw.get("spec")), name_of(raw)
    image = table(spec.get("image"))
    port = dig(spec, "expose", "service", "port")
    port = port if isinstance(port, int) else _PORT
    container: Json = {
        "name": f"{name}-ctr",
        "image": ":".join(str(image[key]) for key in ("repository", "tag") if image.get(key)),
        "ports": [{"name": "api", "containerPort": port}],
        "env": named(spec.get("env"), _variables(port, more)),
        "volumeMounts": [],
    }
    container |= {key: spec[key] for key in ("command", "args") if isinstance(spec.get(key), list)}
    places = [("", ""), ("/containers/0/image", "/spec/image")]
    places += [(f"/containers/0/{key}", f"/spec/{key}") for key in ("env", "resources", "command", "args")]
    for probe, (path, numbers) in _PROBES.items():
        given = table(spec.get(probe))
        if given.get("enabled") is False:
            continue
        own = given.get("probe")
        container[probe] = own if isinstance(own, dict) else {"httpGet": {"path": path, "port": "api"}, **numbers}
        places.append((f"/containers/0/{probe}", f"/spec/{probe}/probe"))
    resources = {k: v for k, v in table(spec.get("resources")).items() if k in ("limits", "requests")}
    cache = _cache(raw, find)
    asks = any(_GPU in table(resources.get(kind)) for kind in ("limits", "requests"))
    claims = rows(spec.get("draResources"))
    if claims:
        resources["claims"] = [{"name": f"claim-{i}"} for i in range(len(claims))]
    container["resources"] = resources
    pod: Json = {"containers": [container]}
    for key in _POD_FIELDS:
        if spec.get(key):
            pod[key] = spec[key]
        places.append((f"/{key}", f"/spec/{key}"))
    if claims:
        pod["resourceClaims"] = [{"name": f"claim-{i}"} for i in range(len(claims))]
    pod = with_shm(pod, 0, dig(spec, "storage", "sharedMemorySizeLimit"))
    role = {"nim-llm-role": part} if part else {}
    labels = {"app.kubernetes.io/name": name, "app.kubernetes.io/part-of": "nim-service", **role}
    return Template(
        raw=raw,
        pod={"metadata": {"labels": {**table(spec.get("labels")), **labels}}, "spec": pod},
        places=tuple(places),
        part=part,
        labels=role,
        nodes=nodes,
        partial=not asks and not claims and bool(dig(spec, "storage", "nimCache", "name")),
        stated=tuple(_stated(resources, cache)) if not more else (),
    )


def _variables(port: int, more: dict[str, Any]) -> list[Json]:
    known: dict[str, Any] = {"NIM_CACHE_PATH": "/model-store", "NIM_SERVER_PORT": port, "NIM_HTTP_API_PORT": port}
    known |= {"NIM_JSONL_LOGGING": 1, "NIM_LOG_LEVEL": "INFO", **more}
    return [{"name": key, "value": str(value)} for key, value in known.items()]


def _cache(raw: Json, find: Finder) -> Json | None:
    name = dig(raw, "spec", "storage", "nimCache", "name")
    return find("NIMCache", namespace_of(raw), name) if isinstance(name, str) and name else None


def _stated(resources: Json, cache: Json | None) -> list[Stated]:
    """The tensor parallel size: that of the cached profile; one where the server has one GPU.

    The operator takes one for the other: without a request it asks for as many GPUs as the profile has ranks.
    """
    ranks = dig(cache, "spec", "source", "ngc", "model", "tensorParallelism")
    if str(ranks or "").isdecimal():
        text, path = f"tensorParallelism: {ranks}", f"NIMCache/{name_of(cache or {})} spec.source.ngc.model"
        return [Stated(name="tensor_parallel_size", value=int(ranks), text=text, path=path)]
    for kind in ("limits", "requests"):
        if str(table(resources.get(kind)).get(_GPU, "")) == "1":
            path = f"spec.resources.{kind}[{_GPU}]"
            return [Stated(name="tensor_parallel_size", value=1, text="one GPU", path=path)]
    return []
