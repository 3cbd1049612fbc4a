"""Fixes that can be pasted: a patch of the object that a person edits, as value and as command.

Arguments are changed by JSON patches that touch one element: what stands beside it may be masked here and must survive.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from kubectl_llmdoctor.engines.config import Setting
from kubectl_llmdoctor.engines.names import passed_on
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s, script
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container, is_accelerator
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.nodes import RDMA, rdma_offered
from kubectl_llmdoctor.facts.place import filled
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import workload_of
from kubectl_llmdoctor.facts.units import GIB, units
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.managed import keeper
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.platforms.labels import named_by, of_served_model
from kubectl_llmdoctor.report.document import Fix, Patch
from kubectl_llmdoctor.report.words import remarked
from kubectl_llmdoctor.tree import dig, numbered, rows, table

if TYPE_CHECKING:
    from kubectl_llmdoctor.platforms import Template

Owner = Literal["model", "platform"]

#: What a fix may ask for that Pod Security refuses: each level refuses what the wider one does, and more.
Privilege = Literal["", "capability", "privileged", "host", "root"]
_REFUSING: dict[str, tuple[Privilege, ...]] = {
    "baseline": ("capability", "privileged", "host"),
    "restricted": ("capability", "privileged", "host", "root"),
}
_ENFORCE = "pod-security.kubernetes.io/enforce"


class FromSecret(msgspec.Struct, frozen=True):
    """The value that a Secret has under the name of the variable."""

    name: str


class FromField(msgspec.Struct, frozen=True):
    """The value that the pod has in a field of its own, as `status.podIP`."""

    path: str


def permitted(cluster: Cluster, namespace: str, offered: Iterable[tuple[Fix, Privilege]]) -> tuple[Fix, ...]:
    """The fixes with those last that the namespace's Pod Security level refuses, which they then say."""
    item = cluster.item("Namespace", "", namespace)
    level = item.labels.get(_ENFORCE, "") if item else ""
    allowed, refused = [], []
    for fix, asks in offered:
        if asks and asks in _REFUSING.get(level, ()):
            summary = f"{fix.summary} (Pod Security {level} of namespace {namespace} refuses it: a wider level first)"
            refused.append(msgspec.structs.replace(fix, summary=summary, owner="platform"))
        else:
            allowed.append(fix)
    return (*allowed, *refused)


def edited(pod: Pod) -> str:
    """The object that a person edits: `Deployment/llama`, or `Pod/llama` for a bare pod; of a log alone nobody knows it."""
    if pod.log_only:
        return "its workload"
    workload = workload_of(pod)
    return unread(pod) or (workload.ref if workload else f"Pod/{pod.name}")


def pods_of(pod: Pod) -> str:
    """`the pods of Deployment/llama`, or `Pod/llama` for a bare pod."""
    where = edited(pod)
    return where if where.startswith("Pod/") else f"the pods of {where}"


def unread(pod: Pod) -> str:
    """The owner above all that were read, as `Deployment/llama`: what it makes is written again, so a patch below it does not last."""
    workload = workload_of(pod)
    item = workload.item if workload else pod.item
    owner = maker(item) if item else ""
    # without an owner, labels of operators that serve models only: others, as Ray's, people set on objects of their own
    labels = pod.labels if owner else item.labels if item and of_served_model(item.labels) else {}
    kind, name = named_by(labels) if pod.exists else ("", "")
    # what is between them is made as well, and mostly cannot be changed
    return f"{kind}/{name}" if name and (workload is None or kind != workload.kind) else owner


def lone(pod: Pod) -> str:
    """What a fix says besides that deletes the pod, where nothing makes it again."""
    owned = pod.log_only or pod.obj.metadata.owner_references or workload_of(pod)
    return "" if owned else " (no controller recreates the pod: apply its manifest afterwards)"


def advice(summary: str, *commands: str, owner: Owner = "model") -> Fix:
    """A fix without a patch."""
    return Fix(summary=summary, owner=owner, commands=commands)


def platform(summary: str, *commands: str) -> Fix:
    """A fix without a patch, for who runs the cluster."""
    return advice(summary, *commands, owner="platform")


def on_node(node: str, command: str) -> str:
    """A command that runs on the node itself; only a privileged pod sees its GPUs and its kernel's log there."""
    return f"kubectl debug node/{node} -it --profile=sysadmin --image=busybox -- chroot /host {command}"


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
    moved = _moved(pod, workload, operations) if workload and not unread(pod) else None
    if workload is None or moved is None:
        owner = "platform" if _of_kserve_webhook(pod, operations) else owner
        told, where = _told(pod, operations, summary), _where(pod, workload, operations)
        if summary.endswith(")") and not told:
            return Fix(summary=f"{summary}, {where}", owner=owner)
        return Fix(summary=remarked(summary, told + where), owner=owner)
    name = f"{workload.resource}/{workload.name}"
    return _of_object(workload.item, workload.ref, name, summary, moved, owner)


def _of_object(item: Item, ref: str, name: str, summary: str, body: list[dict[str, Any]], owner: Owner) -> Fix:
    """The patch of an object as value and as command; what to change besides where something writes the object again."""
    commands = [_patch_command(name, item.namespace, body)]
    if kept := keeper(item.raw):
        values = kept.values(body)
        summary += f" ({kept.sentence(values)})"
        commands += filter(None, [kept.command(values)])
    made = Patch(target=f"{item.api_version} {ref}", type="json", body=body, diff=diff(item.raw, body))
    return Fix(summary=summary, owner=owner, commands=tuple(commands), patch=made)


#: More than this of a patch is no help to who has to write it by hand.
_MOST_TOLD = 160


def _told(pod: Pod, operations: list[dict[str, Any]], summary: str) -> str:
    """What operations set, as a person writes it, for where none can be applied; without what the summary says already."""
    words = [word for operation in _joined(operations) for word in _words(pod, operation, summary)]
    told = ", ".join(dict.fromkeys(words))
    return f"{told}; " if told and len(told) <= _MOST_TOLD else ""


