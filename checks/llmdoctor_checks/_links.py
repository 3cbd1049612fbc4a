"""Which link of the way from a client or a gateway to a server of models is broken, where its log says that it does not get there.

The objects say it: nothing is said of a way that is whole, as it was only broken while the server started.
"""

import math
import re
from collections.abc import Iterator
from functools import partial

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Destination,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    Trouble,
    dig,
    engines_in,
    fixes,
    idle_workload,
    is_headless,
    log_evidence,
    logs_of,
    object_evidence,
    of_a_machine,
    phase_of,
    pod_evidence,
    rows,
    say_pairs,
    say_seconds,
    say_selector,
    seconds_ago,
    selector_of,
    signs_of_life,
    told_by,
)
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._last_link import Why, nobody_listens
from llmdoctor_checks._listening import listens, port_evidence
from llmdoctor_checks._services import endpoints_of
from llmdoctor_checks._told_where import leading, nearest, of_models, readdressed
from llmdoctor_checks._unreached import Unreached, configured, last_answered, mentioned, scrapes, unreached

#: So many lines before its end a log still tells of what its program ended of.
_NEAR_THE_END = 80

#: A shorter word (`vllm`, `llama`) is what many things are called.
_A_NAME = 6

#: A server that started no longer ago is loading.
_LOADING = 630
#: What was so before that, and was not said again, may be over.
_LONG_AGO = 3600
_CONSEQUENCES = (*FAILED_START, "rollout-stuck")


class Broken(msgspec.Struct, frozen=True):
    """A way that does not lead to a server: who says so, whom it asks, and why."""

    client: Container
    line: Line
    to: Destination
    why: Why

    def concerns(self, pod: Pod) -> bool:
        """Whether it is this pod's affair: it asks, or would be asked."""
        if self.client.pod.item is pod.item or (self.why.at is not None and self.why.at.item is pod.item):
            return True
        return any(other.item is pod.item for other in self.to.pods) and not self.to.itself


def broken(pod: Pod, cluster: Cluster, check: str) -> Iterator[Finding]:
    """The first broken way of a pod, or to a pod that is ready, that a check tells of."""
    if not pod.exists or pod.item is None:
        return
    for one in cluster.once("broken ways", lambda: list(_broken(cluster))):
        if one.why.id != check or not one.concerns(pod):
            continue
        asks = one.client.pod.item is pod.item
        if not asks and not pod.ready:
            continue  # a server that is not ready has a cause of its own
        ended = asks and _ended_of_it(one)
        yield Finding(
            # who goes astray may be one of many; a server that nobody reaches, with all its replicas, serves nobody for that reason
            role="risk"
            if one.why.astray and not asks and (scrapes(one.line) or not _serve_nobody(pod, one.to))
            else "cause",
            severity="critical" if ended else "warning",
            confidence="likely" if one.why.certain and (ended or not asks or not pod.failing) else "possible",
            summary=f"{one.client.name if asks else one.client.pod.name} does not reach {one.to.shown}: {one.why.text}.",
            evidence=(
                log_evidence(one.line, one.to.host),
                *_told(one.client, one.to.host, own=asks),
                *filter(None, one.why.evidence),
            ),
            explains=_CONSEQUENCES if ended else ("gateway-timeout",) if asks and _asks_no_other(one, cluster) else (),
            fix=one.why.fix,
            order=one.line.order,
        )
        return


