"""What a ResourceQuota or LimitRange must say for a pod that it refuses, or the pod for them.

Sources: the admission plugins ResourceQuota and LimitRanger; Knative's ConfigMap config-deployment (pkg/deployment/config.go in serving);
Istio's annotations for its proxy's resources.
"""

import shlex
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    Container,
    Fix,
    Subject,
    count_of,
    dig,
    engines_in,
    escaped,
    expression,
    fixes,
    k8s,
    milli,
    requests_of,
    rows,
    say_pairs,
    top_of,
)
from llmdoctor_checks.scheduling._raising import listed, quantity, thousandths

_BEYOND = expression(
    r"(?P<side>maximum|minimum) (?P<resource>\S{1,100}) usage per (?P<type>\w{1,40}) is (?P<bound>[\w.]{1,40}), "
    r"but (?:limit|request) is (?P<asked>[\w.]{1,40})"
)
_RATIO = expression(
    r"(?P<resource>[^\s\[]{1,100}) max limit to request ratio per \w{1,40} is (?P<ratio>[\w.]{1,40}), but provided ratio is"
)
#: What a container states of a resource, where nothing is known of what it needs: sidecars need little.
_LITTLE = {"cpu": "100m", "memory": "512Mi", "ephemeral-storage": "1Gi"}
_ENOUGH = {"cpu": "1", "memory": "1Gi", "ephemeral-storage": "4Gi"}
#: The annotations by which Istio's proxy gets its resources.
_PROXY = {
    "sidecar.istio.io/proxyCPU": "100m",
    "sidecar.istio.io/proxyMemory": "256Mi",
    "sidecar.istio.io/proxyCPULimit": "1",
    "sidecar.istio.io/proxyMemoryLimit": "1Gi",
}
#: What a quota wants stated, and where that stands.
_COUNTED = {
    name: (side, resource)
    for resource in ("cpu", "memory")
    for name, side in ((resource, "requests"), (f"requests.{resource}", "requests"), (f"limits.{resource}", "limits"))
}
#: What a container is let ask for that states nothing: as much as servers of models mostly have for each GPU.
_USUAL = {"cpu": 8, "memory": 64}
#: Other pods that are named.
_MOST = 3


def stating(subject: Subject, quota: str, needs: str) -> Iterator[Fix]:
    """How the containers come to state what a quota counts."""
    wanted = _wanted(needs)
    pod = next(iter(subject.pods), None)
    there = {c.name: c for c in pod.containers} if pod else {}
    if not any(who for _, who in wanted):  # API servers before 1.24 name no container
        wanted = [(name, who) for name, _ in wanted for who, c in there.items() if _unstated(c, name)] or wanted
    # Knative writes its own container into the Deployment that it makes, and puts back what is changed there
    own = {name: container for name, container in there.items() if name != "queue-proxy"}
    mine = [(own[who], name) for name, who in wanted if who in own and name in _COUNTED]
    added: dict[str, list[str]] = {}
    for name, who in wanted:
        if who and who not in own:
            added.setdefault(who, []).append(name)
    if pod and mine:
        yield fixes.patch(
            pod,
            f"State {_told(mine)}, which quota {quota} counts (more where the model needs it)",
            [stated(container, *_COUNTED[name]) for container, name in mine],
        )
    elif not added:
        where = subject.workload.ref if subject.workload else "the pod"
        yield fixes.advice(
            f"State {needs.replace(' for: ', ' of ')} in {where}: the quota demands it of every container",
            *([f"kubectl -n {subject.namespace} edit {where}"] if subject.workload else []),
        )
    if added.get("queue-proxy"):
        yield _of_knative(quota, added["queue-proxy"])
    if pod and added.get("istio-proxy"):
        told = ", ".join(f"{key} {value}" for key, value in _PROXY.items())
        # with one of them, the proxy gets nothing by default
        yield fixes.annotate(pod, _PROXY, f"State what quota {quota} counts of istio-proxy: {told}")
    if added and not any(container.gpus for container, _ in mine):
        yield _defaults(subject, quota, list(dict.fromkeys(name for name, _ in wanted)))


