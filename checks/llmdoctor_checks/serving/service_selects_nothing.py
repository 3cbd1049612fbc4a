"""A Service of the model without an endpoint: its selector or its named port matches no pod."""

import re
from collections.abc import Iterator, Mapping

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Events,
    Evidence,
    Finding,
    Item,
    Logs,
    Pod,
    Subject,
    Workload,
    check,
    dig,
    engines_in,
    escaped,
    fixes,
    has_namespace,
    host_of,
    is_headless,
    k8s,
    log_evidence,
    named,
    object_evidence,
    pod_evidence,
    say_pairs,
    selector_of,
)
from llmdoctor_checks import _links, _unreached
from llmdoctor_checks._awaited import awaited
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks._ended_clients import Ended, ended_clients
from llmdoctor_checks._services import endpoints_of, service_of, slices_of
from llmdoctor_checks._told_where import moved, nearest, of_models
from llmdoctor_checks.serving import (
    _by_proxy,
    _classes,
    _databases,
    _entrances,
    _keyless_checks,
    _misnamed,
    _no_server,
    _pickers,
    _router_selectors,
    _subsets,
)
from llmdoctor_checks.serving._beside import NO_HOST, beside
from llmdoctor_checks.serving._exposure import leads, matches
from llmdoctor_checks.serving._mixed import NOT_SERVED, mixed, mixed_when_applied
from llmdoctor_checks.serving._pickers import NO_CANDIDATES, refused_by
from llmdoctor_checks.serving._routes import SUFFIX, unfilled, unjoined, unmade, unrouted
from llmdoctor_checks.serving._strangers import REFUSED, strangers
from llmdoctor_checks.start import _aibrix
from llmdoctor_checks.start._init_containers import NOT_STARTED
from llmdoctor_checks.start._routed_ports import routed

#: Words in names and labels of what stands in front of engines, or beside them.
_OTHERS = r"router|gateway|proxy|frontend|epp|scheduler|cache|ui\b|redis|postgres|minio|head"

#: Labels that the operator gives to the pods of a LeaderWorkerSet.
_GROUPS = "leaderworkerset.sigs.k8s.io/"

#: So many labels, all but one of which a pod has, are no chance; and those that are another's for each pod or revision.
_LIKE, _ITS_OWN = 3, r"hash|pod-name|pod-index|revision|version|role"


