"""VolumeRestrictions, NodeVolumeLimits, VolumeBinding and VolumeZone, case by case."""

from __future__ import annotations

from typing import Any

import pytest

from tests.scheduling_scene import LISTS, ZONE, Json, node, obj, pod, said, texts, waiting

ELSEWHERE = "node(s) didn't match PersistentVolume's node affinity"
NONE_TO_BIND = "node(s) didn't find available persistent volumes to bind"
UNBOUND = "pod has unbound immediate PersistentVolumeClaims"
FULL = "node(s) exceed max volume count"
OTHER_ZONE = "node(s) had no available volume zone"
IN_USE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)
NODES = node("a", zone="a"), node("b", zone="b")


def claim(name: str = "models", *, phase: str = "", volume: str = "", kind: str = "", **more: Any) -> Json:
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": more.pop("size", "100Gi")}}}
    spec |= ({"volumeName": volume} if volume else {}) | ({"storageClassName": kind} if kind else {})
    meta = more.pop("meta", {})
    status = {"phase": phase or ("Bound" if volume else "Pending")}
    return obj("PersistentVolumeClaim", name, ns="serving", meta=meta, spec=spec | more, status=status)


def volume(name: str, *, zone: str = "", kind: str = "", size: str = "100Gi", owner: str = "", **more: Any) -> Json:
    spec: Json = {"capacity": {"storage": size}, "accessModes": ["ReadWriteOnce"], "storageClassName": kind}
    if zone:
        row = {"key": ZONE, "operator": "In", "values": [zone]}
        spec["nodeAffinity"] = {"required": {"nodeSelectorTerms": [{"matchExpressions": [row]}]}}
    if owner:
        spec["claimRef"] = {"name": owner, "namespace": "serving"}
    labels, meta = more.pop("labels", {}), more.pop("meta", {})
    status = {"phase": "Bound" if owner else "Available"} | more.pop("status", {})
    return obj("PersistentVolume", name, labels=labels, meta=meta, spec=spec | more, status=status)


def storage(name: str, provisioner: str = "block.csi.example.com", *, wait: bool = True, **more: Any) -> Json:
    mode = "WaitForFirstConsumer" if wait else "Immediate"
    return obj("StorageClass", name, provisioner=provisioner, volumeBindingMode=mode, **more)


def using(*names: str, **spec: Any) -> Json:
    return pod("me", volumes=[{"name": n, "persistentVolumeClaim": {"claimName": n}} for n in names], **spec)


LOCAL = storage("local", "kubernetes.io/no-provisioner")
BLOCK = storage("block")
ZONAL = storage("zonal", allowedTopologies=[{"matchLabelExpressions": [{"key": ZONE, "values": ["b", "c"]}]}])
EPHEMERAL = pod("me", volumes=[{"name": "scratch", "ephemeral": {"volumeClaimTemplate": {}}}])
OWNED = {"ownerReferences": [{"kind": "Pod", "name": "me", "uid": "uid-me", "controller": True}]}
DELETED = {"deletionTimestamp": "2026-11-20T09:00:00Z"}


