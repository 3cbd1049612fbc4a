"""NVIDIA's NIM operator: NIMService (api/apps/v1alpha1/nimservice_types.go and manifests/deployment.yaml, 1.0 to 3.x).

It names the container `<name>-ctr`, mounts memory at /dev/shm, gives it three probes, tells the server its port and its
cache, and where a NIMCache names an optimized profile asks for as many GPUs as that profile has ranks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.platforms.labels import APP_NAME, PART_OF
from kubectl_llmdoctor.tree import dig, numbered, rows, table

from .pointer import Json, show
from .template import Claim, Finder, Stated, Template, claim_spec, name_of, named, namespace_of, with_shm

_GPU = "nvidia.com/gpu"
_PORT = 8000
#: What a profile of a NIM takes of the Hub's 16 bits at the least: the smallest have 4.
_LEAST = 0.25

#: Fields of a pod spec that NIMService has under its own name.
_POD_FIELDS = ("nodeSelector", "tolerations", "affinity", "runtimeClassName", "priorityClassName", "schedulerName")

_PROBES: dict[str, tuple[str, Json]] = {
    "livenessProbe": ("/v1/health/live", {"initialDelaySeconds": 15, "periodSeconds": 10, "failureThreshold": 3}),
    "readinessProbe": ("/v1/health/ready", {"initialDelaySeconds": 15, "periodSeconds": 10, "failureThreshold": 3}),
    "startupProbe": ("/v1/health/ready", {"initialDelaySeconds": 30, "periodSeconds": 10, "failureThreshold": 120}),
}


def nim_service(raw: Json, find: Finder) -> list[Template]:
    """The server, or with `multiNode` the leader and the workers of a LeaderWorkerSet."""
    return _service(raw, table(raw.get("spec")), "/spec", name_of(raw), find)


def nim_pipeline(raw: Json, find: Finder) -> list[Template]:
    """The services of a pipeline that are switched on, each as a NIMService would have it."""
    found = []
    for index, service in numbered(raw, "spec.services"):
        if service.get("enabled") is not False:
            name = str(service.get("name") or index)
            found += _service(raw, table(service.get("spec")), f"/spec/services/{index}/spec", name, find)
    return found


def _service(raw: Json, spec: Json, at: str, name: str, find: Finder) -> list[Template]:
    multi = spec.get("multiNode")
    alone = name if at != "/spec" else ""
    if not isinstance(multi, dict):
        return [_template(raw, spec, at, name, find, {}, alone)]
    tensor, pipeline = dig(multi, "parallelism.tensor"), dig(multi, "parallelism.pipeline")
    sizes = {"NIM_MULTI_NODE": 1, "NIM_NUM_COMPUTE_NODES": pipeline or 1}
    sizes |= {"NIM_TENSOR_PARALLEL_SIZE": tensor or 1, "NIM_PIPELINE_PARALLEL_SIZE": pipeline or 1}
    nodes = pipeline if isinstance(pipeline, int) else 1
    return [
        _template(raw, spec, at, name, find, {**sizes, "NIM_LEADER_ROLE": role}, f"{alone} {part}".strip(), nodes, part)
        for part, role in (("leader", 1), ("worker", 0))
    ]


def _container(spec: Json, name: str, more: dict[str, Any]) -> Json:
    """The server, without what it asks of the node."""
    image = table(spec.get("image"))
    port = dig(spec, "expose.service.port")
    port = port if isinstance(port, int) else _PORT
    own = {key: spec[key] for key in ("command", "args") if isinstance(spec.get(key), list)}
    return {
        "name": f"{name}-ctr",
        "image": ":".join(str(image[key]) for key in ("repository", "tag") if image.get(key)),
        "ports": [{"name": "api", "containerPort": port}],
        "env": named(spec.get("env"), _variables(port, more)),
        "volumeMounts": [],
        **own,
        **_probes(spec),
    }


def _template(
    raw: Json,
    spec: Json,
    at: str,
    name: str,
    find: Finder,
    more: dict[str, Any],
    part: str,
    nodes: int = 1,
    role: str = "",
) -> Template:
    container = _container(spec, name, more)
    places = [("", ""), ("/containers/0/image", f"{at}/image")]
    places += [(f"/containers/0/{key}", f"{at}/{key}") for key in ("env", "resources", "command", "args")]
    places += [(f"/containers/0/{probe}", f"{at}/{probe}/probe") for probe in _probes(spec)]
    resources = {k: v for k, v in table(spec.get("resources")).items() if k in ("limits", "requests")}
    cache = _cache(raw, spec, find)
    asks = any(_GPU in table(resources.get(kind)) for kind in ("limits", "requests"))
    claims = rows(spec.get("draResources"))
    if claims:
        resources["claims"] = [{"name": f"claim-{i}"} for i in range(len(claims))]
    container["resources"] = resources
    pod: Json = {"containers": [container]}
    for key in _POD_FIELDS:
        if spec.get(key):
            pod[key] = spec[key]
        places.append((f"/{key}", f"{at}/{key}"))
    if claims:
        pod["resourceClaims"] = [{"name": f"claim-{i}"} for i in range(len(claims))]
    pod = with_shm(pod, 0, dig(spec, "storage.sharedMemorySizeLimit"))
    own = {"nim-llm-role": role} if role else {}
    labels = {APP_NAME: name, PART_OF: "nim-service", **own}
    return Template(
        raw=raw,
        pod={
            "metadata": {
                "labels": {**table(spec.get("labels")), **labels},
                "annotations": table(spec.get("annotations")),
            },
            "spec": pod,
        },
        places=tuple(places),
        base=show(raw, at),
        part=part,
        labels=own if at == "/spec" else {APP_NAME: name, **own},
        nodes=nodes,
        partial=not asks and not claims and bool(dig(spec, "storage.nimCache.name")),
        stated=tuple(_stated(resources, cache, show(raw, at))) if not more else (),
        claims=tuple(_claims(raw, spec, at, cache, container["image"])),
    )


def _probes(spec: Json) -> Json:
    """The probes of the container: the operator's own, unless the object switches one off or has another."""
    found: Json = {}
    for probe, (path, numbers) in _PROBES.items():
        given = table(spec.get(probe))
        if given.get("enabled") is not False:
            own = given.get("probe")
            found[probe] = own if isinstance(own, dict) else {"httpGet": {"path": path, "port": "api"}, **numbers}
    return found


