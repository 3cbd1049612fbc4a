"""A field of a manifest at a place where Kubernetes knows no field of that name."""

from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    Container,
    Evidence,
    Finding,
    Item,
    Pod,
    Subject,
    check,
    fixes,
    object_evidence,
    pod_evidence,
    rows,
    table,
)

#: Fields of one level of a pod that manifests show at another: v1 Pod, its API reference.
_OF_CONTAINER = frozenset(
    ("args", "command", "env", "envFrom", "image", "imagePullPolicy", "lifecycle", "livenessProbe", "ports",
     "readinessProbe", "startupProbe", "volumeMounts")
)  # fmt: skip
_OF_POD = frozenset(
    ("affinity", "containers", "enableServiceLinks", "hostIPC", "hostNetwork", "imagePullSecrets", "initContainers",
     "nodeName", "nodeSelector", "priorityClassName", "runtimeClassName", "schedulerName", "serviceAccountName",
     "terminationGracePeriodSeconds", "tolerations", "topologySpreadConstraints", "volumes")
)  # fmt: skip
_OF_PROBE = frozenset(
    ("failureThreshold", "initialDelaySeconds", "periodSeconds", "successThreshold", "timeoutSeconds")
)
_OF_RESOURCES = frozenset(("limits", "requests"))
_OF_WORKLOAD = frozenset(("progressDeadlineSeconds", "replicas", "selector", "strategy", "template", "updateStrategy"))
_WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_ACTIONS = ("httpGet", "tcpSocket", "exec", "grpc")

_REST_OF_CONTAINER = frozenset(
    ("name", "resizePolicy", "resources", "restartPolicy", "restartPolicyRules", "securityContext", "stdin", "stdinOnce",
     "terminationMessagePath", "terminationMessagePolicy", "tty", "volumeDevices", "workingDir")
)  # fmt: skip

#: Fields of a securityContext that only the pod's, or only a container's has: v1 PodSecurityContext, SecurityContext.
_OF_POD_SECURITY = frozenset(("fsGroup", "fsGroupChangePolicy", "supplementalGroups", "sysctls"))
_OF_CONTAINER_SECURITY = frozenset(("allowPrivilegeEscalation", "capabilities", "privileged", "readOnlyRootFilesystem"))

#: All fields of three levels, to tell what is none but nearly one: v1 Container, Probe, ResourceRequirements.
_LEVELS = {
    "container": _OF_CONTAINER | _REST_OF_CONTAINER,
    "probe": _OF_PROBE | {*_ACTIONS, "terminationGracePeriodSeconds"},
    "resources": _OF_RESOURCES | {"claims"},
}

#: So many fields of a pod stand in one another: affinity, nodeAffinity, and what is demanded there.
_DEEPEST = 3

#: What changes little when it is missing.
_MINOR = _OF_WORKLOAD | {
    "imagePullPolicy", "lifecycle", "ports", "priorityClassName", "schedulerName", "successThreshold"
}  # fmt: skip

#: Where it stands, the path from there, the field, and where it belongs or the field that is meant.
_Place = tuple[Pod | Container | Item, str, str, str]


@check("field-misplaced", since="0.2", severity="warning")
def field_misplaced(pod: Pod, subject: Subject) -> Iterator[Finding]:
    """A field stands at a place where Kubernetes knows no field of that name.

    A probe indented too little belongs to the pod, `nvidia.com/gpu` directly under `resources` is no limit, and `initialDelaySeconds`
    inside `httpGet` is not the probe's. `kubectl apply` refuses such a manifest since 1.27 ("strict decoding error: unknown field"); so
    it does `fsGroup` in a container's securityContext, and `privileged` in that of the pod. A client that does not ask for this
    validation gets the object accepted without the field: a server without its probe, its GPU or its volume.

    Only fields are named that have a place elsewhere in a pod, or that are a field of this place but for capitals and the
    plural (`failureThresholds`, `volumeMount`); others may be of a newer Kubernetes.

    ## Fix

    Move the field to its place:

        containers:
          - name: vllm
            livenessProbe: {httpGet: {path: /health, port: 8000}, initialDelaySeconds: 300}
            resources: {limits: {nvidia.com/gpu: 1}}

    ## References

    - https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/
    - https://kubernetes.io/docs/reference/using-api/api-concepts/#field-validation
    """
    raw = pod.template.pod if pod.template else pod.item.raw if pod.item else {}
    spec = table(raw.get("spec"))
    deeper = [] if pod.exists or pod.containers else [*_deeper(spec)]
    if pod.exists or not (deeper or subject.engines(pod)):
        return
    found: list[_Place] = [(pod, *place) for place in deeper]
    found += _of_pod(pod, spec)
    if not found:
        return
    grave = [row for row in found if not _MINOR.intersection(row[2:])]
    (where, path, field, belongs) = (grave or found)[0]
    above = where.path if isinstance(where, Container) else pod.spec_path if where is pod else ""
    inside = ".".join(filter(None, (above, path.rpartition(".")[0])))
    stands = f"stands under {inside}" if inside else "stands beside spec"
    meant = _alike(field, belongs)
    change = f"Write {belongs} for {field}" if meant else f"Move {field} to {belongs}"
    yield Finding(
        role="risk" if grave else "note",
        confidence="certain",
        summary=f"{field} {stands}, where Kubernetes knows no such field: it is refused or dropped; "
        f"{belongs + ' is meant' if meant else 'it belongs to ' + belongs}.",
        evidence=tuple(_evidence(*row) for row in grave or found),
        fix=fixes.advice(f"{change} in {fixes.edited(pod)}"),
    )