@pytest.mark.parametrize(
    ("one", "objects", "text", "detail"),
    [
        (using("models"), [], 'persistentvolumeclaim "models" not found', "claim models does not exist in serving"),
        (using("models"), [claim(volume="v", phase="Lost")],
         'persistentvolumeclaim "models" bound to non-existent persistentvolume "v"',
         "claim models has lost its volume v"),
        (using("models"), [claim(volume="v", meta=DELETED), volume("v")],
         'persistentvolumeclaim "models" is being deleted', "claim models is being deleted"),
        (using("models"), [claim(kind="fast"), storage("fast", wait=False)], UNBOUND,
         "claim models is not bound; storage class fast binds at once, before a node is chosen"),
        (using("models"), [claim(kind="gone")], UNBOUND, "claim models is not bound: there is no storage class gone"),
        (using("models"), [claim()], UNBOUND, "claim models is not bound, and names no storage class"),
        (using("models"), [claim(kind="block", volume="v", phase="Pending"), BLOCK, volume("v")], UNBOUND,
         "claim models is not bound yet to volume v"),
        (using("models"), [claim(volume="v")], 'persistentvolume "v" not found',
         "volume v of claim models does not exist"),
        (EPHEMERAL, [], 'waiting for ephemeral volume controller to create the persistentvolumeclaim "me-scratch"',
         "claim me-scratch of an ephemeral volume was not made yet"),
        (EPHEMERAL, [claim("me-scratch", volume="v"), volume("v")],
         "PVC serving/me-scratch was not created for pod serving/me (pod is not owner)",
         "claim me-scratch, which its ephemeral volume needs, belongs to something else"),
    ],
)  # fmt: skip
def test_what_refuses_a_pod_before_any_node_is_looked_at(
    one: Json, objects: list[Json], text: str, detail: str
) -> None:
    message = f"0/2 nodes are available: {text}. not found"
    one["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "message": message}]
    pending = waiting(one, *NODES, *objects)

    assert said(pending) == {"a": [(text, detail)], "b": [(text, detail)]}
    assert [r.text for r in pending.refused] == [text]
    assert pending.verdicts[0].reasons[0].everywhere
    assert pending.agrees is True


@pytest.mark.parametrize(
    ("one", "objects", "expected"),
    [
        (using("models"), [claim(volume="v"), volume("v", zone="a")], {"a": "fits", "b": ELSEWHERE}),
        (using("models"), [claim(volume="v"), volume("v")], {"a": "fits", "b": "fits"}),
        # the annotation of the volume controller says that it is done as well
        (using("models"),
         [claim(volume="v", phase="Pending", meta={"annotations": {"pv.kubernetes.io/bind-completed": "yes"}}),
          volume("v", zone="b")],
         {"a": ELSEWHERE, "b": "fits"}),
        # two claims of two zones
        (using("m1", "m2"), [claim("m1", volume="v1"), claim("m2", volume="v2"), volume("v1", zone="a"),
         volume("v2", zone="b")], {"a": ELSEWHERE, "b": ELSEWHERE}),
        # volumes that are there
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="local", zone="b")],
         {"a": NONE_TO_BIND, "b": "fits"}),
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="local", size="99Gi")], {"a": NONE_TO_BIND}),
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="local", owner="other")], {"a": NONE_TO_BIND}),
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="local", owner="models")], {"a": "fits"}),
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="local", status={"phase": "Released"})],
         {"a": NONE_TO_BIND}),
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="local", accessModes=["ReadOnlyMany"])],
         {"a": NONE_TO_BIND}),
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="local", volumeMode="Block")],
         {"a": NONE_TO_BIND}),
        (using("models"), [LOCAL, claim(kind="local", selector={"matchLabels": {"x": "y"}}),
         volume("v", kind="local", labels={"x": "z"})], {"a": NONE_TO_BIND}),
        (using("models"), [LOCAL, claim(kind="local"), volume("v", kind="other")], {"a": NONE_TO_BIND}),
        # each claim needs a volume of its own
        (using("m1", "m2"), [LOCAL, claim("m1", kind="local"), claim("m2", kind="local"), volume("v", kind="local")],
         {"a": NONE_TO_BIND}),
        (using("m1", "m2"), [LOCAL, claim("m1", kind="local", size="1Ti"), claim("m2", kind="local"),
         volume("v1", kind="local", size="1Ti"), volume("v2", kind="local")], {"a": "fits"}),
        # volumes that are made
        (using("models"), [BLOCK, claim(kind="block")], {"a": "fits", "b": "fits"}),
        (using("models"), [ZONAL, claim(kind="zonal")], {"a": NONE_TO_BIND, "b": "fits"}),
        (using("models"), [BLOCK, claim(kind="block", meta={"annotations": {
            "volume.kubernetes.io/selected-node": "b"}})], {"a": NONE_TO_BIND, "b": "fits"}),
        (EPHEMERAL, [claim("me-scratch", volume="v", meta=OWNED), volume("v", zone="a")], {"a": "fits", "b": ELSEWHERE}),
        (EPHEMERAL, [claim("me-scratch", volume="v", meta=OWNED)],
         {"a": "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"}),
        # both at once are said at once
        (using("m1", "m2"), [LOCAL, claim("m1", volume="v"), claim("m2", kind="local"), volume("v", zone="b")],
         {"a": f"{ELSEWHERE}, {NONE_TO_BIND}", "b": NONE_TO_BIND}),
    ],
)  # fmt: skip
def test_binding(one: Json, objects: list[Json], expected: dict[str, str]) -> None:
    found = texts(waiting(one, *NODES, *objects))

    assert {name: found[name] for name in expected} == expected


def test_binding_says_which_volume_and_where() -> None:
    bound = said(waiting(using("models"), *NODES, claim(volume="v"), volume("v", zone="a")))
    made = said(waiting(using("models"), *NODES, ZONAL, claim(kind="zonal")))
    none = said(waiting(using("models"), *NODES, LOCAL, claim(kind="local")))

    assert bound["b"] == [(ELSEWHERE, f"volume v of claim models needs {ZONE} in [a] (b here)")]
    assert made["a"] == [(NONE_TO_BIND, f"storage class zonal makes volumes only where {ZONE} in [b, c]")]
    assert none["a"] == [(NONE_TO_BIND, "no volume of class local that this node can use fits claim models")]


