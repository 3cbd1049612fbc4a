"""The pod selects what no node has."""

import re
import shlex
from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.api import (
    Evidence,
    Finding,
    Fix,
    Mismatch,
    Pending,
    Pod,
    Subject,
    check,
    dig,
    escaped,
    fixes,
    is_state_taint,
    pod_evidence,
    rows,
    say_pairs,
    show_taint,
    table,
    untolerated,
)
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._demands import names_machine, states
from llmdoctor_checks.scheduling._karpenter import UNKNOWN
from llmdoctor_checks.scheduling._kueue import workloads
from llmdoctor_checks.scheduling._larger import selecting
from llmdoctor_checks.scheduling._nodepools import meant_but_for_labels
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import tolerating, unlabelled, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said, scaling_lines

#: Labels that the platform, a cloud or a discovery sets: who wants another value changes the pod, not the node.
_SET_BY_OTHERS = (
    r"kubernetes\.io/|(?:nvidia|amd|intel|habana|huawei)\.(?:com|ai)/|karpenter|cloud\.google|amazonaws|azure|digitalocean|coreweave"
    r"|oraclecloud|linode|scaleway|vultr|nebius|alibabacloud|tencentcloud"
)


@check("node-selector-mismatch", since="0.1")
def node_selector_mismatch(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """The pod's node selector or affinity names what no suitable node has.

    Every entry of `nodeSelector` and one term of the required node affinity must match the labels of the node. Labels
    of the GPU model are spelled by whoever sets them (`NVIDIA-H100-80GB-HBM3` by GPU Feature Discovery,
    `nvidia-h100-80gb` by GKE) and are missing when that component does not run. Required pod affinity wants a node
    beside a pod that matches; if no pod matches, no node does.

    ## Fix

    Name a label value that the nodes have, or label the nodes.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/assign-pod-node/
    """
    yield from refused_for("node-selector-mismatch", pod, subject)
    found = cause(pending, "node-selector-mismatch")
    if not pending or not found:
        return
    if found.obstacle == "pod-affinity":
        yield from _beside(pending, found)
        return
    unmet = _unmet(found)
    if unmet and _met_apart(found):
        demand = "; ".join(dict.fromkeys(m.demand for r in found.reasons for m in r.mismatches))
        summary = f"It demands {demand}, and none of {nodes_said(found)} that could run it otherwise meets all of it."
    elif unmet:
        demand = "; ".join(dict.fromkeys(m.demand for m in unmet))
        have = _values(found, unmet[0].key)
        summary = f"It demands {demand}, and {nodes_said(found)} that could run it otherwise "
        one = len(found.verdicts) == 1
        if unmet[0].key == "metadata.name":
            summary += f"{'has another name' if one else 'have other names'}."
        else:
            summary += f"{'has' if one else 'have'} " + (", ".join(have) if have else "no such label") + "."
    elif any(c.text.startswith("nodepool ") for c in found.counts):
        pools = "; ".join(c.text for c in found.counts)
        summary = f"No node meets its demands, and they do not fit the pool that would make one: {pools}."
    else:
        summary = f"Its node selector or affinity matches none of {nodes_said(found)}, by the scheduler's count"
        summary += f": {'; '.join(odd)}." if (odd := list(_unheld(pending))) else "."
    evidence = [*_demands(pending), *scaling_lines(pending), *node_lines(pending, found)]
    yield finding(pending, found, summary, evidence, _fixes(pending, found, unmet))


def _unmet(found: Cause) -> tuple[Mismatch, ...]:
    """The demands that the nearest node does not meet."""
    each = [r.mismatches for r in found.reasons if r.mismatches]
    return min(each, key=len, default=())


def _unheld(pending: Pending) -> Iterator[str]:
    """What its selector names and no node has, whatever else keeps the pod from these nodes: with the values that there are."""
    labels = [item.raw for item in pending.pod.cluster.items("Node")]
    for key, wanted in pending.pod.spec.node_selector.items():
        have = {str(value) for raw in labels if (value := (dig(raw, "metadata.labels") or {}).get(key)) is not None}
        if labels and pending.nodes_complete and wanted not in have:
            values = f"nodes have {', '.join(sorted(have)[:3])}" if have else "no node has that label"
            yield f"{key}={wanted}, and {values}"


def _met_apart(found: Cause) -> bool:
    """Whether each of its demands is met by some node, and all of them by none."""
    each = [{m.demand for m in r.mismatches} for r in found.reasons if r.mismatches]
    return len(each) > 1 and not set.intersection(*each)


def _values(found: Cause, key: str) -> list[str]:
    """The values that the suitable nodes have for a label."""
    have = {v.node.labels[key] for v in found.verdicts if key in v.node.labels}
    return [f"{key}={value}" for value in sorted(have)][:3]


def _demands(pending: Pending) -> Iterator[Evidence]:
    spec = pending.pod.spec
    if spec.node_selector:
        text = say_pairs(spec.node_selector, ": ")
        yield pod_evidence(pending.pod, "nodeSelector", text)
    for term in spec.node_terms:
        for part in (*term.match_expressions, *term.match_fields):
            text = part.text
            yield pod_evidence(pending.pod, "affinity.nodeAffinity", text)


def _fixes(pending: Pending, found: Cause, unmet: tuple[Mismatch, ...]) -> Iterator[Fix]:
    offered = ways(pending, found)
    if flavors := _of_flavors(pending, unmet):
        offered = [fix for fix in offered if fix.patch is None and fix.commands]
        yield fixes.platform(
            f"Correct spec.nodeLabels of the ResourceFlavor {', '.join(flavors)}, by which Kueue adds "
            f"{'; '.join(dict.fromkeys(m.demand for m in unmet))} to the pod, or bring nodes with these labels",
            f"kubectl get resourceflavors.kueue.x-k8s.io {shlex.join(flavors)} -o yaml",
        )
    yield from offered
    each = ((v.node.name, m) for v in found.verdicts for r in v.reasons if r.mismatches == unmet for m in unmet)
    if told := next((one for one in each if states(one[1])), None):
        node, miss = told
        yield fixes.platform(
            f"See why {miss.key} is {miss.have} on {node}: what sets that label (a model agent, an operator) says so in its log or its "
            "object's status, and sets it again when that is fixed",
            fixes.pods_on(node),
        )
    elif unmet and not offered:
        demands = "; ".join(dict.fromkeys(m.demand for m in unmet))
        yield fixes.advice(f"Correct {demands} in {fixes.edited(pending.pod)}: no suitable node meets it")
    elif pools := [
        c.text.removeprefix("nodepool ").partition(":")[0] for c in found.counts if c.text.startswith("nodepool ")
    ]:
        known = [*selecting(pending, [*_pools(pending, pools)])] or [*_labelled(pending, found)]
        yield from known or [
            fixes.platform(
                f"Demand in {fixes.edited(pending.pod)} what the nodes of a nodepool get, or add it to the pool's labels or requirements",
                "kubectl get nodepools.karpenter.sh -o yaml",
            )
        ]
    elif not unmet and (meant := _meant(pending)):
        yield meant
    elif not unmet and (odd := list(_unheld(pending))):
        yield fixes.advice(
            f"Name in {fixes.edited(pending.pod)} a value that nodes have, with what else those nodes ask for (their taints, their number "
            f"of devices), or bring nodes of the one named: {'; '.join(odd)}",
            f"kubectl get nodes -L {','.join(one.partition('=')[0] for one in odd)}",
        )
    elif not unmet:
        yield _compared(pending, found)


def _meant(pending: Pending) -> Fix | None:
    """The one value of each odd label that the nodes have with as many devices as the pod asks for, with their taints tolerated."""
    pod, asked = pending.pod, pending.accelerators
    nodes = [n for n in pending.subject.nodes if asked and all(n.amounts.get(r, 0) >= a for r, a in asked.items())]
    odd = [one.partition("=")[0] for one in _unheld(pending)]
    values = {key: {n.labels[key] for n in nodes if key in n.labels} for key in odd}
    if not odd or not nodes or any(len(have) != 1 or names_machine(key) for key, have in values.items()):
        return None
    chosen = {key: next(iter(have)) for key, have in values.items()}
    fitting = [
        n for n in nodes if all(n.labels.get(k) == v for k, v in (dict(pod.spec.node_selector) | chosen).items())
    ]
    if not fitting:
        return None
    taints = list(untolerated(fitting[0].taints, pod.spec.tolerations))
    if any(is_state_taint(t) for t in taints):
        return None
    pairs = say_pairs(chosen, ": ")
    devices = " and ".join(f"{amount} {resource}" for resource, amount in asked.items())
    text = f"Select {pairs} in {fixes.edited(pod)}, which the nodes with {devices} have ({fitting[0].name})"
    text += f", and tolerate their taint {', '.join(show_taint(t) for t in taints)}" if taints else ""
    operations = [{"op": "replace", "path": f"/nodeSelector/{escaped(k)}", "value": v} for k, v in chosen.items()]
    return fixes.patch(pod, text, [*operations, *(tolerating(pending, taints) if taints else ())])


def _pools(pending: Pending, told: list[str]) -> Iterator[str]:
    """The pools that Karpenter names; of those that were read, where it names none, the one that must be meant.

    Of a single pool it gives the reason without a name, as it does of pools that it joins into one line.
    """
    yield from (name for name in told if not name.startswith("("))
    pools = [p for p in pending.pod.cluster.items("NodePool") if meant_but_for_labels(p, pending)]
    selected = {str(value) for value in pending.pod.spec.node_selector.values()}
    named = [pool.name for pool in pools if pool.name in selected]
    if any(name.startswith("(") for name in told):
        yield from named or [pool.name for pool in pools[:1] if len(pools) == 1]


def _labelled(pending: Pending, found: Cause) -> Iterator[Fix]:
    """A label that the pod selects and no pool of Karpenter's sets, written into the pool that is meant for it."""
    said = [(c.text, hit["key"]) for c in found.counts if (hit := re.search(UNKNOWN, c.text))]
    wanted = dict(pending.pod.spec.node_selector)
    for term in pending.pod.spec.node_terms:
        wanted |= {
            part.key: str(part.values[0]) for part in term.match_expressions if part.operator == "In" and part.values
        }
    for text, key in said:
        if key not in wanted or "kubernetes.io" in key or "karpenter" in key:
            continue
        name = text.removeprefix("nodepool ").partition(":")[0]
        pool = "" if name.startswith("(") or " " in name else name
        item = pending.pod.cluster.item("NodePool", "", pool) if pool else None
        if item and not meant_but_for_labels(item, pending):
            continue
        yield _unselected(pending, key, str(wanted[key]), pool)
        body = msgspec.json.encode({"spec": {"template": {"metadata": {"labels": {key: wanted[key]}}}}}).decode()
        where = f"NodePool {pool}" if pool else "the NodePool whose machines are meant for it"
        yield fixes.platform(
            f"Have {where} set {key}={wanted[key]} on its nodes (spec.template.metadata.labels); Karpenter replaces those that it has",
            f"kubectl patch nodepools.karpenter.sh {shlex.quote(pool)} --type=merge -p {shlex.quote(body)}"
            if pool
            else "kubectl get nodepools.karpenter.sh -o wide",
        )
        return


def _unselected(pending: Pending, key: str, value: str, pool: str) -> Fix:
    """The label taken out of the pod's selector, with the others of which Karpenter would say the same next."""
    pod = pending.pod
    item = pod.cluster.item("NodePool", "", pool) if pool else None
    given = set(dig(item.raw, "spec.template.metadata.labels") or {}) if item else set[str]()
    given |= {str(row.get("key")) for row in rows(item.raw, "spec.template.spec.requirements")} if item else set()
    selector = pod.spec.node_selector
    own = [k for k in selector if "kubernetes.io" not in k and "karpenter" not in k and k not in given]
    of = f"NodePool {pool}" if pool else "a NodePool"
    text = f"Drop {key}={value} from what {fixes.edited(pod)} selects, where {of} is meant for it: its nodes get no such label"
    if key not in selector:
        return fixes.advice(text)
    gone = [k for k in own if k == key or item]
    others = [f"{k}={selector[k]}" for k in own if k not in gone]
    if len(gone) > 1:
        text += f" ({', '.join(gone)})"
    if others:
        text += f", nor {', '.join(others)} unless its template says so"
    paths = [f"/nodeSelector/{escaped(k)}" for k in gone]
    return fixes.patch(pod, text, [{"op": "remove", "path": path} for path in paths])


def _compared(pending: Pending, found: Cause) -> Fix:
    """What it demands beside what the nodes have, where the nodes are not known."""
    spec = pending.pod.spec
    keys = [*spec.node_selector, *(part.key for term in spec.node_terms for part in term.match_expressions)]
    told = [f"{key}={value}" for key, value in spec.node_selector.items()]
    told += [p.text for t in spec.node_terms for p in t.match_expressions]
    if not keys:
        return fixes.advice("Compare the selector with the labels of the nodes", "kubectl get nodes --show-labels")
    labels = f"kubectl get nodes -L {','.join(dict.fromkeys(keys))}"
    no_node = sum(count.number for count in found.counts) == pending.said.total
    if no_node and len(told) == 1 and spec.node_selector and not re.search(_SET_BY_OTHERS, keys[0]):
        return fixes.advice(
            f"Label a node that is meant for it {told[0]}, or take {keys[0]} out of the nodeSelector of {fixes.edited(pending.pod)}, or "
            "correct its value to one that nodes have",
            labels,
        )
    return fixes.advice(
        f"Compare what {fixes.edited(pending.pod)} demands ({'; '.join(told)}) with what the nodes have, and correct what none has",
        labels,
    )


def _of_flavors(pending: Pending, unmet: tuple[Mismatch, ...]) -> list[str]:
    """The flavors by which Kueue added these demands to the pod when it admitted it: its template has none of them."""
    template = pending.pod.template
    own = dig(template.pod, "spec.nodeSelector") if template else None
    if not unmet or template is None or any(m.path != "nodeSelector" or m.key in (own or {}) for m in unmet):
        return []
    names: set[str] = set()
    for workload in workloads(pending.subject, pending.pod.cluster):
        for row in rows(workload.raw, "status.admission.podSetAssignments"):
            names |= {str(name) for name in table(row.get("flavors")).values()}
    return sorted(names)


def _beside(pending: Pending, found: Cause) -> Iterator[Finding]:
    affinity = pending.pod.spec.affinity
    terms = affinity.pod_affinity if affinity else None
    evidence = []
    for term in terms.required_during_scheduling_ignored_during_execution if terms else ():
        selector = term.label_selector
        labels = say_pairs(selector.match_labels) if selector else ""
        text = f"beside a pod with {labels or 'the given labels'} (topologyKey {term.topology_key})"
        evidence.append(pod_evidence(pending.pod, "affinity.podAffinity", text))
    summary = f"It must stand beside a pod that matches its pod affinity, and on {nodes_said(found)} none does."
    if absent := unlabelled(pending):
        summary = f"Its pod affinity goes by the label {absent} of nodes (topologyKey), which no node has."
    answers = ways(pending, found) or [
        fixes.advice(
            f"Correct or drop the pod affinity in {fixes.edited(pending.pod)}, or start the pod it names first"
        )
    ]
    yield finding(pending, found, summary, [*evidence, *node_lines(pending, found)], answers)
