"""Routes and pools of the Gateway API that lead to a pod, and that their controllers do not serve, by what they say of them.

Sources: the conditions and reasons of Gateway API 1.0 to 1.4 (`apis/v1/httproute_types.go`, `shared_types.go`) and of the inference
extension (`api/v1/inferencepool_types.go`). A condition is of the generation that it names.
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import (
    APP_NAME,
    PART_OF,
    WORKER_INDEX,
    Backend,
    Cluster,
    Evidence,
    Finding,
    Fix,
    Item,
    Logs,
    Pod,
    answered,
    backends_of,
    condition_evidence,
    dig,
    engines_in,
    fixes,
    object_evidence,
    parents_of,
    parse_time,
    pointer_to,
    rows,
    say_pairs,
)
from llmdoctor_checks._routes import routes_to
from llmdoctor_checks.scheduling._words import sentence
from llmdoctor_checks.serving._exposure import backends, lasting
from llmdoctor_checks.start._routed_ports import ways_to

#: A controller needs a moment to see what was made at the same time.
_SETTLES_SECONDS = 120

#: What a controller says while it has not looked, and what a pool only repeats of its route.
_NO_VERDICT = ("Pending", "HTTPRouteNotAccepted")

#: What it says where what a route names is not in the namespace that it means, or may not be seen from there.
_NOT_THERE = ("BackendNotFound", "RefNotPermitted")

_POOL = "InferencePool"

#: Why KServe's LLMInferenceService makes no route (`router_discovery`): what it refers to is not there, or not as it wants it.
_REFS = "RefsInvalid"
#: How it says that no gateway has taken its pool on.
_WAITS = "WaitingForGateway"

#: Controllers that know pools once that is switched on, and how: Istio from 1.27 on, kgateway from 2.0, agentgateway.
_KNOWS_POOLS = {
    "istio.io/gateway-controller": "ENABLE_GATEWAY_API_INFERENCE_EXTENSION=true in the environment of istiod (pilot.env of its Helm chart)",
    "kgateway.dev/kgateway": "inferenceExtension.enabled=true in the values of kgateway's Helm chart",
    "kgateway.dev/agentgateway": "inferenceExtension.enabled=true in the values of kgateway's Helm chart",
    "agentgateway.dev/agentgateway": "inferenceExtension.enabled=true in the values of agentgateway's Helm chart",
}

#: The version of the Gateway API that has ReferenceGrants in all its releases since 0.5.
_GRANTS = "gateway.networking.k8s.io/v1beta1"

#: What names of Services end with, and names of workloads do not.
SUFFIX = r"-(?:svc|service|server|deployment|api|headless)$"


class _Ref(msgspec.Struct, frozen=True):
    """A backend of a route that means the pod, and the Service or pool that it means."""

    told: Backend
    means: Item


class _Refusal(msgspec.Struct, frozen=True):
    """What a controller says of a route or a pool that it does not serve."""

    path: str
    kind: str
    reason: str
    message: str
    since: str

    @property
    def text(self) -> str:
        """As it is quoted."""
        return f"{self.reason}: {self.message}".rstrip(": ")


def unrouted(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The first such route or pool: a risk where another way leads to the pod, or it is asked all the same."""
    refused: list[tuple[Item, _Refusal, _Ref | None]] = []
    another = reached(pod, cluster, logs)
    for route in _naming(pod, cluster):
        said = refusal(route, cluster)
        refs = list(_refs(route, said, pod, cluster))
        if not refs:
            continue
        if said is None:
            another |= bool(rows(route.raw, "status.parents"))
        elif said.kind == "Accepted":
            refused.append((route, said, None))
        elif (ref := _meant(said, refs, route)) is not None:
            refused.append((route, said, ref))
    refused += [(pool, said, None) for pool in pod.pools if (said := refusal(pool, cluster)) is not None]
    for item, said, ref in refused[:1]:
        summary, fix = _of_backend(item, said, ref, cluster) if ref is not None else _of_route(item, said, cluster)
        alike = ref is not None and (_by_name_alone(ref) or ref.told.kind != ref.means.plain_kind)
        unsure = alike and ref is not None and _told_by(item, ref, cluster) is None
        yield Finding(
            role="risk" if another or unsure else "cause",
            severity="warning",
            confidence="possible" if unsure else "likely",
            summary=f"{summary} {pod.name} gets no requests through it.",
            evidence=(
                object_evidence(item, said.path, said.text),
                *((object_evidence(item, ref.told.path, _shown(ref)),) if ref else ()),
            ),
            fix=fix,
        )


