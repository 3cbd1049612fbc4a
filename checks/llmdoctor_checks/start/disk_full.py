"""Model files that are larger than where they are downloaded to."""

import math
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Cluster,
    Engine,
    Finding,
    Fix,
    Logs,
    Node,
    Patch,
    Pod,
    Sizing,
    check,
    dig,
    event_evidence,
    events_of,
    expression,
    file_bytes_of,
    fixes,
    log_evidence,
    node_evidence,
    pod_evidence,
    requests_of,
    say_bytes,
    say_seconds,
    seconds_ago,
    seconds_between,
    setting_evidence,
    units,
)
from llmdoctor_checks.start._library import pulled
from llmdoctor_checks.start._storage import (
    HOMES,
    Store,
    cache_path,
    claim_beside,
    declared,
    fetched,
    hub_model,
    store,
    volume_beside,
)

#: From this priority on the kubelet evicts no pod (`SystemCriticalPriority`).
_CRITICAL = 2_000_000_000
#: What it has not evicted for so long it found no reason to: it ends a pod every few seconds.
_EVICTED_SECONDS = 3600
#: What the kubelet says when its images take too much and none is unused (pkg/kubelet/images/image_gc_manager.go), now and in older
#: releases; it looks every five minutes, and an event is told again later each time.
_NOTHING_TO_FREE, _COLLECTED_SECONDS = ("FreeDiskSpaceFailed", "ImageGCFailed"), 900
_WANTED = expression(
    r"ailed to garbage collect required amount of images\. (?:Attempted to free|Wanted to free) (?P<bytes>\d{1,15})(?: bytes)?, but "
)
#: Ray's raylet (`file_system_monitor.cc`), every ten seconds: in bytes, later in GB. It counts from 95% on, of a large disk long before it
#: is full, so that the pace counts: who fills it within so many seconds does while somebody can still act.
_RAY_SAYS = "% full, available space: "
_RAY = expression(
    r"file_system_monitor\.cc:\d{1,6}: (?P<path>/\S{1,300}) is over [\d.]{1,8}% full, available space: "
    r"(?P<free>\d{1,18}(?:\.\d{1,12})?)(?P<gb> GB)?; capacity: (?P<all>\d{1,18}(?:\.\d{1,12})?)"
)
_SOON_FULL, _PACE_SECONDS, _FEWEST_SAID, _SAID_LATELY = 24 * 3600, 120, 4, 900
#: What was written to a disk longer ago says nothing of how it fills up now.
_PACE_OF_SECONDS = 1800
#: Where LMCache keeps what does not fit into memory, and how many gigabytes each worker may (lmcache/v1/config.py).
_LM_PLACE, _LM_SIZE, _GB = "LMCACHE_LOCAL_DISK", "LMCACHE_MAX_LOCAL_DISK_SIZE", 10**9
#: The kubelet's word on the container that had most of the node's disk (pkg/kubelet/eviction).
_USED = expression(
    r"low on resource: ephemeral-storage.{0,200}?Container (?P<who>\S{1,63}) was using (?P<used>\w{1,30}), request is "
)


