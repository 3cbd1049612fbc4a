"""Other pods keep the pod off every node."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GKE_GPU,
    GPU_PRODUCT,
    HOSTNAME,
    MACHINE,
    Evidence,
    Finding,
    Fix,
    Holder,
    Pending,
    check,
    dig,
    escaped,
    fixes,
    k8s,
    pod_evidence,
    say_pairs,
    selected,
    top_of,
)
from llmdoctor_checks.scheduling._holders import outgoing
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import old_first, one_more, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said, number_of


@check("pod-spread-unsatisfied", since="0.1")
def pod_spread_unsatisfied(pending: Pending) -> Iterator[Finding]:
    """Anti-affinity or topology spread leaves no node for the pod.

    Required anti-affinity allows one such pod per node (or zone); with as many replicas as nodes the next one has no
    place, nor has the one that a rolling update adds before it removes an old one. It works both ways: the anti-affinity of a pod
    that runs keeps this one off as well. A topology spread constraint with `DoNotSchedule` refuses a node that would make the
    distribution too uneven, and every node that lacks the topology label. A zone counts, too, whose nodes have no GPU: unless the
    pod selects nodes, it is a zone without such a pod, and the others must not go beyond it by more than maxSkew.

    ## Fix

    Make the rule a preference (`preferredDuringScheduling…`, `ScheduleAnyway`), run fewer replicas, or add a node. In a rollout let
    the old pod go first (`maxSurge: 0` with `maxUnavailable: 1`). Select the nodes with GPUs (`nodeSelector`), so that only their
    zones count.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/#inter-pod-affinity-and-anti-affinity
    - https://kubernetes.io/docs/concepts/scheduling-eviction/topology-spread-constraints/
    """
    found = cause(pending, "pod-spread-unsatisfied")
    if found is None:
        return
    texts = "; ".join(f"{c.number} {c.text}" for c in found.counts)
    repelling = _repelling(pending)
    have = "has" if number_of(found) == 1 else "have"
    summary = f"{nodes_said(found)} {have} room, but other pods keep it off: {texts}."
    if barren := _barren(pending, found):
        summary += (
            f" {', '.join(barren)} {'counts' if len(barren) == 1 else 'count'} as well, without a node with GPUs."
        )
    former, workload = _former(pending, found, repelling), pending.subject.workload
    evidence = [*_own(pending), *_theirs(repelling), *node_lines(pending, found)]
    if former and workload is not None:
        summary += (
            f" The rollout of {workload.ref} adds this pod before it removes an old one, and the old ones keep it off."
        )
        let = old_first(pending, workload, (former[0].ref,))
        yield finding(pending, found, summary, evidence, [let, *_advice(pending, found, []), *_more(pending, found)])
        return
    yield finding(pending, found, summary, evidence, _fixes(pending, found, repelling))


def _former(pending: Pending, found: Cause, repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> list[Holder]:
    """The pods of the former revision that keep it off; none where another pod does so on some node, too."""
    terms = pending.pod.spec.apart_terms
    refs = {ref for ref, _ in repelling}
    former = []
    for verdict in found.verdicts:
        old = [
            holder
            for holder in outgoing(pending, verdict.node.name)
            if holder.ref in refs or any(selected(t.label_selector, holder.pod.metadata.label_texts) for t in terms)
        ]
        if not old:
            return []
        former += old
    return former


def _own(pending: Pending) -> Iterator[Evidence]:
    spec = pending.pod.spec
    for term in spec.apart_terms:
        text = f"not beside pods with {_labels(term.label_selector)} (topologyKey {term.topology_key})"
        yield pod_evidence(pending.pod, "affinity.podAntiAffinity", text)
    for spread in _strict(spec):
        text = f"maxSkew {spread.max_skew} over {spread.topology_key}, whenUnsatisfiable: DoNotSchedule"
        yield pod_evidence(pending.pod, "topologySpreadConstraints", text)


def _labels(selector: k8s.LabelSelector | None) -> str:
    labels = selector.match_labels if selector else {}
    return say_pairs(labels) or "certain labels"


def _repelling(pending: Pending) -> list[tuple[str, k8s.PodAffinityTerm]]:
    """The pods that run and whose own anti-affinity names this pod's labels."""
    labels, found = pending.pod.obj.metadata.label_texts, []
    for pod in pending.pod.cluster.all(k8s.Pod, "Pod"):
        terms = pod.spec.apart_terms if pod.spec.node_name else ()
        ref = f"{pod.metadata.namespace or 'default'}/{pod.metadata.name}"
        found += [(ref, term) for term in terms if selected(term.label_selector, labels)]
    return found


