"""Volume claims and resource claims of a pod, read as they are: these kinds are not decoded."""

from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import Cluster, Item, Pod, dig, k8s, rows, table, words

#: Access modes that keep a claim to one node.
_ONE_AT_A_TIME = frozenset({"ReadWriteOnce", "ReadWriteOncePod"})


class VolumeClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A PersistentVolumeClaim that a pod uses."""

    name: str
    #: None when it was not read or does not exist
    item: Item | None
    #: False when it is known not to exist
    exists: bool | None

    def get(self, path: str) -> Any:
        """A value of it by its dotted path."""
        return dig(self.item.raw, path) if self.item else None

    @property
    def phase(self) -> str:
        """`Pending`, `Bound`, `Lost`; empty when it is not known."""
        return str(self.get("status.phase") or "")

    @property
    def storage_class(self) -> str | None:
        """The storage class it names; None when it names none (the default one is meant)."""
        found = self.get("spec.storageClassName")
        return found if isinstance(found, str) else None

    @property
    def volume(self) -> str:
        """The volume it is bound to, or is to be."""
        return str(self.get("spec.volumeName") or "")

    @property
    def modes(self) -> list[str]:
        """Its access modes."""
        return words(self.item.raw, "spec.accessModes") if self.item else []

    @property
    def on_one_node(self) -> bool:
        """Whether it is mounted on one node at a time, by its access modes."""
        return bool(self.modes) and _ONE_AT_A_TIME.issuperset(self.modes)


def volume_claims(pod: Pod) -> Iterator[VolumeClaim]:
    """The claims of a pod's volumes; those of ephemeral volumes have the pod's and the volume's name."""
    cluster = pod.cluster
    for volume in pod.spec.volumes:
        claim = volume.persistent_volume_claim
        name = claim.claim_name if claim else f"{pod.name}-{volume.name}" if volume.ephemeral else ""
        if name:
            yield VolumeClaim(
                name=name,
                item=cluster.item("PersistentVolumeClaim", pod.namespace, name),
                exists=cluster.exists("PersistentVolumeClaim", pod.namespace, name),
            )


def users_of(cluster: Cluster, pod: Pod, claim: str) -> list[k8s.Pod]:
    """Other pods with a node that use the same claim."""
    return [
        other
        for other in cluster.all(k8s.Pod, "Pod", pod.namespace)
        if other.metadata.name != pod.name
        and other.spec.node_name
        and other.status.phase not in ("Succeeded", "Failed")
        and any(v.persistent_volume_claim and v.persistent_volume_claim.claim_name == claim for v in other.spec.volumes)
    ]


#: Labels of a volume that bind it to a place, most often of one that was made before node affinity (the plugin VolumeZone).
_ZONES = (
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/region",
)


def volume_where(volume: Item) -> str:
    """Where a PersistentVolume can be used: its required node affinity in words, else its labels of a zone; empty when anywhere."""
    terms = rows(volume.raw, "spec.nodeAffinity.required.nodeSelectorTerms")
    parts = [part for term in terms for part in rows(term, "matchExpressions")]
    values = [", ".join(value or '""' for value in words(part, "values")) for part in parts]
    labels = {} if parts else table(dig(volume.raw, "metadata.labels"))
    zones = [f"{key} In [{', '.join(str(labels[key]).split('__'))}]" for key in _ZONES if labels.get(key)]
    return "; ".join(zones or [f"{p.get('key')} {p.get('operator')} [{v}]" for p, v in zip(parts, values, strict=True)])


def nowhere(volume: Item) -> bool:
    """Whether a PersistentVolume names an empty value as its node: its provisioner did not know the node, and none has that name."""
    terms = rows(volume.raw, "spec.nodeAffinity.required.nodeSelectorTerms")
    return bool(terms) and all(
        any(
            str(p.get("key")).endswith(_ONE_NODE) and p.get("operator") == "In" and not any(words(p, "values"))
            for p in rows(term, "matchExpressions")
        )
        for term in terms
    )


#: Ends of the labels by which volumes on a node's own disk name that node: Kubernetes, TopoLVM, OpenEBS, Longhorn's local ones.
_ONE_NODE = ("/hostname", "/node", "/nodename")


def on_one_node(pod: Pod) -> bool:
    """Whether a volume of the pod lies on the disk of one node, and can be used nowhere else."""
    for claim in volume_claims(pod):
        volume = pod.cluster.item("PersistentVolume", "", claim.volume) if claim.volume else None
        terms = rows(volume.raw, "spec.nodeAffinity.required.nodeSelectorTerms") if volume else []
        if any(str(p.get("key")).endswith(_ONE_NODE) for term in terms for p in rows(term, "matchExpressions")):
            return True
    return False


class DeviceClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A ResourceClaim that a pod uses, by the name the pod gives it."""

    name: str
    #: the claim's own name; empty while a template has not made it
    claim: str
    template: str
    item: Item | None

    @property
    def allocated(self) -> bool:
        """Whether devices were chosen for it."""
        return bool(self.item and dig(self.item.raw, "status.allocation"))

    def requests(self, cluster: Cluster, namespace: str) -> Iterator[dict[str, Any]]:
        """Its device requests, from the claim or from its template; `exactly` and `firstAvailable` are unpacked."""
        source = rows(self.item.raw, "spec.devices.requests") if self.item else []
        if not source and self.template:
            template = cluster.item("ResourceClaimTemplate", namespace, self.template)
            source = rows(template.raw, "spec.spec.devices.requests") if template else []
        for request in source:
            exactly = request.get("exactly")
            if options := rows(request, "firstAvailable"):
                yield from ({**one, "name": f"{request.get('name')}/{one.get('name')}"} for one in options)
                continue
            yield request | exactly if isinstance(exactly, dict) else request


def device_claims(pod: Pod) -> Iterator[DeviceClaim]:
    """The ResourceClaims of a pod."""
    cluster, names = pod.cluster, {}
    for status in rows(pod.item.raw, "status.resourceClaimStatuses") if pod.item else ():
        names[status.get("name")] = status.get("resourceClaimName")
    for wanted in pod.spec.resource_claims:
        nested = wanted.get("source")
        source = nested if isinstance(nested, dict) else wanted  # up to 1.30
        name, template = str(wanted.get("name") or ""), str(source.get("resourceClaimTemplateName") or "")
        claim = str(source.get("resourceClaimName") or names.get(name) or "")
        item = cluster.item("ResourceClaim", pod.namespace, claim) if claim else None
        yield DeviceClaim(name=name, claim=claim, template=template, item=item)