@check("disk-full", since="0.1", literals=(_RAY_SAYS,))
def disk_full(
    pod: Pod, engine: Engine, sizing: Sizing | None, cluster: Cluster, node: Node | None, logs: Logs | None
) -> Iterator[Finding]:
    """A disk is full.

    The model is larger than the volume, or it goes to the container's own file system, whose room is the node's disk
    and the limit of ephemeral storage. The download ends with "No space left on device", or the kubelet evicts the pod,
    or the image itself no longer fits on the node. A half-written file may stay in the cache and cause other errors
    later.

    In a manifest the least size of the weight files, known from the model's shape, is compared with the claim, the
    memory-backed volume or the limit of ephemeral storage that they are downloaded to, by the engine or by an init container
    with the Hub's own program (`hf download … --local-dir`). So are the models that a script of the pod, or a Job beside it,
    has Ollama pull: half a byte for a parameter, at the least; and what an operator downloads to a claim that it makes itself:
    of an ArksModel, a NIMCache or a NIMService (of a NIM's profiles a quarter of the Hub's files, at the least). A volume that
    many nodes may mount is not judged: file shares seldom keep to the size that was asked for.

    A pod that runs is the next to go where its node has the condition DiskPressure: the kubelet has found less room than it keeps
    free, and evicts pods until there is enough, first those that use more local disk than they request. That is near where the kubelet
    says that its images take too much of their disk, and finds none that is unused.

    Ray says every ten seconds that the disk of its session (/tmp/ray) is over 95% full; where the room that it states shrinks so fast that
    none is left within a day, that is a risk. What does not fit into its object store then fails.

    "No space left on device" for /dev/shm, NCCL or torch files is not about a disk: see shm-too-small.

    ## Fix

    Mount a volume of sufficient size where the engine stores models (`HF_HOME`, `--download-dir`, `/data`,
    `~/.ollama`), and set requests for ephemeral storage. On the node: free images and old logs, or enlarge the disk.

    ## References

    - https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
    """
    model, path, needed = engine.explicit("model"), cache_path(engine), sizing.file_bytes if sizing else None
    if engine.name == "ollama" and not pod.exists:
        yield from _of_library(pod, engine, cluster)
    if node is not None:
        yield from _under_pressure(pod, node)
    if pod.ready and logs is not None and (filling := _fills(engine, logs)) is not None:
        yield filling
    if pod.ready or pod.log_only:
        return
    filled = list(_by_own_cache(pod, engine, cluster))
    yield from filled or _evicted(pod, engine, needed or 0)
    yield from _by_operator(pod, engine)
    if model is None:
        return
    if str(model.value).startswith("/"):
        yield from _by_init_container(pod, engine, str(model.value))
    if not hub_model(engine) or not path or needed is None:
        return
    place = store(engine.container, path)
    # what happens to an emptyDir that grows over its limit has an id of its own
    if (
        place is None
        or place.kind == "emptyDir"
        or place.size is None
        or place.evidence is None
        or place.size >= needed
    ):
        return
    what = f"volume {place.volume}" if place.volume else "its limit of ephemeral storage"
    then = "the download fails" if place.volume else "the kubelet evicts the pod during the download"
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"The weight files of {model.value} take {say_bytes(needed)} or more; {engine.container.name} downloads them "
        f"to {path}, where {what} holds {say_bytes(place.size)}: {then}.",
        evidence=(place.evidence, setting_evidence(engine.container, model)),
        fix=_fix(pod, engine, place, needed),
    )


def _fills(engine: Engine, logs: Logs) -> Finding | None:
    """A disk of Ray's session that is nearly full and fills up, by what its raylet says of it again and again."""
    container, now = engine.container, engine.pod.cluster.now
    log = logs.current(container.name)
    found = [(line, said) for line in log.find(_RAY_SAYS) if (said := _RAY.search(line.text[:2000]))] if log else []
    found = [
        (line, said)
        for line, said in found
        if said["path"] == found[-1][1]["path"] and (seconds_between(line, found[-1][0]) or 0) <= _PACE_OF_SECONDS
    ]
    if len(found) < _FEWEST_SAID:
        return None
    (first, begun), (last, end) = found[0], found[-1]
    unit = _GB if end["gb"] else 1
    before, free = float(begun["free"]) * unit, float(end["free"]) * unit
    seconds, ago = seconds_between(first, last), seconds_ago(last, now)
    if seconds is None or seconds < _PACE_SECONDS or before <= free or (ago is not None and ago > _SAID_LATELY):
        return None
    left = free * seconds / (before - free)
    if left > _SOON_FULL:
        return None
    path = str(end["path"])
    mount = container.mount_over(path)
    node = f"the disk of node {engine.pod.spec.node_name}" if engine.pod.spec.node_name else "the node's disk"
    larger = fixes.grow(container, mount, None, "Give Ray more room") if mount is not None else None
    free_it = (
        f"Free {node}, on which the container's own files lie (see what else fills it: images, logs, model files), and mount a volume of "
        f"its own at /tmp/ray in {fixes.edited(engine.pod)}"
        if mount is None
        else f"Give volume {mount.name} more room, in {fixes.edited(engine.pod)}"
    )
    return Finding(
        role="risk",
        summary=f"The disk of Ray's session ({path}) in {container.name} is over 95% full and fills up: {say_bytes(round(free))} of "
        f"{say_bytes(round(float(end['all']) * unit))} are left, none in {say_seconds(left)} at its pace; what Ray then moves out of its "
        "object store fails.",
        evidence=(log_evidence(last), log_evidence(first)),
        fix=larger
        or fixes.platform(
            free_it, f"kubectl -n {engine.pod.namespace} exec {engine.pod.name} -c {container.name} -- df -h {path}"
        ),
        order=last.order,
    )


