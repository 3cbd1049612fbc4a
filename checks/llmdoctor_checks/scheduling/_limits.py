"""What a ResourceQuota or LimitRange must say for a pod that it refuses, or the pod for them.

Sources: the admission plugins ResourceQuota and LimitRanger; Knative's ConfigMap config-deployment (pkg/deployment/config.go in serving);
Istio's annotations for its proxy's resources.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import Fix, Item, Subject, dig, expression, fixes, k8s, milli, requests_of, rows

_BEYOND = expression(
    r"(?P<side>maximum|minimum) (?P<resource>\S{1,100}) usage per (?P<type>\w{1,40}) is (?P<bound>[\w.]{1,40}), "
    r"but (?:limit|request) is (?P<asked>[\w.]{1,40})"
)
#: What a container states of a resource, where nothing is known of what it needs: sidecars need little.
_LITTLE = {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "1Gi"}
_ENOUGH = {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "4Gi"}
#: By which annotation Istio's proxy gets its resources.
_PROXY = {
    "requests.cpu": ("sidecar.istio.io/proxyCPU", "100m"),
    "cpu": ("sidecar.istio.io/proxyCPU", "100m"),
    "requests.memory": ("sidecar.istio.io/proxyMemory", "256Mi"),
    "memory": ("sidecar.istio.io/proxyMemory", "256Mi"),
    "limits.cpu": ("sidecar.istio.io/proxyCPULimit", "1"),
    "limits.memory": ("sidecar.istio.io/proxyMemoryLimit", "1Gi"),
}
#: Other pods that are named.
_MOST = 3


def stating(subject: Subject, quota: str, needs: str) -> Iterator[Fix]:
    """How the containers come to state what a quota counts."""
    where = subject.workload.ref if subject.workload else "the pod"
    wanted, who = _wanted(needs)
    pod = next(iter(subject.pods), None)
    own = {c.name for c in pod.containers} if pod else set()
    added = [name for name in who if name not in own]
    if "queue-proxy" in added:
        data = {f"queue-sidecar-{_field(name)}": _amount(name) for name in wanted}
        document = shlex.quote(msgspec.json.encode({"data": data}).decode())
        told = ", ".join(f"{key}: {value}" for key, value in data.items())
        yield fixes.advice(
            f"Give Knative's queue-proxy what quota {quota} counts: {told} in ConfigMap config-deployment of knative-serving",
            f"kubectl -n knative-serving patch configmap config-deployment --type=merge -p {document}",
            owner="platform",
        )
    elif pod and "istio-proxy" in added and all(name in _PROXY for name in wanted):
        for name in wanted:
            key, value = _PROXY[name]
            yield fixes.annotate(pod, key, value, f"State {name} of istio-proxy, which quota {quota} counts: {key}")
    else:
        yield fixes.advice(
            f"State {needs.replace(' for: ', ' of ')} in {where}: the quota demands it of every container",
            *([f"kubectl -n {subject.namespace} edit {where}"] if subject.workload else []),
        )
    yield _defaults(subject, quota, wanted)


def _wanted(needs: str) -> tuple[list[str], list[str]]:
    """The resources that are to be stated, and the containers that do not: `limits.cpu for: a,b; memory for: a`."""
    resources, containers = [], []
    for part in needs[:4000].split(";"):
        names, _, who = part.strip().partition(" for: ")
        resources += [name.strip() for name in names.split(",")]
        containers += [name.strip() for name in who.split(",") if name.strip()]
    return list(dict.fromkeys(resources)), list(dict.fromkeys(containers))


def _field(name: str) -> str:
    """`memory-request` for `requests.memory`."""
    side, _, resource = name.rpartition(".")
    return f"{resource}-{'limit' if side == 'limits' else 'request'}"


def _amount(name: str) -> str:
    side, _, resource = name.rpartition(".")
    return (_ENOUGH if side == "limits" else _LITTLE).get(resource, "1")


def _defaults(subject: Subject, quota: str, wanted: list[str]) -> Fix:
    """A LimitRange, which states for each container what it does not state itself."""
    given: dict[str, dict[str, str]] = {}
    for name in wanted:
        side, _, resource = name.rpartition(".")
        given.setdefault("default" if side == "limits" else "defaultRequest", {})[resource] = _amount(name)
    made = {
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": f"{quota}-defaults", "namespace": subject.namespace},
        "spec": {"limits": [{"type": "Container", **given}]},
    }
    return fixes.advice(
        f"Let a LimitRange of {subject.namespace} state it for every container that does not (a limit of memory that is too low kills)",
        f"echo {shlex.quote(msgspec.json.encode(made).decode())} | kubectl create -f -",
        owner="platform",
    )


def widening(subject: Subject, said: str) -> Iterator[Fix]:
    """The containers that ask for too little, or the LimitRange with the bounds moved to what they ask for."""
    moved: dict[str, tuple[Item, list[dict[str, object]], list[str]]] = {}
    for found in _BEYOND.finditer(said):
        if found["side"] == "minimum" and found["type"] == "Container":
            yield from _raised(subject, found["resource"], found["bound"])
            continue
        side = "max" if found["side"] == "maximum" else "min"
        for item in subject.cluster.items("LimitRange", subject.namespace):
            for index, row in enumerate(rows(item.raw, "spec.limits")):
                bounds = row.get(side)
                now = (
                    bounds.get(found["resource"])
                    if isinstance(bounds, dict) and row.get("type") == found["type"]
                    else None
                )
                if now is None or milli(now) != milli(found["bound"]):
                    continue
                key = found["resource"].replace("~", "~0").replace("/", "~1")
                operation = {"op": "replace", "path": f"/spec/limits/{index}/{side}/{key}", "value": found["asked"]}
                _, operations, told = moved.setdefault(item.name, (item, [], []))
                operations.append(operation)
                told.append(f"{side}.{found['resource']} {found['asked']} instead of {now}")
    for item, operations, told in moved.values():
        yield fixes.patch_object(
            item, f"Let LimitRange {item.name} allow it: {', '.join(told)}", operations, owner="platform"
        )


def _raised(subject: Subject, resource: str, bound: str) -> Iterator[Fix]:
    """Containers that ask for less than a LimitRange lets them."""
    for pod in list(subject.pods)[:1]:
        for container in pod.containers:
            asked = container.spec.resources.requests.get(resource) or container.spec.resources.limits.get(resource)
            if asked is not None and (milli(asked) or 0) < (milli(bound) or 0):
                at = f"{container.pointer}/resources"
                kinds = ["requests"]
                if (limit := container.spec.resources.limits.get(resource)) and (milli(limit) or 0) < (
                    milli(bound) or 0
                ):
                    kinds.append("limits")
                operations = [{"op": "add", "path": f"{at}/{kind}/{resource}", "value": bound} for kind in kinds]
                text = f"Ask for {bound} of {resource} in {container.name}, the least that the LimitRange allows"
                yield fixes.patch(pod, text, operations)


def instead(subject: Subject, quota: str) -> Iterator[Fix]:
    """In a rollout whose pods are there already: an old one goes before a new one is made."""
    workload, replicas = subject.workload, subject.workload.replicas if subject.workload else None
    if workload is None or workload.kind != "Deployment" or not replicas or not subject.exists:
        return
    made, renewed = (dig(workload.raw, f"status.{name}") or 0 for name in ("replicas", "updatedReplicas"))
    if dig(workload.raw, "spec.strategy.type") == "Recreate" or made < replicas or renewed >= replicas:
        return  # pods are missing: there is no old one in place of the new one
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    yield fixes.patch_object(
        workload.item,
        f"Let an old pod of {workload.ref} go before a new one is made, as quota {quota} has no room for both (maxSurge 0)",
        [{"op": "add", "path": "/spec/strategy", "value": strategy}],
    )


def _amounts(text: str) -> dict[str, str]:
    return {name.strip(): amount for part in text.split(",") for name, _, amount in [part.partition("=")] if amount}


def holding(subject: Subject, found: dict[str, str]) -> str:
    """Whose pods have what the quota is short of: `: llama-0 and qwen-0 have nvidia.com/gpu`."""
    limits, used = _amounts(found.get("limit", "")), _amounts(found.get("used", ""))
    for name, amount in _amounts(found.get("asked", "")).items():
        resource = name.removeprefix("requests.").removeprefix("limits.")
        want, taken, most = milli(amount), milli(used.get(name, "0")), milli(limits.get(name))
        if want is None or taken is None or most is None or want + taken <= most:
            continue
        have = [
            (requests_of(pod).get(resource, 0), pod.metadata.name)
            for pod in subject.cluster.all(k8s.Pod, "Pod", subject.namespace)
            if pod.status.phase not in ("Succeeded", "Failed")
        ]
        names = [f"{name}" for amount, name in sorted(have, reverse=True) if amount][:_MOST]
        if names:
            return f", which have the {resource} of it ({', '.join(names)})"
    return ""
