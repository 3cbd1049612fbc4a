"""A model that is downloaded again at every start."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import GIB, Engine, Finding, Pod, Sizing, check, fixes, pod_evidence, say_bytes
from llmdoctor_checks.start._storage import cache_path, hub_model, store

#: Below this a download at 1 Gbit/s is over within about four minutes, and a start is not much faster without it.
_LARGE_BYTES = 30 * GIB


@check("cache-ephemeral", since="0.2", severity="info")
def cache_ephemeral(pod: Pod, engine: Engine, sizing: Sizing) -> Iterator[Finding]:
    """The model is downloaded again at every start.

    The engine fetches its model from the Hugging Face Hub into the container's own file system, or into an emptyDir. The
    first is gone when the container restarts, the second when the pod does. Every new replica, rollout and eviction then
    waits for the whole download, and an outage of the Hub or its rate limit keeps the service from coming back.

    That is how most deployments begin, so it is noted for models whose size is known and large, and never more.

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
    if pod.completed or pod.log_only or not path or not hub_model(engine) or size is None or size < _LARGE_BYTES:
        return
    place = store(engine.container, path)
    if place is None or not place.lost:
        return
    where = f"emptyDir {place.volume}" if place.volume else "the container's own file system"
    when = "pod" if place.volume else "start of the container"
    told = place.evidence or pod_evidence(engine.container, "volumeMounts", f"nothing at {path}")
    yield Finding(
        role="note",
        severity="info",
        confidence="certain",
        summary=f"{engine.label} downloads {say_bytes(size)} of {engine.value('model')} to {path} in {where}: each new {when} "
        "does so again.",
        evidence=(told,),
        fixes=(fixes.advice(f"Mount a PersistentVolumeClaim at {path} in {fixes.edited(pod)}"),),
        pods=(pod.name,) if pod.exists else (),
    )