def _under_pressure(pod: Pod, node: Node) -> Iterator[Finding]:
    """A pod that still runs on a node whose kubelet evicts some, since its disk is nearly full."""
    condition = node.condition("DiskPressure", "True")
    if not node.ready or pod.status.phase != "Running" or (pod.spec.priority or 0) >= _CRITICAL:
        return
    if condition is None:
        yield from _near_pressure(pod, node)
        return
    asked = requests_of(pod.obj, placed=True).get("ephemeral-storage", 0)
    lasted = max(pod.cluster.seconds_since(condition.last_transition_time) or 0.0, 0.0)
    span = f" for {say_seconds(lasted)}" if lasted else ""
    requests = f"requests {say_bytes(asked)} of it" if asked else "requests none of it"
    yield Finding(
        role="risk",
        confidence="possible" if asked or lasted > _EVICTED_SECONDS else "likely",
        summary=f"Node {node.name} is short of disk (DiskPressure{span}), and its kubelet evicts pods until there is room again, "
        f"first those that use more local disk than they request; {pod.name} {requests}.",
        evidence=(node_evidence(node, f"DiskPressure: {condition.message or condition.reason or condition.status}"),),
        fix=fixes.platform(
            f"Free or enlarge the disk of node {node.name}: unused images, logs, what pods left in hostPath; put model caches on "
            "volumes, and request ephemeral-storage for what stays",
            f"kubectl describe node {node.name}",
        ),
    )


def _near_pressure(pod: Pod, node: Node) -> Iterator[Finding]:
    """A node whose kubelet finds its disk too full, and no image that it could delete: what comes next is that it evicts pods."""
    now = pod.cluster.now
    said = [
        event
        for event in events_of(pod.cluster).about([("Node", node.name)])
        if event.reason in _NOTHING_TO_FREE and (_WANTED.search(event.message) is not None)
    ]
    event = max(said, key=lambda one: (one.last is not None, one.last or now), default=None)
    if event is None or event.last is None or now is None or (now - event.last).total_seconds() > _COLLECTED_SECONDS:
        return
    since = min(one.first or event.last for one in said)
    lasted = (now - since).total_seconds()
    wanted = _WANTED.search(event.message)
    amount = say_bytes(int(wanted["bytes"])) if wanted else "room"
    yield Finding(
        role="risk",
        confidence="likely" if lasted >= _COLLECTED_SECONDS else "possible",
        summary=f"The disk for images of node {node.name} is fuller than its kubelet allows, which finds too few unused images for the "
        f"{amount} that it has to free{f', for {say_seconds(lasted)}' if lasted >= _COLLECTED_SECONDS else ''}: with less than 15% left "
        "(its default) it evicts pods, first those that use more local disk than they request.",
        evidence=(event_evidence(event, pod.cluster),),
        fix=fixes.platform(
            f"Free or enlarge the disk of node {node.name} on which it keeps images ({_images_of(node)}): {amount} at the least, "
            "of logs, of what pods write to their own file systems and emptyDirs, or of large images that pods there no longer need",
            f"kubectl describe node {node.name}",
        ),
    )


def _images_of(node: Node) -> str:
    """Where the container runtime of a node keeps images, as far as it says which one that is."""
    runtime = node.obj.status.node_info.container_runtime_version
    name = runtime.partition(":")[0]
    if name == "containerd" and "k3s" in runtime:  # RKE2's containerd is built there, too
        return "agent/containerd of k3s or RKE2 in /var/lib/rancher"
    return {"cri-o": "/var/lib/containers", "docker": "/var/lib/docker"}.get(name, "/var/lib/containerd")


