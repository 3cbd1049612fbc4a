"""What a pod asks of a node, matched as kube-scheduler does it: taints and tolerations, selectors, affinity.

Read in v1.36: `pkg/scheduler/framework/plugins/*`, `k8s.io/component-helpers/scheduling/corev1`,
`pkg/controller/nodelifecycle`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache

import msgspec

from kubectl_llmdoctor.facts import k8s

#: Taints that say that the node itself is unfit, not that it is kept for somebody: set by the node lifecycle
#: controller, cloud controllers, autoscalers and the agents of network and storage drivers.
_STATE_PREFIXES = ("node.kubernetes.io/", "node.cloudprovider.kubernetes.io/")
_STATE_KEYS = frozenset({
    "ToBeDeletedByClusterAutoscaler", "karpenter.sh/disruption", "karpenter.sh/disrupted",
    "karpenter.sh/unregistered", "node.cluster.x-k8s.io/uninitialized",
    "cloud.google.com/impending-node-termination", "aws-node-termination-handler/spot-itn",
})  # fmt: skip
#: By which every node has a domain of its own: mostly its name.
HOSTNAME = "kubernetes.io/hostname"
#: What a storage class says that makes no volumes: somebody does by hand.
NO_PROVISIONER = "kubernetes.io/no-provisioner"


def is_state_taint(taint: k8s.Taint) -> bool:
    """Whether a taint says that the node is unfit now, rather than kept for certain pods."""
    return (
        taint.key.startswith(_STATE_PREFIXES)
        or taint.key in _STATE_KEYS
        or taint.key.endswith(("/agent-not-ready", "/startup-taint"))
    )


def show_taint(taint: k8s.Taint) -> str:
    """A taint as kubectl writes it: `dedicated=search:NoSchedule`."""
    value = "" if taint.value in ("", None) else f"={taint.value}"
    return f"{taint.key}{value}:{taint.effect}"


def tolerated(taint: k8s.Taint, tolerations: Iterable[k8s.Toleration]) -> bool:
    """Whether one of the tolerations matches the taint (component-helpers `ToleratesTaint`)."""
    return any(_tolerates(t, taint) for t in tolerations)


def untolerated(taints: Iterable[k8s.Taint], tolerations: tuple[k8s.Toleration, ...]) -> Iterator[k8s.Taint]:
    """The taints that keep a pod with these tolerations off; those with PreferNoSchedule keep none."""
    return (t for t in taints if t.effect in ("NoSchedule", "NoExecute") and not tolerated(t, tolerations))


def _tolerates(toleration: k8s.Toleration, taint: k8s.Taint) -> bool:
    if toleration.effect and toleration.effect != taint.effect:
        return False
    if toleration.key and toleration.key != taint.key:
        return False
    if toleration.operator == "Exists":
        return True
    if not toleration.key:  # an empty key is allowed with Exists only
        return False
    if toleration.operator in ("Gt", "Lt"):  # 1.35, alpha: integers
        wanted, have = integer(toleration.value), integer(taint.value)
        if wanted is None or have is None:
            return False
        return have > wanted if toleration.operator == "Gt" else have < wanted
    return str(toleration.value) == str(taint.value)


def holds(requirement: k8s.Requirement, labels: Mapping[str, str]) -> bool:
    """Whether labels meet a requirement; an operator that does not exist matches nothing."""
    value = labels.get(requirement.key)
    values = [str(v) for v in requirement.values]
    match requirement.operator:
        case "In":
            return value is not None and value in values
        case "NotIn":
            return value is None or value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            have, wanted = integer(value), integer(values[0]) if len(values) == 1 else None
            if have is None or wanted is None:
                return False
            return have > wanted if requirement.operator == "Gt" else have < wanted
    return False


def integer(text: object) -> int | None:
    """The whole number that a label says; None for other texts."""
    try:
        return int(str(text))
    except ValueError:
        return None


@lru_cache(maxsize=1024)
def _is_label_value(text: str) -> bool:
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    return not text or (
        len(text) <= 63 and text.isascii() and plain.isalnum() and text[0].isalnum() and text[-1].isalnum()
    )


def is_possible(requirement: k8s.Requirement) -> bool:
    """Whether its values can be values of labels; the API accepts others in node affinity."""
    return all(_is_label_value(str(v)) for v in requirement.values)


def show_requirement(requirement: k8s.Requirement) -> str:
    """A requirement in words: `zone in [a, b]`."""
    values = ", ".join(str(v) for v in requirement.values)
    words = {"In": f"in [{values}]", "NotIn": f"not in [{values}]", "Exists": "is set", "DoesNotExist": "is not set"}
    words |= {"Gt": f"> {values}", "Lt": f"< {values}"}
    return f"{requirement.key} {words.get(requirement.operator, f'{requirement.operator} [{values}]')}"


def selected(selector: k8s.LabelSelector | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector matches; None matches nothing, an empty one everything."""
    if selector is None:
        return False
    return all(labels.get(k) == str(v) for k, v in selector.match_labels.items()) and all(
        holds(r, labels) for r in selector.match_expressions
    )