@pytest.mark.parametrize(
    ("rooms", "expected"),
    [
        ([], {"a": "node(s) did not have enough free storage"}),
        ([("a", "200Gi", None)], {"a": "fits", "b": "node(s) did not have enough free storage"}),
        ([("a", "50Gi", None)], {"a": "node(s) did not have enough free storage"}),
        ([("a", "200Gi", "10Gi")], {"a": "node(s) did not have enough free storage"}),
    ],
)
def test_storage_that_says_how_much_room_it_has(rooms: list[Any], expected: dict[str, str]) -> None:
    driver = obj("CSIDriver", "block.csi.example.com", spec={"storageCapacity": True})
    known = [
        obj("CSIStorageCapacity", f"c{n}", ns="kube-system", storageClassName="block", capacity=size,
            nodeTopology={"matchLabels": {ZONE: zone}}, **({"maximumVolumeSize": most} if most else {}))
        for n, (zone, size, most) in enumerate(rooms)
    ]  # fmt: skip
    found = texts(waiting(using("models"), *NODES, BLOCK, claim(kind="block"), driver, *known))

    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("unread", "objects", "why"),
    [
        ("PersistentVolumeClaim", [], "VolumeRestrictions: claim models was not read"),
        ("StorageClass", [claim(kind="block")], "VolumeBinding: storage class block was not read"),
        ("PersistentVolume", [claim(volume="v")], "VolumeBinding: volume v was not read"),
        ("PersistentVolume", [LOCAL, claim(kind="local")], "VolumeBinding: not all volumes were read"),
        ("CSIDriver", [BLOCK, claim(kind="block")], "VolumeBinding: CSIDriver block.csi.example.com was not read"),
        ("CSINode", [BLOCK, claim(kind="block")], "NodeVolumeLimits: CSINode a was not read"),
    ],
)
def test_what_was_not_read_is_not_judged(unread: str, objects: list[Json], why: str) -> None:
    read = tuple(kind for kind in LISTS if kind != unread)
    pending = waiting(using("models"), *NODES, *objects, read=read)

    assert why in texts(pending)["a"]
    assert [v.fits for v in pending.verdicts] == [None, None]
    assert why.partition(":")[0] in pending.unjudged


# --- restrictions -----------------------------------------------------------------------------------------------------


def test_a_claim_for_one_pod_is_in_use_everywhere() -> None:
    user = pod("user", "b", volumes=[{"name": "m", "persistentVolumeClaim": {"claimName": "models"}}])
    one = claim(volume="v", accessModes=["ReadWriteOncePod"])
    pending = waiting(using("models"), *NODES, one, volume("v"), user)

    assert said(pending)["a"] == [(IN_USE, "claim models is ReadWriteOncePod, and serving/user uses it")]
    assert pending.verdicts[0].reasons[0].pods == ("serving/user",)
    assert {v.fits for v in pending.where(without={"serving/user"})} == {True}


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        ({"gcePersistentDisk": {"pdName": "d"}}, {"gcePersistentDisk": {"pdName": "d"}}, True),
        ({"gcePersistentDisk": {"pdName": "d"}}, {"gcePersistentDisk": {"pdName": "e"}}, False),
        ({"gcePersistentDisk": {"pdName": "d", "readOnly": True}}, {"gcePersistentDisk": {"pdName": "d"}}, True),
        ({"gcePersistentDisk": {"pdName": "d", "readOnly": True}},
         {"gcePersistentDisk": {"pdName": "d", "readOnly": True}}, False),
        ({"awsElasticBlockStore": {"volumeID": "v", "readOnly": True}},
         {"awsElasticBlockStore": {"volumeID": "v", "readOnly": True}}, True),
        ({"iscsi": {"iqn": "i"}}, {"iscsi": {"iqn": "i"}}, True),
        ({"rbd": {"image": "i", "monitors": ["m", "n"]}}, {"rbd": {"image": "i", "pool": "rbd", "monitors": ["n"]}}, True),
        ({"rbd": {"image": "i", "monitors": ["m"]}}, {"rbd": {"image": "i", "monitors": ["n"]}}, False),
    ],
)  # fmt: skip
def test_disks_that_one_pod_may_write(mine: Json, theirs: Json, clash: bool) -> None:
    user = pod("user", "a", volumes=[{"name": "d", **theirs}])
    found = texts(waiting(pod("me", volumes=[{"name": "d", **mine}]), *NODES, user))

    assert found == {"a": "node(s) had no available disk" if clash else "fits", "b": "fits"}


# --- limits -----------------------------------------------------------------------------------------------------------