def _claims(raw: Json, spec: Json, at: str, cache: Json | None, image: str) -> Iterator[Claim]:
    """The claim that the cache makes, or the server itself, and what is downloaded to it."""
    owner, path, stated = raw, f"{at}/storage/pvc", table(dig(spec, "storage.pvc"))
    source: Json = {"ngc": {"modelPuller": image}}
    if cache is not None:
        owner, path, stated = cache, "/spec/storage/pvc", table(dig(cache, "spec.storage.pvc"))
        source = table(dig(cache, "spec.source"))
    hub, catalog = table(source.get("hf")), table(source.get("ngc"))
    _, _, puller = str(catalog.get("modelPuller") or "").partition("/nim/")
    model, share = puller.partition("@")[0].partition(":")[0], _LEAST
    if catalog.get("modelEndpoint"):
        model = ""
    if hub.get("modelName"):
        model, share = f"{hub.get('namespace')}/{hub['modelName']}", 1
    if model and stated.get("create"):
        spec = claim_spec(stated.get("size"), stated.get("volumeAccessMode"), "")
        name = str(stated.get("name") or f"{name_of(owner)}-pvc")
        yield Claim(name=name, spec=spec, raw=owner, pointer=f"{path}/size", model=model, share=share)


def _variables(port: int, more: dict[str, Any]) -> list[Json]:
    known: dict[str, Any] = {"NIM_CACHE_PATH": "/model-store", "NIM_SERVER_PORT": port, "NIM_HTTP_API_PORT": port}
    known |= {"NIM_JSONL_LOGGING": 1, "NIM_LOG_LEVEL": "INFO", **more}
    return [{"name": key, "value": str(value)} for key, value in known.items()]


def _cache(raw: Json, spec: Json, find: Finder) -> Json | None:
    name = dig(spec, "storage.nimCache.name")
    return find("NIMCache", namespace_of(raw), name) if isinstance(name, str) and name else None


def _stated(resources: Json, cache: Json | None, at: str) -> list[Stated]:
    """The tensor parallel size: that of the cached profile; one where the server has one GPU.

    The operator takes one for the other: without a request it asks for as many GPUs as the profile has ranks.
    """
    ranks = dig(cache, "spec.source.ngc.model.tensorParallelism")
    if str(ranks or "").isdecimal():
        text, path = f"tensorParallelism: {ranks}", f"NIMCache/{name_of(cache or {})} spec.source.ngc.model"
        return [Stated(name="tensor_parallel_size", value=int(ranks), text=text, path=path)]
    for kind in ("limits", "requests"):
        if str(table(resources.get(kind)).get(_GPU, "")) == "1":
            path = f"{at}.resources.{kind}[{_GPU}]"
            return [Stated(name="tensor_parallel_size", value=1, text="one GPU", path=path)]
    return []
