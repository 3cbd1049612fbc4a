"""Patches of the object that a person edits, as value and as command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Item
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import workload_of
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.fixes.paths import container_at, names_container, path_inside, value_at
from kubectl_llmdoctor.fixes.placing import placed
from kubectl_llmdoctor.fixes.ranks import templates_alike
from kubectl_llmdoctor.fixes.shown import diff, told_by_hand
from kubectl_llmdoctor.fixes.words import Owner, edited, maker, unread
from kubectl_llmdoctor.managed import keeper
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.platforms.labels import INFERENCE_SERVICE
from kubectl_llmdoctor.report.document import Fix, Patch
from kubectl_llmdoctor.report.words import remarked
from kubectl_llmdoctor.tree import dig, rows, table

if TYPE_CHECKING:
    from kubectl_llmdoctor.platforms import Template


def patch(pod: Pod, summary: str, operations: list[dict[str, Any]], *, owner: Owner = "model") -> Fix:
    """A JSON patch of the object that a person edits; `operations` have paths inside the pod spec.

    They are moved to where that object says the same. Where it says nothing of it (a bare pod, what an operator decides
    by itself, a runtime that is another object) the summary stands alone and names the object.
    """
    workload = workload_of(pod)
    if workload is None and not pod.exists and pod.item:  # a Pod in a manifest is edited there
        target = f"{pod.item.api_version} Pod/{pod.name}"
        own = [{**op, "path": "/spec" + op["path"]} for op in operations]
        body = pointer.fitted(pod.item.raw, own) or own
        made = Patch(target=target, type="json", body=body, diff=diff(pod.item.raw, body))
        return Fix(summary=summary, owner=owner, patch=made)
    waits = workload is not None and _waited_for(pod, workload)
    if workload and waits and _of_an_older_template(pod, workload, operations):
        text = f"Delete pod {pod.name}: {workload.ref} says otherwise by now, and makes it anew only when it is gone"
        return Fix(summary=text, owner=owner, commands=(_deleting(pod),))
    moved = placed(pod, workload, operations) if workload and not unread(pod) else None
    if workload is None or moved is None:
        owner = "platform" if _of_kserve_webhook(pod, operations) else owner
        told, where = told_by_hand(pod, operations, summary), _where(pod, workload, operations)
        if where.startswith("in ") and where in summary and not told:
            return Fix(summary=summary, owner=owner)
        if summary.endswith(")") and not told:
            return Fix(summary=f"{summary}, {where}", owner=owner)
        return Fix(summary=remarked(summary, told + where), owner=owner)
    name = f"{workload.resource}/{workload.name}"
    if (place := _below_partition(pod, workload)) is not None:
        at = "/spec/updateStrategy/rollingUpdate/partition"
        moved = [*moved, {"op": "replace", "path": at, "value": place}]
        summary = remarked(summary, f"and partition {place}: that of now keeps pods below it on the old template")
    fix = _of_object(workload.item, workload.ref, name, summary, moved, owner)
    paused = workload.kind == "Deployment" and pod.exists and dig(workload.raw, "spec.paused") is True
    then = [_deleting(pod)] * waits + [_resuming(workload)] * paused
    return msgspec.structs.replace(fix, commands=(*fix.commands, *then))


def _resuming(workload: Workload) -> str:
    return f"kubectl -n {shlex.quote(workload.namespace)} rollout resume deployment/{shlex.quote(workload.name)}"


def _waited_for(pod: Pod, workload: Workload) -> bool:
    """Whether no pod is made of a new template before this one is gone: its owner is told so, or waits for it to become ready."""
    if not pod.exists or workload.kind not in ("StatefulSet", "DaemonSet"):
        return False
    if dig(workload.raw, "spec.updateStrategy.type") == "OnDelete":
        return True
    ordered = (dig(workload.raw, "spec.podManagementPolicy") or "OrderedReady") == "OrderedReady"
    return workload.kind == "StatefulSet" and ordered and not pod.ready


def _of_an_older_template(pod: Pod, workload: Workload, operations: list[dict[str, Any]]) -> bool:
    """Whether the pod was made of a template that has been changed since, in what these operations are about."""
    newest, template = dig(workload.raw, "status.updateRevision"), pod.template
    mine = pod.labels.get("controller-revision-hash")
    if template is None or not mine or not newest or mine == newest or _below_partition(pod, workload) is not None:
        return False
    own, now = pod.item.raw.get("spec") if pod.item else None, dig(template.pod, "spec")
    for path in {op["path"] for op in operations}:
        says = value_at(now, path_inside(pod, template, path) or path)
        if value_at(own, path) != says and (says is not None or not re.search(_FILLED_IN, path)):
            return True
    return False


#: What admission writes into a pod where its template says nothing: defaults of a LimitRange, a service account or a priority class.
_FILLED_IN = (
    r"/resources/|/hostPort$|^/(?:serviceAccountName|imagePullSecrets|priorityClassName|tolerations|securityContext)\b"
)


def _below_partition(pod: Pod, workload: Workload) -> int | None:
    """The number of a pod in its StatefulSet where the partition of that keeps it on the old template, even when it is made anew."""
    kept, start = (
        dig(workload.raw, f"spec.{path}") for path in ("updateStrategy.rollingUpdate.partition", "ordinals.start")
    )
    number = pod.name.rpartition("-")[2]
    if not pod.exists or workload.kind != "StatefulSet" or not isinstance(kept, int) or not number.isdecimal():
        return None
    place = int(number) - (start if isinstance(start, int) else 0)
    return place if place < kept else None


def _deleting(pod: Pod) -> str:
    return f"kubectl -n {shlex.quote(pod.namespace)} delete pod {shlex.quote(pod.name)}"


def _of_object(item: Item, ref: str, name: str, summary: str, body: list[dict[str, Any]], owner: Owner) -> Fix:
    """The patch of an object as value and as command; what to change besides where something writes the object again."""
    commands = [_patch_command(name, item.namespace, body)]
    if kept := keeper(item.raw):
        values = kept.values(body)
        summary += f" ({kept.sentence(values)})"
        commands += filter(None, [kept.command(values)])
    made = Patch(target=f"{item.api_version} {ref}", type="json", body=body, diff=diff(item.raw, body))
    return Fix(summary=summary, owner=owner, commands=tuple(commands), patch=made)


def _where(pod: Pod, workload: Workload | None, operations: list[dict[str, Any]]) -> str:
    """What a person is told who has to change by hand what no patch can."""
    if _of_kserve_webhook(pod, operations):
        return "in spec.container of the ClusterStorageContainer that takes its URI (KServe's own: default), of which its webhook makes it"
    if owner := unread(pod):
        return f"in {owner}"
    if pod.log_only:
        return f"in {edited(pod)}"
    if workload is None:
        return f"in Pod/{pod.name}, which must be deleted and recreated"
    template = pod.template
    if template and template.raw is workload.raw and template.text:
        return f"in {template.base} of {workload.ref}"
    if template and template.raw is workload.raw and template.immutable:
        return f"in {_parts(workload, template, operations)}{workload.ref}, which must be deleted and recreated"
    if template and template.raw is workload.raw and not template.immutable:
        inside = [path_inside(pod, template, operation["path"]) for operation in operations]
        if pod.exists and not any(names_container(pod, template, operation["path"]) for operation in operations):
            return f"where the pods of {workload.ref} get that container from; {workload.kind} does not state it"
        if any(path is not None and template.at(path) is None for path in inside):
            return f"{workload.ref} has no field for it"
    return f"in {workload.ref}"


def _of_kserve_webhook(pod: Pod, operations: list[dict[str, Any]]) -> bool:
    """Whether all is about the container that fetches the model, of which an InferenceService states nothing."""
    paths = [pointer.split(operation["path"]) for operation in operations]
    touched = [container_at(pod, path) if len(path) > 2 else None for path in paths]
    return bool(touched and pod.exists and pod.labels.get(INFERENCE_SERVICE)) and all(
        container is not None and container.name == "storage-initializer" for container in touched
    )


def _parts(workload: Workload, template: Template, operations: list[dict[str, Any]]) -> str:
    """`leader and worker of ` where the templates of several ranks say the same there."""
    alike = [other.part for other, _ in templates_alike(workload, template, operations)]
    return f"{' and '.join([template.part, *alike])} of " if alike else ""


def applied(spec: k8s.PodSpec, operations: Iterable[dict[str, Any]]) -> k8s.PodSpec | None:
    """A pod spec after a patch; None where it does not apply."""
    tree = msgspec.json.decode(msgspec.json.encode(spec))
    fitted = pointer.fitted(tree, [*operations])
    try:
        for operation in fitted or ():
            tree = pointer.changed(tree, operation)
        return msgspec.convert(tree, k8s.PodSpec) if fitted is not None else None
    except (LookupError, msgspec.ValidationError):
        return None


def patch_object(item: Item, summary: str, operations: list[dict[str, Any]], *, owner: Owner = "model") -> Fix:
    """A JSON patch of another object than the pod's own: a Service, an autoscaler, a claim."""
    kind, group = str(item.raw.get("kind")), item.api_version.rpartition("/")[0]
    if by := maker(item):
        return Fix(
            summary=remarked(summary, f"in {by}, which makes {kind}/{item.name} and writes it again"), owner=owner
        )
    body = pointer.fitted(item.raw, operations)
    if body is None:
        return Fix(summary=remarked(summary, f"in {kind}/{item.name}"), owner=owner)
    resource = f"{kind.lower()}.{group}" if "." in group else kind.lower()
    return _of_object(item, f"{kind}/{item.name}", f"{resource}/{item.name}", summary, body, owner)


