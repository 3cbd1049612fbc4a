"""Model files that are larger than the sizeLimit of the emptyDir that they are downloaded to."""

import re
from collections.abc import Iterator
from datetime import datetime
from functools import partial

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Fix,
    Pod,
    Sizing,
    check,
    expression,
    fixes,
    k8s,
    parse_time,
    pod_evidence,
    say_bytes,
    setting_evidence,
    units,
)
from llmdoctor_checks.start._library import pulled
from llmdoctor_checks.start._storage import Store, cache_path, hub_model, store

#: How the kubelet says it of the pod that it evicts (eviction/helpers.go).
_OVER = r'Usage of EmptyDir volume "([^"]{1,100})" exceeds the limit "([^"]{1,40})"'
#: The volume that ModelMesh adds for models, and how it calls its pods (modelmesh-serving, controllers/modelmesh).
_MODELS = "models-dir"
_RUNTIME = expression(r"modelmesh-serving-(?P<runtime>[a-z0-9.-]{1,200})-[a-z0-9]{6,10}-[a-z0-9]{5}")
#: A controller makes the next pod at once; until its machine is there, or the evicted one has ended, some time passes.
_IN_ITS_PLACE_SECONDS = 900


@check("emptydir-limit-exceeded", since="0.1")
def emptydir_limit_exceeded(pod: Pod, engine: Engine, sizing: Sizing, cluster: Cluster) -> Iterator[Finding]:
    """An emptyDir volume is over its size limit.

    The kubelet measures disk-backed emptyDir volumes about every minute and evicts a pod whose volume is larger than
    its `sizeLimit`. The files of a model are downloaded into such a volume, and the limit was set for a smaller one. The
    new pod downloads again and is evicted again: of one that is not ready yet it is said where the pod before it was evicted
    for a volume which this one has as well, with the same limit.

    In a manifest the least size of the weight files, known from the model's shape, is compared with the limit; for Ollama that
    of the models that a script of the pod, or a Job beside it, has it pull.

    ## Fix

    Raise `sizeLimit` to the size of the model plus what is downloaded besides it, or keep the model on a PVC. Hook
    failures and exit codes of the evicted pod are by-products.

    ## References

    - https://kubernetes.io/docs/concepts/storage/volumes/#emptydir
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#local-ephemeral-storage
    """
    if (now := _evicted_of_modelmesh(pod)) is not None:
        yield now
        return
    if (before := _evicted_before(pod, cluster)) is not None:
        yield before
        return
    if engine.name == "ollama":
        if not pod.exists and (found := pulled(pod, engine, cluster)):
            what = f"Ollama is told to pull {', '.join(found.names)},"
            yield from _exceeded(pod, what, found.needed, found.place, found.evidence)
        return
    model, path, needed = engine.explicit("model"), cache_path(engine), sizing.file_bytes
    if pod.ready or pod.log_only or model is None or not hub_model(engine) or not path or needed is None:
        return
    if place := store(engine.container, path):
        what = f"The weight files of {model.value} take"
        yield from _exceeded(pod, what, needed, place, setting_evidence(engine.container, model))


def _modelmesh_fix(pod: k8s.Pod, limit: str) -> Fix | None:
    """What raises the limit of ModelMesh's own volume, which its controller computes: half as much again as the memory limits."""
    if not any(volume.name == _MODELS and volume.empty_dir for volume in pod.spec.volumes) or not any(
        container.name == "mm" for container in pod.spec.containers
    ):
        return None
    size = units(limit)
    named = _RUNTIME.fullmatch(pod.metadata.name)
    runtime = named["runtime"] if named else "RUNTIME"
    now = f", {say_bytes(size * 2 / 3)} in all now" if size else ""
    return fixes.advice(
        f"Raise the memory limits of the containers of ServingRuntime {runtime}{now}: ModelMesh makes {_MODELS} half as large again as all "
        "of them together, and writes over a sizeLimit that is set in its Deployment; for files of N bytes they have to be N/1.5 or more",
        f"kubectl -n {pod.metadata.namespace} edit servingruntimes {runtime}",
    )


