"""Model files that are larger than the sizeLimit of the emptyDir that they are downloaded to."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import GIB, Engine, Finding, Pod, Sizing, check, fixes, say_bytes, setting_evidence
from llmdoctor_checks.start._storage import cache_path, hub_model, store


@check("emptydir-limit-exceeded", since="0.1")
def emptydir_limit_exceeded(pod: Pod, engine: Engine, sizing: Sizing) -> Iterator[Finding]:
    """An emptyDir volume is over its size limit.

    The kubelet measures disk-backed emptyDir volumes about every minute and evicts a pod whose volume is larger than
    its `sizeLimit`. The files of a model are downloaded into such a volume, and the limit was set for a smaller one. The
    new pod downloads again and is evicted again.

    In a manifest the least size of the weight files, known from the model's shape, is compared with the limit.

    ## Fix

    Raise `sizeLimit` to the size of the model plus what is downloaded besides it, or keep the model on a PVC. Hook
    failures and exit codes of the evicted pod are by-products.

    ## References

    - https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
    """
    model, path, needed = engine.explicit("model"), cache_path(engine), sizing.file_bytes
    if pod.ready or pod.log_only or model is None or not hub_model(engine) or not path or needed is None:
        return
    place = store(engine.container, path)
    if (
        place is None
        or place.kind != "emptyDir"
        or place.size is None
        or place.evidence is None
        or place.size >= needed
    ):
        return
    size = f"{-(-needed * 4 // 3 // (10 * GIB)) * 10}Gi"
    index = next(i for i, volume in enumerate(pod.spec.volumes) if volume.name == place.volume)
    yield Finding(
        role="risk",
        severity="critical",
        confidence="likely",
        summary=f"The weight files of {model.value} take {say_bytes(needed)} or more, and volume {place.volume} at {path} may "
        f"hold {say_bytes(place.size)}: the kubelet evicts the pod during the download.",
        evidence=(place.evidence, setting_evidence(engine.container, model)),
        fixes=(
            fixes.set_spec(
                pod, f"/volumes/{index}/emptyDir/sizeLimit", size, f"Raise the sizeLimit of {place.volume} to {size}"
            ),
        ),
        pods=(pod.name,) if pod.exists else (),
    )
