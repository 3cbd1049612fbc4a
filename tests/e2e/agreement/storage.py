"""Random storage: classes, volumes and claims in every state, limits of drivers, disks that admit one pod."""

from __future__ import annotations

from .draw import Draw
from .model import Case, Object, Part

BLOCK, FILES, LVM = "block.csi.example.com", "files.csi.example.com", "lvm.csi.example.com"
_SPACES = ("serving", "research", "web")
_ZONE = "topology.kubernetes.io/zone"


class Store:
    """The storage of one cluster."""

    def __init__(self, draw: Draw, nodes: list[Object]) -> None:
        self.draw = draw
        self.nodes = nodes
        self.parts: list[Part] = []
        #: names of claims by namespace, and what is usable by pods that run
        self.claims: dict[str, list[str]] = {space: ["missing"] for space in _SPACES}
        self.bound: dict[str, list[tuple[str, str]]] = {space: [] for space in _SPACES}
        self._used: set[str] = set()
        self._count = 0
        self._classes()
        self._drivers()
        self._free_volumes()
        for space in _SPACES:
            for _ in range(draw.between(3, 9)):
                self._claim(space)

    def _classes(self) -> None:
        def add(name: str, provisioner: str, *, wait: bool, **more: object) -> None:
            mode = "WaitForFirstConsumer" if wait else "Immediate"
            item = {"metadata": {"name": name}, "provisioner": provisioner, "volumeBindingMode": mode, **more}
            self.parts.append(Part({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", **item}))

        add("local", "kubernetes.io/no-provisioner", wait=True)
        add("block", BLOCK, wait=True)
        add("files", FILES, wait=False)
        add("lvm", LVM, wait=True)
        zones = self.draw.some(("zone-a", "zone-b"), 1, 2)
        terms = [{"matchLabelExpressions": [{"key": _ZONE, "values": zones}]}]
        add("block-zonal", BLOCK, wait=True, allowedTopologies=terms)

    def _drivers(self) -> None:
        draw = self.draw
        api = "storage.k8s.io/v1"
        driver: Object = {"apiVersion": api, "kind": "CSIDriver", "metadata": {"name": LVM}}
        self.parts.append(Part(driver | {"spec": {"storageCapacity": draw.chance(0.8), "attachRequired": False}}))
        limited = draw.chance(0.6)
        for node in self.nodes:
            name = node["metadata"]["name"]
            if draw.chance(0.85):
                drivers: list[Object] = []
                for kind in (BLOCK, LVM, "ebs.csi.aws.com"):
                    row: Object = {"name": kind, "nodeID": name, "topologyKeys": [_ZONE]}
                    if limited and draw.chance(0.8):
                        row["allocatable"] = {"count": draw.between(0, 3)}
                    if draw.chance(0.85):
                        drivers.append(row)
                spec = {"drivers": drivers}
                metadata: Object = {"name": name}
                if draw.chance(0.5):
                    plugins = "kubernetes.io/aws-ebs,kubernetes.io/gce-pd"
                    metadata["annotations"] = {"storage.alpha.kubernetes.io/migrated-plugins": plugins}
                self.parts.append(Part({"apiVersion": api, "kind": "CSINode", "metadata": metadata, "spec": spec}))
            if draw.chance(0.5):
                selector = {"matchLabels": {"kubernetes.io/hostname": name}} if draw.chance(0.9) else {}
                item: Object = {
                    "apiVersion": api,
                    "kind": "CSIStorageCapacity",
                    "metadata": {"name": f"lvm-{name}", "namespace": "kube-system"},
                    "storageClassName": "lvm",
                    "nodeTopology": selector,
                    "capacity": draw.one(["0", "5Gi", "50Gi", "1Ti"]),
                }
                if draw.chance(0.2):
                    item["maximumVolumeSize"] = draw.one(["5Gi", "20Gi"])
                self.parts.append(Part(item))

    def _next(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}-{self._count}"

    def _volume(
        self,
        name: str,
        storage_class: str,
        *,
        size: str = "50Gi",
        affinity: Object | None = None,
        claim: tuple[str, str] | None = None,
        source: Object | None = None,
        modes: list[str] | None = None,
        block: bool = False,
        **more: object,
    ) -> None:
        spec: Object = {
            "capacity": {"storage": size},
            "accessModes": modes or ["ReadWriteOnce"],
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": storage_class,
            **(source or {"csi": {"driver": BLOCK, "volumeHandle": f"vol-{name}"}}),
        }
        if block:
            spec["volumeMode"] = "Block"
        if affinity:
            spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [affinity]}}
        if claim:
            spec["claimRef"] = {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "namespace": claim[0],
                "name": claim[1],
            }
        metadata: Object = {"name": name, **more}
        phase = "Bound" if claim else "Available"
        self.parts.append(
            Part({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": metadata, "spec": spec}, {"phase": phase})
        )

    def _at(self, node: Object) -> Object:
        """A term of node affinity as local volumes have it."""
        metadata = node["metadata"]
        host = metadata["labels"].get("kubernetes.io/hostname", metadata["name"])
        row = {"key": "kubernetes.io/hostname", "operator": "In", "values": [host]}
        return {"matchExpressions": [row]}

    def _free_volumes(self) -> None:
        draw = self.draw
        for node in self.nodes:
            for _ in range(draw.one([0, 0, 1, 1, 2])):
                more: Object = {"labels": {"speed": draw.one(["fast", "slow"])}}
                self._volume(
                    self._next("local"),
                    "local",
                    size=draw.one(["10Gi", "50Gi", "100Gi"]),
                    affinity=self._at(node),
                    source={"local": {"path": "/mnt/disk"}},
                    modes=draw.one([["ReadWriteOnce"], ["ReadWriteOnce", "ReadOnlyMany"], ["ReadOnlyMany"]]),
                    block=draw.chance(0.1),
                    **more,
                )
                if draw.chance(0.1):  # meant for one claim, by name
                    claim = {"namespace": draw.one(_SPACES), "name": f"data-{self._count + draw.between(1, 20)}"}
                    self.parts[-1].object["spec"]["claimRef"] = claim
        for _ in range(draw.one([0, 1])):  # made ahead for a class whose driver could make one as well
            row = {"key": _ZONE, "operator": "In", "values": draw.some(("zone-a", "zone-b"), 1, 2)}
            self._volume(self._next("ahead"), "block", affinity={"matchExpressions": [row]})
        if draw.chance(0.3):  # one that is not yet, and one that is no longer to be had
            self._volume(
                self._next("pending"),
                "local",
                affinity=self._at(draw.one(self.nodes)),
                source={"local": {"path": "/d"}},
            )
            self.parts[-1].status = {"phase": draw.one(["Released", "Failed", "Pending"])}

    def _add_claim(
        self,
        space: str,
        name: str,
        storage_class: str | None,
        *,
        volume: str = "",
        mode: str = "ReadWriteOnce",
        size: str = "10Gi",
        deleted: bool = False,
        completed: bool = True,
        **more: object,
    ) -> None:
        spec: Object = {"accessModes": [mode], "resources": {"requests": {"storage": size}}, **more}
        if storage_class is not None:
            spec["storageClassName"] = storage_class
        metadata: Object = {"name": name, "namespace": space}
        if volume:
            spec["volumeName"] = volume
            if completed:
                metadata["annotations"] = {"pv.kubernetes.io/bind-completed": "yes"}
        phase = "Bound" if volume and completed else "Pending"
        item = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec}
        # The admission plugin gives a claim the finalizer that keeps it while it is in use.
        self.parts.append(Part(item, {"phase": phase}, 0 if deleted else None))
        self.claims[space].append(name)

    def _zone_labels(self, zone: str) -> dict[str, str]:
        """What provisioners before CSI wrote on a volume, if anything."""
        draw = self.draw
        labels = {_ZONE: draw.one([zone, "zone-a__zone-b"])} if draw.chance(0.5) else {}
        if labels and draw.chance(0.3):
            labels["topology.kubernetes.io/region"] = draw.one(["region-1", "region-2"])
        if labels and draw.chance(0.2):
            labels = {"failure-domain.beta.kubernetes.io/zone": zone}
        return labels

    def _claim(self, space: str) -> None:
        draw = self.draw
        name = self._next("data")
        node = draw.one(self.nodes)
        zone = node["metadata"]["labels"].get(_ZONE, "zone-a")
        zonal = {"matchExpressions": [{"key": _ZONE, "operator": "In", "values": [zone]}]}
        volume = f"pv-{name}"
        match draw.between(1, 22):
            case 21 | 22:  # in the words of the time before CSI
                source: Object = draw.one(
                    [
                        {"awsElasticBlockStore": {"volumeID": f"vol-{name}"}},
                        {"gcePersistentDisk": {"pdName": f"disk-{name}"}},
                    ]
                )
                labels = {_ZONE: zone} if draw.chance(0.6) else {}
                self._volume(volume, "block", claim=(space, name), source=source, labels=labels)
                self._add_claim(space, name, "block", volume=volume)
                self.bound[space].append((name, zone))
            case 1 | 2 | 3:
                labels = self._zone_labels(zone)
                self._volume(
                    volume, "block", affinity=zonal if draw.chance(0.7) else None, claim=(space, name), labels=labels
                )
                self._add_claim(space, name, "block", volume=volume)
                self.bound[space].append((name, zone))
            case 4 | 5:
                self._volume(
                    volume, "local", affinity=self._at(node), claim=(space, name), source={"local": {"path": "/d"}}
                )
                self._add_claim(space, name, "local", volume=volume)
            case 6 | 7:
                self._volume(volume, "files", claim=(space, name), source={"nfs": {"server": "10.0.0.9", "path": "/d"}})
                self._add_claim(space, name, "files", volume=volume, mode="ReadWriteMany")
                self.bound[space].append((name, ""))
            case 8:
                self._add_claim(space, name, "block", volume="pv-gone")
            case 9:
                self._add_claim(space, name, draw.one(["files", "files", "no-such-class", ""]))
            case 10 | 11 | 12:
                more: Object = {}
                if draw.chance(0.1):
                    more["volumeMode"] = "Block"
                if draw.chance(0.3):
                    more["selector"] = {"matchLabels": {"speed": "fast"}}
                self._add_claim(
                    space,
                    name,
                    "local",
                    size=draw.one(["10Gi", "60Gi", "200Gi"]),
                    mode=draw.one(["ReadWriteOnce", "ReadWriteOnce", "ReadOnlyMany"]),
                    **more,
                )
            case 13 | 14:
                self._add_claim(space, name, draw.one(["block", "block-zonal"]))
            case 15 | 16:
                self._add_claim(space, name, "lvm", size=draw.one(["1Gi", "10Gi", "80Gi"]))
            case 17:
                self._add_claim(space, name, "block", deleted=True)
            case 18 | 19:
                self._volume(volume, "block", claim=(space, name))
                self._add_claim(space, name, "block", volume=volume, mode="ReadWriteOncePod")
                self.bound[space].append((name, ""))
            case _:
                self._volume(volume, "block", claim=(space, name))
                self._add_claim(space, name, "block", volume=volume, completed=False)

    def use(self, pod: Object, node: Object) -> None:
        """Lets a pod that runs on the node mount something."""
        found = self.bound.get(pod["metadata"]["namespace"])
        if found:
            name, _ = self.draw.one(found)
            _mount(pod, "data", {"persistentVolumeClaim": {"claimName": name}})

    def mount(self, case: Case) -> None:
        """Lets the pod that is judged mount something."""
        draw, pod = self.draw, case.pod
        space = pod["metadata"]["namespace"]
        for number in range(draw.one([1, 1, 2])):
            if draw.chance(0.12):
                self._ephemeral(case, f"scratch{number}")
                continue
            name = draw.one(self.claims[space][1:] or ["missing"]) if draw.chance(0.96) else "missing"
            _mount(pod, f"v{number}", {"persistentVolumeClaim": {"claimName": name}})

    def _ephemeral(self, case: Case, name: str) -> None:
        draw, pod = self.draw, case.pod
        spec = {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": draw.one(["local", "block", "lvm", "files"]),
            "resources": {"requests": {"storage": "5Gi"}},
        }
        _mount(pod, name, {"ephemeral": {"volumeClaimTemplate": {"spec": spec}}})
        if draw.chance(0.8):
            metadata: Object = {"name": f"{pod['metadata']['name']}-{name}", "namespace": pod["metadata"]["namespace"]}
            if draw.chance(0.9):
                metadata["ownerReferences"] = [owner(pod)]
            case.made.append(
                Part({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
            )

    def attachments(self) -> list[Part]:
        """Volumes that are still attached where no pod uses them, and where one does."""
        draw, found = self.draw, []
        volumes = [p.object["metadata"]["name"] for p in self.parts if p.object["kind"] == "PersistentVolume"]
        for number in range(draw.between(0, 4) if volumes else 0):
            item = {
                "apiVersion": "storage.k8s.io/v1",
                "kind": "VolumeAttachment",
                "metadata": {"name": f"attached-{number}"},
                "spec": {
                    "attacher": BLOCK,
                    "nodeName": draw.one(self.nodes)["metadata"]["name"],
                    "source": {"persistentVolumeName": draw.one(volumes)},
                },
            }
            found.append(Part(item))
        return found


def owner(pod: Object) -> Object:
    """A reference to the pod as its controller; who creates the pod fills in the uid."""
    name = pod["metadata"]["name"]
    return {"apiVersion": "v1", "kind": "Pod", "name": name, "uid": "", "controller": True, "blockOwnerDeletion": True}


def _mount(pod: Object, name: str, source: Object) -> None:
    pod["spec"].setdefault("volumes", []).append({"name": name, **source})


def disk(draw: Draw, pod: Object) -> None:
    """Gives the pod a disk that is named in its own spec."""
    only = draw.chance(0.4)
    source = draw.one(
        [
            {"gcePersistentDisk": {"pdName": draw.one(["disk-1", "disk-2"]), "readOnly": only}},
            {"awsElasticBlockStore": {"volumeID": draw.one(["vol-1", "vol-2"]), "readOnly": only}},
            {
                "iscsi": {
                    "targetPortal": "10.0.0.8",
                    "iqn": draw.one(["iqn.2026-01.com.example:a", "iqn.2026-01.com.example:b"]),
                    "lun": 0,
                    "readOnly": only,
                }
            },
            {
                "rbd": {
                    "monitors": draw.some(["10.0.0.5", "10.0.0.6", "10.0.0.7"], 1, 2),
                    "image": draw.one(["a", "b"]),
                    "pool": "rbd",
                    "readOnly": only,
                }
            },
        ]
    )
    _mount(pod, "disk", source)
