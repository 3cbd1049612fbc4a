"""What the user named, as the pods behind it: replicas that live and die together are one subject."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, cast

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster, Item, lookup_kind
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.routes import backends_of
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.workload import Workload, top_of
from kubectl_llmdoctor.platforms import has_templates, templates
from kubectl_llmdoctor.platforms.labels import RAY_NODE_TYPE, group_key, rank_of
from kubectl_llmdoctor.snapshot import Json, Snapshot, TargetRef
from kubectl_llmdoctor.tree import dig, rows

if TYPE_CHECKING:
    pass


def subjects(cluster: Cluster) -> list[Subject]:
    """What is to be diagnosed: what was asked about, else every pod and every workload without one."""
    asked = cluster.snapshot.asked
    if not asked:
        return _everything(cluster)
    found: dict[int, Subject] = {}
    for ref in asked:
        for subject in _named(cluster, ref):
            key = id(subject.pods[0].item) if subject.pods and subject.pods[0].item else id(subject)
            found.setdefault(key, subject)
    return list(found.values())


def around(pod: Pod) -> Subject:
    """The target that a pod of the snapshot is, with all that live and die with it."""
    return _named(pod.cluster, TargetRef(kind="Pod", namespace=pod.namespace, name=pod.name))[0]


def apart(snapshot: Snapshot) -> list[Snapshot]:
    """Manifests in parts without two objects of one name: those of another environment are no newer version.

    What lies in one folder, and below it, stays together as long as it does not contradict itself, then what stands in one
    file: examples that cannot be applied together are about nothing of each other. Of a file that repeats an object, a
    part ends before the repetition. What makes no pods and stands once in such a folder, a Service or an autoscaler, is
    about each of its variants, but for a Service that stands in one file with a workload whose pods it selects.
    """
    origins = snapshot.origins
    if snapshot.asked or not all(origins) or not origins:
        return [snapshot]
    keys = [_identity(raw) for raw in snapshot.objects]
    if len(set(keys)) == len(keys):
        return [snapshot]
    parts = list(_units([origin.file if origin else "" for origin in origins], keys))
    folders = [_folder(origin.file) if origin else "" for origin in origins]
    times = Counter(keys)
    files: dict[str, list[Json]] = {}
    for origin, raw in zip(origins, snapshot.objects, strict=True):
        files.setdefault(origin.file if origin else "", []).extend(_labels(raw))
    shared = [
        i
        for i, (origin, raw) in enumerate(zip(origins, snapshot.objects, strict=True))
        if times[keys[i]] == 1 and not _makes_pods(raw) and not (origin and _selects(raw, files[origin.file]))
    ]
    for part in parts:
        named = {keys[i] for i in part}
        of_part, labels = {folders[i] for i in part}, [x for i in part for x in _labels(snapshot.objects[i])]
        more = (i for i in shared if folders[i] in of_part and keys[i] not in named)
        part += [i for i in more if _about(snapshot.objects[i], labels)]
    return [
        msgspec.structs.replace(
            snapshot, objects=tuple(snapshot.objects[i] for i in part), origins=tuple(origins[i] for i in part)
        )
        for part in parts
    ]


def _makes_pods(raw: Json) -> bool:
    kind = str(raw.get("kind") or "")
    return kind == "Pod" or has_templates(str(raw.get("apiVersion") or ""), kind)


def _labels(raw: Json) -> Iterator[Json]:
    """The labels of the pods that an object makes, or is."""
    if raw.get("kind") == "Pod":
        yield dig(raw, "metadata.labels") or {}
    for template in templates(raw, lambda *_: None):
        yield dig(template.pod, "metadata.labels") or {}


def _about(raw: Json, labels: list[Json]) -> bool:
    """Whether an object may be about pods with these labels: a Service of others is not."""
    return raw.get("kind") != "Service" or not dig(raw, "spec.selector") or _selects(raw, labels)


def _selects(raw: Json, labels: list[Json]) -> bool:
    """Whether an object is a Service for pods with some of these labels."""
    selector = dig(raw, "spec.selector")
    if raw.get("kind") != "Service" or not isinstance(selector, dict) or not selector:
        return False
    return any(isinstance(own, dict) and selector.items() <= own.items() for own in labels)


def _folder(file: str) -> str:
    return file.rpartition("/")[0]


#: Kind, namespace, name.
Identity = tuple[str, str, str]


def _identity(raw: Json) -> Identity:
    item = Item(raw, None)
    return lookup_kind(item.kind, item.api_version), item.namespace, item.name


def _units(files: list[str], keys: list[Identity]) -> Iterator[list[int]]:
    """The positions of objects that stay together."""
    paths = [file.split("/") for file in files]
    pending = [(0, list(range(len(files))))]
    while pending:
        depth, tree = pending.pop()
        if _agree(tree, keys):
            yield tree
            continue
        below: dict[str, list[int]] = {}
        here: dict[str, list[int]] = {}
        for i in tree:
            inside = depth < len(paths[i]) - 1
            (below if inside else here).setdefault(paths[i][depth], []).append(i)
        pending += [(depth + 1, part) for part in reversed(below.values())]
        if _agree(own := [i for file in here.values() for i in file], keys):
            here = {"": own} if own else {}
        for file in here.values():
            yield from _pieces(file, keys)


def _agree(positions: list[int], keys: list[Identity]) -> bool:
    """Whether no two of these objects have one name."""
    return len({keys[i] for i in positions}) == len(positions)


def _pieces(file: list[int], keys: list[Identity]) -> Iterator[list[int]]:
    """What stands in one file, up to what repeats an object of it."""
    piece: dict[Identity, int] = {}
    for i in file:
        if keys[i] in piece:
            yield list(piece.values())
            piece = {}
        piece[keys[i]] = i
    yield list(piece.values())


def fleet(cluster: Cluster, serves: Callable[[Pod], bool]) -> list[Subject]:
    """Every pod of these that serves, or was asked about, and every workload without pods whose pods would serve.

    What is left of pods that failed is left out where all replicas of their workload are ready, and what finished well.
    """
    asked = {(ref.namespace, ref.name) for ref in cluster.snapshot.asked if ref.kind == "Pod"}
    every = list(cluster.items("Pod"))
    chosen = []
    for item in every if not asked else (i for i in every if (i.namespace, i.name) in asked):
        if dig(item.raw, "status.phase") == "Succeeded" or _left_over(item, cluster):
            continue
        if asked or serves(Pod.of(item, cluster)):
            chosen.append(item)
    # Whoever lives and dies with one of them is a part of it, whatever it runs: the head of a Ray cluster.
    groups = {key for item in chosen if (key := _group_key(item))}
    if groups:
        chosen = list({id(i): i for i in (*chosen, *(i for i in every if _group_key(i) in groups))}.values())
    return _of_items(chosen, every, cluster, serves)


def _whole(workload: Workload | None) -> bool:
    """Whether all its replicas are ready, or its work is done, so that nobody misses a pod that failed."""
    if workload is None:
        return False
    return workload.completed or (bool(workload.replicas) and (workload.ready or 0) >= (workload.replicas or 0))


def _left_over(item: Item, cluster: Cluster) -> bool:
    """Whether it is a pod that failed, and that nobody misses."""
    return dig(item.raw, "status.phase") == "Failed" and _whole(top_of(item, cluster))


def _everything(cluster: Cluster) -> list[Subject]:
    every = list(cluster.items("Pod"))
    items = [item for item in every if not _left_over(item, cluster)]
    found = _of_items(items or every, every, cluster)
    if not found and cluster.snapshot.logs:
        found = _lone_logs(cluster)
    return found


def _of_items(
    items: list[Item], every: list[Item], cluster: Cluster, serves: Callable[[Pod], bool] | None = None
) -> list[Subject]:
    """The replicas that these pods are, and the workloads that none of `every` pod belongs to."""
    found = _replicas(items, cluster)
    owners = {id(owner) for item in every for owner in cluster.chain(item)}
    tops = [item for kind in cluster.kinds() for item in cluster.items(kind) if _leads_to_pods(item, cluster)]
    podless = [_without_pods(item, cluster) for item in tops if id(item) not in owners]
    found += [s for s in podless if serves is None or not s.pods or any(map(serves, s.pods))]
    return [s for s in found if s.pods or s.item]


def _leads_to_pods(item: Item, cluster: Cluster) -> bool:
    """Whether pods follow from it, and nothing above it says the same."""
    if not has_templates(item.api_version, item.raw.get("kind", "")) or cluster.owner(item):
        return False
    if cluster.now is None:
        return True
    workload = Workload(item, cluster)
    templates = workload.templates
    if workload.release:  # what its chart is rendered to stands beside it, and need not have pods
        return not templates and bool(workload.said)
    return not templates or not all(template.context for template, _ in templates)


def _asked(cluster: Cluster, ref: TargetRef) -> Item | None:
    """The object of that name; where nobody said of which group its kind is, the only one of any."""
    item = cluster.item(lookup_kind(ref.kind, ref.api_version), ref.namespace, ref.name)
    if item is not None or ref.api_version:
        return item
    kinds = (kind for kind in cluster.kinds() if kind.startswith(f"{ref.kind}."))
    others = [found for kind in kinds if (found := cluster.item(kind, ref.namespace, ref.name)) is not None]
    return others[0] if len(others) == 1 else None


def _named(cluster: Cluster, ref: TargetRef) -> list[Subject]:
    item = _asked(cluster, ref)
    if item is None:
        return []
    if ref.kind == "Pod":
        key = _group_key(item)
        members = [i for i in cluster.items("Pod", item.namespace) if key and _group_key(i) == key] or [item]
        return [_of_pods(members, cluster, named=item)]
    pods = [i for i in cluster.items("Pod", item.namespace) if any(o is item for o in cluster.chain(i))]
    pods = pods or list({id(pod): pod for pod in _behind(item, cluster)}.values())
    pods = _without_leftovers(pods, Workload(item, cluster))
    return _replicas(pods, cluster) or [_without_pods(item, cluster)]


def _replicas(pods: list[Item], cluster: Cluster) -> list[Subject]:
    """The replicas that these pods are, one pod each or a group that lives and dies together."""
    grouped: dict[object, list[Item]] = {}
    for pod in pods:
        grouped.setdefault(_group_key(pod) or id(pod), []).append(pod)
    return [_of_pods(members, cluster) for members in grouped.values()]


#: What sends requests to pods by a selector, and what sends them to such, by the path to its rules' backends.
_BY_LABELS = ("Service", "InferencePool")
_BY_RULES = ("HTTPRoute", "GRPCRoute")


def _behind(item: Item, cluster: Cluster) -> Iterator[Item]:
    """The pods that requests to an object reach, which makes none itself."""
    kind = item.plain_kind
    if kind in _BY_LABELS and not item.kind.startswith("Service.") and (wanted := item.wanted_labels):
        yield from (i for i in cluster.items("Pod", item.namespace) if wanted.items() <= i.labels.items())
    elif kind in _BY_RULES:
        for of, namespace, name in sorted({backend.meant for backend in backends_of(item)}):
            if of in _BY_LABELS and (backend := cluster.item(of, namespace, name)) is not None:
                yield from _behind(backend, cluster)


def _without_leftovers(pods: list[Item], workload: Workload) -> list[Item]:
    """The pods of a workload less those that have failed, where all its replicas are ready: nobody misses them.

    Of a Job that has done its work none may be left: a kubelet that starts again refuses what has ended long ago.
    """
    kept = [i for i in pods if dig(i.raw, "status.phase") != "Failed"] if _whole(workload) else pods
    return kept if workload.completed else kept or pods


def _group_key(item: Item) -> tuple[str, ...]:
    """What all pods share that live and die with this one; empty for a pod that stands alone."""
    return group_key(item.namespace, item.labels)


def _without_replaced(items: list[Item]) -> Iterator[Item]:
    """The pods of a group less those that failed and whose index a later pod of the same owner has, which is ready or done."""
    came: dict[tuple[str, ...], str] = {}
    for item in items:
        if (place := _place(item)) and _well(item):
            came[place] = max(_created(item), came.get(place, ""))
    for item in items:
        if dig(item.raw, "status.phase") != "Failed" or _created(item) >= came.get(_place(item), ""):
            yield item


def _place(item: Item) -> tuple[str, ...]:
    """Which pod of its owner it is, where an index tells: an owner has one pod of each at a time."""
    place, part = rank_of(item.labels), str(item.labels.get("training.kubeflow.org/replica-type", ""))
    owners = (str(owner.get("name")) for owner in rows(item.raw, "metadata.ownerReferences"))
    # the name of a group of Ray's workers may end with a digit, too, and is that of all of them
    return (item.namespace, part, place, *owners) if place[-1:].isdigit() and RAY_NODE_TYPE not in item.labels else ()


def _created(item: Item) -> str:
    return str(dig(item.raw, "metadata.creationTimestamp") or "")


def _well(item: Item) -> bool:
    """Whether a pod is ready, or has done its work."""
    return item.condition("Ready", "True") is not None or dig(item.raw, "status.phase") == "Succeeded"


def _of_pods(items: list[Item], cluster: Cluster, named: Item | None = None) -> Subject:
    kept = {id(i) for i in _without_replaced(items)}
    items = [i for i in items if i is named or id(i) in kept]
    ordered = sorted(items, key=lambda i: (i is not named, i.name))
    tops = [top_of(i, cluster) for i in ordered]
    workload = next((w for w in tops if w), None)
    pods = []
    for i, top in zip(ordered, tops, strict=True):
        typed = cast(k8s.Pod, i.typed())
        template = partial(top.template_of, typed) if top else None
        operator = top is not None and not top.built_in
        # a manifest has no status, and no time at which it was read
        ran = cluster.now is not None or bool(i.raw.get("status"))
        pods.append(Pod(typed, cluster, item=i, exists=ran, template=template, by_operator=operator))
    return Subject(pods, cluster, item=ordered[0], workload=workload)


def _without_pods(item: Item, cluster: Cluster) -> Subject:
    workload = Workload(item, cluster)
    return Subject(Pod.planned(workload), cluster, item=item, workload=top_of(item, cluster) or workload)


def _lone_logs(cluster: Cluster) -> list[Subject]:
    names = dict.fromkeys(log.container or "log" for log in cluster.snapshot.logs)
    spec = k8s.PodSpec(containers=tuple(k8s.Container(name=name if name != "log" else "") for name in names))
    pod = k8s.Pod(metadata=k8s.Metadata(name="log"), spec=spec)
    return [Subject([Pod(pod, cluster, exists=False, log_only=True)], cluster, item=None, workload=None)]
