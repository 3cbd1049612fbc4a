"""A model that is downloaded again at every start."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Engine,
    Evidence,
    Finding,
    Fix,
    Logs,
    Pod,
    Sizing,
    check,
    fixes,
    log_evidence,
    pod_evidence,
    say_bytes,
    say_seconds,
)
from llmdoctor_checks.start._storage import cache_path, claim_beside, hub_model, store

#: Below this a download at 1 Gbit/s is over within about four minutes, and a start is not much faster without it.
_LARGE_BYTES = 30 * GIB

#: What vLLM says when a download is over, and how long one takes, at least, that is worth a word.
_TOOK, _SLOW_SECONDS = r"Time spent downloading weights for .{1,200}: (\d{1,9}(?:\.\d+)?) seconds", 240

#: The bar of a file that is being fetched.
_UNDER_WAY = r"\.(?:safetensors|bin|pth?|gguf)\S{0,40}: +\d{1,2}%\|"

#: What vLLM says before it downloads; where the files are there already, the bar of their shards follows at once.
_LOOKED_UP, _NOTHING_AFTER = ("Using model weights format", "Starting to load model "), 3


@check("cache-ephemeral", since="0.2", severity="info", literals=(*_LOOKED_UP, "Time spent downloading weights"))
def cache_ephemeral(pod: Pod, engine: Engine, sizing: Sizing, logs: Logs | None) -> Iterator[Finding]:
    """The model is downloaded again at every start.

    The engine fetches its model from the Hugging Face Hub into the container's own file system, or into an emptyDir. The
    first is gone when the container restarts, the second when the pod does. Every new replica, rollout and eviction then
    waits for the whole download, and an outage of the Hub or its rate limit keeps the service from coming back.

    That is how most deployments begin, so it is noted for models whose size is known and large, and where a claim lies at the place
    in which the image keeps its models, or at a folder of the same name, and a flag or variable moves them elsewhere. It is the
    cause where a restarted container is not ready yet, downloads by its log, and the instance before had taken minutes for the same
    download.

    ## Fix

    Mount a PersistentVolumeClaim (ReadWriteMany for several replicas) where the engine keeps its models, or bring the
    model with an image volume, a node-local cache or the platform's own model cache.

        env: [{name: HF_HOME, value: /models}]
        volumeMounts: [{name: models, mountPath: /models}]

    ## References

    - https://huggingface.co/docs/huggingface_hub/guides/manage-cache
    - https://kubernetes.io/docs/concepts/storage/persistent-volumes/
    """
    path, size = cache_path(engine), sizing.file_bytes
    if pod.completed or pod.log_only or not path or not hub_model(engine):
        return
    place = store(engine.container, path)
    if place is None or not place.lost:
        return
    where = f"emptyDir {place.volume}" if place.volume else "the container's own file system"
    when = "pod" if place.volume else "start of the container"
    again = _again(pod, engine, logs) if logs is not None and not place.volume else None
    beside = claim_beside(engine, path)
    if again is None and beside is None and (size is None or size < _LARGE_BYTES):
        return  # what was measured counts, however large it is, and whoever mounts a claim wants the model to be kept
    amount = f"{say_bytes(size)} of " if size else ""
    unused = f", while claim {beside.volume} lies at {beside.path}" if beside else ""
    told = place.evidence or pod_evidence(engine.container, "volumeMounts", f"nothing at {path}")
    yield Finding(
        role="cause" if again else "note",
        severity="warning" if again else "info",
        confidence="possible" if again else "certain",  # what ended it before may be the point
        summary=f"{engine.label} downloads {amount}{engine.value('model')} to {path} in {where}: each new {when} "
        f"does so again{again[0] if again else ''}{unused}.",
        evidence=(told, *(again[1] if again else ())),
        explains=("not-ready", "rollout-stuck") if again else (),
        fix=_moved(pod, engine, beside.path) if beside else _claim(pod, engine, path, place.volume, size),
    )


def _moved(pod: Pod, engine: Engine, path: str) -> Fix:
    """The cache where the claim is."""
    summary = f"Move the cache to {path}, where the claim is mounted"
    if engine.explicit("download_dir") is not None:
        return fixes.set_flag(engine, "download_dir", "--download-dir", path, summary)
    return fixes.advice(f"{summary}, in {fixes.edited(pod)}")


def _claim(pod: Pod, engine: Engine, path: str, volume: str, size: int | None) -> Fix:
    """A claim for the cache, with a third more room than the files take."""
    if size is None:
        return fixes.advice(f"Mount a PersistentVolumeClaim at {path} in {fixes.edited(pod)}")
    room = fixes.larger(None, size)
    kind, _, name = fixes.edited(pod).partition("/")
    if volume:
        return fixes.advice(
            f"Put a PersistentVolumeClaim of {room} in place of the emptyDir {volume}, which holds {path}, in {kind}/{name} "
            "(ReadWriteMany where several pods share it)"
        )
    # one that a single node mounts would keep the other pods waiting
    if kind != "Deployment" or _replicas(pod, name) != 1:
        return fixes.advice(
            f"Mount a PersistentVolumeClaim of {room} at {path} in {kind}/{name} (ReadWriteMany where several pods share it)"
        )
    summary = f"Mount a claim of {room} at {path}, which must be made first"
    return fixes.mount_new_claim(engine.container, path, f"{name[:50].rstrip('-.')}-model-cache", room, summary)


def _replicas(pod: Pod, deployment: str) -> int:
    told = pod.cluster.field("Deployment", pod.namespace, deployment, "spec.replicas")
    return told if isinstance(told, int) else 1


def _again(pod: Pod, engine: Engine, logs: Logs) -> tuple[str, tuple[Evidence, ...]] | None:
    """A download under way in an instance that follows one which had made it: words, and the quotations."""
    container = engine.container
    now = logs.current(container.name)
    before = next((log for log in logs.of(container.name) if log.previous), None)
    if pod.ready or not container.restarts or now is None or before is None:
        return None
    under_way = next((line for line in now.tail(20) if re.search(_UNDER_WAY, line.text)), None)
    if under_way is None and (found := list(now.find(*_LOOKED_UP))):
        under_way = found[-1] if found[-1].number > len(now) - _NOTHING_AFTER else None
    if under_way is None or now.holds("Time spent downloading weights"):
        return None
    for line, said in before.matching(_TOOK, "Time spent downloading weights"):
        if float(said[1]) >= _SLOW_SECONDS:
            words = f", now after restart {container.restarts}; the last time it took {say_seconds(float(said[1]))}"
            return words, (log_evidence(line), log_evidence(under_way))
    return None
