"""NVIDIA Dynamo: DynamoGraphDeployment and DynamoComponentDeployment, v1alpha1 and v1beta1 (0.4 to 1.x).

Sources: deploy/operator/api and internal/dynamo (component_worker.go, graph.go) of ai-dynamo/dynamo. The container is
`main`; unless it is switched off 8Gi of memory stand at /dev/shm; workers get a startup probe of two hours and probes on
the system port; a component of another type runs `python3 -m dynamo.<type>` unless it says otherwise. In v1alpha1 a
component's GPUs stand beside the pod spec, as `resources.limits.gpu`.
"""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.platforms.labels import DYNAMO_GRAPH
from kubectl_llmdoctor.tree import dig, numbered, rows, table

from .pointer import Json, escaped
from .template import Finder, Template, name_of, named, with_shm

_WORKERS = ("worker", "prefill", "decode")

#: Resources as v1alpha1 calls them, and as Kubernetes does. All others stand in `custom`.
_RESOURCES = {"cpu": "cpu", "memory": "memory", "gpu": "nvidia.com/gpu"}

_PROBES: dict[str, Json] = {
    "startupProbe": {"httpGet": {"path": "/live", "port": "system"}, "periodSeconds": 10, "failureThreshold": 720},
    "livenessProbe": {"httpGet": {"path": "/live", "port": "system"}, "periodSeconds": 5, "failureThreshold": 1},
    "readinessProbe": {"httpGet": {"path": "/health", "port": "system"}, "periodSeconds": 10, "failureThreshold": 3},
}


def graph(raw: Json, _find: Finder) -> list[Template]:
    """One template for each component of the graph."""
    spec = table(raw.get("spec"))
    shared = [*rows(spec.get("envs")), *rows(spec.get("env"))]
    found = [
        _alpha(raw, service, f"/spec/services/{escaped(name)}", name, shared)
        for name, service in table(spec.get("services")).items()
        if isinstance(service, dict)
    ]
    for index, component in numbered(spec, "components"):
        name = str(component.get("name") or index)
        found.append(_beta(raw, component, f"/spec/components/{index}", name, shared))
    return found


def component(raw: Json, _find: Finder) -> list[Template]:
    spec = table(raw.get("spec"))
    name = str(spec.get("serviceName") or spec.get("name") or name_of(raw))
    read = _beta if "podTemplate" in spec else _alpha
    return [read(raw, spec, "/spec", name, [])]


def _alpha(raw: Json, service: Json, base: str, name: str, shared: list[Json]) -> Template:
    extra = table(service.get("extraPodSpec"))
    container = {"name": "main", **table(extra.get("mainContainer"))}
    pod = {key: value for key, value in extra.items() if key not in ("mainContainer", "containers")}
    main = f"{base}/extraPodSpec/mainContainer"
    places = [("", f"{base}/extraPodSpec"), ("/containers", f"{base}/extraPodSpec/containers"), ("/containers/0", main)]
    own, told, of_all = rows(container.get("env")), rows(service.get("envs")), rows(raw, "spec.envs")
    container["env"] = named(own, named(told, shared))
    for index, variable in enumerate(container["env"][len(own) :], len(own)):
        for at, stated in ((f"{base}/envs", told), ("/spec/envs", of_all)):
            if variable in stated:
                places.append((f"/containers/0/env/{index}", f"{at}/{stated.index(variable)}"))
                break
    if secret := service.get("envFromSecret"):
        container["envFrom"] = [*rows(container.get("envFrom")), {"secretRef": {"name": secret}}]
        places.append(("/containers/0/envFrom", f"{base}/envFromSecret"))
    resources: Json = {**table(container.get("resources"))}
    for kind in ("limits", "requests"):
        given = table(dig(service, f"resources.{kind}"))
        known = {_RESOURCES[key]: value for key, value in given.items() if key in _RESOURCES and value is not None}
        known |= table(given.get("custom"))
        if gpu_type := given.get("gpuType"):
            known = {str(gpu_type) if key == "nvidia.com/gpu" else key: value for key, value in known.items()}
        if known:
            resources[kind] = {**table(resources.get(kind)), **known}
        for key, resource in _RESOURCES.items():
            inside = f"/containers/0/resources/{kind}/{escaped(resource)}"
            places.append((inside, f"{base}/resources/{kind}/{key}"))
        places.append((f"/containers/0/resources/{kind}", f"{base}/resources/{kind}/custom"))
    places.append(("/containers/0/resources", ""))
    container["resources"] = resources
    containers = [container, *(c for c in rows(extra.get("containers")) if c.get("name") != "main")]
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        if isinstance(service.get(probe), dict):
            container[probe] = service[probe]
            places.append((f"/containers/0/{probe}", f"{base}/{probe}"))
    kind = str(service.get("componentType") or "")
    sub = str(service.get("subComponentType") or "")
    disabled = dig(service, "sharedMemory.disabled") is True
    size = None if disabled else dig(service, "sharedMemory.size") or "8Gi"
    places.append((_size_of_shm(extra), f"{base}/sharedMemory/size"))
    return _template(raw, {**pod, "containers": containers}, tuple(places), name, (kind, sub), size, service)


def _size_of_shm(spec: Json) -> str:
    """Where the size of the volume at /dev/shm stands, which the operator puts behind those that are stated."""
    return f"/volumes/{len(rows(spec.get('volumes')))}/emptyDir/sizeLimit"


def _beta(raw: Json, component: Json, base: str, name: str, shared: list[Json]) -> Template:
    template = table(component.get("podTemplate"))
    spec = table(template.get("spec"))
    containers = [{**c, "env": named(c.get("env"), shared)} for c in rows(spec.get("containers"))]
    size: Any = component.get("sharedMemorySize", "8Gi")
    size = None if str(size) == "0" else size
    places = (("", f"{base}/podTemplate/spec"), (_size_of_shm(spec), f"{base}/sharedMemorySize"))
    kind = str(component.get("type") or component.get("componentType") or "")
    return _template(raw, {**spec, "containers": containers}, places, name, (kind,), size, component)


def _template(
    raw: Json, pod: Json, places: tuple[tuple[str, str], ...], name: str, kinds: tuple[str, ...], size: Any, part: Json
) -> Template:
    nodes = dig(part, "multinode.nodeCount")
    containers = rows(pod.get("containers"))
    if containers and any(kind in _WORKERS for kind in kinds):
        # Of several nodes only the first answers: the operator takes the probes of the others away.
        first = {**({} if isinstance(nodes, int) and nodes > 1 else _PROBES), **containers[0]}
        first["ports"] = [*rows(first.get("ports")), {"name": "system", "containerPort": 9090}]
        pod = {**pod, "containers": [first, *containers[1:]]}
    elif containers and not containers[0].get("command") and not containers[0].get("args"):
        role = next((kind for kind in kinds if kind), "frontend")
        first = {**containers[0], "command": ["python3"], "args": ["-m", f"dynamo.{role}"]}
        pod = {**pod, "containers": [first, *containers[1:]]}
        places += (("/containers/0/command", ""), ("/containers/0/args", ""))
    if size is not None:
        pod = with_shm(pod, 0, size, "shared-memory")
    labels = {"nvidia.com/dynamo-component": name}
    meta = {**labels, DYNAMO_GRAPH: name_of(raw)}
    return Template(
        raw=raw,
        pod={"metadata": {"labels": meta}, "spec": pod},
        places=places,
        part=name,
        labels=labels,
        nodes=nodes if isinstance(nodes, int) else 1,
    )