@check(
    "service-selects-nothing",
    since="0.2",
    severity="warning",
    literals=(
        *NO_CANDIDATES,
        NO_HOST,
        NOT_SERVED,
        *REFUSED,
        _aibrix.UNKNOWN,
        *_databases.LITERALS,
        *_no_server.LITERALS,
        *_misnamed.LITERALS,
        *_router_selectors.LITERALS,
        _router_selectors.NO_INSTANCE,
        *_keyless_checks.LITERALS,
        *_subsets.LITERALS,
        _classes.IGNORED,
        _entrances.UNKNOWN_HOST,
        *_by_proxy.LITERALS,
        *_unreached.LITERALS,
    ),
)
def service_selects_nothing(
    pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None, events: Events | None
) -> Iterator[Finding]:
    """A Service, a pool, a route or an address leads to no server, or not to the model alone.

    A Service has as endpoints the pods that carry all labels of its selector, by the port that `targetPort` names. If a
    label differs by one letter, or no container declares a port of that name, there is no endpoint: the pods are Ready,
    and every connection is refused. Its EndpointSlices say so. An InferencePool has nothing that does but the log of its
    endpoint picker, which answers 503 to every request. A selector that means other pods as well, which do not listen at the port,
    lets their share of the requests fail; the gateway's log names their addresses. So does one that means servers of different models:
    in manifests where an Ingress, a route or a load balancer leads to it, and a note where one may be had instead of the other. And so
    does a pool without pods beside the server's own in one rule of a route.

    A route of the Gateway API says in its status whether its gateway takes it: `ResolvedRefs` is False where it finds no
    backend of that kind, group and namespace, or is not allowed to send to another namespace, and `Accepted` is False where no
    listener is for it. Requests are then answered with 404 or 500, whatever the pods do. So they are where an Ingress or a
    route (of the Gateway API, Istio, Contour or Traefik) names a Service that nobody made, or a subset that no DestinationRule
    defines or whose labels no pod has, or where a route that an operator made for a pool (KServe's LLMInferenceService) names
    no backend, or where the endpoint picker of a pool is a Service that nobody made. AIBrix' gateway finds the servers of a
    model by the label `model.aibrix.ai/name` of their pods, and refuses requests for one that no pod has, and the routers of
    SGLang and of vLLM's production stack find their servers by labels that they are told; Dynamo's frontend finds its workers
    by `DYN_NAMESPACE`. The one of the production stack leaves out servers that refuse its checks, which carry no key. A
    VirtualService of Istio whose Gateway is in another namespace than it says, or is for other hosts, leads nowhere, and so
    does one for another host than the one that clients ask for. An Ingress of a class that no controller has, or of which its
    controller makes no load balancer, leads nowhere, and neither does a Service for which the cloud makes none.

    Seen from a client or a gateway whose log says that it does not reach its server: there is no Service of the name that it asks (a
    short name means the own namespace), the Service has no pods (a selector that fits none, a workload scaled to 0), or it asks
    `localhost`, which is its own pod. Ingress controllers (Traefik, nginx) log which Service has no endpoint.
    Or it asks through the proxy for what is outside (HTTP_PROXY), as NO_PROXY does not name it.

    A proxy that resolves the names of its servers when it starts (nginx, HAProxy) ends where there is no Service of that
    name in its namespace, and so do clients that do not try again. LiteLLM and Open WebUI do not start before their database
    answers, and many a program ends without the store that it needs (MongoDB, Redis, etcd). An init container that asks again
    until a Service answers keeps its pod from starting, and says nothing else.

    ## Fix

    Use the labels of the pod template as the selector, and the engine's port number, or a name that the container
    declares, as `targetPort`.

    ## References

    - https://kubernetes.io/docs/tasks/debug/debug-application/debug-service/
    - https://kubernetes.io/docs/concepts/services-networking/service/#field-spec-ports
    - https://gateway-api.sigs.k8s.io/api-types/httproute/
    """
    nameless = next((one for one in ended_clients(pod, subject, logs) if one.why == "no name"), None)
    if nameless is not None and (found := _no_such(pod, nameless, cluster)) is not None:
        yield found
        return
    yield from _by_proxy.through_proxy(pod, cluster, logs)
    broken = list(_links.broken(pod, cluster, "service-selects-nothing"))
    yield from broken or _awaited_in_vain(pod, cluster)
    if pod.exists and pod.ready:
        yield from _unpicked(pod, cluster)
        yield from _picks_nobody(pod, cluster)
        yield from _router_selectors.finds_nobody(pod, cluster, logs)
        yield from _router_selectors.other_dynamo_namespace(pod, cluster, logs)
        yield from _keyless_checks.checked_without_key(pod, cluster, logs)
        yield from _subsets.unmatched(pod, cluster, logs)
        yield from _entrances.unentered(pod, cluster, logs)
        yield from _pickers.unmade(pod, cluster, logs)
        yield from unrouted(pod, cluster, logs)
        yield from unfilled(pod, cluster, logs)
        yield from unjoined(pod, cluster, logs)
        yield from _misnamed.misnamed(pod, cluster, logs)
        yield from _classes.unserved(pod, cluster, logs)
        yield from _classes.unbalanced(pod, cluster)
        yield from unmade(pod, cluster, logs)
        yield from strangers(pod, cluster)
        yield from beside(pod, cluster)
        yield from mixed(pod, cluster, logs)
        yield from _no_server.overlooked(pod, cluster)
        if (unlabelled := _aibrix.without_label(pod, subject.engines(pod))) is not None:
            yield unlabelled
        elif (behind := _aibrix.unlabelled_behind(pod)) is not None:
            yield behind
    yield from _databases.unreached(pod, cluster, logs, events)
    engine = next((e for e in subject.engines(pod) if isinstance(e.value("port"), int)), None)
    if engine is None:
        yield from _of_another(pod, cluster)
        return
    port = engine.value("port")
    if not pod.exists and pod.by_operator:
        yield from _other_group(pod, engine, port, cluster)
    if not pod.exists and (pod.by_operator or pod.partial):
        return  # an operator gives its pods labels and ports of their own
    mine = [item for item in pod.services if selector_of(item)]
    served = any(leads(item, pod, {port}) for item in mine)
    yield from mixed_when_applied(pod, engine, cluster)
    for item in mine if served else cluster.items("Service", pod.namespace):
        if item in mine:
            yield from _port(pod, port, item, cluster)
        elif selector_of(item) and leads(item, pod, {port}):
            yield from _labels(pod, engine, subject, item, cluster)
            yield from _labels_above(pod, subject, item, cluster)


