"""RoleBasedGroup: a role has a pod template of its own, or refers to one that several share and patches it.

Source: sgl-project/rbg api/workloads/v1alpha2/rolebasedgroup_types.go (`roleTemplates`, `templateRef`), of which the patch
is a strategic merge (pkg/reconciler/pod_reconciler.go).
"""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.tree import rows, table

from .pointer import Json
from .table import ROLES, of_row
from .template import Finder, Template

_ROLE = "rbg.workloads.x-k8s.io/role-name"

#: Pods of one replica by the pattern of the role; None where that is not known.
_PATTERNS: dict[str, int | None] = {"standalonePattern": 1, "leaderWorkerPattern": None}

#: By which field the elements of a list are the same; other lists are replaced as a whole.
_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "volumes": "name",
    "env": "name",
    "volumeMounts": "mountPath",
    "ports": "containerPort",
}

#: Fields of a container that a patch of the object can change where they stand: no lists that were merged.
_WHOLE = ("args", "command", "image", "resources", "livenessProbe", "readinessProbe", "startupProbe")


def role_based_group(raw: Json, _find: Finder) -> list[Template]:
    """The roles in their order."""
    found = [template for row in ROLES for template in of_row(raw, row)]
    shared = {str(t.get("name")): (index, t) for index, t in enumerate(rows(raw, "spec.roleTemplates"))}
    roles = rows(raw, "spec.roles")
    for index, role in enumerate(roles):
        for pattern, nodes in _PATTERNS.items():
            ref = table(table(role.get(pattern)).get("templateRef"))
            if str(ref.get("name")) in shared:
                at = f"/spec/roles/{index}/{pattern}/templateRef"
                found.append(_patched(raw, str(role.get("name") or ""), ref, at, *shared[str(ref["name"])], nodes))
    order = [str(role.get("name")) for role in roles]
    return sorted(found, key=lambda t: order.index(t.part) if t.part in order else len(order))


def _patched(raw: Json, name: str, ref: Json, at: str, index: int, base: Json, nodes: int | None) -> Template:
    beneath, patch = table(base.get("template")), table(ref.get("patch"))
    pod = merged(beneath, patch)
    places = [("", "")]
    theirs = [str(c.get("name")) for c in rows(beneath, "spec.containers")]
    mine = [str(c.get("name")) for c in rows(patch, "spec.containers")]
    for i, container in enumerate(rows(pod, "spec.containers")):
        called = str(container.get("name"))
        for field in _WHOLE:
            said = called in mine and field in rows(patch, "spec.containers")[mine.index(called)]
            if said or (called in mine and field == "resources"):
                inside = f"{at}/patch/spec/containers/{mine.index(called)}"
            elif called in theirs:
                inside = f"/spec/roleTemplates/{index}/template/spec/containers/{theirs.index(called)}"
            else:
                continue
            places.append((f"/containers/{i}/{field}", f"{inside}/{field}"))
    return Template(
        raw=raw,
        pod=pod,
        places=tuple(places),
        base=f"roles[{name}].{at.rpartition('/')[0].rpartition('/')[2]}.templateRef",
        part=name,
        labels={_ROLE: name},
        nodes=nodes,
    )


def merged(base: Json, patch: Json) -> Json:
    """A strategic merge: mappings field by field, the lists of a pod by their keys, null takes a field away."""
    out = dict(base)
    for name, value in patch.items():
        old = out.get(name)
        if value is None:
            out.pop(name, None)
        elif isinstance(old, dict) and isinstance(value, dict):
            out[name] = merged(old, value)
        elif name in _KEYS and isinstance(old, list) and isinstance(value, list):
            out[name] = _merged_list(old, value, _KEYS[name])
        else:
            out[name] = value
    return out


def _merged_list(old: list[Any], new: list[Any], key: str) -> list[Any]:
    out = list(old)
    places = {called: i for i, element in enumerate(out) if (called := _called(element, key)) is not None}
    for element in new:
        at = places.get(called) if (called := _called(element, key)) is not None else None
        if at is None:
            out.append(element)
        else:
            out[at] = merged(out[at], element)
    return out


def _called(element: Any, key: str) -> str | int | None:
    value = table(element).get(key)
    return value if isinstance(value, str | int) else None