def told_no_such_port(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A client of models that runs, is told of no other server, and whose log, if it was read, says of no answer."""
    for container in pod.containers if pod.exists else ():
        log = container.own_log(logs)
        told = {(one.host, one.port): one for one in configured(container, cluster)}
        if not container.running or container.role == "init" or len(told) != 1 or (log and last_answered(log)):
            continue
        if any(engine.container.name == container.name for engine in engines_in(pod)):
            continue  # what a server is told of may be a peer, or a tool of it
        to = next(iter(told.values()))
        why = no_such_port(container, to)
        # a port that is not there may stand in a variable of its own
        at = f"{to.host}:{to.port}"
        if why is None or not any(
            re.search(rf"(?<![\w.-]){re.escape(at)}(?!\d)", text) for _, text in told_by(container)
        ):
            continue
        yield Finding(
            severity="warning",
            summary=f"{container.name} is told to ask {at}, where nobody answers: {why.text}.",
            evidence=(*_told(container, to.host, own=True), *filter(None, why.evidence)),
            fix=why.fix,
            order=math.inf,
        )
        return


def _serve_nobody(pod: Pod, to: Destination) -> bool:
    """Whether a server and its replicas are up, and their logs say since the start who asks: nobody who wants something of a model."""
    # each replica asks this of all others
    return all(
        pod.cluster.once(f"serves nobody {one.namespace}/{one.name}", partial(_serves_nobody, one))
        for one in (pod, *(other for other in to.pods if other.ready))
    )


def _serves_nobody(pod: Pod) -> bool:
    logs = logs_of(pod)
    said = [logs.current(engine.container.name) for engine in engines_in(pod)]
    return bool(said) and all(log is not None and _asked_by_probes_alone(log) for log in said)


def _asked_by_probes_alone(log: Log) -> bool:
    phase = phase_of(log)
    return (
        phase is not None
        and phase.name == "serving"
        and not log.torn(phase.line.number, len(log))
        and not signs_of_life(log)
        and log.holds("GET ")
    )


def _broken(cluster: Cluster) -> Iterator[Broken]:
    for said in unreached(cluster):
        why = _break(said, cluster)
        if why is not None:
            yield Broken(said.client, said.line, said.to, why)


def _ended_of_it(one: Broken) -> bool:
    """Whether what is wrong with the client's pod is this container, and its log says little after the line."""
    troubled = [t for t in one.client.pod.troubles if t.container is None or t.container.name == one.client.name]
    return bool(troubled) and len(one.line.log) - one.line.number <= _NEAR_THE_END


def _asks_no_other(one: Broken, cluster: Cluster) -> bool:
    """Whether no other server of models is told to the client: what it waited for in vain is an answer from there."""
    return all((to.host, to.port) == (one.to.host, one.to.port) for to in configured(one.client, cluster))


def _told(client: Container, host: str, *, own: bool) -> tuple[Evidence, ...]:
    """Where the client was told whom to ask."""
    for where, value in told_by(client):
        at = re.search(rf"(?:https?://)?(?<![\w.-]){re.escape(host)}(?![\w.-])[^\s\"',]{{0,200}}", value)
        if at is not None:
            path = f"env[{where}]" if where in client.env else where
            return (pod_evidence(client, path, at[0] if own else f"{client.pod.name}: {at[0]}"),)
    return ()


def _break(said: Unreached, cluster: Cluster) -> Why | None:
    """The first link on the way that is broken."""
    container, to, kind, line = said.client, said.to, said.kind, said.line
    if kind == "unfilled":
        return nobody_behind(to, container, cluster) or (None if to.pods else _no_endpoints(to, line, cluster))
    lost = to.itself or (to.service is None and not to.pods)
    if lost and configured(container, cluster) and not mentioned(to.host, container):
        return None  # it asks others; the line may repeat what somebody wrote to it
    if to.itself:
        return _itself(container, to, line, cluster)
    if to.service is None and not to.pods:
        return _no_service(container, to, kind, cluster)
    service = to.service
    if kind == "nameless":
        return _unpublished(to, cluster)
    if service is not None and dig(service.raw, "spec.type") == "ExternalName":
        return None  # another name, whose ports are asked as they are
    if service is not None:
        if (why := no_such_port(container, to)) is not None:
            return why
        if not to.pods:
            return _no_pod(service, cluster)
    if not any(pod.ready for pod in to.pods):
        return _not_ready(to, cluster)
    return nobody_listens(to, line, container)


def no_such_port(container: Container, to: Destination) -> Why | None:
    """Why nobody answers at a port that the Service does not have, whatever a log says."""
    service = to.service
    if service is None or to.row is not None or to.port is None or is_headless(service):
        return None
    listed = [row["port"] for row in rows(service.raw, "spec.ports") if isinstance(row.get("port"), int)]
    if not listed or dig(service.raw, "spec.type") == "ExternalName":
        return None
    have, best = ", ".join(map(str, listed)), _best(service, to, listed)
    return Why(
        "port-mismatch",
        f"Service {service.name} has no port {to.port}, only {have}",
        (object_evidence(service, "spec.ports", f"port: {have}"),),
        readdressed(
            container, to, f"{to.host}:{best}", f"Have {fixes.edited(container.pod)} ask {service.name} at port {best}"
        ),
        astray=True,
    )


def _best(service: Item, to: Destination, listed: list[int]) -> int:
    """The port of a Service that leads to where a server behind it listens, else its first."""
    engines = [engine for pod in to.pods for engine in engines_in(pod)]
    return leading(service, engines) or listed[0]


def nobody_behind(to: Destination, container: Container, cluster: Cluster) -> Why | None:
    """Why nobody can answer at an address of the cluster, whatever a log says: no such Service, no pod behind it, or none that is up."""
    if to.service is None:
        missing = not to.pods and cluster.exists("Service", to.namespace, to.name) is False
        return _no_service(container, to, "nameless", cluster) if missing else None
    if dig(to.service.raw, "spec.type") == "ExternalName" or any(pod.ready for pod in to.pods):
        return None
    return _not_ready(to, cluster) if to.pods else _no_pod(to.service, cluster)


def _no_endpoints(to: Destination, line: Line, cluster: Cluster) -> Why | None:
    """What a gateway says of a Service whose pods, or which itself, nobody read; it does not say when that has pods again."""
    ago = seconds_ago(line, cluster.now) or 0
    if ago > _LONG_AGO:
        return None
    return Why(
        "service-selects-nothing",
        f"by its log no ready pod has the labels that Service {to.name} of {to.namespace} selects",
        (),
        fixes.advice(
            f"See which pods Service {to.name} selects, and whether they are ready: correct its selector, or what keeps them from being "
            "ready",
            f"kubectl -n {to.namespace} get services,pods -o wide --show-labels",
        ),
        certain=ago < _LOADING,
    )


def _unpublished(to: Destination, cluster: Cluster) -> Why | None:
    """Why the name of a Service that is there has no address: of a headless one it has those of the ready pods."""
    spec = dig(to.service.raw, "spec") if to.service is not None else None
    if to.service is None or dig(spec, "clusterIP") != "None" or dig(spec, "publishNotReadyAddresses") is True:
        return None  # it has one now
    if not to.pods:
        return _no_pod(to.service, cluster)
    return None if any(pod.ready for pod in to.pods) else _not_ready(to, cluster)


def _itself(container: Container, to: Destination, line: Line, cluster: Cluster) -> Why | None:
    pod, text = container.pod, line.text[:4000]
    if pod.spec.host_network:
        return None  # that is its node, where anything may listen
    told = any((one.host, one.port) == (to.host, to.port) for one in configured(container, cluster))
    if not told and not re.search(rf"https?://{re.escape(to.host)}:{to.port}/", text):
        return None  # the line may name by it where the program itself listens
    for engine in (e for e in engines_in(pod) if not e.announced):
        port = engine.get("port")
        if port is None or not isinstance(port.value, int) or not engine.container.status.ready:
            return None  # it comes up, or fails by itself
        if to.port in (None, port.value, engine.value("metrics_port")):
            return None
        declared = {port for c in pod.containers if c is not engine.container for port in c.declared_ports}
        if to.port in declared:
            return None
        return Why(
            "port-mismatch",
            f"{engine.title} in {engine.container.name} of the same pod listens on {port.value}",
            (port_evidence(engine.container, port),),
            readdressed(
                container,
                to,
                f"{to.host}:{port.value}",
                f"Have {container.name} ask port {port.value}, in {fixes.edited(pod)}",
            ),
        )
    if container.beside or to.port is None or to.port in pod.declared_ports:
        return None
    # it may start the server itself, which was not up yet
    went_on = not pod.failing and len(line.log) - line.number > _NEAR_THE_END
    if went_on or listens(container, logs_of(pod), {str(to.port)}) is not None:
        return None
    return Why(
        "service-selects-nothing",
        f"that is {pod.name} itself, where no other container runs and none declares port {to.port}",
        (),
        readdressed(
            container, to, meant, f"Have {container.name} ask {meant} in place of {to.shown}, in {fixes.edited(pod)}"
        )
        if (meant := of_models(container, to.host, cluster))
        else fixes.advice(
            f"Name the Service of the model (SERVICE.NAMESPACE) in place of {to.host}, in {fixes.edited(pod)}"
            + nearest(container, to.host, cluster),
            "kubectl get services -A",
        ),
        certain=told,
    )


def _no_service(container: Container, to: Destination, kind: str, cluster: Cluster) -> Why | None:
    if kind != "nameless":
        return None  # the name has an address, by whatever way
    there = cluster.exists("Service", to.namespace, to.name)
    known = there is False or next(cluster.items("Service", to.namespace), None) is not None
    elsewhere = next((item for item in cluster.items("Service") if item.name == to.name), None)
    said = (
        f"there is no Service {to.name} in {to.namespace}"
        if there is False
        else f"no Service {to.name} was read in {to.namespace}"
    )
    if of_a_machine(to.name):
        said = f"{to.name} is what Docker and Podman call their machine, and no name of this cluster's DNS"
    also = f", but one in {elsewhere.namespace}" if elsewhere is not None else ""
    near = elsewhere or next(iter(cluster.items("Service", to.namespace)), None)
    # where all Services are known, a server that none of them leads to may be told as the one that is meant
    lost = _called(to.name, to.namespace, cluster) if there is False and elsewhere is None else None
    to_it = f", and none leads to {lost.name}" if lost is not None else ""
    return Why(
        "service-selects-nothing",
        said + also + to_it,
        (object_evidence(near, "metadata.name", near.name) if near is not None else None,),
        _another(container, to, elsewhere, lost, cluster),
        certain=known and mentioned(to.host, container),
        at=lost,
    )


def _another(container: Container, to: Destination, elsewhere: Item | None, lost: Pod | None, cluster: Cluster) -> Fix:
    """Whom to ask in place of a Service that is not there: one of its name elsewhere, the only one of a model; or how to make it."""
    where = fixes.edited(container.pod)
    meant = of_models(container, to.host, cluster)
    if elsewhere is not None:
        listed = [row["port"] for row in rows(elsewhere.raw, "spec.ports") if isinstance(row.get("port"), int)]
        port = to.port if to.port in listed or not listed else _best(elsewhere, to, listed)
        meant = f"{elsewhere.name}.{elsewhere.namespace}" + (f":{port}" if port is not None else "")
    ports = [engine.value("port") for engine in engines_in(lost)] if lost is not None else []
    if lost is not None and ports and not meant:
        kind, _, name = fixes.edited(lost).partition("/")
        which = f"{kind.lower()} {name} --name={to.name} --port={to.port or ports[0]} --target-port={ports[0]}"
        return fixes.advice(
            f"Make Service {to.name} in {to.namespace}, which leads to port {ports[0]} of {kind}/{name}",
            f"kubectl -n {to.namespace} expose {which}",
        )
    if meant:
        return readdressed(container, to, meant, f"Ask {meant} in place of {to.shown} in {where}")
    return fixes.advice(
        f"Name the Service that is meant (SERVICE.NAMESPACE) in place of {to.shown} in {where}{nearest(container, to.host, cluster)}",
        "kubectl get services -A",
    )


def _no_pod(service: Item, cluster: Cluster) -> Why | None:
    wanted = selector_of(service)
    known = endpoints_of(service, cluster)
    if not wanted or (known and known.some):
        return None
    shown = say_pairs(wanted, ": ")
    idle = idle_workload(service, cluster)
    if idle is not None:
        kind = idle.plain_kind
        return Why(
            "service-selects-nothing",
            f"Service {service.name} has no pod: {kind} {idle.name} is scaled to 0",
            (object_evidence(service, "spec.selector", shown), object_evidence(idle, "spec.replicas", "0")),
            _scale_up(kind, idle, cluster),
        )
    lost = _meant(service, wanted, cluster)
    if lost is None and known is None and not cluster.complete("Pod", service.namespace):
        return None  # its pods were not read
    labels = ", ".join(f"{k}: {v}" for k, v in lost.labels.items() if k in wanted) if lost else ""
    return Why(
        "service-selects-nothing",
        f"Service {service.name} selects no pod ({shown})"
        + (f"; {lost.name} has {labels or 'none of these labels'}" if lost else ""),
        (
            object_evidence(service, "spec.selector", shown),
            Evidence(source="workload", ref=f"Pod/{lost.name} metadata.labels", text=labels)
            if lost and labels
            else None,
        ),
        _selecting(service, wanted, lost),
        at=lost,
    )


def _selecting(service: Item, wanted: dict[str, str], lost: Pod | None) -> Fix:
    """The selector with the labels that the server has."""
    right = {key: lost.labels[key] for key in wanted if key in lost.labels} if lost is not None else {}
    if lost is not None and right:
        operation = {"op": "replace", "path": "/spec/selector", "value": right}
        return fixes.patch_object(service, f"Have Service {service.name} select {fixes.pods_of(lost)}", [operation])
    shown = say_selector(wanted)
    return fixes.advice(
        f"Start what Service {service.name} is for (its pods have {shown}), or give its selector the labels that the server's pods have",
        f"kubectl -n {service.namespace} get deployments,statefulsets,pods --show-labels",
    )


def _scale_up(kind: str, idle: Item, cluster: Cluster) -> Fix:
    """How a workload gets a pod; KEDA scales one of its own down again."""
    scalers = cluster.items("ScaledObject", idle.namespace)
    scaler = next((one for one in scalers if dig(one.raw, "spec.scaleTargetRef.name") == idle.name), None)
    if scaler is not None:
        return fixes.advice(
            f"Set minReplicaCount to 1 in ScaledObject/{scaler.name}",
            f'kubectl -n {idle.namespace} patch scaledobject {scaler.name} --type=merge -p \'{{"spec":{{"minReplicaCount":1}}}}\'',
        )
    return fixes.advice(
        f"Scale {kind}/{idle.name} up", f"kubectl -n {idle.namespace} scale {kind.lower()}/{idle.name} --replicas=1"
    )


def _meant(service: Item, wanted: dict[str, str], cluster: Cluster) -> Pod | None:
    """The server that a Service should select: the only one that none leads to, with a label much like one that it wants."""
    lost = _without_service(service.namespace, cluster)
    held = set(lost.labels.values()) if lost is not None else set()
    return lost if any(alike(one, other) for one in wanted.values() for other in held) else None


def _without_service(namespace: str, cluster: Cluster) -> Pod | None:
    """The ready server that no Service leads to, where there is only one, or replicas of one."""
    lost = [pod for pod in _engine_pods(namespace, cluster) if pod.ready and not pod.services]
    owners = [(pod.item, *cluster.chain(pod.item)) for pod in lost if pod.item is not None]
    # of several models each may be asked in another way
    return lost[0] if len({chain[-1].name for chain in owners}) == 1 else None


def _called(name: str, namespace: str, cluster: Cluster) -> Pod | None:
    """The only server without a Service, where the name of one that is not there begins with what it, or its workload, is called."""
    lost = _without_service(namespace, cluster)
    if lost is None or lost.item is None:
        return None
    chain = [lost.item, *cluster.chain(lost.item)]
    labels = set(lost.labels.values())
    own = {one for one in {*labels, *(item.name for item in chain[1:])} if re.match(rf"{re.escape(one)}(?:-|$)", name)}
    # what pods of other workloads have among their labels, too, is the name of an application or of a stage
    pods = cluster.items("Pod", namespace) if own else ()
    others = (item for item in pods if [item, *cluster.chain(item)][-1] is not chain[-1])
    shared = {value for item in others for value in item.labels.values()}
    return lost if any(len(one) >= _A_NAME for one in own - shared) else None


def alike(one: str, other: str) -> bool:
    """Whether one of two values is the other with something before or after it."""
    one, other = (re.sub(r"[^a-z0-9]", "", value.lower()) for value in (one, other))
    return bool(one and other) and (one in other or other in one)


def _engine_pods(namespace: str, cluster: Cluster) -> Iterator[Pod]:
    for item in cluster.items("Pod", namespace):
        pod = Pod.of(item, cluster)
        if not pod.leaving and engines_in(pod):
            yield pod


def _not_ready(to: Destination, cluster: Cluster) -> Why | None:
    states = [_state(pod, cluster) for pod in to.pods]
    trouble, age = next(iter(states), None) or (None, None)
    if trouble is None or None in states:
        return None  # one loads its model
    pod = to.pods[0]
    where = f"Service {to.name}" if to.name else to.host
    since = f" for {say_seconds(age)}" if age is not None and trouble.kind == "not-ready" else ""
    many = f"none of its {len(to.pods)} pods is ready" if len(to.pods) > 1 else f"its pod {pod.name} is not ready"
    return Why(
        "not-ready",
        f"{where} has no server, as {many} ({trouble.text}{since})",
        (Evidence(source="workload", ref=f"Pod/{pod.name} status", text=f"{trouble.text}{since}"),),
        fixes.advice(f"See why {pod.name} is not ready", f"kubectl llmdoctor diagnose {pod.name} -n {pod.namespace}"),
        certain=False,
    )


def _state(pod: Pod, cluster: Cluster) -> tuple[Trouble, float | None] | None:
    """What is wrong with a server that is not ready, and for how many seconds; None for one that may be loading."""
    trouble = next(iter(pod.troubles), None)
    age = cluster.seconds_since(trouble.since) if trouble else None
    loading = trouble is None or (trouble.kind == "not-ready" and (age is None or age < _LOADING))
    return None if trouble is None or loading else (trouble, age)