def _told(mine: list[tuple[Container, str]]) -> str:
    """`limits.cpu, limits.memory of vllm, proxy`: what is to be stated, of those that are to state it."""
    whose: dict[str, list[str]] = {}
    for container, name in mine:
        whose.setdefault(name, []).append(container.name)
    alike: dict[tuple[str, ...], list[str]] = {}
    for name, containers in whose.items():
        alike.setdefault(tuple(containers), []).append(name)
    return ", ".join(f"{', '.join(names)} of {' and '.join(containers)}" for containers, names in alike.items())


def _unstated(container: Container, name: str) -> bool:
    """Whether a container does not state what a quota counts; a limit stands for the request as well."""
    kind, what = _COUNTED.get(name, ("", ""))
    given = container.spec.resources
    return bool(what) and what not in given.limits and (kind == "limits" or what not in given.requests)


def stated(container: Container, kind: str, what: str) -> dict[str, Any]:
    """The operation that states what a container lacks: what the other of limits and requests says, else what is usual."""
    given = container.spec.resources
    other = (given.requests if kind == "limits" else given.limits).get(what)
    usual = _USUAL[what] * max(container.gpus, 1)
    value = str(other) if other else f"{usual}Gi" if what == "memory" else str(usual)
    beside = container.pod.containers
    serves = any(engine.container.name == container.name for engine in engines_in(container.pod))
    if not other and not container.gpus and not serves and (len(beside) > 1 or any(c.gpus for c in beside)):
        value = _amount(f"{kind}.{what}")
    return {"op": "add", "path": f"{container.pointer}/resources/{kind}/{what}", "value": value}


def _of_knative(quota: str, names: list[str]) -> Fix:
    data = {f"queue-sidecar-{_field(name)}": _amount(name) for name in names}
    document = shlex.quote(msgspec.json.encode({"data": data}).decode())
    told = say_pairs(data, ": ")
    return fixes.platform(
        f"Give Knative's queue-proxy what quota {quota} counts: {told} in ConfigMap config-deployment of knative-serving",
        f"kubectl -n knative-serving patch configmap config-deployment --type=merge -p {document}",
    )


def _wanted(needs: str) -> list[tuple[str, str]]:
    """The resources that are to be stated, each with a container that does not: `limits.cpu for: a,b; memory for: a`."""
    found = []
    for part in needs[:4000].split(";"):
        names, _, who = part.strip().partition(" for: ")
        found += [(name.strip(), container.strip()) for name in names.split(",") for container in who.split(",")]
    return list(dict.fromkeys(found))


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
    spec = {"limits": [{"type": "Container", **given}]}
    return fixes.platform(
        f"Have a LimitRange of {subject.namespace} state it for every container that does not (a limit of memory that is too low kills)",
        fixes.create("v1", "LimitRange", f"{quota}-defaults", subject.namespace, spec=spec),
    )


def widening(subject: Subject, said: str) -> Iterator[Fix]:
    """The containers that ask for too little, or the LimitRange with the bounds moved to what they ask for."""
    beyond: dict[tuple[str, str, str], tuple[str, str]] = {}
    for found in _BEYOND.finditer(said):
        if found["side"] == "minimum" and found["type"] == "Container":
            yield from _enough(subject, found["resource"], found["bound"])
            continue
        key = ("max" if found["side"] == "maximum" else "min", found["resource"], found["type"])
        amounts = [found["asked"], *([beyond[key][1]] if key in beyond else [])]
        outermost = (max if key[0] == "max" else min)(amounts, key=lambda amount: milli(amount) or 0)
        beyond[key] = (found["bound"], outermost)
    if said:
        yield from _in_proportion(subject, said)
    items = list(subject.cluster.items("LimitRange", subject.namespace))
    for item in items:
        operations, told = [], []
        for index, row in enumerate(rows(item.raw, "spec.limits")):
            for (side, resource, kind), (bound, asked) in beyond.items():
                now = (
                    dig(row, side).get(resource)
                    if isinstance(dig(row, side), dict) and row.get("type") == kind
                    else None
                )
                if now is not None and milli(now) == milli(bound):
                    path = f"/spec/limits/{index}/{side}/{escaped(resource)}"
                    operations.append({"op": "replace", "path": path, "value": asked})
                    told.append(f"{side}.{resource} {asked} instead of {now}")
        if operations:
            text = f"Let LimitRange {item.name} allow it: {', '.join(told)}"
            yield fixes.patch_object(item, text, operations, owner="platform")
    if beyond and not items:
        told = [
            f"{side}.{resource} {asked} instead of {bound} per {kind}"
            for (side, resource, kind), (bound, asked) in beyond.items()
        ]
        text = f"Let the LimitRange of {subject.namespace} allow it: {', '.join(told)}"
        yield fixes.platform(text, f"kubectl -n {subject.namespace} edit limitrange")