def set_field(
    item: Item,
    path: str,
    value: Any,
    summary: str,
    *,
    op: Literal["replace", "add"] = "replace",
    owner: Owner = "model",
) -> Fix:
    """Set a field of another object than the pod's own; `path` is a JSON pointer, `op` is add where it may be absent."""
    return patch_object(item, summary, [{"op": op, "path": path, "value": value}], owner=owner)


def annotate(pod: Pod, values: Mapping[str, str], summary: str, *, field: str = "annotations") -> Fix:
    """Annotations, or with `field` labels, of the pods: in the template of the object that a person edits."""
    workload = workload_of(pod)
    raw = workload.raw if workload and not unread(pod) else {}
    at = "/spec/template" if isinstance(dig(raw, "spec.template.spec"), dict) else _beside_the_spec(pod, raw)
    if workload is None or workload.kind == "Job" or not at:
        where = f"in {edited(pod)}" + ("" if workload else ", which must be deleted and recreated")
        told = ", ".join(f"{key}: {value!r}" for key, value in values.items() if key not in summary)
        return Fix(summary=remarked(summary, f"{told}{'; ' if told else ''}{where}"))
    chosen = dig(raw, "spec.selector.matchLabels")
    if (
        field == "labels"
        and isinstance(chosen, dict)
        and any(chosen.get(key, values[key]) != values[key] for key in values)
    ):
        whole = remarked(
            summary, f"in the template and spec.selector of {edited(pod)}, which must be deleted and recreated"
        )
        return Fix(summary=whole)  # the API server changes no selector
    at = f"{at}/metadata/{field}"
    operations = [{"op": "add", "path": f"{at}/{pointer.escaped(key)}", "value": values[key]} for key in values]
    return patch_object(workload.item, summary, operations)


