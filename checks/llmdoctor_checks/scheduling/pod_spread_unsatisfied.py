"""Other pods keep the pod off every node."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Fix, Pending, check, fixes, k8s, pod_evidence, selected
from llmdoctor_checks.scheduling._repairs import one_more, ways
from llmdoctor_checks.scheduling._separation import Cause, cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said, number_of


@check("pod-spread-unsatisfied", since="0.1")
def pod_spread_unsatisfied(pending: Pending) -> Iterator[Finding]:
    """Anti-affinity or topology spread leaves no node for the pod.

    Required anti-affinity allows one such pod per node (or zone); with as many replicas as nodes the next one has no
    place. It works both ways: the anti-affinity of a pod that runs keeps this one off as well. A topology spread
    constraint with `DoNotSchedule` refuses a node that would make the distribution too uneven, and every node that
    lacks the topology label.

    ## Fix

    Make the rule a preference (`preferredDuringScheduling…`, `ScheduleAnyway`), run fewer replicas, or add a node.

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
    evidence = [*_own(pending), *_theirs(repelling), *node_lines(pending, found)]
    yield finding(pending, found, summary, evidence, _fixes(pending, found, repelling))


def _own(pending: Pending) -> Iterator[Evidence]:
    spec = pending.pod.spec
    anti = spec.affinity.pod_anti_affinity if spec.affinity else None
    for term in anti.required_during_scheduling_ignored_during_execution if anti else ():
        text = f"not beside pods with {_labels(term.label_selector)} (topologyKey {term.topology_key})"
        yield pod_evidence(pending.pod, "affinity.podAntiAffinity", text)
    for spread in spec.topology_spread_constraints:
        if spread.when_unsatisfiable == "DoNotSchedule":
            text = f"maxSkew {spread.max_skew} over {spread.topology_key}, whenUnsatisfiable: DoNotSchedule"
            yield pod_evidence(pending.pod, "topologySpreadConstraints", text)


def _labels(selector: k8s.LabelSelector | None) -> str:
    labels = selector.match_labels if selector else {}
    return ", ".join(f"{k}={v}" for k, v in labels.items()) or "certain labels"


def _repelling(pending: Pending) -> list[tuple[str, k8s.PodAffinityTerm]]:
    """The pods that run and whose own anti-affinity names this pod's labels."""
    labels = {k: str(v) for k, v in pending.pod.obj.metadata.labels.items()}
    found = []
    for pod in pending.pod.cluster.all(k8s.Pod, "Pod"):
        anti = pod.spec.affinity.pod_anti_affinity if pod.spec.affinity and pod.spec.node_name else None
        terms = anti.required_during_scheduling_ignored_during_execution if anti else ()
        ref = f"{pod.metadata.namespace or 'default'}/{pod.metadata.name}"
        found += [(ref, term) for term in terms if selected(term.label_selector, labels)]
    return found


def _theirs(repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> Iterator[Evidence]:
    for ref, term in repelling[:3]:
        text = f"anti-affinity to pods with {_labels(term.label_selector)} (topologyKey {term.topology_key})"
        yield Evidence(source="pod", ref=ref, text=text)


def _fixes(pending: Pending, found: Cause, repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> Iterator[Fix]:
    offered = ways(pending, found)
    yield from offered
    if not offered:
        yield from _advice(pending, found, repelling)
    yield from one_more(pending, found)


def _advice(pending: Pending, found: Cause, repelling: list[tuple[str, k8s.PodAffinityTerm]]) -> Iterator[Fix]:
    where = fixes.edited(pending.pod)
    existing = any("existing pods" in c.text for c in found.counts)
    if any(c.kind == "spread" for c in found.counts):
        yield fixes.advice(f"Set whenUnsatisfiable: ScheduleAnyway, or a larger maxSkew, in {where}")
        if any("missing required label" in c.text for c in found.counts):
            yield fixes.advice("Give every GPU node the topology label of the constraint", owner="platform")
    elif not existing:
        yield fixes.advice(
            f"Make the anti-affinity in {where} a preference, or run no more replicas than there are nodes"
        )
    if existing:
        who = ", ".join(dict.fromkeys(ref for ref, _ in repelling[:3])) or "the pods that repel it"
        yield fixes.advice(f"Make the anti-affinity of {who} a preference, or stop one of them")
