"""Model files that are larger than the sizeLimit of the emptyDir that they are downloaded to."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    GIB,
    Cluster,
    Engine,
    Evidence,
    Finding,
    Pod,
    Sizing,
    check,
    fixes,
    say_bytes,
    setting_evidence,
)
from llmdoctor_checks.start._library import pulled
from llmdoctor_checks.start._storage import Store, cache_path, hub_model, store


@check("emptydir-limit-exceeded", since="0.1")
def emptydir_limit_exceeded(pod: Pod, engine: Engine, sizing: Sizing, cluster: Cluster) -> Iterator[Finding]:
    """An emptyDir volume is over its size limit.

    The kubelet measures disk-backed emptyDir volumes about every minute and evicts a pod whose volume is larger than
    its `sizeLimit`. The files of a model are downloaded into such a volume, and the limit was set for a smaller one. The
    new pod downloads again and is evicted again.

    In a manifest the least size of the weight files, known from the model's shape, is compared with the limit; for Ollama that
    of the models that a script of the pod, or a Job beside it, has it pull.

    ## Fix

    Raise `sizeLimit` to the size of the model plus what is downloaded besides it, or keep the model on a PVC. Hook
    failures and exit codes of the evicted pod are by-products.

    ## References

    - https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
    """
    if engine.name == "ollama":
        if not pod.exists and (found := pulled(pod, engine, cluster)):
            what = f"Ollama is to pull {', '.join(found.names)},"
            yield from _exceeded(pod, what, found.needed, found.place, found.evidence)
        return
    model, path, needed = engine.explicit("model"), cache_path(engine), sizing.file_bytes
    if pod.ready or pod.log_only or model is None or not hub_model(engine) or not path or needed is None:
        return
    if place := store(engine.container, path):
        what = f"The weight files of {model.value} take"
        yield from _exceeded(pod, what, needed, place, setting_evidence(engine.container, model))


def _exceeded(pod: Pod, what: str, needed: int, place: Store, evidence: Evidence) -> Iterator[Finding]:
    """What is downloaded is larger than the volume may be."""
    if place.kind != "emptyDir" or place.size is None or place.evidence is None or place.size >= needed:
        return
    size = f"{-(-needed * 4 // 3 // (10 * GIB)) * 10}Gi"
    index = next(i for i, volume in enumerate(pod.spec.volumes) if volume.name == place.volume)
    yield Finding(
        role="risk",
        severity="critical",
        confidence="likely",
        summary=f"{what} {say_bytes(needed)} or more, and volume {place.volume} at {place.path} may "
        f"hold {say_bytes(place.size)}: the kubelet evicts the pod during the download.",
        evidence=(place.evidence, evidence),
        fixes=(
            fixes.set_spec(
                pod, f"/volumes/{index}/emptyDir/sizeLimit", size, f"Raise the sizeLimit of {place.volume} to {size}"
            ),
        ),
        pods=(pod.name,) if pod.exists else (),
    )