def _of_pod(pod: Pod, spec: dict[str, Any]) -> Iterator[_Place]:
    """The fields of a pod's spec, of the workload above it and of its containers that belong elsewhere."""
    yield from ((pod, key, key, "an element of containers") for key in spec if key in _OF_CONTAINER)
    for place in _in_security_context(spec, _OF_CONTAINER_SECURITY, "an element of containers"):
        yield (pod, *place)
    if pod.template_of is not None and pod.template_of.kind in _WORKLOADS:
        for place in _in_workload(pod.template_of.raw):
            yield (pod.template_of, *place)
    raws = {group: rows(spec, group) for group in ("containers", "initContainers")}
    for container in pod.containers:
        group = raws["initContainers" if container.pointer.startswith("/initContainers") else "containers"]
        if container.index < len(group) and group[container.index].get("name") == container.name:
            own = group[container.index]
            for place in (*_in_container(own), *_in_security_context(own, _OF_POD_SECURITY, "the pod's spec")):
                yield (container, *place)


def _evidence(at: Pod | Container | Item, path: str, field: str, _: str) -> Evidence:
    text = f"{field}: …"
    return object_evidence(at, path, text) if isinstance(at, Item) else pod_evidence(at, path, text)


def _deeper(spec: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Containers and volumes of a pod without any that were indented too much, below another field of it."""
    for key, value in spec.items():
        if path and key in ("containers", "initContainers", "volumes") and isinstance(value, list):
            yield f"{path}{key}", key, "the pod's spec"
        elif path.count(".") < _DEEPEST:
            yield from _deeper(table(value), f"{path}{key}.")


def _in_workload(raw: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Fields of a pod or a workload beside `spec`, in it, or beside the pod's spec in the template."""
    yield from ((key, key, "spec") for key in raw if key in _OF_WORKLOAD)
    spec = table(raw.get("spec"))
    template = table(spec.get("template"))
    for path, level in (("spec", spec), ("spec.template", template)):
        for key in level:
            if key in _OF_POD:
                yield f"{path}.{key}", key, "spec.template.spec"
            elif key in _OF_CONTAINER:
                yield f"{path}.{key}", key, "an element of containers"
    if "rollingUpdate" in spec:  # without maxSurge: 0 a second pod waits for the GPU that the first has
        belongs = "spec.strategy" if raw.get("kind") == "Deployment" else "spec.updateStrategy"
        yield "spec.rollingUpdate", "rollingUpdate", belongs
    for path, level in (("spec.template", template), ("spec.template.spec", table(template.get("spec")))):
        yield from ((f"{path}.{key}", key, "spec") for key in level if key in _OF_WORKLOAD)


def _in_security_context(raw: dict[str, Any], others: frozenset[str], whose: str) -> Iterator[tuple[str, str, str]]:
    """Fields of a securityContext that only the one of the other level has."""
    for key in table(raw.get("securityContext")):
        if key in others:
            yield f"securityContext.{key}", key, f"the securityContext of {whose}"


def _in_container(raw: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Path inside the container, field, and where it belongs."""
    for key in raw:
        if key in _OF_POD:
            yield key, key, "the pod's spec"
        elif key in _OF_RESOURCES or _is_resource(key):
            yield key, key, "resources"
        elif key in _OF_PROBE:
            yield key, key, "a probe"
    yield from _misspelt(raw, "container", "")
    yield from _misspelt(table(raw.get("resources")), "resources", "resources.")
    for key in table(raw.get("resources")):
        if key in _OF_CONTAINER or key in _OF_POD:
            yield f"resources.{key}", key, "the container" if key in _OF_CONTAINER else "the pod's spec"
        elif _is_resource(key):
            yield f"resources.{key}", key, "resources.limits"
    for probe in _PROBES:
        inside = table(raw.get(probe))
        yield from _of_container(inside, probe)
        yield from _misspelt(inside, "probe", f"{probe}.")
        for action in _ACTIONS:
            for key in table(inside.get(action)):
                if key in _OF_PROBE:
                    yield f"{probe}.{action}.{key}", key, probe
    for group in ("env", "ports", "volumeMounts"):
        for row in rows(raw, group):
            yield from _of_container(row, f"{group}[{row.get('name', 0)}]")


def _of_container(table: dict[str, Any], path: str) -> Iterator[tuple[str, str, str]]:
    """Fields of the container that stand one level too deep."""
    for key in table:
        if key in _OF_CONTAINER or key == "resources":
            yield f"{path}.{key}", key, "the container"


def _misspelt(table: dict[str, Any], level: str, path: str) -> Iterator[tuple[str, str, str]]:
    """Fields that are none of this level, but for capitals and the plural."""
    known = _LEVELS[level]
    for key in table:
        if key not in known:
            yield from ((f"{path}{key}", key, name) for name in known if _alike(key, name))


def _alike(one: str, other: str) -> bool:
    """Whether two names are the same but for capitals and the plural."""
    return one.lower().rstrip("s") == other.lower().rstrip("s")


def _is_resource(key: str) -> bool:
    return key in ("cpu", "memory", "ephemeral-storage") or key.startswith(
        ("nvidia.com/", "amd.com/", "gpu.intel.com/")
    )