def unfilled(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A route that a controller made for the pod's pool, and in which it named no backend: nothing leads to the pool then."""
    if reached(pod, cluster, logs) or _naming(pod, cluster):
        return
    for pool, above in _made_of(pod, cluster):
        for route in cluster.items("HTTPRoute", pod.namespace):
            rules = rows(route.raw, "spec.rules")
            if cluster.owner(route) is not above or any(backends_of(route)):
                continue
            if not rules or any(rows(rule, "filters") for rule in rules):
                continue  # one that sends elsewhere needs no backend
            waits = [
                one for one in above.conditions if one.status == "False" and (not pool or pool.name in one.message)
            ]
            name = f"{pool.plain_kind} {pool.name}" if pool else "its InferencePool"
            yield Finding(
                severity="warning",
                summary=f"{route.plain_kind} {route.name}, made for {above.plain_kind} {above.name}, names no backend, so that no gateway "
                f"takes {name} on. {pod.name} gets no requests through it.",
                evidence=(
                    object_evidence(route, "spec.rules", f"{len(rules)} without backendRefs"),
                    *(condition_evidence(above, one) for one in waits[:1]),
                ),
                fix=fixes.advice(
                    f"Make a route with {name} as its backend and name it in {above.plain_kind}/{above.name} "
                    "(KServe: spec.router.route.http.refs), or see why its controller leaves the template of its routes empty",
                    f"kubectl -n {route.namespace} get httproute {route.name} -o yaml",
                ),
            )
            return


def _made_of(pod: Pod, cluster: Cluster) -> Iterator[tuple[Item | None, Item]]:
    """The pools of a pod that no gateway has taken on, and of what a controller made them; without one what waits for a gateway."""
    for pool in pod.pools:
        above = cluster.owner(pool)
        if above is not None and not _accepted(pool):
            yield pool, above
    service = _llm_service(pod, cluster) if not pod.pools else None
    if service is not None and any(one.status == "False" and one.reason == _WAITS for one in service.conditions):
        yield None, service


def _llm_service(pod: Pod, cluster: Cluster) -> Item | None:
    """The LLMInferenceService of KServe that a pod says it is a part of."""
    if pod.labels.get(PART_OF) != "llminferenceservice":
        return None
    return cluster.item("LLMInferenceService", pod.namespace, pod.labels.get(APP_NAME, ""))


def unjoined(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A LLMInferenceService of KServe that makes no route to its pods, as a gateway, route or pool that it names is not there."""
    made_of = None if answers(pod, logs) else _llm_service(pod, cluster)
    said = [one for one in made_of.conditions if one.status == "False" and one.reason == _REFS] if made_of else []
    if made_of is None or not said:
        return
    refs = rows(made_of.raw, "spec.router.gateway.refs")
    missed = [ref for ref in refs if f"{ref.get('namespace')}/{ref.get('name')} does not exist" in said[0].message]
    there = list(cluster.items("Gateway")) if missed else []
    right = [{"name": one.name, "namespace": one.namespace} for one in there]
    text = f"Name a gateway that is there in spec.router.gateway.refs of LLMInferenceService/{made_of.name}, or make that one"
    command = f"kubectl -n {made_of.namespace} describe llminferenceservice {made_of.name}"
    yield Finding(
        severity="warning",
        summary=f"LLMInferenceService {made_of.name} makes no route: {sentence(said[0].message)} {pod.name} gets no requests through it.",
        evidence=(condition_evidence(made_of, said[0]),),
        explains=("rollout-stuck",),
        fix=fixes.set_field(
            made_of,
            "/spec/router/gateway/refs",
            right,
            f"Name gateway {right[0]['namespace']}/{right[0]['name']}, which there is, in LLMInferenceService/{made_of.name}",
        )
        if len(right) == len(refs) == 1
        else fixes.advice(text, "kubectl get gateways -A")
        if missed
        else fixes.advice(f"Correct what its controller names in LLMInferenceService/{made_of.name}", command),
    )


def _accepted(pool: Item) -> bool:
    """Whether any gateway's controller has taken a pool on."""
    return any(
        row.get("type") == "Accepted" and row.get("status") == "True"
        for parent in rows(pool.raw, "status.parents")
        for row in rows(parent, "conditions")
    )


def _by_name_alone(ref: _Ref) -> bool:
    """Whether a route looks for the Service elsewhere: it may have meant another one that is called so."""
    return ref.told.namespace != ref.means.namespace


def _told_by(route: Item, ref: _Ref, cluster: Cluster) -> Item | None:
    """The object of which a controller made a route, where that names the backend in its namespace and the route does not."""
    owner = cluster.owner(route)
    if owner is None or not _by_name_alone(ref):
        return None
    there = (ref.means.namespace, ref.means.name)
    return owner if any(one.place == there for one in backends_of(owner)) else None


def _naming(pod: Pod, cluster: Cluster) -> list[Item]:
    """The routes with a backend that is called like a Service or pool of the pod."""
    every = cluster.once("routes by backend", lambda: _by_backend(cluster))
    names = [item.name for item in (*pod.services, *cluster.items(_POOL, pod.namespace))] if every else []
    return list({id(route): route for name in names for route in every.get(name, ())}.values())


def _by_backend(cluster: Cluster) -> dict[str, list[Item]]:
    found: dict[str, list[Item]] = {}
    for route in cluster.items("HTTPRoute"):
        for name in {backend.name for backend in backends_of(route)}:
            found.setdefault(name, []).append(route)
    return found


def unmade(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """An Ingress or route to a Service that does not exist, and that is called like the workload of a pod without any."""
    if pod.item is None or pod.services or pod.pools or answers(pod, logs):
        return
    if pod.labels.get(WORKER_INDEX, "0") != "0":
        return
    names = {owner.name for owner in cluster.chain(pod.item)}
    known = cluster.complete("Service", pod.namespace)
    for item, name, text in _to_no_service(pod, names, cluster):
        ports = [engine.value("port") for engine in engines_in(pod) if isinstance(engine.value("port"), int)]
        asked = {port for _, port in _places(item, name, pod.namespace) if isinstance(port, int | str)}
        yield Finding(
            severity="warning",
            confidence="likely" if known else "possible",
            summary=f"{item.plain_kind} {item.name} sends requests to Service {name} of {pod.namespace}, and there is none of that name"
            + (f", nor any other that leads to {pod.name}." if known else f"; none that leads to {pod.name} was read."),
            evidence=(text,),
            fix=_made(pod, name, asked or {*ports[:1]}, ports[:1]),
        )
        return


def _made(pod: Pod, name: str, asked: set[int | str], ports: list[int]) -> Fix:
    """A Service of a name that is asked for, with the ports that it is asked at, by number or name."""
    labels = lasting(pod.labels)
    numbers = sorted(port for port in asked if isinstance(port, int))
    names = sorted(port for port in asked if isinstance(port, str))
    at = ", ".join((*map(str, numbers), *names))
    text = f"Make a Service {name} in {pod.namespace}{f' with port {at}' if at else ''} that selects "
    text += say_pairs(labels, ": ")
    # a port that is asked for by name may have any number; two names of one number are left to a person
    if not asked or not ports or not labels or len(names) > 1 or (names and ports[0] in numbers):
        return fixes.advice(text)
    rows_ = [{"name": f"p{n}", "port": n, "targetPort": ports[0]} for n in numbers]
    rows_ += [{"name": one, "port": ports[0], "targetPort": ports[0]} for one in names]
    return fixes.advice(
        text, fixes.create("v1", "Service", name, pod.namespace, spec={"selector": labels, "ports": rows_})
    )


def _places(item: Item, name: str, namespace: str) -> Iterator[tuple[str, object]]:
    """Where an Ingress or route names a Service of a namespace, and the port at which it asks it, by number or name."""
    for n, rule in enumerate(rows(item.raw, "spec.rules")):
        for index, path in enumerate(rows(dig(rule, "http.paths"))):
            if dig(path, "backend.service.name") == name:
                port = dig(path, "backend.service.port.number") or dig(path, "backend.service.port.name")
                yield f"/spec/rules/{n}/http/paths/{index}/backend/service/name", port
    for backend in backends_of(item):
        if backend.meant == ("Service", namespace, name):
            yield f"{pointer_to(backend.path)}/name", backend.raw.get("port")


def _to_no_service(pod: Pod, names: set[str], cluster: Cluster) -> Iterator[tuple[Item, str, Evidence]]:
    """Where something sends requests to a Service of one of these names that is not there, by what was read or its controller says."""
    every = cluster.once("routes by backend", lambda: _by_backend(cluster))
    for item in {id(route): route for one in sorted(names) for route in every.get(one, ())}.values():
        said = refusal(item, cluster)
        for name in (one.name for one in backends_of(item) if one.meant[:2] == ("Service", pod.namespace)):
            there = cluster.exists("Service", pod.namespace, name)
            if name not in names or there:
                continue
            told = said is not None and said.reason == "BackendNotFound"
            if told and said is not None and re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", said.message):
                yield item, name, object_evidence(item, said.path, said.text)
            elif there is False and not rows(item.raw, "status.parents"):
                yield item, name, object_evidence(item, "spec.rules", name)
    for item in cluster.items("Ingress", pod.namespace):
        for name in sorted(names.intersection(backends(item))):
            if cluster.exists("Service", pod.namespace, name) is False:
                yield item, name, object_evidence(item, "spec.rules", name)


def reached(pod: Pod, cluster: Cluster, logs: Logs | None) -> bool:
    """Whether a pod answers requests, or something but an HTTPRoute leads to it."""
    return answers(pod, logs) or _led_to(pod, cluster)


def led_by_others(pod: Pod, item: Item, cluster: Cluster) -> bool:
    """Whether something else than an Ingress or route leads to the pod from outside, too."""
    if any(dig(service.raw, "spec.type") == "LoadBalancer" for service in pod.services):
        return True
    ways = [one.item for service in pod.services for one in ways_to(service, cluster)]
    return any(one is not item for one in (*ways, *(route for pool in pod.pools for route in routes_to(pool, cluster))))


def _led_to(pod: Pod, cluster: Cluster) -> bool:
    """Whether anything but an HTTPRoute leads to the pod from outside."""
    if any(dig(item.raw, "spec.type") in ("LoadBalancer", "NodePort") for item in pod.services):
        return True
    led = {name for item in cluster.items("Ingress", pod.namespace) for name in backends(item)}
    return not {item.name for item in pod.services}.isdisjoint({*led, *_further(pod.namespace, cluster)})


def _further(namespace: str, cluster: Cluster) -> Iterator[str]:
    """The Services of a namespace to which a mesh or OpenShift leads."""
    yield from (str(dig(item.raw, "spec.to.name")) for item in cluster.items("Route", namespace))
    for item in cluster.items("VirtualService", namespace):
        for rule in rows(item.raw, "spec.http"):
            yield from (str(dig(to, "destination.host")).partition(".")[0] for to in rows(rule, "route"))


def answers(pod: Pod, logs: Logs | None) -> bool:
    """Whether the log of a container says that it answered requests."""
    return any(answered(container.own_log(logs)) for container in pod.containers)


def _refs(route: Item, said: _Refusal | None, pod: Pod, cluster: Cluster) -> Iterator[_Ref]:
    """The backends of a route that mean the pod by the name of its Service or pool, in whatever namespace and group they look for it."""
    for backend in backends_of(route):
        # a kind of the controller's own (Envoy Gateway's Backend) stands for the Service that is called like it
        there = pod.pools if backend.kind == _POOL else pod.services
        means = [item for item in there if item.name == backend.name]
        there_too = cluster.exists(*backend.meant)
        missed = said is not None and said.reason in _NOT_THERE
        # two namespaces may have a Service of one name, of which each has routes
        if means and (backend.namespace == pod.namespace or there_too is False or (there_too is None and missed)):
            exact = [item for item in means if _group(item) == backend.raw.get("group", "")]
            yield _Ref(backend, (exact or means)[0])


def refusal(item: Item, cluster: Cluster) -> _Refusal | None:
    """What all controllers say of it that look at it, where each refuses; None where one takes it, or none has looked."""
    generation, found = dig(item.raw, "metadata.generation"), []
    for index, parent in enumerate(rows(item.raw, "status.parents")):
        if dig(parent, "parentRef.kind") == "Service":
            continue  # of a mesh, where the Service is asked all the same
        said = None
        for row in rows(parent, "conditions"):
            old = isinstance(generation, int) and row.get("observedGeneration", generation) != generation
            failed = row.get("type") in ("Accepted", "ResolvedRefs") and row.get("status") == "False"
            if failed and not old and row.get("reason") not in _NO_VERDICT and _settled(row, cluster):
                path = f"status.parents[{index}].conditions[{row.get('type')}]"
                words = (str(row.get(key) or "") for key in ("reason", "message", "lastTransitionTime"))
                said = _Refusal(path, str(row.get("type")), *words)
                break
        if said is None:
            return None
        found.append(said)
    return found[0] if found else None


def _settled(row: dict[str, Any], cluster: Cluster) -> bool:
    seconds = cluster.seconds_since(row.get("lastTransitionTime"))
    return seconds is None or seconds >= _SETTLES_SECONDS


def _meant(said: _Refusal, refs: list[_Ref], route: Item) -> _Ref | None:
    """The backend that a controller speaks of, if it is one of these."""
    every = {backend.name for backend in backends_of(route)}
    for ref in refs:
        ports = [row.get("port") for row in rows(ref.means.raw, "spec.ports")]
        if ports and ref.told.kind == "Service" and ref.told.raw.get("port") not in ports:
            continue  # a port that a Service does not have is said of by itself
        if len(every) == 1 or re.search(rf"(?<![\w.-]){re.escape(ref.means.name)}(?![\w-])", said.message):
            return ref
    return None


def _in_another_namespace(route: Item, ref: _Ref, cluster: Cluster) -> tuple[str, Fix]:
    """A backend that is in another namespace than the one in which a route looks for it."""
    looks = f"{route.plain_kind} {route.name} looks for {ref.means.plain_kind} {ref.means.name} in namespace {ref.told.namespace}"
    made_of = _told_by(route, ref, cluster)
    if made_of is None:
        grant = f", and let a ReferenceGrant there allow routes of {route.namespace}"
        return (
            f"{looks}; it is in {ref.means.namespace}.",
            fixes.set_field(
                route,
                f"{pointer_to(ref.told.path)}/namespace",
                ref.means.namespace,
                f"Name its namespace{grant}",
                op="add",
            ),
        )
    own_kind = made_of.plain_kind
    return (
        f"{looks}, though {own_kind} {made_of.name}, of which it is made, names {ref.means.namespace}.",
        fixes.advice(
            f"Move {own_kind}/{made_of.name} into namespace {ref.means.namespace}, with the Gateway's listener open to it "
            "(allowedRoutes), or upgrade its controller to one that keeps the namespace"
        ),
    )


def _of_backend(route: Item, said: _Refusal, ref: _Ref, cluster: Cluster) -> tuple[str, Fix]:
    """What is wrong with a backend of a route, in words, and what to do."""
    what, kind = f"{route.plain_kind} {route.name}", ref.means.plain_kind
    asked, own = str(ref.told.raw.get("group") or ""), _group(ref.means)
    if ref.told.kind != kind:
        return (
            f"The controller of {what} does not take {ref.told.kind} {ref.means.name} as a backend: {sentence(said.text)}",
            _described(
                route, f"Correct what its controller names, or send the route to {kind} {ref.means.name} itself"
            ),
        )
    where = ref.told.namespace
    if said.reason == "RefNotPermitted":
        return (
            f"{what} is not allowed to send to {kind} {ref.means.name} of namespace {where}: no ReferenceGrant there lets routes of "
            f"{route.namespace} do so.",
            _granted(route, ref.means, where),
        )
    missing = said.reason == "BackendNotFound"
    if missing and (where != ref.means.namespace or _told_by(route, ref, cluster) is not None):
        return _in_another_namespace(route, ref, cluster)
    if asked != own:
        return (
            f"{what} looks for {kind} {ref.means.name} in the API group {asked or '(core)'}; it is one of {own or 'the core group'}.",
            fixes.set_field(route, f"{pointer_to(ref.told.path)}/group", own, f"Name the group {own}", op="add"),
        )
    made, seen = parse_time(ref.means.metadata.get("creationTimestamp")), parse_time(said.since)
    if missing and made is not None and seen is not None and made > seen:
        touch = f"kubectl -n {route.namespace} annotate httproute {route.name} looked-at=$(date +%s) --overwrite"
        return (
            f"{what} was resolved before there was {kind} {ref.means.name}, and its controller has not looked again.",
            fixes.advice("Touch the route, so that its controller looks again", touch),
        )
    # a controller may know Services alone: pools came with an extension of the Gateway API
    unknown = (missing or said.reason == "InvalidKind") and ref.told.kind == _POOL
    advice = (
        f"Set {_parents(route)} to one of a controller that knows {kind}s of {own}, with that switched on (Envoy Gateway knows them by "
        "Envoy AI Gateway only), or send the route to a Service"
    )
    names = (str(row.get("controllerName")) for row in rows(route.raw, "status.parents"))
    switch = next((_KNOWS_POOLS[name] for name in names if name in _KNOWS_POOLS), None)
    if switch is not None:
        advice = f"Set {switch}: without it the controller of {_parents(route)} looks at no {kind}. Its release must know those of {own}"
    return (
        f"The controller of {what} does not take {kind} {ref.means.name} as a backend: {sentence(said.text)}",
        _described(route, advice if unknown else "Correct what its controller names"),
    )


def _of_route(item: Item, said: _Refusal, cluster: Cluster) -> tuple[str, Fix]:
    """What is wrong with a route or a pool as a whole."""
    parents = _parents(item)
    advice = {
        "NotAllowedByListeners": f"Let a listener of {parents} take {item.plain_kind}s of namespace {item.namespace} (namespaces and "
        "kinds of its allowedRoutes, and its protocol)",
        "NoMatchingListenerHostname": f"Give it a hostname that a listener of {parents} has",
        "NoMatchingParent": f"Name a listener (sectionName, port) that {parents} has in its parentRefs",
        "InvalidExtensionRef": "Name the Service of the endpoint picker that is there, and its port",
    }
    opened = _opened(item, cluster) if said.reason == "NotAllowedByListeners" else None
    return (
        f"{item.plain_kind} {item.name} is not served: {sentence(said.text)}",
        opened or _described(item, advice.get(said.reason, "Correct what its controller names")),
    )


def _opened(route: Item, cluster: Cluster) -> Fix | None:
    """The one listener that a route means, open to its namespace as well; None where it is not known, or is closed by something else."""
    refs = rows(route.raw, "spec.parentRefs")
    ref = refs[0] if len(refs) == 1 else {}
    if ref.get("kind", "Gateway") != "Gateway":
        return None
    gateway = cluster.item("Gateway", str(ref.get("namespace") or route.namespace), str(ref.get("name")))
    if gateway is None or _group(gateway) != _group(route) or gateway.namespace == route.namespace:
        return None
    meant = [
        (n, one)
        for n, one in enumerate(rows(gateway.raw, "spec.listeners"))
        if ref.get("sectionName") in (None, one.get("name")) and ref.get("port") in (None, one.get("port"))
    ]
    # a listener of another protocol takes no routes of this kind, whatever their namespace
    if any(one.get("protocol") not in ("HTTP", "HTTPS") for _, one in meant):
        return None
    allowed = dig(meant[0][1], "allowedRoutes") if len(meant) == 1 else None
    if len(meant) != 1 or dig(allowed, "kinds") or dig(allowed, "namespaces.from") not in (None, "Same"):
        return None
    named = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": [gateway.namespace, route.namespace]}
    opened = {"from": "Selector", "selector": {"matchExpressions": [named]}}
    text = f"Let listener {meant[0][1].get('name')} of Gateway/{gateway.name} take routes of namespace {route.namespace} beside its own"
    path = f"/spec/listeners/{meant[0][0]}/allowedRoutes"
    return fixes.set_field(gateway, path, {"namespaces": opened}, text, owner="platform", op="add")


def _parents(route: Item) -> str:
    return ", ".join(name for _, name in parents_of(route)) or "its gateway"


def _granted(route: Item, backend: Item, where: str) -> Fix:
    """What lets the routes of one namespace send to a backend in another."""
    spec = {
        "from": [{"group": _group(route), "kind": route.plain_kind, "namespace": route.namespace}],
        "to": [{"group": _group(backend), "kind": backend.plain_kind, "name": backend.name}],
    }
    return fixes.advice(
        f"Make a ReferenceGrant in namespace {where}: from {route.plain_kind} of {route.namespace}, to {backend.plain_kind} {backend.name}",
        fixes.create(_GRANTS, "ReferenceGrant", f"{route.namespace}-to-{backend.name}", where, spec=spec),
    )


def _described(item: Item, summary: str) -> Fix:
    command = f"kubectl -n {item.namespace} describe {item.plain_kind.lower()} {item.name}"
    return fixes.advice(summary, command)


def _shown(ref: _Ref) -> str:
    keys = ("group", "kind", "namespace", "name", "port")
    raw = ref.told.raw
    return ", ".join(f"{key}: {raw[key]}" for key in keys if raw.get(key) not in (None, ""))


def _group(item: Item) -> str:
    return item.api_version.rpartition("/")[0]
