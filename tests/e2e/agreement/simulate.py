"""The first fix of a diagnosis, applied for real with kubectl: does the scheduler then place the pod?

The pod belongs to a Deployment here, as pods do, and a fix mostly changes that. No controller runs: the pod that would
follow from the changed template is made here, and a pod that a fix deletes is gone at once, as if its kubelet had ended it.
"""

from __future__ import annotations

import copy
import dataclasses
import os
import shlex
import subprocess
import sys
from pathlib import Path

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Fix, Report

from .arena import Arena, Outcome, paths
from .compare import snapshot_of
from .model import Case, Object

_CHANGING = frozenset({"patch", "uncordon", "cordon", "taint", "delete", "label", "annotate", "scale"})
_KUBECTL = Path(sys.executable).parent / "kubectl"


def simulate(arena: Arena, case: Case) -> tuple[str, str]:
    """`bound`, `not bound` (as the fix had said or not), or why nothing was done; and what was done, and said then."""
    try:
        return _simulate(arena, case)
    finally:
        arena.restore()


def _simulate(arena: Arena, case: Case) -> tuple[str, str]:
    case = copy.deepcopy(case)
    metadata = case.pod["metadata"]
    metadata.setdefault("labels", {})["instance"] = metadata["name"]
    before = _owned(arena, case)
    outcome = arena.attempt(case)
    if outcome.what != "unschedulable":
        return f"below a Deployment it is {outcome.what}", ""
    outcome.objects = [*outcome.objects, *before]
    stored = arena.stored()
    fix = first_fix(diagnose(snapshot_of(outcome), installed()))
    if fix is None:
        return "no cause has a fix", outcome.message
    commands = [words for command in fix.commands if _changes(words := shlex.split(command))]
    if not commands:
        return "advice alone", fix.summary
    made = {part.object["metadata"]["name"] for part in case.made}
    gone = {key for key in stored if key.rpartition("/")[2] in made}
    gone.add(f"/registry/pods/{metadata['namespace']}/{metadata['name']}")
    arena.restore({key: value for key, value in stored.items() if key not in gone})
    for words in commands:
        if error := _kubectl(arena, words):
            return "not bound", f"{fix.summary}: kubectl says {error}"
    _end_deleted(arena, outcome, fix)
    _taint_as_cordoned(arena)
    then = arena.attempt(dataclasses.replace(case, pod=_from_template(arena, case)))
    promised = " (as was said)" if "it fits on" in fix.summary else ""
    if then.what == "bound":
        return f"bound{promised}", fix.summary
    return (
        f"not bound{' (though it was said)' if promised else ''}",
        f"{fix.summary}\n    first  {outcome.message}\n    then   {then.what} {then.message}",
    )


def first_fix(report: Report) -> Fix | None:
    """The fix that stands first: of the first cause that has one."""
    (target,) = report.targets
    return next((f.fixes[0] for f in target.findings if f.role == "cause" and f.fixes), None)


def _owned(arena: Arena, case: Case) -> list[Object]:
    """A Deployment and a ReplicaSet above the pod, which is theirs from now on."""
    pod = case.pod
    space, name = pod["metadata"]["namespace"], pod["metadata"]["name"]
    template = {"metadata": {"labels": pod["metadata"]["labels"]}, "spec": pod["spec"]}
    spec = {"replicas": 1, "selector": {"matchLabels": {"instance": name}}, "template": template}
    body: Object = {"metadata": {"name": name, "namespace": space}, "spec": spec}
    found = []
    for kind in ("Deployment", "ReplicaSet"):
        item = {"apiVersion": "apps/v1", "kind": kind, **body}
        made = arena.api.create(paths(item)[0], item)
        reference = {
            "apiVersion": "apps/v1",
            "kind": kind,
            "name": name,
            "uid": made["metadata"]["uid"],
            "controller": True,
        }
        body = {**body, "metadata": {**body["metadata"], "ownerReferences": [reference]}}
        found.append({**made, "apiVersion": "apps/v1", "kind": kind})
        pod["metadata"]["ownerReferences"] = [reference]
    return found


def _changes(words: list[str]) -> bool:
    return words[0] == "kubectl" and any(word in _CHANGING for word in words[1:4])


def _kubectl(arena: Arena, words: list[str]) -> str:
    """Runs a command of a fix; what kubectl has against it."""
    more = ["--wait=false"] if "delete" in words else []
    environment = {"KUBECONFIG": str(arena.admin), "HOME": str(arena.admin.parent), "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [str(_KUBECTL), *words[1:], *more], env=environment, capture_output=True, text=True, check=False
    )
    return done.stderr.strip() if done.returncode else ""


def _end_deleted(arena: Arena, outcome: Outcome, fix: Fix) -> None:
    """What a kubelet does with a pod that is being deleted, and in time with those that the fix waits for."""
    before = {item["metadata"]["uid"] for item in outcome.objects if item["kind"] == "Pod" and _is_deleted(item)}
    for item in arena.api.get("/api/v1/pods")["items"]:
        meta = item["metadata"]
        waited = f"{meta['namespace']}/{meta['name']}" in fix.summary.partition("ait for ")[2]
        if _is_deleted(item) and (waited or meta["uid"] not in before):
            arena.api.delete(paths({"apiVersion": "v1", "kind": "Pod", **item})[1])


def _taint_as_cordoned(arena: Arena) -> None:
    """What the node lifecycle controller does after a cordon and its end."""
    for node in arena.api.get("/api/v1/nodes")["items"]:
        before = next(item for item in arena.objects if item["metadata"]["uid"] == node["metadata"]["uid"])
        cordoned = node["spec"].get("unschedulable", False)
        if cordoned == before["spec"].get("unschedulable", False):
            continue
        taints = [t for t in node["spec"].get("taints", []) if t["key"] != "node.kubernetes.io/unschedulable"]
        if cordoned:
            taints.append({"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"})
        arena.api.patch(f"/api/v1/nodes/{node['metadata']['name']}", {"spec": {"taints": taints}})


def _is_deleted(item: Object) -> bool:
    return "deletionTimestamp" in item["metadata"]


def _from_template(arena: Arena, case: Case) -> Object:
    """The pod that follows from the Deployment as it now stands."""
    metadata = case.pod["metadata"]
    where = f"/apis/apps/v1/namespaces/{metadata['namespace']}/deployments/{metadata['name']}"
    template = arena.api.get(where)["spec"]["template"]
    new = {**metadata, "labels": template["metadata"].get("labels", {})}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": new, "spec": template["spec"]}
