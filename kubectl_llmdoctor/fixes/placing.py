"""The operations on a pod's spec as operations on the object that a person edits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.fixes.paths import container_at, path_inside, value_at
from kubectl_llmdoctor.fixes.ranks import of_other_ranks
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.snapshot import MASK
from kubectl_llmdoctor.tree import rows, table

if TYPE_CHECKING:
    from kubectl_llmdoctor.platforms import Template

#: What the API server writes into a pod by what its template states: a request by the limit, a port of the host in the host's network.
_DERIVED = r"/resources/requests/[^/]{1,253}$|/ports/\d{1,5}/hostPort$"


def placed(pod: Pod, workload: Workload, operations: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The operations on the workload's object, so that they apply to it; None where they cannot."""
    template = pod.template
    if template is None or template.immutable or template.raw is not workload.raw:
        return None
    moved, within = [], []
    operations = _with_whole_probes(pod, workload, template, operations)
    if any(MASK in str(operation.get("value")) for operation in operations if operation["path"].endswith("Probe")):
        return None
    for operation in operations:
        inside = path_inside(pod, template, operation["path"])
        path = template.at(inside) if inside is not None else None
        if inside is None or path is None:
            return None
        if template.literal_env and "/env" in inside and _refers(operation.get("value")):
            return None
        if operation["op"] == "remove" and re.search(_DERIVED, path) and value_at(workload.raw, path) is None:
            continue
        moved.append({**operation, "path": path})
        within.append({**operation, "path": inside})
    whole = pointer.fitted(workload.raw, moved + of_other_ranks(workload, template, within))
    return whole or pointer.fitted(workload.raw, moved) or None


def _with_whole_probes(
    pod: Pod, workload: Workload, template: Template, operations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Operations of which those inside a probe that the object does not state set all of it: no API server takes a part of one."""
    found: list[dict[str, Any]] = []
    for operation in operations:
        tokens = pointer.split(operation["path"])
        at = pointer.join(tokens[:3])
        # of two `/tolerations/-` each adds its own
        made = next((one for one in found if one["path"] == at and len(tokens) > 3), None)
        probe = made["value"] if made else _unstated_probe(pod, workload, template, tokens)
        if probe is None:
            found.append(operation)
            continue
        changed = pointer.changed({tokens[2]: probe}, {**operation, "path": pointer.join(tokens[2:])})[tokens[2]]
        if made:
            made["value"] = changed
        else:
            found.append({"op": "add", "path": at, "value": changed})
    return found


def _unstated_probe(pod: Pod, workload: Workload, template: Template, tokens: list[str]) -> dict[str, Any] | None:
    """The probe of a pod, inside of which the tokens lead, where the object could state it and does not."""
    container = container_at(pod, tokens) if pod.exists and len(tokens) > 3 and tokens[2].endswith("Probe") else None
    own = rows(table(pod.item.raw.get("spec") if pod.item else None), tokens[0]) if container else []
    probe = own[int(tokens[1])].get(tokens[2]) if int(tokens[1] if own else 0) < len(own) else None
    inside = path_inside(pod, template, pointer.join(tokens[:3])) if isinstance(probe, dict) else None
    path = template.at(inside) if inside is not None else None
    return probe if path is not None and value_at(workload.raw, path) is None else None


def _refers(value: Any) -> bool:
    """Whether a variable, or one of a list, takes its value from another object."""
    return any(isinstance(v, dict) and "valueFrom" in v for v in (value if isinstance(value, list) else [value]))
