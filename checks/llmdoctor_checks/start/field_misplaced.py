"""A field of a manifest at a place where Kubernetes knows no field of that name."""

from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import Container, Finding, Pod, check, fixes, pod_evidence
from llmdoctor_checks._raw import rows

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
_PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
_ACTIONS = ("httpGet", "tcpSocket", "exec", "grpc")

#: What changes little when it is missing.
_MINOR = frozenset(("imagePullPolicy", "lifecycle", "ports", "priorityClassName", "schedulerName", "successThreshold"))


@check("field-misplaced", since="0.2", severity="warning")
def field_misplaced(pod: Pod) -> Iterator[Finding]:
    """A field stands at a place where Kubernetes knows no field of that name.

    A probe indented too little belongs to the pod, `nvidia.com/gpu` directly under `resources` is no limit, and
    `initialDelaySeconds` inside `httpGet` is not the probe's. `kubectl apply` refuses such a manifest since 1.27 ("strict
    decoding error: unknown field"). A client that does not ask for this validation gets the object accepted without the
    field: a server without its probe, its GPU or its volume.

    Only fields are named that have a place elsewhere in a pod; others may be of a newer Kubernetes.

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
    if pod.exists or pod.template is None:
        return
    spec = _table(pod.template.pod.get("spec"))
    found: list[tuple[Pod | Container, str, str, str]] = [
        (pod, key, key, "an element of containers") for key in spec if key in _OF_CONTAINER
    ]
    raws = {group: rows(spec, group) for group in ("containers", "initContainers")}
    for container in pod.containers:
        group = raws["initContainers" if container.pointer.startswith("/initContainers") else "containers"]
        if container.index < len(group) and group[container.index].get("name") == container.name:
            found += ((container, *place) for place in _in_container(group[container.index]))
    if not found:
        return
    grave = [row for row in found if row[2] not in _MINOR]
    (where, path, field, belongs) = (grave or found)[0]
    above = where.path if isinstance(where, Container) else pod.spec_path
    inside = ".".join(filter(None, (above, path.rpartition(".")[0])))
    yield Finding(
        role="risk" if grave else "note",
        severity="warning" if grave else "info",
        confidence="certain",
        summary=f"{field} stands under {inside}, where Kubernetes knows no such field: it is refused or dropped; it belongs "
        f"to {belongs}.",
        evidence=tuple(pod_evidence(at, path, f"{name}: …") for at, path, name, _ in grave or found),
        fixes=(fixes.advice(f"Move {field} to {belongs} in {fixes.edited(pod)}"),),
    )


def _in_container(raw: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Path inside the container, field, and where it belongs."""
    for key in raw:
        if key in _OF_POD:
            yield key, key, "the pod's spec"
        elif key in _OF_RESOURCES or _is_resource(key):
            yield key, key, "resources"
        elif key in _OF_PROBE:
            yield key, key, "a probe"
    resources = _table(raw.get("resources"))
    for key in resources:
        if key in _OF_CONTAINER or key in _OF_POD:
            yield f"resources.{key}", key, "the container" if key in _OF_CONTAINER else "the pod's spec"
        elif _is_resource(key):
            yield f"resources.{key}", key, "resources.limits"
    for probe in _PROBES:
        inside = _table(raw.get(probe))
        for key in inside:
            if key in _OF_CONTAINER or key == "resources":
                yield f"{probe}.{key}", key, "the container"
        for action in _ACTIONS:
            for key in _table(inside.get(action)):
                if key in _OF_PROBE:
                    yield f"{probe}.{action}.{key}", key, probe
    for group in ("env", "ports", "volumeMounts"):
        for row in rows(raw, group):
            for key in row:
                if key in _OF_CONTAINER or key == "resources":
                    yield f"{group}[{row.get('name', 0)}].{key}", key, "the container"


def _is_resource(key: str) -> bool:
    return key in ("cpu", "memory", "ephemeral-storage") or key.startswith(
        ("nvidia.com/", "amd.com/", "gpu.intel.com/")
    )


def _table(value: object) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