class Mismatch(msgspec.Struct, frozen=True, kw_only=True):
    """One demand on the node's labels that a node does not meet."""

    #: where it stands in the pod's spec
    path: str
    key: str
    #: the demand in words: `nvidia.com/gpu.product in [NVIDIA-L4]`
    demand: str
    #: the values that would do, where the demand lists them
    wanted: tuple[str, ...] = ()
    #: what the node has; None when the label is not set
    have: str | None = None


def mismatches(spec: k8s.PodSpec, name: str, labels: Mapping[str, str]) -> tuple[Mismatch, ...]:
    """What of nodeSelector and required node affinity a node does not meet; empty when it matches.

    Of several alternative terms the one that comes nearest speaks.
    """
    found = [
        Mismatch(path="nodeSelector", key=k, demand=f"{k}={v}", wanted=(str(v),), have=labels.get(k))
        for k, v in spec.node_selector.items()
        if labels.get(k) != str(v)
    ]
    affinity = spec.affinity.node_affinity if spec.affinity else None
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else None
    return (*found, *unmet(required, name, labels)) if required else tuple(found)


def unmet(selector: k8s.NodeSelector, name: str, labels: Mapping[str, str]) -> tuple[Mismatch, ...]:
    """What of a node selector a node does not meet, by the term that comes nearest; empty when one matches."""
    path = "affinity.nodeAffinity"
    failed: list[list[Mismatch]] = []
    for term in selector.node_selector_terms:
        if not term.match_expressions and not term.match_fields:
            continue  # an empty term matches nothing
        # A value that can be no label's makes the whole term invalid: it matches nothing, whatever the operator.
        of_term = [
            _mismatch(r, path, labels) for r in term.match_expressions if not (holds(r, labels) and is_possible(r))
        ]
        fields = {"metadata.name": name}
        of_term += [_mismatch(r, path, fields) for r in term.match_fields if not holds(r, fields)]
        if not of_term:
            return ()
        failed.append(of_term)
    nearest = min(failed, key=len, default=[Mismatch(path=path, key="", demand="a term that matches no node")])
    return tuple(nearest)


def named_nodes(spec: k8s.PodSpec) -> frozenset[str] | None:
    """The nodes that required affinity names in every term; None when it leaves the choice open."""
    if not spec.node_terms:
        return None
    names: set[str] = set()
    for term in spec.node_terms:
        fields = [r for r in term.match_fields if r.key == "metadata.name" and r.operator == "In"]
        if not fields:
            return None
        names |= set.intersection(*({str(v) for v in r.values} for r in fields))
    return frozenset(names)


def _mismatch(requirement: k8s.Requirement, path: str, labels: Mapping[str, str]) -> Mismatch:
    return Mismatch(
        path=path,
        key=requirement.key,
        demand=show_requirement(requirement),
        wanted=tuple(str(v) for v in requirement.values) if requirement.operator == "In" else (),
        have=labels.get(requirement.key),
    )