def lowering(subject: Subject, said: str) -> Iterator[Fix]:
    """The containers with no more than a LimitRange allows each of them, of what they ask for more."""
    where = subject.workload.ref if subject.workload else "the pod"
    operations, told = [], []
    pods = list(subject.pods)[:1]
    for found in _BEYOND.finditer(said):
        for container in (
            pods[0].containers if pods and (found["side"], found["type"]) == ("maximum", "Container") else ()
        ):
            given, bound = container.spec.resources, found["bound"]
            resource = found["resource"]
            tables = {"limits": given.limits, "requests": given.requests}
            over = [k for k, table in tables.items() if (milli(table.get(resource)) or 0) > (milli(bound) or 0)]
            path = f"{container.pointer}/resources"
            new = [{"op": "replace", "path": f"{path}/{k}/{escaped(resource)}", "value": bound} for k in over]
            if over and not any(operation in operations for operation in new):
                operations += new
                told.append(f"{bound} of {resource} in {container.name} instead of {tables[over[0]][resource]}")
    if operations:
        yield fixes.patch(
            pods[0], f"Ask for no more than the LimitRange allows, if it can do with {', '.join(told)}", operations
        )
    elif sums := [f for f in _BEYOND.finditer(said) if f["side"] == "maximum"]:
        told = [f"{f['bound']} of {f['resource']} in one {f['type']} ({f['asked']} now)" for f in sums]
        yield fixes.advice(f"Ask for no more than the LimitRange allows in {where}: {', '.join(told)}")