def _by_own_cache(pod: Pod, engine: Engine, cluster: Cluster) -> Iterator[Finding]:
    """A pod that was evicted for the node's disk, which LMCache was told to fill: so much for each worker, of its local disk."""
    container, workers = engine.container, engine.workers
    size, where = container.env.get(_LM_SIZE), container.env.get(_LM_PLACE)
    used = _USED.search(pod.status.message) if pod.status.reason == "Evicted" else None
    if not size or not where or not workers or not used or used["who"] != container.name:
        return
    each, took = _gigabytes(size.value), units(used["used"])
    volume = store(container, (where.value or "").removeprefix("file://"))
    if not each or not took or each * workers * _GB < took // 2 or (volume and volume.volume):
        return
    name = pod.spec.node_name
    item = cluster.item("Node", "", name)
    disk = units((dig(item.raw, "status.allocatable") or {}).get("ephemeral-storage")) if item else None
    # what else it writes stays, and a tenth of the disk is for images and logs
    room = int((disk * 9 // 10 - max(took - int(each * workers * _GB), 0)) / workers / _GB) // 10 * 10 if disk else 0
    of = f" of {say_bytes(disk)}" if disk else ""
    text = f"Have LMCache keep {room} GB of each worker on disk instead of {each:g}, or give {where.value} a volume of its own"
    yield Finding(
        confidence="certain",  # by the kubelet's own count
        summary=f"LMCache may keep {each:g} GB of each of {workers} workers on the disk of {name}{of}, {each * workers:g} GB in all; the "
        f"pod had {say_bytes(took)} there and was evicted.",
        evidence=(
            pod_evidence(pod, "status.message", f"{pod.status.reason}: {pod.status.message}"),
            pod_evidence(container, f"env[{_LM_SIZE}]", f"{_LM_SIZE}={size.value}"),
        ),
        explains=("pod-failed", "not-ready"),
        fix=fixes.set_env(container, _LM_SIZE, str(room), text)
        if 0 < room < each
        else fixes.advice(f"Lower {_LM_SIZE} in {fixes.edited(pod)}, or give {where.value} a volume of its own"),
    )


def _gigabytes(text: str | None) -> float | None:
    try:
        size = float(text or "")
    except ValueError:
        return None
    return size if math.isfinite(size) else None


#: What a container writes of logs and other small things.
_SMALL = 4 * GIB


def _evicted(pod: Pod, engine: Engine, needed: int) -> Iterator[Finding]:
    """A pod that the kubelet ended for the model which it had downloaded into its own file system."""
    hit = _USED.search(pod.status.message) if pod.status.reason == "Evicted" and pod.failing else None
    container, path = engine.container, cache_path(engine)
    used = units(hit["used"]) if hit else None
    if hit is None or not used or used < _SMALL or hit["who"] != container.name:
        return
    if needed and used > 2 * needed + _SMALL:
        return  # that is not the model
    place = store(container, path) if path and hub_model(engine) else None
    if place is None or place.volume:
        return
    size = fixes.larger(None, max(used, needed))
    yield Finding(
        confidence="certain",
        summary=f"The disk of node {pod.spec.node_name} ran short and the pod was evicted: {container.name} had written "
        f"{say_bytes(used)} to its own file system, to which it downloads its model ({path}).",
        evidence=(pod_evidence(pod, "status.message", pod.status.message),),
        explains=("not-ready", "pod-failed", "crash-loop", "rollout-stuck", "node-not-ready"),
        fixes=(
            *_to_volume(engine, path, needed),
            fixes.mount_claim(container, path, size, f"Mount a volume of {size} at {path} for the downloads"),
            fixes.set_resource(
                container,
                "requests",
                "ephemeral-storage",
                size,
                f"Request {size} of ephemeral storage instead, so that only a node with so much room is taken",
            ),
        ),
        order=-2.0,  # more than the kubelet's words alone say
    )


def _to_volume(engine: Engine, path: str, needed: int) -> Iterator[Fix]:
    """A volume is mounted where another image of the engine would download to, or where this one does unless a variable says otherwise."""
    stated = engine.explicit("download_dir")
    if stated is not None and stated.source != "env":
        return  # an argument, which goes before all variables
    told = next((name for name in HOMES if name in engine.container.env), "")
    beside = claim_beside(engine, path) if told else volume_beside(engine, path)
    if beside is not None and (beside.size is None or beside.size >= needed):
        why = (
            f"{told} has them kept at {path}" if told else f"this image keeps them at {path}, not where TGI's own does"
        )
        yield fixes.set_env(
            engine.container,
            told or "HF_HOME",
            beside.path,
            f"Have the downloads go to the volume {beside.volume}, which is mounted at {beside.path}: {why}",
        )


def _by_operator(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """What an operator downloads for the server (ArksModel, NIMCache) is larger than the claim that it makes for it."""
    for place, model, share in declared(pod):
        whole = file_bytes_of(model) if model else None
        needed = int(whole * share) if whole else None
        if (
            needed is None
            or place.size is None
            or place.size >= needed
            or place.evidence is None
            or place.made_by is None
        ):
            continue
        made_by = place.made_by[0]
        if "Ready" in (dig(made_by.raw, "status.state"), dig(made_by.raw, "status.phase")):
            continue  # it is there already: not every store keeps to the size that was asked for
        owner = f"{made_by.raw.get('kind')}/{made_by.name}"
        yield Finding(
            role="risk",
            severity="critical",
            summary=f"The weight files of {model} take {say_bytes(needed)} or more; the claim {place.volume} to which they are downloaded "
            f"holds {say_bytes(place.size)}, by {owner}: the download fails.",
            evidence=(place.evidence,),
            fix=_fix(pod, engine, place, needed),
        )


def _by_init_container(pod: Pod, engine: Engine, path: str) -> Iterator[Finding]:
    """What an init container downloads for the server is larger than the volume that they share."""
    got = fetched(pod, path)
    needed = file_bytes_of(got.model) if got else None
    place = store(got.container, got.directory) if got else None
    if got is None or needed is None or place is None or place.kind == "emptyDir":
        return
    if place.size is None or place.evidence is None or not place.volume or place.size >= needed:
        return
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"The weight files of {got.model} take {say_bytes(needed)} or more; {got.container.name} downloads them "
        f"to {got.directory}, where volume {place.volume} holds {say_bytes(place.size)}: the download fails.",
        evidence=(place.evidence, got.evidence),
        fix=_fix(pod, engine, place, needed),
    )


def _of_library(pod: Pod, engine: Engine, cluster: Cluster) -> Iterator[Finding]:
    """What Ollama is told to pull is larger than the volume of its models."""
    found = pulled(pod, engine, cluster)
    if found is None:
        return
    place = found.place
    if place.kind == "emptyDir" or place.size is None or place.size >= found.needed:
        return
    what = f"volume {place.volume}" if place.volume else "its limit of ephemeral storage"
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"Ollama is told to pull {', '.join(found.names)}, {say_bytes(found.needed)} or more; {engine.container.name} keeps "
        f"models at {place.path}, where {what} holds {say_bytes(place.size)}: the download fails.",
        evidence=(*((place.evidence,) if place.evidence else ()), found.evidence),
        fix=_fix(pod, engine, place, found.needed),
    )


def _fix(pod: Pod, engine: Engine, place: Store, needed: int) -> Fix:
    # a third more: the tokenizer, other formats of the same weights, and files that are being replaced
    size = fixes.larger(None, needed)
    if not place.volume:
        summary = f"Raise the limit of ephemeral storage to {size}, or mount a volume at {place.path}"
        return fixes.set_resource(engine.container, "limits", "ephemeral-storage", size, summary)
    if place.claim is None and place.made_by is not None:
        owner, pointer = place.made_by
        return fixes.set_field(owner, pointer, size, f"Ask for {size}")
    if place.claim is None:
        return fixes.advice(f"Give the volume {place.volume} {size} in {fixes.edited(pod)}")
    body = [{"op": "replace", "path": "/spec/resources/requests/storage", "value": size}]
    claim = place.claim
    return Fix(
        summary=f"Ask for {size} in PersistentVolumeClaim/{claim.name}, if its storage class allows a bound one to grow",
        commands=(
            f"kubectl -n {claim.namespace} patch persistentvolumeclaim/{claim.name} --type=json -p "
            f'\'[{{"op": "replace", "path": "/spec/resources/requests/storage", "value": "{size}"}}]\'',
        ),
        patch=Patch(target=f"v1 PersistentVolumeClaim/{claim.name}", type="json", body=body),
    )
