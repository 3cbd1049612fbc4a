"""What a pod demands of a node's labels, made so that a node meets it."""

import re
from typing import Any

from kubectl_llmdoctor.api import Mismatch, Node, escaped, holds, k8s, sentence

Json = dict[str, Any]

REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_AFFINITY = f"/affinity/nodeAffinity/{REQUIRED}"

#: What an image was built for.
_OF_IMAGES = ("kubernetes.io/arch", "kubernetes.io/os")
#: What a controller says by a label of a thing that goes on: nobody wants a node where it has not come to its end.
_STATES = r"(?i)(?:not.?)?ready|(?:not.?)?available|failed|error|pending|updating|downloading|(?:un)?healthy|down|deleted|draining"
#: Labels that the kubelet, a cloud provider or a feature discovery sets to what is so, and sets again.
_MEASURED = (
    r"metadata\.name|(?:beta\.)?kubernetes\.io/(?:arch|os|hostname|instance-type)"
    r"|(?:node|topology|failure-domain\.beta)\.kubernetes\.io/.*"
)
_DISCOVERED = ("nvidia.com/", "amd.com/", "feature.node.kubernetes.io/")


def demands_met(spec: k8s.PodSpec, node: Node, unmet: list[Mismatch]) -> tuple[list[Json], str]:
    """A JSON patch of the pod's spec after which the node meets its demands, and what that is in words."""
    operations: list[Json] = []
    said = []
    for miss in unmet:
        if miss.path != "nodeSelector":
            continue
        at = f"/nodeSelector/{escaped(miss.key)}"
        have = node.labels.get(miss.key)
        operations.append(
            {"op": "remove", "path": at} if have is None else {"op": "replace", "path": at, "value": have}
        )
        said.append(
            f"drop {miss.demand} from the node selector"
            if have is None
            else f"select {miss.key}={have} instead of {miss.wanted[0] or 'nothing'}, which no suitable node has"
        )
    if any(m.path != "nodeSelector" for m in unmet):
        more, words = _affinity(spec, node)
        operations += more
        said += words
    text = ", and ".join(said)
    if any(m.key in _OF_IMAGES for m in unmet):
        text += "; the image must have a variant for it"
    return operations, sentence(text)


def labels_wanted(unmet: list[Mismatch]) -> dict[str, str]:
    """The labels that a person may give a node to meet the demands; empty where one of them is none to write.

    An empty value in the place of another is a mistake of who demands it.
    """
    if any(not miss.wanted or _measured(miss) or states(miss) or (miss.have and not miss.wanted[0]) for miss in unmet):
        return {}
    return {miss.key: str(miss.wanted[0]) for miss in unmet}


def states(miss: Mismatch) -> bool:
    """Whether a label tells the state of something, in which the node is not: it changes when that is mended."""
    words = (miss.have, *map(str, miss.wanted[:1]))
    return len(words) > 1 and all(word and re.fullmatch(_STATES, word) for word in words)


def names_machine(key: str) -> bool:
    """Whether a label says where a machine is or what it has: another value of it is another machine, no other name of the same pool."""
    return (
        bool(re.fullmatch(_MEASURED, key)) or key.startswith(_DISCOVERED) or "accelerator" in key or "/instance-" in key
    )


def _measured(miss: Mismatch) -> bool:
    """Whether a label is no matter of opinion: nobody should write another value there."""
    return bool(re.fullmatch(_MEASURED, miss.key)) or (miss.have is not None and miss.key.startswith(_DISCOVERED))


def _affinity(spec: k8s.PodSpec, node: Node) -> tuple[list[Json], list[str]]:
    """The required node affinity with the term that comes nearest to a node made to match it."""
    options = []
    for at, term in enumerate(spec.node_terms):
        base, whole = f"{_AFFINITY}/nodeSelectorTerms/{at}", (*term.match_expressions, *term.match_fields)
        if whole:
            options.append(_met(base, term, node, alone=len(whole)))
    if not options:
        return [{"op": "remove", "path": _AFFINITY}], ["drop the required node affinity, which matches no node"]
    return min(options, key=lambda option: len(option[0]))


def _met(base: str, term: k8s.NodeSelectorTerm, node: Node, *, alone: int) -> tuple[list[Json], list[str]]:
    """A term so that a node meets it: other values, or without what it cannot meet."""
    operations: list[Json] = []
    said: list[str] = []
    dropped: list[str] = []
    for group, rows, have in (
        ("matchExpressions", term.match_expressions, node.labels),
        ("matchFields", term.match_fields, {"metadata.name": node.name}),
    ):
        for index, row in enumerate(rows):
            if holds(row, have):
                continue
            value = _meeting(row, have.get(row.key))
            if value is not None:
                operations.append({"op": "replace", "path": f"{base}/{group}/{index}/values", "value": [value]})
                met = {"In": f"in [{value}]", "Gt": f"> {value}", "Lt": f"< {value}"}[row.operator]
                said.append(f"let the node affinity demand {row.key} {met}, which suitable nodes meet")
            else:
                dropped.append(f"{base}/{group}/{index}")
                said.append(f"drop what the node affinity demands of {row.key}")
    if len(dropped) == alone:  # an empty term matches nothing
        return [{"op": "remove", "path": _AFFINITY}], ["drop the required node affinity"]
    return [*operations, *({"op": "remove", "path": path} for path in reversed(dropped))], said


def _meeting(row: k8s.Requirement, have: str | None) -> str | None:
    """A value with which a node's label meets a requirement; None where no value would."""
    if have is None or row.operator not in ("In", "Gt", "Lt"):
        return None
    if row.operator == "In":
        return have
    return str(int(have) + (1 if row.operator == "Lt" else -1)) if have.lstrip("-").isdecimal() else None