def _theirs(repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> Iterator[Evidence]:
    for ref, term in repelling[:3]:
        text = f"anti-affinity to pods with {_labels(term.label_selector)} (topologyKey {term.topology_key})"
        yield Evidence(source="pod", ref=ref, text=text)


def _fixes(pending: Pending, found: Cause, repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> Iterator[Fix]:
    offered = ways(pending, found)
    if any("existing pods" in c.text for c in found.counts) and (narrow := _narrowed(pending, repelling)):
        yield narrow
    yield from offered
    selecting = [_selecting(pending)] if _barren(pending, found) else []
    yield from (fix for fix in selecting if fix.patch)
    if not offered:
        yield from _advice(pending, found, repelling)
    yield from (fix for fix in selecting if not fix.patch)
    yield from one_more(pending, found) if offered else _more(pending, found)


#: Labels by which nodes with GPUs are told from others.
_OF_GPUS = ("nvidia.com/gpu.present", "amd.com/gpu.product-name", GPU_PRODUCT, GKE_GPU,
            MACHINE)  # fmt: skip


def _selecting(pending: Pending) -> Fix:
    """The pod selects the nodes with GPUs, by a label that all of them have and no other, where there is one."""
    nodes = [v.node for v in pending.verdicts]
    rich = [n for n in nodes if any(n.amounts.get(name) for name in pending.accelerators)]
    for key in _OF_GPUS:
        values = {n.labels.get(key) for n in rich}
        value = next(iter(values), None)
        if len(values) == 1 and value and not any(n.labels.get(key) == value for n in nodes if n not in rich):
            text = f"Select the nodes with GPUs ({key}: {value}): then only their domains count"
            return fixes.set_spec(pending.pod, f"/nodeSelector/{escaped(key)}", value, text)
    return fixes.advice(
        f"Select the nodes with GPUs in {fixes.edited(pending.pod)} (nodeSelector or node affinity): then only their domains count"
    )


#: Labels that say which part of an application a pod is.
_PARTS = ("component", "role", "tier", "name", "app", "app-name")


def _narrowed(pending: Pending, repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> Fix | None:
    """The anti-affinity of pods of the same application, of which this pod is another part, for their own part alone."""
    mine, cluster = pending.pod.obj.metadata.label_texts, pending.pod.cluster
    for ref, term in repelling:
        namespace, _, name = ref.partition("/")
        item = cluster.item("Pod", namespace, name)
        shared = term.label_selector.match_labels if term.label_selector else {}
        if item is None or namespace != pending.pod.namespace or not shared:
            continue
        top = top_of(item, cluster)
        own = pending.subject.workload
        if top is not None and own is not None and top.item is own.item:
            continue
        keys = (key for key in item.labels if key.rpartition("/")[2] in _PARTS and key in mine and key not in shared)
        key = next((key for key in keys if item.labels[key] != mine[key]), "")
        if not key:
            continue
        where = f"{top.kind}/{top.name}" if top is not None else f"Pod/{name}"
        labels = say_pairs(shared)
        return fixes.advice(
            f"Let the anti-affinity of {where} name its own part only ({key}: {item.labels[key]} besides {labels} in its labelSelector): "
            f"as it is, it keeps this pod, {key}={mine[key]}, off as well",
            f"kubectl -n {namespace} get pod {name} -o jsonpath='{{.spec.affinity.podAntiAffinity}}'",
        )
    return None


def _more(pending: Pending, found: Cause) -> list[Fix]:
    """One more node, where that helps: elsewhere one more of a kind makes no domain less uneven."""
    return one_more(pending, found) if HOSTNAME in _keys(pending) else []


def _keys(pending: Pending) -> set[str]:
    """The topology keys of what separates the pod from others."""
    spec = pending.pod.spec
    return {term.topology_key for term in spec.apart_terms} | {rule.topology_key for rule in _strict(spec)}


def _strict(spec: k8s.PodSpec) -> Iterator[k8s.SpreadConstraint]:
    return (s for s in spec.topology_spread_constraints if s.when_unsatisfiable == "DoNotSchedule")


def _barren(pending: Pending, found: Cause) -> list[str]:
    """Domains of a spread constraint that count though no node there has the accelerators; none where the pod selects nodes."""
    spec, asked = pending.pod.spec, pending.accelerators
    if found.counts and not any("topology spread" in count.text for count in found.counts):
        return []  # another rule keeps it off
    if not asked or spec.node_selector or (spec.affinity and spec.affinity.node_affinity):
        return []
    names: list[str] = []
    for rule in _strict(spec):
        key = rule.topology_key
        if key == HOSTNAME or rule.node_affinity_policy == "Ignore":
            continue
        nodes = [
            v.node
            for v in pending.verdicts
            if key in v.node.labels
            and not v.node.control_plane
            and not (rule.node_taints_policy == "Honor" and any(r.kind == "taint" for r in v.reasons))
        ]
        rich = {n.labels[key] for n in nodes if any(n.amounts.get(name) for name in asked)}
        names += sorted({f"{key}={n.labels[key]}" for n in nodes if n.labels[key] not in rich}) if rich else []
    return list(dict.fromkeys(names))[:3]


def _advice(pending: Pending, found: Cause, repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> Iterator[Fix]:
    where = fixes.edited(pending.pod)
    existing = any("existing pods" in c.text for c in found.counts)
    if any(c.kind == "spread" for c in found.counts):
        rules = enumerate(pending.pod.spec.topology_spread_constraints)
        hard = [(n, rule) for n, rule in rules if rule.when_unsatisfiable == "DoNotSchedule"]
        at = "/topologySpreadConstraints"
        body: list[dict[str, object]] = [
            {"op": "replace", "path": f"{at}/{n}/whenUnsatisfiable", "value": "ScheduleAnyway"} for n, _ in hard
        ]
        body += [{"op": "remove", "path": f"{at}/{n}/minDomains"} for n, rule in hard if rule.min_domains is not None]
        keys = ", ".join(dict.fromkeys(rule.topology_key for _, rule in hard))
        text = f"Set whenUnsatisfiable: ScheduleAnyway in the topology spread over {keys} of {where}"
        yield (
            fixes.patch(pending.pod, text, body)
            if hard
            else fixes.advice(f"Set whenUnsatisfiable: ScheduleAnyway, or a larger maxSkew, in {where}")
        )
        if any("missing required label" in c.text for c in found.counts):
            yield fixes.platform("Give every GPU node the topology label of the constraint")
    elif not existing:
        nodes, workload = len(found.verdicts), pending.subject.workload
        many = f" ({nodes})" if nodes else ""
        # the pods that run have the rule still, and keep new ones off until they go
        stay = workload and workload.kind == "Deployment" and dig(workload.raw, "spec.strategy.type") != "Recreate"
        first = ", with maxSurge 0 and maxUnavailable 1" if stay else ""
        yield fixes.advice(
            f"Make the anti-affinity in {where} a preference{first}, or run no more replicas than there are nodes{many}"
        )
    if existing:
        who = ", ".join(dict.fromkeys(ref for ref, _ in repelling[:3])) or "the pods that repel it"
        yield fixes.advice(f"Make the anti-affinity of {who} a preference, or stop one of them")