def _joined(operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Operations, of which those that add an option and then its value as a word of its own are one."""
    found: list[dict[str, Any]] = []
    for operation in operations:
        last, value = found[-1] if found else {}, operation.get("value")
        option, at = last.get("value"), str(operation["path"]).rpartition("/")
        of_args = at[0].endswith("/args") and str(last.get("path")).startswith(f"{at[0]}/")
        words = isinstance(option, str) and isinstance(value, str) and operation["op"] == last.get("op") == "add"
        if of_args and words and re.fullmatch(r"--?[a-z][\w-]{1,80}", str(option)) and not str(value).startswith("-"):
            found[-1] = {**last, "value": f"{option} {value}"}
            continue
        found.append(operation)
    return found


def _words(pod: Pod, operation: dict[str, Any], summary: str) -> Iterator[str]:
    """What one operation sets: arguments, variables, or a field of a container or of the pod."""
    tokens, value = pointer.split(operation["path"]), operation.get("value")
    container = _container_at(pod, tokens) if len(tokens) > 2 else None
    tokens = tokens[2:] if container is not None else tokens
    if operation["op"] == "remove":
        return
    if container is not None and tokens[0] in ("args", "command"):
        yield from _argument(container, tokens, value, summary)
    elif container is not None and tokens[0] == "env" and len(tokens) > 2:  # a field of one variable
        name = container.env[int(tokens[1])].name
        if tokens[2:] == ["value"]:
            yield from _variable({"name": name, "value": value}, summary)
        elif str(value) not in summary:
            yield f"{name}: {'.'.join(tokens[2:])}: {value}"
    elif tokens[0] == "env":
        for entry in value if isinstance(value, list) else [value]:
            yield from _variable(entry, summary)
    elif tokens[0].endswith("Probe") and isinstance(value, dict):
        yield f"{tokens[0]}: {_flow(value)}"
    elif isinstance(value, str | int) and not any(part.isdigit() for part in tokens):
        said = str(value).lower() if isinstance(value, bool) else str(value)
        if said not in summary or not (tokens[-1] in summary or tokens[-1] == "image"):
            yield f"{'.'.join(part for part in tokens if part != 'resources')}: {said}"


def _argument(container: k8s.Container, tokens: list[str], value: Any, summary: str) -> Iterator[str]:
    """The option that an operation on arguments sets, with its value."""
    have = container.words(tokens[0])
    given = " ".join(map(str, value)) if isinstance(value, list) else str(value)
    at = int(tokens[1]) if len(tokens) > 1 and tokens[1].isdigit() else 0
    if not given.startswith("-") and 0 < at <= len(have) and re.fullmatch(r"--?[a-z][\w-]{1,80}", have[at - 1]):
        given = f"{have[at - 1]} {given}"
    option, _, setting = given.replace(" ", "=", 1).partition("=")
    if given.startswith("-") and "\n" not in given and not (option in summary and setting in summary):
        yield given


def _variable(entry: Any, summary: str) -> Iterator[str]:
    """A variable with its value, or what it is from: a Secret, a field of the pod."""
    name, value = str(entry.get("name")), entry.get("value")
    secret = dig(entry, "valueFrom.secretKeyRef.name")
    if isinstance(value, str) and not (name in summary and value in summary):
        yield f"{name}={value}"
    elif secret and str(secret) not in summary:
        yield f"{name} from key {name} of Secret {secret}"
    elif field := dig(entry, "valueFrom.fieldRef.fieldPath"):
        yield f"{name} by valueFrom: {{fieldRef: {{fieldPath: {field}}}}}"


def _flow(value: Any) -> str:
    """A value in YAML's flow style."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_flow(inner)}" for key, inner in value.items()) + "}"
    return str(value)


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
        inside = [_inside(pod, template, operation["path"]) for operation in operations]
        if pod.exists and not any(_container_in(pod, template, operation["path"]) for operation in operations):
            return f"where the pods of {workload.ref} get that container from; {workload.kind} does not state it"
        if any(path is not None and template.at(path) is None for path in inside):
            return f"{workload.ref} has no field for it"
    return f"in {workload.ref}"


def _of_kserve_webhook(pod: Pod, operations: list[dict[str, Any]]) -> bool:
    """Whether all is about the container that fetches the model, of which an InferenceService states nothing."""
    paths = [pointer.split(operation["path"]) for operation in operations]
    touched = [_container_at(pod, path) if len(path) > 2 else None for path in paths]
    return bool(touched and pod.exists and pod.labels.get("serving.kserve.io/inferenceservice")) and all(
        container is not None and container.name == "storage-initializer" for container in touched
    )


def _parts(workload: Workload, template: Template, operations: list[dict[str, Any]]) -> str:
    """`leader and worker of ` where the templates of several ranks say the same there."""
    alike = [other.part for other, _ in _alike_in(workload, template, operations)]
    return f"{' and '.join([template.part, *alike])} of " if alike else ""


def diff(tree: Any, operations: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """What JSON patch operations take away and put in, each place as a person reads it."""
    lines: list[str] = []
    for operation in operations:
        *path, last = pointer.split(operation["path"])
        where = pointer.show(tree, operation["path"])
        try:
            parent = tree
            for key in path:
                parent = pointer.step(parent, key)
            old = pointer.step(parent, last) if last != "-" else None
            tree = pointer.changed(tree, operation)
        except LookupError:
            old = None
        inserted = isinstance(parent, list) and operation["op"] == "add"
        new = operation.get("value")
        if not inserted and isinstance(old, str) and isinstance(new, str) and len(old) > _LONG:
            old, new = _apart(old, new)
        if old is not None and not inserted:
            lines.append(f"- {where}: {_written(old)}")
        if operation["op"] != "remove":
            lines.append(f"+ {where.replace('[-]', '[]')}: {_written(new)}")
    return tuple(lines)


#: More than this of a text nobody compares.
_LONG = 60


def _apart(old: str, new: str) -> tuple[str, str]:
    """The words that two long texts (a start script) have apart, with those before them."""
    ours, theirs = old.split(), new.split()
    start = _alike(ours, theirs)
    end = _alike(ours[start:][::-1], theirs[start:][::-1])
    first = max(start - 2, 0)
    before, after = ["…"] * bool(first), ["…"] * bool(end)
    told = (" ".join([*before, *words[first : len(words) - end], *after]) for words in (ours, theirs))
    return next(told), next(told)


def _alike(ours: Sequence[str], theirs: Sequence[str]) -> int:
    """How many words two begin with alike."""
    both = enumerate(zip(ours, theirs, strict=False))
    return next((index for index, (one, other) in both if one != other), min(len(ours), len(theirs)))


def _written(value: Any) -> str:
    """A value on one line, as YAML's flow style has it."""
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


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


def maker(item: Item) -> str:
    """What a controller makes an object of, as `InferenceService/llama`, so that a patch of it would be undone; empty where nothing."""
    refs = rows(item.metadata, "ownerReferences") if item.kind != "PersistentVolumeClaim" else []  # made once
    owner = next((ref for ref in refs if ref.get("controller") is True and ref.get("kind") != "Node"), {})
    kind, name = str(owner.get("kind") or ""), str(owner.get("name") or "")
    if not kind or not name:
        return ""
    template = item.labels.get("pod-template-hash")
    if kind == "ReplicaSet" and template and name.endswith(f"-{template}"):
        return f"Deployment/{name.removesuffix(f'-{template}')}"
    return f"{kind}/{name}"


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


def _moved(pod: Pod, workload: Workload, operations: list[dict[str, Any]]) -> list[dict[str, Any]] | None:
    """The operations on the workload's object, so that they apply to it; None where they cannot."""
    template = pod.template
    if template is None or template.immutable or template.raw is not workload.raw:
        return None
    moved, within = [], []
    operations = _with_whole_probes(pod, workload, template, operations)
    if any(_MASK in str(operation.get("value")) for operation in operations if operation["path"].endswith("Probe")):
        return None
    for operation in operations:
        inside = _inside(pod, template, operation["path"])
        path = template.at(inside) if inside is not None else None
        if inside is None or path is None:
            return None
        if template.literal_env and "/env" in inside and _refers(operation.get("value")):
            return None
        moved.append({**operation, "path": path})
        within.append({**operation, "path": inside})
    whole = pointer.fitted(workload.raw, moved + _of_other_ranks(workload, template, within))
    return whole or pointer.fitted(workload.raw, moved)


def _with_whole_probes(
    pod: Pod, workload: Workload, template: Template, operations: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Operations of which those inside a probe that the object does not state set all of it: no API server takes a part of one."""
    found: list[dict[str, Any]] = []
    for operation in operations:
        tokens = pointer.split(operation["path"])
        at = pointer.join(tokens[:3])
        made = next((one for one in found if one["path"] == at), None)
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
    container = _container_at(pod, tokens) if pod.exists and len(tokens) > 3 and tokens[2].endswith("Probe") else None
    own = rows(table(pod.item.raw.get("spec") if pod.item else None), tokens[0]) if container else []
    probe = own[int(tokens[1])].get(tokens[2]) if int(tokens[1] if own else 0) < len(own) else None
    inside = _inside(pod, template, pointer.join(tokens[:3])) if isinstance(probe, dict) else None
    path = template.at(inside) if inside is not None else None
    if path is None:
        return None
    here: Any = workload.raw
    try:
        for key in pointer.split(path):
            here = pointer.step(here, key)
    except LookupError:
        return probe
    return None


#: Kinds whose templates make the pods of one replica, which run one program; and those that have several such replicas, each with
#: a template for its first pod and one for the others.
_OF_RANKS = ("LeaderWorkerSet", "RayCluster", "RayJob", "RayService", "JobSet", "PyTorchJob")
_OF_PAIRS = ("InferenceService", "LLMInferenceService", "ModelServing")
_SPACE = expression(r"\s+")
#: How what stands in the place of a secret begins: what has one is not written over the real one.
_MASK = "<masked"
_FIRST_AND_OTHERS = expression(r"(?:predictor|workload|workers?)|(?P<first>.{1,253}?)(?: worker)?")
#: What makes up the command line of a container: the same words are another program's where the rest is another.
_VECTOR = ("command", "args")
#: What of a container and of a pod holds for all ranks where it is written alike; probes and ports are the first one's own.
_OF_CONTAINERS = ("args", "command", "env", "image", "volumeMounts", "securityContext")
_OF_PODS = ("volumes", "runtimeClassName", "securityContext", "enableServiceLinks", "imagePullSecrets", "nodeSelector")
#: What holds for those alone that have accelerators, too: the head of a Ray cluster often runs on a node without any.
_OF_NODES_WITH_GPUS = ("runtimeClassName", "nodeSelector")


def _of_other_ranks(workload: Workload, template: Template, operations: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same operations for the other pods of a replica, whose template says the same there."""
    return [
        their for other, theirs in _alike_in(workload, template, operations) if not other.immutable for their in theirs
    ]


def _alike_in(
    workload: Workload, template: Template, operations: list[dict[str, Any]]
) -> Iterator[tuple[Template, list[dict[str, Any]]]]:
    """The templates of the other pods of a replica that say the same there, each with the operations for it: all of them."""
    for other, _ in workload.templates:
        if other.part == template.part or other.text or not _of_one_replica(workload.kind, template.part, other.part):
            continue
        theirs = [_for_rank(template, other, operation) for operation in operations]
        if all(theirs):
            yield other, [operation for of_one in theirs for operation in of_one]


def _of_one_replica(kind: str, one: str, other: str) -> bool:
    """Whether the pods of two templates of an object are ranks of one server."""
    if kind not in _OF_PAIRS:
        return kind in _OF_RANKS
    first, second = (_FIRST_AND_OTHERS.fullmatch(part) for part in (one, other))
    return first is not None and second is not None and first["first"] == second["first"]


def _for_rank(template: Template, other: Template, operation: dict[str, Any]) -> list[dict[str, Any]]:
    """An operation inside one template for another, as operations on the object; none where the other says something else there."""
    tokens, mine, theirs = pointer.split(operation["path"]), template.pod.get("spec"), other.pod.get("spec")
    if tokens[0] in _OF_NODES_WITH_GPUS and _accelerated(mine) != _accelerated(theirs):
        return []
    held: tuple[str, ...] = _OF_PODS
    before: list[str] = []
    if tokens[0] in ("containers", "initContainers"):
        own = next((one for at, one in numbered(mine, tokens[0]) if [str(at)] == tokens[1:2]), {})
        alike = [(at, one) for at, one in numbered(theirs, tokens[0]) if one.get("image") == own.get("image")]
        if not own or len(alike) != 1 or len(tokens) < 3:
            return []
        mine, theirs, held = own, alike[0][1], _OF_CONTAINERS
        tokens, before = tokens[2:], [tokens[0], str(alike[0][0])]
        if tokens[0] == "resources" and "/" in tokens[-1]:  # accelerators
            held = ("resources",)
    field = tokens[0]
    here, there = (table(one).get(field) for one in (mine, theirs))
    added = operation["op"] == "add" and field == "env" and tokens[1:] in ([], ["-"])
    at = other.at(pointer.join([*before, field]))
    if field not in held or at is None:
        return []
    if field in _VECTOR and any(table(mine).get(one) != table(theirs).get(one) for one in _VECTOR):
        own = _same_words(operation, tokens[1:], table(mine).get(field), table(theirs).get(field))
        return [{**operation, **own, "path": f"{at}{own['path']}"}] if own else []
    if not (here == there or added):
        return []
    if here == there:
        return [{**operation, "path": at + "".join(f"/{pointer.escaped(token)}" for token in tokens[1:])}]
    entries = operation["value"] if isinstance(operation["value"], list) else [operation["value"]]
    named = {one.get("name") for one in rows(theirs, "env")}
    new = [entry for entry in entries if entry.get("name") not in named]
    return appended(at, *new, exists=bool(named)) if new == entries else []


def _same_words(operation: dict[str, Any], place: list[str], here: Any, there: Any) -> dict[str, Any]:
    """An operation on one command line for another that has the same option with the same value; empty where that is not plain."""
    if not isinstance(here, list) or not isinstance(there, list):
        return {}
    if operation["op"] == "add":  # behind a line that has all words of this one, but for which rank it is
        own = {word for word in map(str, here) if "-rank" not in word and not word.isdecimal()}
        return {"path": "/-"} if place == ["-"] and own <= set(map(str, there)) else {}
    at, new = int(place[0]), operation.get("value")
    old = str(here[at])
    if _SPACE.search(old) and isinstance(new, str):  # a script
        return _same_in_script(old, new, there)
    # an option by itself or with its value, or a value behind its option, or the model behind `serve`
    words = here[at : at + 1] if old.startswith("-") else here[max(at - 1, 0) : at + 1]
    found = [i for i in range(len(there)) if there[i : i + len(words)] == words]
    plain = len(found) == 1 and _names(str(words[0]))
    return {"path": f"/{found[0] + len(words) - 1}"} if plain else {}


def _names(word: str) -> bool:
    """Whether it says what the word behind it is: an option, or `serve` of a model."""
    return word.startswith("-") or word == "serve"


def _same_in_script(old: str, new: str, there: list[Any]) -> dict[str, Any]:
    """What changes of an option in one script, in the one script of another command line that has it once and alike."""
    ours, theirs = _SPACE.split(old), _SPACE.split(new)
    start = _alike(ours, theirs)
    end = _alike(ours[start:][::-1], theirs[start:][::-1])
    # from the option on: it may stand one or two words before what is written otherwise
    begin = start - (start == len(ours) - end)
    first = next((at for at in range(begin, max(begin - 2, -1), -1) if _names(ours[at])), None)
    if first is None:
        return {}
    gone, put = ours[first : len(ours) - end], theirs[first : len(theirs) - end]
    same = re.compile(r"(?<!\S)" + r"[ \t]+".join(map(re.escape, gone)) + r"(?![^\s;])")
    found = [(at, where) for at, text in enumerate(there) if isinstance(text, str) for where in same.finditer(text)]
    if len(found) != 1 or _MASK in there[found[0][0]]:
        return {}
    ((at, where),) = found
    text = f"{there[at][: where.start()]}{' '.join(put)}{there[at][where.end() :]}"
    return {"path": f"/{at}", "value": text}


def _accelerated(spec: Any) -> bool:
    """Whether containers of a pod's spec ask for accelerators."""
    return any(
        is_accelerator(str(name)) for one in rows(spec, "containers") for name in table(dig(one, "resources.limits"))
    )


def _refers(value: Any) -> bool:
    """Whether a variable, or one of a list, takes its value from another object."""
    return any(isinstance(v, dict) and "valueFrom" in v for v in (value if isinstance(value, list) else [value]))


def _inside(pod: Pod, template: Template, path: str) -> str | None:
    """The path inside the template's pod spec for one in the pod's, which admission and operators have added to."""
    tokens = pointer.split(path)
    container = _container_at(pod, tokens) if pod.exists else None
    if container is None:
        return path if not pod.exists or tokens[0] != "volumes" else _element(pod, template, tokens)
    index, theirs = _called(container.name, template.pod, f"spec.{tokens[0]}")
    if index is None:
        return None
    tokens[1] = str(index)
    if len(tokens) > 3 and tokens[2] in ("args", "command") and tokens[3] != "-":
        have = container.words(tokens[2])
        told = theirs.get(tokens[2])
        want = [str(w) for w in told] if isinstance(told, list) else []
        if have != want:  # what the operator put before the object's own words
            start = len(have) - len(want)
            if start < 0 or not want or have[start:] != want or int(tokens[3]) < start:
                return None
            tokens[3] = str(int(tokens[3]) - start)
    elif len(tokens) > 3 and tokens[2] == "env" and tokens[3] != "-":
        at, _ = _called(container.env[int(tokens[3])].name, theirs, "env")
        if at is None:
            return None
        tokens[3] = str(at)
    return pointer.join(tokens)


def _container_in(pod: Pod, template: Template, path: str) -> bool:
    """Whether what a path inside the pod spec leads to is no container, or one that the template states."""
    tokens = pointer.split(path)
    container = _container_at(pod, tokens)
    return container is None or _called(container.name, template.pod, f"spec.{tokens[0]}")[0] is not None


def _container_at(pod: Pod, tokens: list[str]) -> k8s.Container | None:
    """The container into which a path inside the pod spec leads."""
    places = {"containers": pod.spec.containers, "initContainers": pod.spec.init_containers}
    return places[tokens[0]][int(tokens[1])] if tokens[0] in places and len(tokens) > 1 else None


def _element(pod: Pod, template: Template, tokens: list[str]) -> str | None:
    """The path of a volume of the pod in its template, found by its name."""
    if len(tokens) < 2 or tokens[1] == "-":
        return pointer.join(tokens)
    at, _ = _called(pod.spec.volumes[int(tokens[1])].name, template.pod, "spec.volumes")
    return None if at is None else pointer.join(["volumes", str(at), *tokens[2:]])


def _called(name: str, tree: Any, path: str) -> tuple[int | None, dict[str, Any]]:
    """What a list of an object calls so, and its place there; None where nothing is."""
    return next(((at, one) for at, one in numbered(tree, path) if one.get("name") == name), (None, {}))


def _patch_command(name: str, namespace: str, body: list[dict[str, Any]]) -> str:
    document = msgspec.json.encode(body).decode()
    where = f"-n {shlex.quote(namespace)} " if namespace else ""
    return f"kubectl {where}patch {name} --type=json -p {shlex.quote(document)}"


def set_flag(engine: Engine, name: str, flag: str, value: str, summary: str) -> Fix:
    """Set a flag of the engine: replaces the element that has it, else appends to `args`; without a value it is a switch.

    What is no flag is a variable, which the container gets unless arguments say the same.

    Gives advice only when the arguments stand in a script, in the image's entrypoint or in a ConfigMap.
    """
    container = engine.container
    spec, at = container.spec, container.pointer
    current = engine.explicit(name)
    by_variable = current is not None and current.source == "env" and not current.flag.startswith("-")
    if not flag.startswith("-") and (
        current is None or by_variable or current.source == "log"
    ):  # a variable, as of NIM
        if passed := passed_on(engine.name, engine.version, name):
            return advice(remarked(summary, f"{passed} {value} in NIM_PASSTHROUGH_ARGS of {edited(container.pod)}"))
        return set_env(container, current.flag if current and by_variable else flag, value, summary)
    words = spec.words("args")
    if container.told:
        place = current.path if current else container.told[0].path
        if operations := _in_variable(engine, [(name, flag, value)]):
            return patch(container.pod, summary, operations)
        return advice(remarked(summary, f"{name}: {value or 'true'}, at {place} in {edited(container.pod)}"))
    if current is None:
        if added := _added(engine, [(name, flag, value)]):
            return patch(container.pod, summary, added)
        if not words and not spec.command and spec.image and not engine.announced:
            return patch(
                container.pod, summary, [{"op": "add", "path": f"{at}/args", "value": _option(engine, flag, value)}]
            )
        if (made := rewritten(container, _in_script(engine, [(name, flag, value)]), summary)) is not None:
            return made
        return advice(remarked(summary, f"{f'{flag} {value}'.rstrip()} in {_home(container.pod, flag, value)}"))
    if operations := replaced_flag(engine, name, value):
        return patch(container.pod, summary, operations)
    if (made := rewritten(container, _in_script(engine, [(name, flag, value)]), summary)) is not None:
        return made
    flag = current.flag if current.flag.startswith("--") else flag
    if engine.announced:
        return advice(
            remarked(
                summary, f"{flag} {value} where {container.spec.image} starts the engine, whose log says {current.text}"
            )
        )
    told = "" if f"{flag} {value}" in summary else f"{flag} {value} "
    return advice(remarked(summary, f"{told}instead of {current.text} in {_home(container.pod, flag, value)}"))


def set_flags(engine: Engine, chosen: Sequence[tuple[str, str, str]], summary: str, *, gpus: str = "") -> Fix:
    """Set several flags of the engine (name, flag, value), and the number of GPUs in the limits with them.

    More GPUs than one exchange what they compute in /dev/shm where they cannot reach each other, so it gets room there.
    """
    if len(chosen) == 1 and not gpus:
        ((name, flag, value),) = chosen
        return set_flag(engine, name, flag, value, summary)
    container = engine.container
    more = _with_gpus(container, gpus) if gpus else []
    if (made := rewritten(container, _in_script(engine, chosen), summary, more)) is not None:
        return made
    if operations := _in_variable(engine, chosen):
        return patch(container.pod, summary, operations + more)
    replaced = [replaced_flag(engine, name, value) for name, _, value in chosen]
    missing = [one for one, own in zip(chosen, replaced, strict=True) if not own]
    added = _added(engine, missing) if all(engine.explicit(name) is None for name, _, _ in missing) else []
    if missing and not added:
        told = ", ".join(f"{flag} {value}" for _, flag, value in chosen)
        if container.told:
            at = next(
                (current.path for name, _, _ in chosen if (current := engine.explicit(name))), container.told[0].path
            )
            told = ", ".join(f"{name}: {value or 'true'}" for name, _, value in chosen) + f" at {at}"
        limits = f", limits.{next(iter(container.accelerators), 'nvidia.com/gpu')}: {gpus}" if gpus else ""
        return advice(remarked(summary, f"{told}{limits} in {edited(container.pod)}"))
    return patch(container.pod, summary, [operation for own in replaced for operation in own] + added + more)


def _added(engine: Engine, chosen: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """The operations that put options behind the words of the container; none where those are a script's, an image's or a file's."""
    container = engine.container
    words = [word for _, flag, value in chosen for word in _option(engine, flag, value)]
    if not words or not engine.found.argv_known or script.is_script(container) or container.told:
        return []
    if container.spec.args:
        return appended(f"{container.pointer}/args", *words)
    if len(container.spec.command) < 2 or any(_charted(container.pod, flag, value) for _, flag, value in chosen):
        return []
    behind = appended(f"{container.pointer}/command", *words)
    beside = appended(f"{container.pointer}/args", *words, exists=False)
    # the command may be another object's, as of a runtime, behind which the arguments of this one stand
    return beside if _patched(container.pod, beside) and not _patched(container.pod, behind) else behind


def _patched(pod: Pod, operations: list[dict[str, Any]]) -> bool:
    """Whether the object that a person edits can be changed so."""
    return patch(pod, "", operations).patch is not None


def _in_variable(engine: Engine, chosen: Sequence[tuple[str, str, str]]) -> list[dict[str, Any]]:
    """Options in the variable from which an operator takes arguments, in place of how they are written there; none where none is.

    A shell reads what it says, so there is no option in it that needs quotes.
    """
    container = engine.container
    named = re.search(r"\.env\[(\w{1,100})\]$", container.told[0].path) if container.told else None
    if named is None:
        return []
    have = next((one for one in container.spec.env if one.name == named[1]), None)
    text = str(have.value or "") if have else ""
    if (have and have.value_from) or "<masked" in text:
        return []
    for name, flag, value in chosen:
        current, new = engine.explicit(name), " ".join(map(shlex.quote, words := _option(engine, flag, value)))
        if (
            not flag.startswith("-")
            or new != " ".join(words)
            or (current and f" {text} ".count(f" {current.text} ") != 1)
        ):
            return []
        text = f" {text} ".replace(f" {current.text} ", f" {new} ").strip() if current else f"{text} {new}".strip()
    return variable_operations(container, {named[1]: text})[0]


def _option(engine: Engine, flag: str, value: str) -> list[str]:
    """The words of an option: the parser of llama.cpp knows no `=`."""
    if not value:
        return [flag]
    return [flag, value] if engine.name == "llama.cpp" else [f"{flag}={value}"]


def _with_gpus(container: Container, count: str) -> list[dict[str, Any]]:
    """The operations that give a container so many GPUs, and room in /dev/shm where nothing is mounted there."""
    found = _resource(container, "limits", next(iter(container.accelerators), "nvidia.com/gpu"), count)
    if container.mount_at("/dev/shm") or (count.isdecimal() and int(count) <= container.gpus):
        return found
    volume = {"name": free_name(container.pod, "dshm"), "emptyDir": {"medium": "Memory", "sizeLimit": "8Gi"}}
    return found + mounted(container, volume, "/dev/shm")


def together(one: Fix, other: Fix) -> Fix:
    """Two changes of one object as one; the second alone where either is no patch."""
    if one.patch is None or other.patch is None or one.patch.target != other.patch.target:
        return msgspec.structs.replace(other, summary=one.summary) if one.patch is None else other
    body = _merged(one.patch.body, other.patch.body)
    made = msgspec.structs.replace(other.patch, body=body, diff=(*one.patch.diff, *other.patch.diff))
    words = shlex.split(other.commands[0])[:-1] if other.commands else []
    commands = (shlex.join([*words, msgspec.json.encode(body).decode()]),) if words else ()
    return msgspec.structs.replace(other, patch=made, commands=commands)


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


def replaced_flag(engine: Engine, name: str, value: str) -> list[dict[str, Any]]:
    """The operation that gives an option in the container's `args`, `command` or `env` another value; none where it stands elsewhere."""
    container, current = engine.container, engine.explicit(name)
    if current is None or container.told:
        return []
    if current.source == "env":
        own = [variable.name if variable.value_from is None else "" for variable in container.spec.env]
        if not value or own.count(current.flag) != 1:
            return []
        return [{"op": "replace", "path": f"{container.pointer}/env/{own.index(current.flag)}/value", "value": value}]
    vector, index = _vector(current)
    if index is None or not vector or script.is_script(container):
        return []
    words, at = container.spec.words(vector), f"{container.pointer}/{vector}"
    option, equals, _ = words[index].partition("=")
    if not option.startswith("-"):
        return [{"op": "replace", "path": f"{at}/{index}", "value": value}]
    if equals:
        return [{"op": "replace", "path": f"{at}/{index}", "value": f"{option}={value}"}]
    return [{"op": "replace", "path": f"{at}/{index + 1}", "value": value}] if index + 1 < len(words) else []


def _vector(setting: Setting) -> tuple[str, int | None]:
    """The `args` or `command` of a container in which an option stands, and its place there."""
    vector = next((field for field in ("args", "command") if f".{field}[" in setting.path), "")
    return vector, _index(setting.path) if setting.source == "flag" else None


def remove_flag(engine: Engine, name: str, summary: str) -> Fix:
    """Take a flag of the engine, and its value, out of the container's `args`, `command` or `env`; advice where it stands anywhere else."""
    container, current = engine.container, engine.explicit(name)
    if current is None:
        return advice(summary)
    if current.source == "env" and not container.told:
        return remove_env(container, current.flag, summary)
    if (made := rewritten(container, [(current.text, "")], summary)) is not None:
        return made
    vector, index = _vector(current)
    words = container.spec.words(vector) if vector else []
    if index is None or container.told or script.is_script(container) or not (words and words[index].startswith("-")):
        return advice(remarked(summary, f"{current.text} in {edited(container.pod)}"))
    apart = "=" not in words[index] and index + 1 < len(words) and not words[index + 1].startswith("-")
    places = (index + 1, index) if apart else (index,)
    at = f"{container.pointer}/{vector}"
    return patch(container.pod, summary, [{"op": "remove", "path": f"{at}/{place}"} for place in places])


def _in_script(engine: Engine, chosen: Sequence[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """What is to be written otherwise in the engine's start script so that options have other values; none where that is not plain.

    A new option stands behind one that the script has already.
    """
    texts = _plain_options(engine)
    changes: list[tuple[str, str]] = []
    if any(_charted(engine.container.pod, flag, value) for _, flag, value in chosen):
        return []
    for name, flag, value in chosen:
        current = engine.explicit(name)
        if value and not script.is_plain(value):
            return []
        if current is None:
            if not texts or not engine.found.argv_known:
                return []
            # the last one that is not changed itself
            anchor = next((t for t in reversed(texts) if all(t != old for old, _ in changes)), "")
            changes.append((anchor, " ".join((anchor, *_option(engine, flag, value)))))
        elif current.source != "flag" or not script.is_plain_option(current.text):
            return []
        else:
            option, mark = re.match(r"(-{1,2}[\w-]+)([= ]?)", current.text).groups()  # type: ignore[union-attr]
            changes.append((current.text, f"{option}{mark or ' '}{value}" if value else option))
    return changes


def _plain_options(engine: Engine) -> list[str]:
    """The options of a command line that a shell takes as they are; where there are none `serve` with the model behind it."""
    told = [s.text for s in engine.found.settings.values() if s.source == "flag"]
    options = [text for text in told if script.is_plain_option(text)]
    return options or [f"serve {text}" for text in told if engine.name == "vllm" and script.is_plain(text)][:1]


def behind_options(engine: Engine, words: Sequence[str]) -> list[tuple[str, str]]:
    """What is to be written otherwise in the engine's start script so that words stand behind an option; none where it has none."""
    texts = _plain_options(engine) if engine.found.argv_known else []
    if not texts or not all(script.is_plain(word) or script.is_plain_option(word) for word in words):
        return []
    starts = [at for at, word in enumerate(words) if word.startswith("-")]
    options = [words[at:end] for at, end in zip(starts, [*starts[1:], len(words)], strict=True)]
    return [(texts[-1], " ".join((texts[-1], *option))) for option in reversed(options)]


def rewritten(
    container: Container, changes: Sequence[tuple[str, str]], summary: str, more: Sequence[dict[str, Any]] = ()
) -> Fix | None:
    """A patch of the script that a container runs, in which these options are written otherwise; None where no patch can do that."""
    if (found := script.revised(container, changes)) is None:
        return None
    vector, index, text = found
    change = {"op": "replace", "path": f"{container.pointer}/{vector}/{index}", "value": text}
    made = patch(container.pod, summary, [change, *more])
    return made if made.patch is not None else None


def remove_word(container: Container, path: str, summary: str) -> Fix:
    """Remove one element of the container's `args`; `path` ends in its place there: `args[0]`."""
    index = _index(path)
    if index is None or not path.endswith(f"args[{index}]") or script.is_script(container):
        return advice(f"{summary} in {edited(container.pod)}")
    return patch(container.pod, summary, [{"op": "remove", "path": f"{container.pointer}/args/{index}"}])


def rename_word(container: Container, path: str, old: str, new: str, summary: str) -> Fix:
    """Write an option of the container's `args` under another name; `path` ends in its place there, its value stays."""
    index, written = _index(path), container.spec.words("args")
    at = index if index is not None and path.endswith(f"args[{index}]") and index < len(written) else None
    word = written[at] if at is not None else ""
    if (
        at is None
        or script.is_script(container)
        or container.told
        or word.partition("=")[0] != old
        or "<masked" in word
    ):
        return advice(f"{summary} in {edited(container.pod)}")
    changed = {"op": "replace", "path": f"{container.pointer}/args/{at}", "value": new + word[len(old) :]}
    return patch(container.pod, summary, [changed])


def split_word(container: Container, path: str, words: list[str], summary: str) -> Fix | None:
    """Write one element of `args` as several; None where it stands in a script, or is not what the object has."""
    index, written = _index(path), container.spec.words("args")
    if index is None or ".args[" not in path or index >= len(written) or script.is_script(container) or container.told:
        return None
    if written[index].replace("=", " ", 1).split() != " ".join(words).replace("=", " ", 1).split():
        return None  # it came out of a variable, or is masked
    return patch(container.pod, summary, in_place(f"{container.pointer}/args", index, words))


#: What starts an engine whose image starts nothing by itself.
_STARTS = {
    "vllm": ("python3", "-m", "vllm.entrypoints.openai.api_server"),
    "sglang": ("python3", "-m", "sglang.launch_server"),
    "lmdeploy": ("lmdeploy", "serve", "api_server"),
    "tgi": ("text-generation-launcher",),
}
#: What runs a file that is no program.
_INTERPRETERS = {".py": "python3", ".sh": "sh", ".js": "node"}
#: What only a shell understands.
_OF_A_SHELL = expression(r"[|&;<>$`*'\"\\]|^\w{1,100}=")


#: The images of llama.cpp, which have their programs in a folder that is not on PATH.
_OF_LLAMA_CPP = expression(r"\b(?:ggml-org|ggerganov)/llama\.cpp\b")


def run_by(container: Container, program: str, engine: str) -> Fix | None:
    """Let what the first word of a command misses stand before it: the words of a whole line apart, the engine, an interpreter."""
    spec = container.spec
    vector = next((v for v in ("command", "args") if getattr(spec, v) and str(getattr(spec, v)[0]) == program), "")
    if not vector or (vector == "args" and spec.command) or "<masked" in program:
        return None
    at = f"{container.pointer}/{vector}"
    if program.startswith("llama-") and _OF_LLAMA_CPP.search(spec.image):
        summary = f"Name {program} by its path, /app/{program}, where the image has it"
        return patch(container.pod, summary, in_place(at, 0, [f"/app/{program}"]))
    interpreter = _INTERPRETERS.get("." + program.rpartition(".")[2], "")
    if " " in program:
        by_shell = bool(_OF_A_SHELL.search(program))
        if by_shell and len(spec.argv) > 1:  # a shell would keep the other words to itself
            return None
        words = ["sh", "-c", program] if by_shell else program.split()
        summary = f"Write `{program}` as words of their own: {', '.join(words)}"
        return patch(container.pod, summary, in_place(at, 0, words))
    before = list(_STARTS.get(engine, ())) if program.startswith("-") else [interpreter] if interpreter else []
    if not before:
        return None
    said = " ".join(before)
    made = [{"op": "add", "path": f"{container.pointer}/command", "value": before}]
    operations = made if vector == "args" else _inserted(at, 0, before)
    return patch(container.pod, f"Put {said} before {program}, which is no program of the image", operations)


def run_after(container: Container, line: str, summary: str, engine: str = "") -> Fix | None:
    """Let a shell do something before it becomes the container's command; None where only the image knows that.

    `engine` is that of which the image is the makers' own, so that its program is known where only options are given.
    """
    words = ("sh", "-c", f'{line}; exec "$0" "$@"')
    if not container.spec.command:
        program = _STARTS.get(engine, ())
        given = bool(container.spec.args) and str(container.spec.args[0]).startswith("-")
        made = [{"op": "add", "path": f"{container.pointer}/command", "value": [*words, *program]}]
        return patch(container.pod, summary, made) if program and given else None
    return patch(container.pod, summary, _inserted(f"{container.pointer}/command", 0, words))


def _charted(pod: Pod, flag: str, value: str) -> bool:
    """Whether a chart writes the object that has a value for an option, which lasts where a patch of its words does not."""
    workload = workload_of(pod)
    kept = keeper(workload.raw) if workload else None
    return kept is not None and kept.flag(flag, value) is not None


def _home(pod: Pod, flag: str, value: str) -> str:
    """Where a person changes an argument that no patch can: the object, or the value of its chart."""
    workload = workload_of(pod)
    kept = keeper(workload.raw) if workload else None
    found = kept.flag(flag, value) if kept else None
    if workload is None and pod.exists and not pod.log_only and not unread(pod):
        return f"{edited(pod)}, which must be deleted and recreated"
    return f"{edited(pod)}, {found.path} of its chart" if found else edited(pod)


def _index(path: str) -> int | None:
    tail = path.rpartition("[")[2].rstrip("]")
    return int(tail) if tail.isdigit() else None


def remove_env(container: Container, name: str, summary: str) -> Fix:
    """Remove an environment variable of the container's own `env` list."""
    if all(variable.name != name for variable in container.spec.env):
        return advice(f"{summary} (it comes from a ConfigMap or Secret of {edited(container.pod)})")
    return set_variables(container, {name: None}, summary)


def set_env(container: Container, name: str, value: str, summary: str) -> Fix:
    """Set an environment variable in the container's own `env` list."""
    return set_variables(container, {name: value}, summary)


def set_variables(container: Container, values: Mapping[str, str | FromSecret | FromField | None], summary: str) -> Fix:
    """Set several variables in the container's own `env` list; None removes one.

    What comes from another object is changed there: then the fix is advice.
    """
    operations, elsewhere = variable_operations(container, values)
    if elsewhere:
        return advice(f"{summary} where {elsewhere} comes from ({container.env[elsewhere].origin})")
    return patch(container.pod, summary, operations) if operations else advice(f"{summary} in {edited(container.pod)}")


def variable_operations(
    container: Container, values: Mapping[str, str | FromSecret | FromField | None]
) -> tuple[list[dict[str, Any]], str]:
    """The operations that set variables, and the first of them that comes from another object, where it is changed."""
    at, own = f"{container.pointer}/env", container.spec.env
    places = {variable.name: index for index, variable in enumerate(own)}
    added: list[dict[str, Any]] = []
    removed: list[int] = []
    for name, value in values.items():
        index = places.get(name)
        elsewhere = own[index].value_from is not None if index is not None else name in container.env
        if elsewhere and (value is None) == (index is None):
            return [], name
        if value is None:
            removed += [] if index is None else [index]
            continue
        if isinstance(value, FromSecret):
            entry: dict[str, Any] = {"name": name, "valueFrom": {"secretKeyRef": {"name": value.name, "key": name}}}
        elif isinstance(value, FromField):
            entry = {"name": name, "valueFrom": {"fieldRef": {"fieldPath": value.path}}}
        else:
            entry = {"name": name, "value": value}
        if index is None:
            added += appended(at, entry, exists=bool(own or added))
        else:
            added.append({"op": "replace", "path": f"{at}/{index}", "value": entry})
    # the last first, so that the places of the others hold
    return added + [{"op": "remove", "path": f"{at}/{index}"} for index in sorted(removed, reverse=True)], ""


def set_resource(container: Container, kind: str, resource: str, value: str, summary: str) -> Fix:
    """Set a request or limit (`kind` is `requests` or `limits`).

    An extended resource that stands in both is set where it differs: the API server refuses a request that differs from its limit.
    """
    return patch(container.pod, summary, _resource(container, kind, resource, value))


def _resource(container: Container, kind: str, resource: str, value: str) -> list[dict[str, Any]]:
    """Of a device limit and request are one: the other is set, too, where it says something else."""
    key, resources = pointer.escaped(resource), container.spec.resources
    tables = {"limits": resources.limits, "requests": resources.requests}
    other = {k for k, t in tables.items() if "/" in resource and units(t.get(resource)) not in (None, units(value))}
    kinds = [k for k in tables if k == kind or k in other]
    return [{"op": "add", "path": f"{container.pointer}/resources/{k}/{key}", "value": value} for k in kinds]


def request_rdma(container: Container, summary: str) -> Fix | None:
    """Ask for the RDMA devices that the pod's node offers, or others with GPUs; None where none does, or the container has them.

    In the summary `{rdma}` is the resource with how many of it, `{container}` the container.
    """
    offered = rdma_offered(container.pod.cluster, container.gpus, container.pod.spec.node_name)
    limits = container.spec.resources.limits
    if offered is None or any(re.fullmatch(RDMA, name.lower()) for name in limits):
        return None
    name, amount = offered
    told = summary.format(rdma=f"{name}: {amount}", container=container.name)
    return set_resource(container, "limits", name, str(amount), told)


def set_image(container: Container, image: str, summary: str) -> Fix:
    return patch(container.pod, summary, [{"op": "replace", "path": f"{container.pointer}/image", "value": image}])


def set_spec(pod: Pod, path: str, value: Any, summary: str) -> Fix:
    """Set a field of the pod spec; `path` is a JSON pointer inside it, such as `/enableServiceLinks`."""
    return patch(pod, summary, [{"op": "add", "path": path, "value": value}])


def set_sysctl(pod: Pod, name: str, value: str, summary: str) -> Fix:
    """Set a kernel parameter of the pod."""
    own = pod.spec.security_context.sysctls
    at = next((i for i, one in enumerate(own) if one.name == name), None)
    entry = {"name": name, "value": value}
    if at is not None:
        return patch(pod, summary, [{"op": "replace", "path": f"/securityContext/sysctls/{at}", "value": entry}])
    return patch(pod, summary, appended("/securityContext/sysctls", entry, exists=bool(own)))


def set_pull_secret(pod: Pod, name: str, summary: str) -> Fix:
    """Let the pod pull its images with a Secret of its namespace."""
    return patch(pod, summary, appended("/imagePullSecrets", {"name": name}, exists=bool(pod.spec.image_pull_secrets)))


def set_probe(container: Container, probe: str, value: dict[str, Any], summary: str) -> Fix:
    """Set a probe (`startupProbe`, `livenessProbe`, `readinessProbe`) as a whole."""
    return patch(container.pod, summary, [{"op": "add", "path": f"{container.pointer}/{probe}", "value": value}])


def mount_shm(container: Container, size: str, summary: str) -> Fix:
    """Mount a memory-backed emptyDir at /dev/shm; `size` is a quantity."""
    pod = container.pod
    mount = container.mount_at("/dev/shm")
    memory = {"medium": "Memory", "sizeLimit": size}
    if mount:
        index = next((i for i, v in enumerate(pod.spec.volumes) if v.name == mount.name), None)
        if index is None:
            return advice(f"{summary}: the volume {mount.name} is not declared in {edited(pod)}")
        value = {"name": mount.name, "emptyDir": memory}
        return patch(pod, summary, [{"op": "replace", "path": f"/volumes/{index}", "value": value}])
    volume = {"name": free_name(pod, "dshm"), "emptyDir": memory}
    return patch(pod, summary, mounted(container, volume, "/dev/shm"))


def mount_scratch(container: Container, paths: Sequence[str], summary: str) -> Fix:
    """Mount directories of one new emptyDir at `paths`, at which nothing is mounted."""
    name = free_name(container.pod, "scratch")
    mounts = [{"name": name, "mountPath": path, "subPath": path.strip("/").replace("/", "-")} for path in paths]
    operations = appended("/volumes", {"name": name, "emptyDir": {}}, exists=bool(container.pod.spec.volumes))
    operations += appended(f"{container.pointer}/volumeMounts", *mounts, exists=bool(container.spec.volume_mounts))
    return patch(container.pod, summary, operations)


def grow(container: Container, mount: k8s.VolumeMount, least: int | None, summary: str) -> Fix | None:
    """Give a volume twice the room that it has, or so much that `least` bytes fit: a larger claim, or one in place of an emptyDir.

    The limit of an emptyDir is no wall: what writes more is evicted, and what meets the end of the disk has that of the node.
    """
    pod = container.pod
    index = next((i for i, volume in enumerate(pod.spec.volumes) if volume.name == mount.name), None)
    volume = pod.spec.volumes[index] if index is not None else None
    claim = volume.persistent_volume_claim if volume else None
    if mount.read_only or (claim and claim.read_only):  # nothing that is written there fills it
        return None
    item = pod.cluster.item("PersistentVolumeClaim", pod.namespace, claim.claim_name) if claim else None
    if item is not None:
        if _stays_as_it_is(item, pod.cluster):
            return None
        at = "spec.resources.requests.storage"
        told = (units(dig(item.raw, path)) or 0 for path in ("status.capacity.storage", at))
        size = larger(max(told), least)
        operation = {"op": "replace", "path": "/" + at.replace(".", "/"), "value": size}
        return patch_object(item, summary.format(size=size, what=f"claim {item.name}"), [operation]) if size else None
    scratch = volume.empty_dir if volume else None
    if volume is None or scratch is None or scratch.medium == "Memory" or filled(container, volume):
        return None
    if (
        not container.may_be_root and pod.spec.security_context.fs_group is None
    ):  # who may write into an emptyDir, and not into a claim
        return None
    meant = (units(scratch.size_limit) or 0) * 3 // 4
    if not (size := larger(None, max(meant, least or 0))):
        return None
    instead = {"op": "replace", "path": f"/volumes/{index}", "value": _made_with_each_pod(mount.name, size)}
    return patch(pod, summary.format(size=size, what=f"emptyDir {mount.name}"), [instead])


def _made_with_each_pod(name: str, size: str) -> dict[str, Any]:
    """A volume for a claim that each pod has of its own, as an emptyDir."""
    asked = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}}
    return {"name": name, "ephemeral": {"volumeClaimTemplate": {"spec": asked}}}


def _stays_as_it_is(claim: Item, cluster: Cluster) -> bool:
    """Whether the API server refuses a larger request of a claim: it is bound to nothing, or its class lets none grow."""
    name, phase = dig(claim.raw, "spec.storageClassName"), dig(claim.raw, "status.phase")
    known = cluster.item("StorageClass", "", str(name)) if name else None
    return phase == "Pending" or name == "" or (known is not None and known.raw.get("allowVolumeExpansion") is not True)


def larger(have: int | None, least: int | None) -> str:
    """Twice an amount of bytes, or a third more than what must fit, in tens of GiB; empty where nothing is known."""
    wanted = max(2 * (have or 0), (least or 0) * 4 // 3)
    return f"{-(-wanted // (10 * GIB)) * 10}Gi" if wanted else ""


def mount_new_claim(container: Container, path: str, name: str, size: str, summary: str) -> Fix:
    """Make a claim, and mount it at `path`, at which nothing is mounted: it outlasts the pod."""
    pod = container.pod
    claim = {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": size}}},
    }
    volume = {"name": free_name(pod, "model-cache"), "persistentVolumeClaim": {"claimName": name}}
    made = patch(pod, summary, mounted(container, volume, path))
    document = shlex.quote(msgspec.json.encode(claim).decode())
    create = f"echo {document} | kubectl -n {shlex.quote(pod.namespace)} create -f -"
    return msgspec.structs.replace(made, commands=(create, *made.commands))


def mount_claim(container: Container, path: str, size: str, summary: str) -> Fix:
    """Mount a volume of its own, made with each pod, at `path`, at which nothing is mounted."""
    pod, name = container.pod, free_name(container.pod, "model-cache")
    return patch(pod, summary, mounted(container, _made_with_each_pod(name, size), path))


#: Where a private authority is mounted, and the variables by which OpenSSL, Go, Rust and Python's libraries find it.
_AUTHORITY, _AUTHORITY_AT = "private-ca", "/etc/private-ca"
_AUTHORITY_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE")


def mount_authority(container: Container, summary: str) -> Fix:
    """Mount the ConfigMap private-ca, and name its file ca.crt where programs look for authorities."""
    if any(name in container.env for name in _AUTHORITY_VARIABLES):
        named = ", ".join(f"{n} ({container.env[n].origin})" for n in _AUTHORITY_VARIABLES if n in container.env)
        return advice(f"{summary}: put the authority into the file that {named} of {edited(container.pod)} names")
    name = free_name(container.pod, _AUTHORITY)
    volume = {"name": name, "configMap": {"name": _AUTHORITY}}
    variables = [{"name": variable, "value": f"{_AUTHORITY_AT}/ca.crt"} for variable in _AUTHORITY_VARIABLES]
    added = appended(f"{container.pointer}/env", *variables, exists=bool(container.spec.env))
    return patch(container.pod, summary, mounted(container, volume, _AUTHORITY_AT) + added)


def free_name(pod: Pod, name: str) -> str:
    """A name that no volume of the pod has."""
    taken = {volume.name for volume in pod.spec.volumes}
    return next(n for i in range(1, 99) if (n := f"{name}-{i}" if i > 1 else name) not in taken)


def mounted(container: Container, volume: dict[str, Any], path: str) -> list[dict[str, Any]]:
    """The operations that add a volume to the pod and mount it."""
    mount = {"name": volume["name"], "mountPath": path}
    added = appended("/volumes", volume, exists=bool(container.pod.spec.volumes))
    return added + appended(f"{container.pointer}/volumeMounts", mount, exists=bool(container.spec.volume_mounts))


def appended(path: str, *values: Any, exists: bool = True) -> list[dict[str, Any]]:
    """The operations that append to a list, which they make where there is none."""
    if exists:
        return [{"op": "add", "path": f"{path}/-", "value": value} for value in values]
    return [{"op": "add", "path": path, "value": [*values]}]


def in_place(path: str, index: int, words: Sequence[str]) -> list[dict[str, Any]]:
    """The operations that put words into the place of one of a list."""
    return [{"op": "replace", "path": f"{path}/{index}", "value": words[0]}, *_inserted(path, index + 1, words[1:])]


def _inserted(path: str, index: int, words: Sequence[str]) -> list[dict[str, Any]]:
    """The operations that put words into a list, from this place on."""
    return [{"op": "add", "path": f"{path}/{n}", "value": word} for n, word in enumerate(words, index)]