def _beside_the_spec(pod: Pod, raw: Any) -> str:
    """The pod template of another kind that has metadata of its own (a LeaderWorkerSet, a RayCluster); empty where none has."""
    template = pod.template
    spec = template.at("") if template is not None and template.raw is raw and not template.immutable else None
    above = spec.removesuffix("/spec") if spec and spec.endswith("/spec") else ""
    return above if above and isinstance(dig(raw, above[1:].replace("/", ".") + ".metadata"), dict) else ""


def recreate(item: Item, summary: str, spec: dict[str, Any]) -> Fix:
    """An object deleted and made anew with other values in its `spec`, where the API server refuses to change them."""
    refs = rows(item.metadata, "ownerReferences")
    kind, where = item.kind.lower(), f"-n {shlex.quote(item.namespace)} " if item.namespace else ""
    delete = f"kubectl {where}delete {kind} {shlex.quote(item.name)}"
    if refs:
        return Fix(
            summary=f"{summary} (in {refs[0].get('kind')}/{refs[0].get('name')}, which made it)", commands=(delete,)
        )
    if kept := keeper(item.raw):
        summary += f" ({kept.sentence(None)})"
    whole = {**table(item.raw.get("spec")), **spec}
    metadata = {key: item.metadata[key] for key in ("name", "namespace", "labels") if item.metadata.get(key)}
    made = {"apiVersion": item.api_version, "kind": item.kind, "metadata": metadata, "spec": whole}
    return Fix(summary=summary, commands=(delete, _create_command(made)))


def create(version: str, kind: str, name: str, namespace: str = "", **fields: Any) -> str:
    """The command that makes an object; `fields` are what stands beside its metadata: `spec`, mostly."""
    metadata = {"name": name} | ({"namespace": namespace} if namespace else {})
    return _create_command({"apiVersion": version, "kind": kind, "metadata": metadata, **fields})


def _create_command(made: dict[str, Any]) -> str:
    return f"echo {shlex.quote(msgspec.json.encode(made).decode())} | kubectl create -f -"


def _patch_command(name: str, namespace: str, body: list[dict[str, Any]]) -> str:
    document = msgspec.json.encode(body).decode()
    where = f"-n {shlex.quote(namespace)} " if namespace else ""
    return f"kubectl {where}patch {name} --type=json -p {shlex.quote(document)}"


def together(one: Fix, other: Fix) -> Fix:
    """Two changes of one object as one; the second alone where either is no patch, the first where it says what to run instead."""
    if one.patch is None and one.commands:
        return one
    if one.patch is None or other.patch is None or one.patch.target != other.patch.target:
        return msgspec.structs.replace(other, summary=one.summary) if one.patch is None else other
    body = _merged(one.patch.body, other.patch.body)
    made = msgspec.structs.replace(other.patch, body=body, diff=(*one.patch.diff, *other.patch.diff))
    words = shlex.split(other.commands[0])[:-1] if other.commands else []
    whole = [shlex.join([*words, msgspec.json.encode(body).decode()])] if words else []
    commands = dict.fromkeys((*whole, *one.commands[1:], *other.commands[1:]))
    return msgspec.structs.replace(other, patch=made, commands=tuple(commands))


def _merged(one: Sequence[dict[str, Any]], other: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The operations of both, of which those that make the same list make one."""
    body = [*one]
    for operation in other:
        made = (
            n
            for n, own in enumerate(body)
            if own["op"] == operation["op"] == "add" and own["path"] == operation["path"]
        )
        at = next((n for n in made if isinstance(body[n]["value"], list)), None)
        if at is None:
            body.append(operation)
        else:
            body[at] = {**body[at], "value": [*body[at]["value"], *operation["value"]]}
    return body