def _no_such(pod: Pod, ended: Ended, cluster: Cluster) -> Finding | None:
    """A client of models that ended since the name of its server, one of the cluster's, does not resolve."""
    host = host_of(ended.url)
    meant = named(host, pod.namespace, cluster, guess=True)
    if meant is None:
        return None  # a name outside of the cluster
    name, namespace = meant
    if there := cluster.exists("Service", namespace, name):
        return None
    if not has_namespace(namespace, cluster):
        why, sure = "it is no Service that was read, and no name outside that the cluster's DNS knows", False
    elif there is None:
        why, sure = f"no Service of that name was read in {namespace}", any(cluster.items("Service", namespace))
    else:
        why, sure = f"there is no Service {name} in {namespace}", True
    return Finding(
        severity="critical",
        confidence="likely" if sure else "possible",
        summary=f"{ended.container.name} ended since {host}, where it asks for the model, does not resolve: {why}.",
        evidence=ended.evidence,
        explains=CRASHED,
        fix=fixes.set_env(
            ended.container,
            ended.variable,
            said[2],
            f"Have {ended.variable} of {fixes.edited(pod)} name {said[1]} in place of {said[0]}",
        )
        if (right := of_models(ended.container, host, cluster)) and (said := moved(ended.url, host, None, right))
        else fixes.advice(
            f"Name the model's Service (SERVICE.NAMESPACE) in place of {host} in {ended.variable} of {fixes.edited(pod)}"
            + nearest(ended.container, host, cluster),
            "kubectl get services -A",
        ),
        order=ended.lines[0].order,
    )