def _in_proportion(subject: Subject, said: str) -> Iterator[Fix]:
    """Requests raised to what a LimitRange wants beside the limits."""
    operations, told = [], []
    pods = list(subject.pods)[:1]
    for found in _RATIO.finditer(said):
        for container in pods[0].containers if pods else ():
            resource, ratio = found["resource"], milli(found["ratio"])
            given = container.spec.resources
            limit, request = milli(given.limits.get(resource)), milli(given.requests.get(resource))
            if limit and request and ratio and limit * 1000 > request * ratio:
                value = _no_less(resource, -(-limit * 1000 // ratio))
                path = f"{container.pointer}/resources/requests/{escaped(resource)}"
                operations.append({"op": "replace", "path": path, "value": value})
                told.append(f"{value} {resource} in {container.name} instead of {given.requests[resource]}")
    if operations:
        yield fixes.patch(
            pods[0], f"Request more, which the LimitRange wants beside the limit: {', '.join(told)}", operations
        )


def _no_less(resource: str, amount: int) -> str:
    """Thousandths as a quantity: of CPUs in thousandths, too."""
    return f"{amount}m" if resource == "cpu" and amount % 1000 else quantity(resource, amount)


def _enough(subject: Subject, resource: str, bound: str) -> Iterator[Fix]:
    """Containers that ask for less than a LimitRange lets them."""
    for pod in list(subject.pods)[:1]:
        for container in pod.containers:
            given = container.spec.resources
            asked = given.requests.get(resource) or given.limits.get(resource)
            if asked is not None and (milli(asked) or 0) < (milli(bound) or 0):
                limit = given.limits.get(resource)
                kinds = ["requests", *(["limits"] if limit and (milli(limit) or 0) < (milli(bound) or 0) else [])]
                at = f"{container.pointer}/resources"
                operations = [
                    {"op": "add", "path": f"{at}/{kind}/{escaped(resource)}", "value": bound} for kind in kinds
                ]
                text = f"Ask for {bound} of {resource} in {container.name}, the least that the LimitRange allows"
                yield fixes.patch(pod, text, operations)


def instead(subject: Subject, quota: str, found: dict[str, str]) -> Iterator[Fix]:
    """In a rollout whose pods are there already: an old one goes before a new one is made."""
    workload, replicas = subject.workload, subject.workload.replicas if subject.workload else None
    if workload is None or workload.kind != "Deployment" or not replicas or not subject.exists:
        return
    made, renewed = (dig(workload.raw, f"status.{name}") or 0 for name in ("replicas", "updatedReplicas"))
    if dig(workload.raw, "spec.strategy.type") == "Recreate" or made < replicas or renewed >= replicas:
        return  # pods are missing: there is no old one in place of the new one
    old = [thousandths(pod.obj) | {"pods": 1000} for pod in subject.pods if pod.exists]
    for name, lacks in _short(found).items():
        resource = name.removeprefix("requests.")
        if not name.startswith("limits.") and not any(had.get(resource, 0) >= lacks for had in old):
            return  # the new one asks for more than an old one leaves
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    yield fixes.set_field(
        workload.item,
        "/spec/strategy",
        strategy,
        f"Let an old pod of {workload.ref} go before a new one is made, as quota {quota} has no room for both (maxSurge 0)",
        op="add",
    )


def finished(subject: Subject, found: dict[str, str]) -> Iterator[Fix]:
    """To delete pods that have ended: a quota on objects (`count/pods`) counts them as well."""
    ended = sorted(
        item.name
        for item in subject.cluster.items("Pod", subject.namespace)
        if dig(item.raw, "status.phase") in ("Succeeded", "Failed")
    )
    if "count/pods" in _short(found) and ended:
        where = f"kubectl -n {subject.namespace} delete pods --field-selector status.phase="
        yield fixes.advice(
            f"Delete the {count_of(len(ended), 'pod')} of {subject.namespace} that {'has' if len(ended) == 1 else 'have'} ended "
            f"({', '.join(ended[:_MOST])}{' …' * (len(ended) > _MOST)}): count/pods counts them as well. ttlSecondsAfterFinished of a Job "
            "takes its own away",
            f"{where}Succeeded",
            f"{where}Failed",
        )


def _short(found: dict[str, str]) -> dict[str, int]:
    """What a quota has too little of for one more pod, by how many thousandths."""
    asked, used, limits = (listed(found.get(key, "")) for key in ("asked", "used", "limit"))
    short = {}
    for name in asked:
        want, taken, most = milli(asked[name]), milli(used.get(name, "0")), milli(limits.get(name))
        if want is not None and taken is not None and most is not None and want + taken > most:
            short[name] = want + taken - most
    return short


def ending(subject: Subject, found: dict[str, str]) -> str:
    """Which pods have what the quota is short of: `, or stop other workloads of nlp, which have the nvidia.com/gpu of it (llama-0)`."""
    stop = f", or stop other workloads of {subject.namespace}"
    for name in _short(found):
        resource = name.removeprefix("requests.").removeprefix("limits.")
        have = sorted(_having(subject, resource), reverse=True)
        if names := [who for _, who, mine in have if not mine][:_MOST]:
            return f"{stop}, which have the {resource} of it ({', '.join(names)})"
        if have:
            return f": its own pods hold the {resource} of the quota ({', '.join(name for _, name, _ in have[:_MOST])})"
    return stop


def _having(subject: Subject, resource: str) -> Iterator[tuple[int, str, bool]]:
    """The pods of the namespace that ask for a resource: how much, the name, and whether it is one of the workload's own."""
    for item in subject.cluster.items("Pod", subject.namespace):
        pod = item.typed()
        amount = requests_of(pod).get(resource, 0) if isinstance(pod, k8s.Pod) else 0
        if amount and isinstance(pod, k8s.Pod) and pod.status.phase not in ("Succeeded", "Failed"):
            top = top_of(item, subject.cluster) if subject.workload else None
            yield amount, item.name, bool(top and subject.workload and top.item is subject.workload.item)
