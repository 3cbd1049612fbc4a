"""The copy of a model on other nodes that KServe keeps, where the one that it mounts is on nodes that the pod may not use."""

import shlex

from kubectl_llmdoctor.api import Fix, Item, Pod, dig, fixes, k8s, mismatches, rows, top_of, words
from llmdoctor_checks.scheduling._claims import VolumeClaim

#: By which a service says whose copy it takes; without it KServe takes that of the first node group of the cache
#: (pkg/apis/serving: defaulting of InferenceService and LLMInferenceService). A claim is called after the cache and its group.
_GROUP, _CACHE = "serving.kserve.io/nodegroup", "internal.serving.kserve.io/localmodel"


def other_copy(pod: Pod, claim: VolumeClaim, able: list[k8s.Node]) -> Fix | None:
    """To take the copy of another node group, whose volume is on a node that the pod may use."""
    cluster, caches = pod.cluster, _caches(pod)
    cache = _of(claim.name, caches)
    labelled = {node.metadata.name: node.metadata.label_texts for node in able}
    fitting = {name: labels for name, labels in labelled.items() if not mismatches(pod.spec, name, labels)}
    for other in cluster.items("PersistentVolumeClaim", pod.namespace) if cache else ():
        volume = cluster.item("PersistentVolume", "", str(dig(other.raw, "spec.volumeName") or ""))
        group = other.name.removeprefix(f"{cache}-")
        if other.name == claim.name or _made_for(other, caches) != cache:
            continue
        if volume is None or dig(other.raw, "status.phase") != "Bound":
            continue
        if node := next((name for name, labels in fitting.items() if _takes(volume, labels)), ""):
            return _told(pod, f"Take the model from {other.name}, the copy of cache {cache} for {node}", group)
    return None


def _caches(pod: Pod) -> list[str]:
    """The names of the caches of models that are known."""
    kinds = (("LocalModelCache", None), ("LocalModelNamespaceCache", pod.namespace))
    names = [item.name for kind, namespace in kinds for item in pod.cluster.items(kind, namespace)]
    top = top_of(pod.item, pod.cluster)
    return names + [labels[_CACHE] for labels in (pod.labels, top.item.labels if top else {}) if labels.get(_CACHE)]


def _of(claim: str, caches: list[str]) -> str:
    """The cache that a claim is of; empty for one of something else."""
    return max((name for name in caches if claim.startswith(f"{name}-")), key=len, default="")


def _made_for(claim: Item, caches: list[str]) -> str:
    """The same by the claim's owner, which is the cache that KServe makes it for: not all caches need be known."""
    owners = rows(claim.raw, "metadata.ownerReferences")
    own = (str(owner.get("name")) for owner in owners if str(owner.get("kind")).startswith("LocalModel"))
    return next(own, "") or _of(claim.name, caches)


def _takes(volume: Item, labels: dict[str, str]) -> bool:
    """Whether a volume can be used on a node with these labels."""
    terms = [
        rows(term, "matchExpressions") for term in rows(volume.raw, "spec.nodeAffinity.required.nodeSelectorTerms")
    ]
    met = (
        all(p.get("operator") == "In" and labels.get(str(p.get("key"))) in words(p, "values") for p in t)
        for t in terms
        if t
    )
    return any(met)


def _told(pod: Pod, summary: str, group: str) -> Fix:
    where = fixes.edited(pod)
    kind, _, name = where.partition("/")
    command = f"kubectl -n {pod.namespace} annotate {kind.lower()} {shlex.quote(name)} --overwrite {_GROUP}={shlex.quote(group)}"
    return fixes.advice(
        f"{summary}: annotate {where} with {_GROUP}: {group}",
        *((command,) if kind in ("InferenceService", "LLMInferenceService") else ()),
    )
