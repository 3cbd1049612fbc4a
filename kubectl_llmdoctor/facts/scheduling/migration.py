"""Volumes from before CSI, as the driver of their cloud has them by now (csi-translation-lib)."""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.scheduling.objects import PersistentVolume, VolumeAffinity, VolumeSpec

#: Labels of zones and regions, and the newer name of the old ones.
ZONES = {
    "failure-domain.beta.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region": "topology.kubernetes.io/region",
    "topology.kubernetes.io/zone": "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region": "topology.kubernetes.io/region",
}

_ZONE_LABELS = ("topology.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/zone")


class InTree(msgspec.Struct, frozen=True):
    """A kind of volume from before CSI, which the driver of its cloud serves by now (csi-translation-lib)."""

    field: str
    #: the provisioner's name, and in the annotation of a CSINode
    plugin: str
    driver: str
    #: the driver's own label for zones
    zone: str
    #: which value of the volume tells it from others
    handle: str


IN_TREE = (
    InTree(
        "aws_elastic_block_store",
        "kubernetes.io/aws-ebs",
        "ebs.csi.aws.com",
        "topology.ebs.csi.aws.com/zone",
        "volumeID",
    ),
    InTree("gce_persistent_disk", "kubernetes.io/gce-pd", "pd.csi.storage.gke.io", "topology.gke.io/zone", "pdName"),
    InTree("azure_disk", "kubernetes.io/azure-disk", "disk.csi.azure.com", "", "diskURI"),
    InTree(
        "cinder",
        "kubernetes.io/cinder",
        "cinder.csi.openstack.org",
        "topology.cinder.csi.openstack.org/zone",
        "volumeID",
    ),
)
MIGRATED = "storage.alpha.kubernetes.io/migrated-plugins"


def in_tree(source: k8s.Volume | VolumeSpec) -> tuple[InTree, str] | None:
    """Of which such kind a volume is, and its handle."""
    for kind in IN_TREE:
        found = getattr(source, kind.field)
        if found:
            return kind, str(found.get(kind.handle) or "").rpartition("/")[2]
    return None


def translated(volume: PersistentVolume, key: str) -> PersistentVolume:
    """A volume of a former kind as its driver has it: its zone is one by the driver's label."""
    affinity = volume.spec.node_affinity
    terms = affinity.required.node_selector_terms if affinity and affinity.required else ()
    zones = {r.key for term in terms for r in term.match_expressions} & ZONES.keys()
    old = next((zone for zone in _ZONE_LABELS if zone in zones), "")
    if old:
        terms = tuple(
            replace(
                t, match_expressions=tuple(replace(r, key=key if r.key == old else r.key) for r in t.match_expressions)
            )
            for t in terms
        )
    else:
        label = next((volume.metadata.labels[z] for z in _ZONE_LABELS if z in volume.metadata.labels), None)
        if label is None:
            return volume
        values = tuple(sorted({part.strip() for part in str(label).split("__")} - {""}))
        row = k8s.Requirement(key=key, operator="In", values=values)
        terms = tuple(
            replace(t, match_expressions=(*t.match_expressions, row)) for t in terms or (k8s.NodeSelectorTerm(),)
        )
    required = k8s.NodeSelector(node_selector_terms=terms)
    return replace(volume, spec=replace(volume.spec, node_affinity=VolumeAffinity(required=required)))