def _awaited_in_vain(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """An init container that asks a Service again and again behind which there is nobody."""
    for one in awaited(pod, cluster) if pod.exists else ():
        why = _links.nobody_behind(one.to, one.container, cluster)
        if why is None:
            continue
        yield Finding(
            severity="critical",
            confidence="likely" if why.certain or one.to.pods else "possible",
            summary=f"Init container {one.container.name} waits for {one.to.shown}, and nothing of the pod starts before: {why.text}.",
            evidence=(
                pod_evidence(one.container, one.at, one.words),
                pod_evidence(pod, f"status.initContainerStatuses[{one.container.name}].state", "running"),
                *filter(None, why.evidence),
            ),
            explains=NOT_STARTED,
            fix=why.fix,
            awaits=tuple(f"{other.namespace}/{other.name}" for other in one.to.pods),
        )
        return


def _unpicked(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """An InferencePool whose selector nearly fits the pod, and fits nothing."""
    if pod.pools:
        return
    labels = pod.labels
    for pool in cluster.items("InferencePool", pod.namespace):
        wanted = pool.wanted_labels
        under = {key: next((k for k, v in labels.items() if v == wanted[key]), None) for key in wanted}
        said = next(iter(refused_by(pool, cluster)), None)
        # a picker that has nobody needs a pod that is called alike
        meant = bool(said and engines_in(pod)) and all(
            _links.alike(value, labels.get(key, "")) for key, value in wanted.items()
        )
        if not (meant or _nearly(wanted, labels, pod)) or any(
            matches(wanted, found) for found, _ in _pods(pool, cluster)
        ):
            continue
        if said is None and not cluster.complete("Pod", pod.namespace):
            continue
        wrong = _side_by_side(wanted, labels)
        right = {key if key in labels else own or key: labels.get(key, wanted[key]) for key, own in under.items()}
        path = "/spec/selector/matchLabels" if dig(pool.raw, "spec.selector.matchLabels") else "/spec/selector"
        yield Finding(
            summary=f"InferencePool {pool.name} selects no pod: it wants {wrong}. {pod.name} gets no requests through it.",
            evidence=(
                object_evidence(pool, "spec.selector", say_pairs(wanted, ": ")),
                *((log_evidence(said),) if said else ()),
            ),
            fix=fixes.set_field(pool, path, right, f"Select {_those_of(pod)}"),
        )
        return


def _picks_nobody(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """The same from the side of the endpoint picker that says so."""
    pools = (pool for pool in cluster.items("InferencePool", pod.namespace) if not engines_in(pod))
    if not any(line.log.pod == pod.name for pool in pools for line in refused_by(pool, cluster)):
        return
    for item in cluster.items("Pod", pod.namespace):
        server = Pod.of(item, cluster)
        if server.ready and engines_in(server):
            yield from _unpicked(server, cluster)


def _nearly(wanted: dict[str, str], labels: dict[str, str], pod: Pod) -> bool:
    """Whether labels have the right values under other names, or like values under the right names.

    A pool of another model, which has no pods now, has other values, and `true` is the value of anything.
    """
    held = set(labels.values())
    if held.issuperset(wanted.values()):
        return any(value.lower() not in ("true", "false", "yes", "1") for value in wanted.values())
    alike = all(_links.alike(value, labels.get(key, "")) for key, value in wanted.items())
    return alike and not held.isdisjoint(wanted.values()) and service_of(pod) is None


def _port(pod: Pod, port: int, item: Item, cluster: Cluster) -> Iterator[Finding]:
    """A name that no container declares."""
    declared = {p.name: p.container_port for c in pod.containers if c.role != "init" for p in c.spec.ports if p.name}
    listed = dig(item.raw, "spec.ports")
    for index, row in enumerate(listed if isinstance(listed, list) else ()):
        name = row.get("targetPort") if isinstance(row, dict) else None
        if not isinstance(name, str) or name.isdecimal() or name in declared or "{" in name:
            continue
        if any(name in ports and matches(selector_of(item), labels) for labels, ports in _pods(item, cluster)):
            continue
        way = routed(item, cluster) if is_headless(item) else None
        if is_headless(item) and way is None:
            continue  # its name resolves to the pods all the same, and who asks knows the port
        have = ", ".join(f"{key} ({number})" for key, number in declared.items()) or "none has a name"
        empty = _without_port(item, cluster) if pod.exists and pod.ready else None
        yield Finding(
            role="cause" if empty and not _served(pod, port) else "risk",
            summary=f"Service {item.name} sends port {row.get('port')} to the port named {name} of {pod.name}, and no "
            f"container declares one ({have}): it has no endpoint, and "
            + (f"{way.plain_kind} {way.name} leads nowhere." if way else "connections are refused."),
            evidence=(object_evidence(item, f"spec.ports[{index}].targetPort", name), *((empty,) if empty else ())),
            fix=fixes.set_field(item, f"/spec/ports/{index}/targetPort", port, f"Send to port {port}"),
        )
        return


def _served(pod: Pod, port: int) -> bool:
    """Whether any Service leads to the engine's port."""
    return any(selector_of(item) and leads(item, pod, {port}) for item in pod.services)


def _pods(item: Item, cluster: Cluster) -> Iterator[tuple[dict[str, str], set[str]]]:
    """Labels and names of ports of every pod of the Service's namespace, and of every pod that a workload would make."""
    for kind in cluster.kinds():
        for other in cluster.items(kind, item.namespace):
            specs = [(t.metadata.labels, t.spec) for _, t in Workload(other, cluster).templates]
            if kind == "Pod" and isinstance(typed := other.typed(), k8s.Pod):
                specs = [(typed.metadata.labels, typed.spec)]
            for labels, spec in specs:
                names = {p.name for c in (*spec.containers, *spec.init_containers) for p in c.ports}
                yield {key: str(value) for key, value in labels.items()}, names


def _wrong(selector: Mapping[str, str], labels: Mapping[str, str]) -> list[str]:
    """The keys of a selector of which labels say something else, or nothing."""
    return [key for key, value in selector.items() if labels.get(key) != value]


def _side_by_side(selector: Mapping[str, str], labels: Mapping[str, str]) -> str:
    """What a selector asks that labels do not say, each with what they say."""
    return ", ".join(f"{key}={selector[key]} ({_has(labels, key)})" for key in _wrong(selector, labels))


def _labels(pod: Pod, engine: Engine, subject: Subject, item: Item, cluster: Cluster) -> Iterator[Finding]:
    """A selector that nearly fits the pod, and fits nothing else."""
    selector = selector_of(item)
    labels = pod.labels
    wrong = _wrong(selector, labels)
    # the same value under another name is the usual slip: `app` for `app.kubernetes.io/name`
    under = {
        key: next((k for k, v in labels.items() if v == selector[key] and k not in selector), None) for key in wrong
    }
    plain = all("/" not in key or key.startswith("app.kubernetes.io/") for key in wrong)
    if not plain or not (set(selector) & set(labels) or any(under.values())) or not _same_name(item.name, subject, pod):
        return
    if any(re.search(_OTHERS, text) or "{" in text for text in (item.name, *selector.values())):
        return
    known = endpoints_of(item, cluster)
    if pod.exists and (known.some if known else not cluster.complete("Pod", pod.namespace)):
        return
    if any(matches(selector, found) for found, _ in _pods(item, cluster)):
        return
    said = _side_by_side(selector, labels)
    right = {key: value for key, value in selector.items() if key not in wrong}
    for key in wrong:
        own = key if key in labels else under[key]
        right |= {own: labels[own]} if own is not None else {}
    # a server that runs, and that no Service of the namespace leads to
    cut_off = pod.exists and pod.ready and (known is not None or cluster.complete("Service", pod.namespace))
    yield Finding(
        role="cause" if cut_off else "risk",
        summary=f"Service {item.name} selects no pod: it wants {said}. {engine.title} in {fixes.edited(pod)} gets no requests.",
        evidence=(
            object_evidence(item, "spec.selector", say_pairs(selector, ": ")),
            *((known.none,) if known and not known.some else ()),
        ),
        fix=fixes.set_field(item, "/spec/selector", right, f"Select {_those_of(pod)}"),
    )


def _labels_above(pod: Pod, subject: Subject, item: Item, cluster: Cluster) -> Iterator[Finding]:
    """A selector that fits the labels of the workload itself, and not those that it gives to its pods."""
    selector = selector_of(item)
    above, labels = dig(subject.workload.raw, "metadata.labels") if subject.workload else None, pod.labels
    wrong = _wrong(selector, labels)
    if not isinstance(above, dict) or not matches(selector, {k: str(v) for k, v in above.items()}):
        return
    if not wrong or any(key not in labels for key in wrong) or not _same_name(item.name, subject, pod):
        return
    known = endpoints_of(item, cluster)
    if (known is not None and known.some) or any(matches(selector, found) for found, _ in _pods(item, cluster)):
        return
    said = _side_by_side(selector, labels)
    sure = pod.exists and pod.ready and (known is not None or cluster.complete("Pod", pod.namespace))
    right = selector | {key: labels[key] for key in wrong}
    yield Finding(
        role="cause" if sure else "risk",
        summary=f"Service {item.name} selects no pod: it wants {said}. The labels that it wants are those of {fixes.edited(pod)} "
        "itself, which its pod template does not have.",
        evidence=(
            object_evidence(item, "spec.selector", say_pairs(selector, ": ")),
            *((known.none,) if known else ()),
        ),
        fix=fixes.set_field(item, "/spec/selector", right, f"Select {_those_of(pod)}"),
    )


def _of_another(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """A Service without an endpoint, of a pod that is no engine (a router): one value of its selector is not the pod's.

    That no Service selects the pod tells it from the two sides of a rollout, of which one has no pods now and then.
    """
    ports = {port for c in pod.containers if c.role == "main" for port in c.declared_ports}
    if not pod.exists or not pod.ready or not ports or pod.services:
        return
    labels = pod.labels
    for item in cluster.items("Service", pod.namespace):
        selector = selector_of(item)
        wrong = _wrong(selector, labels)
        if len(wrong) != 1 or len(selector) < _LIKE or not leads(item, pod, ports):
            continue
        known = endpoints_of(item, cluster)
        if known is None or known.some:
            continue
        key = wrong[0]
        if (
            key not in labels
            or re.search(_ITS_OWN, key)
            or (selector[key] and not _links.alike(selector[key], labels[key]))  # another part of the same program
            or any(matches(selector, all_) for all_, _ in _pods(item, cluster))
        ):
            continue
        yield Finding(
            summary=f"Service {item.name} selects no pod: it wants {key}={selector[key] or '(empty)'}, {pod.name} has {labels[key]}. "
            "Nobody reaches it.",
            evidence=(object_evidence(item, f"spec.selector[{key}]", selector[key] or "(empty)"), known.none),
            fix=fixes.set_field(item, "/spec/selector", selector | {key: labels[key]}, f"Select {_those_of(pod)}"),
        )
        return


def _other_group(pod: Pod, engine: Engine, port: int, cluster: Cluster) -> Iterator[Finding]:
    """A Service for the pods of a LeaderWorkerSet of another name, beside the only one of the manifests."""
    group, groups = pod.template_of, list(cluster.items("LeaderWorkerSet", pod.namespace))
    if group is None or len(groups) != 1 or groups[0].name != group.name:
        return
    labels = pod.labels
    for item in cluster.items("Service", pod.namespace):
        selector = selector_of(item)
        asked = selector.get(f"{_GROUPS}name", group.name)
        rest = {key: value for key, value in selector.items() if not key.startswith(_GROUPS)}
        if (
            asked == group.name
            or re.search(r"[{$]", asked)
            or not matches(rest, labels)
            or not leads(item, pod, {port})
        ):
            continue
        yield Finding(
            role="risk",
            summary=f"Service {item.name} selects the pods of LeaderWorkerSet {asked}, and this one is {group.name}: it has no "
            f"endpoint, and {engine.title} gets no requests.",
            evidence=(object_evidence(item, f"spec.selector[{_GROUPS}name]", asked),),
            fix=fixes.set_field(item, f"/spec/selector/{escaped(_GROUPS)}name", group.name, f"Select {_those_of(pod)}"),
        )
        return


def _without_port(item: Item, cluster: Cluster) -> Evidence | None:
    """What says that no pod has a port for a Service: the addresses are in its slices, and no port is."""
    slices = [one for one in slices_of(item, cluster) if dig(one.raw, "endpoints")]
    if not slices or any(one.raw.get("ports") for one in slices):
        return None
    return object_evidence(slices[0], "ports", "none")


def _same_name(name: str, subject: Subject, pod: Pod) -> bool:
    """Whether a Service is named after the workload, give or take an ending."""
    mine = re.sub(SUFFIX, "", subject.workload.name if subject.workload else pod.name)
    other = re.sub(SUFFIX, "", name)
    return mine in other or other in mine


def _has(labels: Mapping[str, str], key: str) -> str:
    return f"the pod has {labels[key]}" if labels.get(key) else "the pod has no such label"


def _those_of(pod: Pod) -> str:
    """`the pods of Deployment/llama`, or the pod that nobody made."""
    owner = fixes.edited(pod)
    return owner if owner.startswith("Pod/") else f"the pods of {owner}"
