"""A taint keeps the pod off the nodes it needs."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Fix, Pending, Pod, Subject, check, fixes, k8s, pod_evidence
from llmdoctor_checks.scheduling._admission import refused_for
from llmdoctor_checks.scheduling._obstacles import Cause
from llmdoctor_checks.scheduling._repairs import named, tolerating, ways
from llmdoctor_checks.scheduling._separation import cause
from llmdoctor_checks.scheduling._words import finding, node_lines, nodes_said, number_of, scaling_lines


@check("taint-untolerated", since="0.1")
def taint_untolerated(pod: Pod, pending: Pending | None, subject: Subject) -> Iterator[Finding]:
    """The nodes that fit have a taint that the pod does not tolerate.

    GPU nodes are often tainted, so that only pods that ask for them by a toleration get there; clouds add such taints
    by themselves (`nvidia.com/gpu=present` on GKE, spot nodes on AKS). Since Kubernetes 1.35 the scheduler's message
    does not name the taint. A pod that a `nodeName` or a race brings to a node with such a taint of effect `NoExecute` is
    refused by the kubelet. Taints of the control plane and of nodes that could not run the pod anyway do not matter.

    ## Fix

    Add the toleration to the pod, if it may run there; else remove the taint from a node, or add a node without it.

    ## References

    - https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """
    yield from refused_for("taint-untolerated", pod, subject)
    found = cause(pending, "taint-untolerated")
    if not pending or not found:
        return
    taints = _taints(found) or [t for c in found.counts if (t := _parsed(c.taint))]
    if found.verdicts:
        one = len(found.verdicts) == 1
        summary = f"{nodes_said(found)} {'has' if one else 'have'} a taint that it does not tolerate: {named(taints)}."
    else:
        said = ", ".join(dict.fromkeys(c.taint for c in found.counts if c.taint))
        if pools := [c.text for c in found.counts if c.text.startswith(("nodepool ", "node group"))]:
            summary = f"The nodes that would be made for it ({', '.join(pools)}) have a taint that it does not tolerate"
        else:
            have = "has" if number_of(found) == 1 else "have"
            summary = f"{nodes_said(found)} {have} a taint that it does not tolerate, by the scheduler's count"
        summary += f": {said}." if said else " (which one, its message does not say)."
    yield finding(
        pending,
        found,
        summary,
        [*scaling_lines(pending), *node_lines(pending, found), _tolerations(pending)],
        _fixes(pending, found, taints),
    )


def _parsed(text: str) -> k8s.Taint | None:
    """A taint that a message names: `nvidia.com/gpu: present` (before 1.35), `gpu=true:NoSchedule` (Karpenter)."""
    if "=" in text or (text.count(":") == 1 and ": " not in text and not text.endswith(":")):
        head, _, effect = text.rpartition(":")
        key, _, value = head.partition("=")
        return k8s.Taint(key=key, value=value, effect=effect)
    key, _, value = text.partition(":")
    return k8s.Taint(key=key.strip(), value=value.strip(), effect="NoSchedule") if key else None


def _taints(found: Cause) -> list[k8s.Taint]:
    """The taints of the node that needs the fewest tolerations."""
    each = [[r.taint for r in found.on(v) if r.taint] for v in sorted(found.verdicts, key=lambda v: v.node.name)]
    return min(each, key=len, default=[])


def _tolerations(pending: Pending) -> Evidence:
    """What it does tolerate; the two that every pod is given are left out."""
    given = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
    own = [t for t in pending.pod.spec.tolerations if t.key not in given]
    said = [
        f"{t.key or '(every key)'}{f'={t.value}' if t.value != '' else ''}:{t.effect or '(every effect)'}" for t in own
    ]
    return pod_evidence(pending.pod, "tolerations", ", ".join(said) or "none but the defaults")


def _fixes(pending: Pending, found: Cause, taints: list[k8s.Taint]) -> Iterator[Fix]:
    if not taints:
        text = "Find the taint (kubectl describe nodes) and tolerate it, or remove it"
        yield fixes.advice(text, "kubectl get nodes -o custom-columns=NAME:.metadata.name,TAINTS:.spec.taints")
        return
    if offered := ways(pending, found):
        yield from offered
        return
    text = f"Tolerate {named(taints)}, if it may run there"
    if found.verdicts:  # it was tried, and something else would still stop the pod
        yield fixes.advice(f"{text}, and fix what else stands in its way there")
    else:
        yield fixes.patch(pending.pod, text, tolerating(pending, taints))