def test_limits_count_claims_of_pods_and_attachments_once() -> None:
    drivers = [{"name": "block.csi.example.com", "allocatable": {"count": 2}}]
    limited = obj("CSINode", "a", spec={"drivers": drivers}), obj("CSINode", "b", spec={"drivers": []})

    def csi(name: str) -> Json:
        return volume(name, owner=name, csi={"driver": "block.csi.example.com", "volumeHandle": f"h-{name}"})

    def attached(name: str) -> Json:
        source = {"persistentVolumeName": name}
        spec = {"attacher": "block.csi.example.com", "nodeName": "a", "source": source}
        return obj("VolumeAttachment", f"at-{name}", spec=spec)

    scene = [*NODES, *limited, claim(volume="v"), csi("v"), claim("w", volume="w"), csi("w"), csi("x")]
    user = pod("user", "a", volumes=[{"name": "m", "persistentVolumeClaim": {"claimName": "w"}}])

    assert texts(waiting(using("models"), *scene, user, attached("w")))["a"] == "fits"
    assert said(waiting(using("models"), *scene, user, attached("w"), attached("x"))) == {
        "a": [(FULL, "block.csi.example.com: 1 more volume asked, 2 of 2 are attached")],
        "b": [],
    }
    # a volume that a pod there uses needs no further place; one that is attached still, and unused, does
    assert texts(waiting(using("w"), *scene, user, attached("w"), attached("x")))["a"] == "fits"
    assert texts(waiting(using("w"), *scene, attached("w"), attached("x")))["a"] == FULL
    # one that is still to be made counts by its class
    new = [*scene, BLOCK, claim("new", kind="block"), user, attached("x")]
    assert texts(waiting(using("new"), *new))["a"] == FULL
    # what was not read may be more, not less
    some = tuple(kind for kind in LISTS if kind != "VolumeAttachment")
    assert texts(waiting(using("new"), *new, read=some))["a"] == FULL
    assert texts(waiting(using("models"), *scene, user, read=some))["a"] == (
        "NodeVolumeLimits: not all of VolumeAttachment were read"
    )


# --- zones ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({ZONE: "a"}, {"a": "fits", "b": OTHER_ZONE, "plain": "fits"}),
        ({ZONE: "a__b"}, {"a": "fits", "b": "fits"}),
        ({"failure-domain.beta.kubernetes.io/zone": "b"}, {"a": OTHER_ZONE, "b": "fits"}),
        ({"topology.kubernetes.io/region": "r"}, {"a": OTHER_ZONE, "plain": "fits"}),
    ],
)
def test_zones(labels: Json, expected: dict[str, str]) -> None:
    pending = waiting(using("models"), *NODES, node("plain"), claim(volume="v"), volume("v", labels=labels))
    found = texts(pending)

    assert {name: found[name] for name in expected} == expected


def test_a_zone_is_said() -> None:
    found = said(waiting(using("models"), *NODES, claim(volume="v"), volume("v", labels={ZONE: "a"})))

    assert found["b"] == [(OTHER_ZONE, "volume v of claim models is in a (b here)")]


# --- volumes from before CSI ------------------------------------------------------------------------------------------


def test_a_volume_from_before_csi_is_where_its_driver_says() -> None:
    home = {"annotations": {"storage.alpha.kubernetes.io/migrated-plugins": "kubernetes.io/aws-ebs"}}
    drivers = [{"name": "ebs.csi.aws.com", "allocatable": {"count": 1}}]
    zone = "topology.ebs.csi.aws.com/zone"
    nodes = [node("a", zone="a"), node("b", zone="b")]
    for one in nodes:
        one["metadata"]["labels"][zone] = one["metadata"]["labels"][ZONE]
    old = volume("v", labels={ZONE: "a"}, awsElasticBlockStore={"volumeID": "aws://a/vol-1"})
    moved = [obj("CSINode", name, meta=home, spec={"drivers": drivers}) for name in "ab"]
    user = pod("user", "a", volumes=[{"name": "d", "awsElasticBlockStore": {"volumeID": "vol-2"}}])

    plain = said(waiting(using("models"), *nodes, claim(volume="v"), old))
    translated = said(waiting(using("models"), *nodes, *moved, claim(volume="v"), old))
    full = texts(waiting(using("models"), *nodes, *moved, claim(volume="v"), old, user))

    assert [text for text, _ in plain["b"]] == [OTHER_ZONE]
    assert translated["b"] == [
        (ELSEWHERE, f"volume v of claim models needs {zone} in [a] (b here)"),
        (OTHER_ZONE, "volume v of claim models is in a (b here)"),
    ]
    assert (translated["a"], full["a"]) == ([], FULL)