def _evicted_of_modelmesh(pod: Pod) -> Finding | None:
    """A pod of ModelMesh that was evicted for the volume with its models."""
    said = re.search(_OVER, pod.obj.status.message) if pod.obj.status.reason == "Evicted" else None
    fix = _modelmesh_fix(pod.obj, said[2]) if said and said[1] == _MODELS else None
    if said is None or fix is None:
        return None
    return Finding(
        confidence="certain",
        summary=f"The emptyDir volume {said[1]}, which ModelMesh makes for all models of the pod, has grown over its limit of {said[2]}, "
        "and the pod was evicted.",
        evidence=(pod_evidence(pod, "status.message", pod.obj.status.message.strip()),),
        explains=("disk-full", "crash-loop", "not-ready", "pod-failed", "rollout-stuck"),
        fix=fix,
        order=-2.0,  # before the finding that has the kubelet's words alone
    )


def _evicted_before(pod: Pod, cluster: Cluster) -> Finding | None:
    """A pod which was evicted for this just before another one took its place, with the same volume; it starts, and none serves."""
    owner = next((ref.uid or ref.name for ref in pod.obj.metadata.owner_references if ref.controller), "")
    made = parse_time(pod.obj.metadata.creation_timestamp)
    if not owner or made is None or pod.ready or pod.log_only:
        return None
    if any(trouble.kind not in ("not-ready", "creating") for trouble in pod.troubles) or not any(
        c.running for c in pod.containers
    ):
        return None  # it has ended, or does not run, for another reason
    limits = {volume.name: volume.empty_dir.size_limit for volume in pod.spec.volumes if volume.empty_dir}
    before = cluster.once(f"evicted for an emptyDir {pod.namespace}", partial(_evicted, cluster, pod.namespace))
    for other in before.get(owner, ()):
        said = re.search(_OVER, other.status.message)
        if said is None or units(limits.get(said[1])) is None or units(limits[said[1]]) != units(said[2]):
            continue
        if not _follows(made, other):
            continue
        return Finding(
            summary=f"{other.metadata.name}, in whose place {pod.name} starts, was evicted: its volume {said[1]} had grown over "
            f"{said[2]}, and {pod.name} has the same.",
            evidence=(
                Evidence(
                    source="pod", ref=f"Pod/{other.metadata.name} status.message", text=other.status.message.strip()
                ),
                pod_evidence(pod, f"volumes[{said[1]}].emptyDir", f"sizeLimit: {limits[said[1]]}"),
            ),
            explains=("disk-full", "not-ready", "pod-failed", "rollout-stuck"),
            fix=(said[1] == _MODELS and _modelmesh_fix(other, said[2]))
            or fixes.advice(
                f"Raise sizeLimit of the volume {said[1]} above what the model needs, in {fixes.edited(pod)}, or use a PVC instead"
            ),
        )
    return None


def _evicted(cluster: Cluster, namespace: str) -> dict[str, list[k8s.Pod]]:
    """By their controller the pods that were evicted for an emptyDir, where none of its pods is ready: with one the limit suffices."""
    found, serving = dict[str, list[k8s.Pod]](), set[str]()
    for pod in cluster.all(k8s.Pod, "Pod", namespace):
        owner = next((ref.uid or ref.name for ref in pod.metadata.owner_references if ref.controller), "")
        if pod.status.reason == "Evicted" and re.search(_OVER, pod.status.message):
            found.setdefault(owner, []).append(pod)
        elif pod.status.ready:
            serving.add(owner)
    return {owner: pods for owner, pods in found.items() if owner not in serving}


def _follows(made: datetime, other: k8s.Pod) -> bool:
    """Whether a pod was made for one that was evicted: after it, and where its status says when that was, right then."""
    began = parse_time(other.metadata.creation_timestamp)
    times = [at for one in other.status.conditions if (at := parse_time(one.last_transition_time)) is not None]
    apart = (made - max(times)).total_seconds() if times else 0
    return (began is None or began < made) and abs(apart) < _IN_ITS_PLACE_SECONDS


def _exceeded(pod: Pod, what: str, needed: int, place: Store, evidence: Evidence) -> Iterator[Finding]:
    """What is downloaded is larger than the volume may be."""
    if place.kind != "emptyDir" or place.size is None or place.evidence is None or place.size >= needed:
        return
    size = fixes.larger(None, needed)
    index = next(i for i, volume in enumerate(pod.spec.volumes) if volume.name == place.volume)
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"{what} {say_bytes(needed)} or more, and volume {place.volume} at {place.path} may "
        f"hold {say_bytes(place.size)}: the kubelet evicts the pod during the download.",
        evidence=(place.evidence, evidence),
        fix=fixes.set_spec(
            pod, f"/volumes/{index}/emptyDir/sizeLimit", size, f"Raise the sizeLimit of {place.volume} to {size}"
        ),
    )
