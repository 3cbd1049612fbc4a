"""DynamicResources, case by case, and the selectors of devices."""

from __future__ import annotations

import contextlib
import itertools
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.scheduling.cel import FaultError, UnsupportedError, fingerprint, matches
from kubectl_llmdoctor.facts.scheduling.objects import Device
from tests.scheduling_scene import LISTS, ZONE, Json, node, obj, pod, said, texts, waiting

NONE = "cannot allocate all claims"
AWAY = "resourceclaim not available on the node"
GPU = "gpu.nvidia.com"
SELECTOR = f'device.driver == "{GPU}" && device.attributes["{GPU}"].type == "gpu"'
NODES = node("a", gpus=0, zone="a"), node("b", gpus=0, zone="b")


def kind(name: str = GPU, *expressions: str, **more: Any) -> Json:
    spec = {"selectors": [{"cel": {"expression": text}} for text in expressions or (SELECTOR,)]}
    return obj("DeviceClass", name, meta=more.pop("meta", {}), spec=spec | more)


def device(name: str, **more: Any) -> Json:
    attributes = {"type": {"string": "gpu"}} | more.pop("attributes", {})
    return {"name": name, "attributes": attributes, "capacity": {"memory": {"value": "80Gi"}}} | more


def part(on: str, *devices: Json, name: str = "", **more: Any) -> Json:
    pool = {"name": on or "all", "generation": 1, "resourceSliceCount": 1} | more.pop("pool", {})
    where = {"nodeName": on} if on else {}
    return obj(
        "ResourceSlice", name or f"s-{on}", spec={"driver": GPU, "pool": pool, "devices": devices, **where, **more}
    )


def gpus(on: str, count: int) -> Json:
    return part(on, *(device(f"gpu-{n}") for n in range(count)))


def request(name: str = "gpu", count: int = 1, **more: Any) -> Json:
    row: Json = {"deviceClassName": GPU, "count": count} | more
    texts_ = row.pop("select", ())
    if texts_:
        row["selectors"] = [{"cel": {"expression": text}} for text in texts_]
    return {"name": name, "exactly": row}


def claim(*requests: Json, name: str = "mine", constraints: list[Json] | None = None, **more: Any) -> Json:
    devices = {"requests": list(requests)} | ({"constraints": constraints} if constraints else {})
    meta = more.pop("meta", {})
    return obj("ResourceClaim", name, ns="serving", meta=meta, spec={"devices": devices}, status=more)


def given_to(user: str, on: str, *names: str, name: str = "", ns: str = "serving") -> Json:
    """A claim that has devices."""
    results = [{"driver": GPU, "pool": on, "device": n, "request": "gpu"} for n in names]
    row = {"key": "metadata.name", "operator": "In", "values": [on]}
    allocation = {"devices": {"results": results}, "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [row]}]}}
    users = [{"resource": "pods", "name": user, "uid": f"uid-{user}"}] if user else []
    one = obj("ResourceClaim", name or f"of-{user}", ns=ns, spec={"devices": {"requests": [request()]}})
    return one | {"status": {"allocation": allocation, "reservedFor": users}}


def asking(**more: Any) -> Json:
    return pod("me", resourceClaims=[{"name": "gpu", "resourceClaimName": "mine"}], **more)


TEMPLATE = pod("me", resourceClaims=[{"name": "gpu", "resourceClaimTemplateName": "t"}])


@pytest.mark.parametrize(
    ("one", "objects", "text", "detail"),
    [
        (asking(), [], 'resourceclaim.resource.k8s.io "mine" not found',
         "ResourceClaim mine does not exist in serving"),
        (TEMPLATE, [], 'pod "serving/me": ResourceClaim not created yet',
         "its ResourceClaim was not made from the template yet"),
        (asking(), [claim(request(), meta={"deletionTimestamp": "2026-11-20T09:00:00Z"})],
         'resourceclaim "mine" is being deleted', "ResourceClaim mine is being deleted"),
        (asking(), [claim(request(deviceClassName="gone"))], "request gpu: device class gone does not exist",
         "claim mine asks for device class gone, which does not exist"),
        (asking(), [claim({"name": "r", "firstAvailable": [{"name": "x", "deviceClassName": "gone"}]})],
         "request r/x: device class gone does not exist",
         "claim mine asks for device class gone, which does not exist"),
        (pod("me", resourceClaims=TEMPLATE["spec"]["resourceClaims"],
             status={"resourceClaimStatuses": [{"name": "gpu", "resourceClaimName": "mine"}]}), [claim(request())],
         "ResourceClaim serving/mine was not created for Pod serving/me (Pod is not owner)",
         "ResourceClaim mine, which should have been made for it, belongs to something else"),
    ],
)  # fmt: skip
def test_what_refuses_a_pod_before_any_node_is_looked_at(
    one: Json, objects: list[Json], text: str, detail: str
) -> None:
    assert said(waiting(one, *NODES, kind(), *objects)) == {"a": [(text, detail)], "b": [(text, detail)]}


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([claim(request()), gpus("a", 1)], {"a": "fits", "b": NONE}),
        ([claim(request(count=2)), gpus("a", 1), gpus("b", 2)], {"a": NONE, "b": "fits"}),
        ([claim(request()), gpus("a", 1), gpus("b", 1), given_to("x", "a", "gpu-0")], {"a": NONE, "b": "fits"}),
        # a claim that has its devices ties the pod to them
        ([given_to("x", "a", "gpu-0", name="mine"), gpus("a", 1)], {"a": "fits", "b": AWAY}),
        # devices of an older generation, of a pool that is being changed, of all nodes, of a zone, of one node each
        ([claim(request()), gpus("a", 1), part("a", device("new", attributes={"type": {"string": "mig"}}), name="n",
          pool={"generation": 2})], {"a": NONE}),
        ([claim(request()), part("a", device("g"), pool={"resourceSliceCount": 2})], {"a": NONE}),
        ([claim(request()), part("", device("g"), allNodes=True)], {"a": "fits", "b": "fits"}),
        ([claim(request()), part("", device("g"), nodeSelector={"nodeSelectorTerms": [{"matchExpressions": [
            {"key": ZONE, "operator": "In", "values": ["b"]}]}]})], {"a": NONE, "b": "fits"}),
        ([claim(request()), part("", device("g", nodeName="b"), perDeviceNodeSelection=True)],
         {"a": NONE, "b": "fits"}),
        # selectors of class and request
        ([claim(request()), part("a", device("g", attributes={"type": {"string": "mig"}}))], {"a": NONE}),
        ([claim(request(select=[f'device.capacity["{GPU}"].memory.compareTo(quantity("100Gi")) >= 0'])), gpus("a", 1)],
         {"a": NONE}),
        ([claim(request(select=[f'device.capacity["{GPU}"].memory.isGreaterThan(quantity("40Gi"))'])), gpus("a", 1)],
         {"a": "fits"}),
        # taints of devices
        ([claim(request()), part("a", device("g", taints=[{"key": "bad", "effect": "NoSchedule"}]))], {"a": NONE}),
        ([claim(request()), part("a", device("g", taints=[{"key": "bad", "effect": "None"}]))], {"a": "fits"}),
        ([claim(request(tolerations=[{"key": "bad", "operator": "Exists"}])),
          part("a", device("g", taints=[{"key": "bad", "effect": "NoExecute"}]))], {"a": "fits"}),
        # all of them, or none
        ([claim(request(allocationMode="All")), gpus("a", 2), given_to("x", "a", "gpu-1"), gpus("b", 1)],
         {"a": NONE, "b": "fits"}),
        # an administrator's look takes nothing away
        ([claim(request(adminAccess=True)), gpus("a", 1), given_to("x", "a", "gpu-0")], {"a": "fits"}),
        # alternatives
        ([claim({"name": "r", "firstAvailable": [{"name": "two", "deviceClassName": GPU, "count": 2},
          {"name": "one", "deviceClassName": GPU}]}), gpus("a", 1)], {"a": "fits", "b": NONE}),
        # several requests share the devices
        ([claim(request("x"), request("y")), gpus("a", 1), gpus("b", 2)], {"a": NONE, "b": "fits"}),
    ],
)  # fmt: skip
def test_devices(objects: list[Json], expected: dict[str, str]) -> None:
    found = texts(waiting(asking(), *NODES, kind(), *objects))

    assert {name: found[name] for name in expected} == expected


def numa(name: str, value: int) -> Json:
    return device(name, attributes={"numa": {"int": value}})


def test_devices_that_must_be_alike() -> None:
    demand = [{"matchAttribute": f"{GPU}/numa"}]
    slices = part("a", numa("g0", 0), numa("g1", 1), numa("g2", 0)), part("b", numa("g0", 0), numa("g1", 1))
    found = said(waiting(asking(), *NODES, kind(), claim(request(count=2), constraints=demand), *slices))

    assert found["a"] == []
    assert found["b"] == [(NONE, f"claim mine, request gpu: 2 asked, 2 of 2 free, but not with such {GPU}/numa")]


def test_devices_that_share_counters() -> None:
    def slice_of(name: str, amount: str) -> Json:
        takes = [{"counterSet": "gpu-0", "counters": {"memory": {"value": amount}}}]
        return device(name, consumesCounters=takes)

    pool = {"resourceSliceCount": 2}
    counters = [{"name": "gpu-0", "counters": {"memory": {"value": "80Gi"}}}]
    parts = (
        part("a", slice_of("half-0", "40Gi"), slice_of("half-1", "40Gi"), slice_of("whole", "80Gi"), pool=pool),
        part("a", name="counters", pool=pool, sharedCounters=counters),
    )
    two = claim(request(count=2))
    three = claim(request(count=3))

    assert texts(waiting(asking(), NODES[0], kind(), two, *parts)) == {"a": "fits"}
    assert texts(waiting(asking(), NODES[0], kind(), three, *parts)) == {"a": NONE}
    assert texts(waiting(asking(), NODES[0], kind(), two, *parts, given_to("x", "a", "half-0"))) == {"a": NONE}


def test_devices_that_must_differ() -> None:
    rule = [{"distinctAttribute": f"{GPU}/numa"}]
    slices = part("a", numa("g0", 0), numa("g1", 0)), part("b", numa("g0", 0), numa("g1", 1))
    found = texts(waiting(asking(), *NODES, kind(), claim(request("x"), request("y"), constraints=rule), *slices))

    assert found == {"a": NONE, "b": "fits"}


def shared(name: str, **policy: Any) -> Json:
    memory: Json = {"value": "80Gi"} | ({"requestPolicy": policy} if policy else {})
    return device(name, allowMultipleAllocations=True, capacity={"memory": memory})


def some(amount: str, name: str = "gpu", **more: Any) -> Json:
    return request(name, capacity={"requests": {"memory": amount}}, **more)


def having(amount: str) -> Json:
    """A claim that has a part of a device."""
    one = given_to("x", "a", "g")
    (row,) = one["status"]["allocation"]["devices"]["results"]
    row |= {"shareID": "11111111-2222-3333-4444-555555555555", "consumedCapacity": {"memory": amount}}
    return one


@pytest.mark.parametrize(
    ("objects", "fits"),
    [
        ([claim(some("40Gi")), part("a", shared("g"))], True),
        ([claim(some("81Gi")), part("a", shared("g"))], False),
        ([claim(some("40Gi")), part("a", shared("g")), having("40Gi")], True),
        ([claim(some("41Gi")), part("a", shared("g")), having("40Gi")], False),
        # who does not say how much takes all, or what the device has set for that
        ([claim(request()), part("a", shared("g")), having("1Gi")], False),
        ([claim(request()), part("a", shared("g", default="10Gi")), having("70Gi")], True),
        ([claim(request()), part("a", shared("g", default="10Gi")), having("71Gi")], False),
        # rounded up to what the device gives
        ([claim(some("15Gi")), part("a", shared("g", validValues=["10Gi", "20Gi"])), having("60Gi")], True),
        ([claim(some("15Gi")), part("a", shared("g", validValues=["10Gi", "20Gi"])), having("61Gi")], False),
        ([claim(some("30Gi")), part("a", shared("g", validValues=["10Gi", "20Gi"]))], False),
        ([claim(some("11Gi")), part("a", shared("g", validRange={"min": "10Gi", "step": "10Gi"})), having("60Gi")], True),
        ([claim(some("11Gi")), part("a", shared("g", validRange={"min": "10Gi", "step": "10Gi"})), having("61Gi")], False),
        ([claim(some("1Gi")), part("a", shared("g", validRange={"min": "10Gi"})), having("71Gi")], False),
        ([claim(some("30Gi")), part("a", shared("g", validRange={"min": "10Gi", "max": "20Gi"}))], False),
        # two requests share it, one request does not take it twice
        ([claim(some("40Gi", "x"), some("40Gi", "y")), part("a", shared("g"))], True),
        ([claim(some("40Gi", "x"), some("41Gi", "y")), part("a", shared("g"))], False),
        ([claim(some("10Gi", count=2)), part("a", shared("g"))], False),
        # a capacity that is not there, and one of a device that is not shared
        ([claim(request(capacity={"requests": {"cores": "1"}})), part("a", shared("g"))], False),
        ([claim(some("40Gi")), gpus("a", 1)], True),
        ([claim(some("81Gi")), gpus("a", 1)], False),
        ([claim(some("1Gi")), gpus("a", 1), given_to("x", "a", "gpu-0")], False),
    ],
)  # fmt: skip
def test_devices_that_several_claims_share(objects: list[Json], fits: bool) -> None:
    assert texts(waiting(asking(), NODES[0], kind(), *objects)) == {"a": "fits" if fits else NONE}


def test_a_shortage_is_said_with_its_numbers_and_who_has_the_devices() -> None:
    bad = device("bad", taints=[{"key": "broken", "effect": "NoSchedule"}])
    slices = (
        part("a", device("gpu-0"), device("gpu-1"), bad),
        part("b", device("m", attributes={"type": {"string": "mig"}})),
    )
    wide = request(count=2, select=[f'device.driver == "{GPU}"'])
    pending = waiting(asking(), *NODES, kind(), claim(wide), *slices, given_to("x", "a", "gpu-0", ns="other"))

    detail = f"claim mine, request gpu: 2 of class {GPU} asked, 1 of 3 free, 1 tainted"
    assert said(pending) == {
        "a": [(NONE, detail)],
        "b": [(NONE, f"claim mine, request gpu: no device of class {GPU} here")],
    }
    (reason,) = pending.verdicts[0].reasons
    assert (reason.asked, reason.free, reason.allocatable, reason.pods) == (2, 1, 3, ("other/x",))


@pytest.mark.parametrize(
    ("objects", "why"),
    [
        ([claim(request(select=["device.frobnicate()"])), gpus("a", 1)],
         "the selector has frobnicate(), which is not evaluated here"),
        ([claim(request(select=[f'device.attributes["{GPU}"].absent == "x"'])), gpus("a", 1)],
         "the selector fails on device gpu-0: no such key: absent"),
        ([claim(request(allocationMode="All")), part("a", device("g"), pool={"resourceSliceCount": 2})],
         "all devices are asked for, and pool a is being changed"),
        ([claim(request("few", count=9), request(allocationMode="All")),
          part("a", device("g"), pool={"resourceSliceCount": 2})],
         "all devices are asked for, and pool a is being changed"),
        ([claim(request(count=33)), gpus("a", 40)], "a claim can have 32 devices at most, not 33"),
        ([claim(request(count=2), constraints=[{"newAttribute": "x"}]), gpus("a", 2)],
         "a constraint other than matchAttribute and distinctAttribute"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_is_not_judged(objects: list[Json], why: str) -> None:
    pending = waiting(asking(), NODES[0], kind(), *objects)

    assert texts(pending) == {"a": f"DynamicResources: {why}"}
    assert pending.unjudged == ("DynamicResources",)


def test_an_error_on_one_node_ends_the_attempt_for_all() -> None:
    fails = claim(request(select=[f'device.attributes["{GPU}"].absent == "x"']))
    fine = part("b", device("g", attributes={"absent": {"string": "x"}}))
    found = texts(waiting(asking(), *NODES, kind(), fails, gpus("a", 1), fine))

    assert found == dict.fromkeys("ab", "DynamicResources: the selector fails on device gpu-0: no such key: absent")


def test_a_claim_that_has_all_the_users_it_may_have() -> None:
    users = [{"resource": "pods", "name": f"p{n}", "uid": f"u{n}"} for n in range(256)]
    full = given_to("x", "a", "gpu-0", name="mine")
    full["status"]["reservedFor"] = users
    found = texts(waiting(asking(), *NODES, kind(), full, gpus("a", 1)))

    assert found == {
        "a": "DynamicResources: ResourceClaim mine has 256 users, and may have no more",
        "b": AWAY,
    }


def test_lists_that_are_not_whole() -> None:
    for unread in ("ResourceSlice", "ResourceClaim"):
        read = tuple(k for k in LISTS if k != unread)
        found = texts(waiting(asking(), NODES[0], kind(), claim(request()), gpus("a", 1), read=read))

        assert found == {"a": f"DynamicResources: not all of {unread} were read"}


# --- extended resources -----------------------------------------------------------------------------------------------


def test_an_extended_resource_that_a_class_serves() -> None:
    nodes = node("plugin", gpus=2), node("dra", gpus=0), node("bare", gpus=0)
    scene = [*nodes, kind(extendedResourceName="nvidia.com/gpu"), gpus("dra", 4)]
    served = said(waiting(pod("me", gpus=2), *scene))
    short = said(waiting(pod("me", gpus=4), *scene, given_to("x", "dra", "gpu-0")))

    assert served == {"plugin": [], "dra": [], "bare": [(NONE, f"nvidia.com/gpu: no device of class {GPU} here")]}
    assert short["plugin"] == [("Insufficient nvidia.com/gpu", "nvidia.com/gpu: 4 asked, 2 of 2 free")]
    assert short["dra"] == [(NONE, f"nvidia.com/gpu: 4 of class {GPU} asked, 3 of 4 free")]


def test_of_several_classes_for_a_resource_the_newest_serves_it() -> None:
    old = kind(
        "a-old", "false", extendedResourceName="nvidia.com/gpu", meta={"creationTimestamp": "2026-01-01T00:00:00Z"}
    )
    new = kind("b-new", extendedResourceName="nvidia.com/gpu", meta={"creationTimestamp": "2026-02-01T00:00:00Z"})

    assert texts(waiting(pod("me", gpus=1), NODES[0], old, new, gpus("a", 1))) == {"a": "fits"}


def test_a_claim_for_extended_resources_that_was_left_behind() -> None:
    owner = [{"kind": "Pod", "name": "me", "uid": "uid-me", "controller": True}]
    notes = {"resource.kubernetes.io/extended-resource-claim": "true"}
    stale = claim(request(), name="old", meta={"annotations": notes, "ownerReferences": owner})
    found = texts(
        waiting(pod("me", gpus=1), NODES[0], kind(extendedResourceName="nvidia.com/gpu"), gpus("a", 1), stale)
    )

    assert found == {"a": "cannot schedule extended resource claim"}


@settings(max_examples=60)
@given(
    st.lists(st.integers(0, 2), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(1, 2), st.sets(st.integers(0, 2), min_size=1)), min_size=1, max_size=3),
)
def test_the_search_finds_what_trying_everything_finds(devices: list[int], wanted: list[tuple[int, set[int]]]) -> None:
    slices = part("a", *(device(f"g{n}", attributes={"m": {"int": m}}) for n, m in enumerate(devices)))
    rows = [
        request(f"r{n}", count, select=[f'device.attributes["{GPU}"].m in {sorted(models)}'])
        for n, (count, models) in enumerate(wanted)
    ]
    places = [models for count, models in wanted for _ in range(count)]
    possible = any(
        all(devices[at] in models for at, models in zip(chosen, places, strict=True))
        for chosen in itertools.permutations(range(len(devices)), len(places))
    )

    found = texts(waiting(asking(), NODES[0], kind(), claim(*rows), slices))

    assert found == {"a": "fits" if possible else NONE}


# --- selectors --------------------------------------------------------------------------------------------------------

H100 = k8s.convert(
    {
        "name": "gpu-0",
        "attributes": {
            "type": {"string": "gpu"},
            "productName": {"string": "NVIDIA H100 80GB HBM3"},
            "index": {"int": 3},
            "ecc": {"bool": True},
            "driverVersion": {"version": "580.65.6"},
            "dra.net/rail": {"string": "r1"},
        },
        "capacity": {"memory": {"value": "81559Mi"}},
    },
    Device,
)
A = f'device.attributes["{GPU}"]'
C = f"device.capacity['{GPU}']"


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        (f"device.driver == '{GPU}'", True),
        (SELECTOR, True),
        (f"{A}.type != 'mig' && !({A}.index > 5)", True),
        (f"{A}.productName.startsWith('NVIDIA') && {A}.productName.endsWith('HBM3')", True),
        (f"{A}.productName.lowerAscii().contains('h100')", True),
        (f"{A}.productName.lowerAscii().matches('^.*a100.*$')", False),
        (f"{A}.productName.matches('H[0-9]+')", True),
        (f"{A}.productName in ['NVIDIA L4', 'NVIDIA H100 80GB HBM3']", True),
        (f"{A}.index < 2 || {A}.ecc", True),
        (f"{A}.index + 1 == 4", True),
        (f"{A}.index == '3'", False),
        (f"-{A}.index < 0 ? {A}.ecc : false", True),
        (f"{C}.memory.compareTo(quantity('40Gi')) >= 0", True),
        (f"{C}.memory.isLessThan(quantity('40Gi'))", False),
        (f"{A}.driverVersion.isGreaterThan(semver('570.0.0'))", True),
        (f"{A}.driverVersion.compareTo(semver('580.65.6-rc.1')) == 1", True),
        (f"{A}.driverVersion.major() == 580", True),
        ("device.attributes['dra.net'].rail == 'r1'", True),
        ("'x' in device.attributes['other'] && device.attributes['other'].x == 1", False),
        (f"has({A}.absent) || {A}.ecc", True),
        (f"has({A}.ecc)", True),
        # either side decides, whatever the other has wrong
        (f"{A}.absent == 1 || true", True),
        (f"{A}.absent == 1 && false", False),
        (f"cel.bind(x, {A}, x.ecc && x.index == 3)", True),
        ("device.allowMultipleAllocations", False),
        (r"'a\'b' == r'a' + '\'b'", True),
        ("0x10 == 16 && 1.5 > 1", True),
        ("size('abc') == 3 && [1, 2].size() == 2", True),
    ],
)
def test_a_selector(expression: str, expected: bool) -> None:
    assert matches(expression, GPU, H100) is expected


@pytest.mark.parametrize(
    "expression",
    [f"{A}.absent == 1", f"{A}.type < 3", f"{A}.type", f"{A}.index && true", "quantity('x').isLessThan(quantity('1'))"],
)
def test_a_selector_that_fails(expression: str) -> None:
    with pytest.raises(FaultError):
        matches(expression, GPU, H100)


@pytest.mark.parametrize(
    "expression",
    [
        "",
        "device.",
        "(",
        "1 +",
        "$",
        "foo",
        "device.driver.split('.')[0] == 'gpu'",
        "device.driver.matches('(a+)+$')",
        "[1].exists(x, x == 1)",
        "(" * 60 + "true" + ")" * 60,
        "true" + " && true" * 2000,
        "!" * 100 + "true",
        "device" + ".attributes" * 5000,
        "1 % 2 == 1",
    ],
)
def test_a_selector_that_is_not_understood(expression: str) -> None:
    with pytest.raises(UnsupportedError):
        matches(expression, GPU, H100)


@settings(max_examples=300)
@given(st.text(alphabet="device.attributes['\"]()!&|<>=+-?:,0123xyz \n\\", max_size=60))
def test_no_text_does_harm(expression: str) -> None:
    with contextlib.suppress(FaultError, UnsupportedError):
        matches(expression, GPU, H100)


def test_devices_are_alike_in_what_a_selector_names() -> None:
    other = k8s.convert({"name": "gpu-1", "attributes": {"type": {"string": "gpu"}, "uuid": {"string": "x"}}}, Device)
    plain = k8s.convert({"name": "gpu-2", "attributes": {"type": {"string": "gpu"}, "uuid": {"string": "y"}}}, Device)

    assert fingerprint(SELECTOR, other) == fingerprint(SELECTOR, plain)
    assert fingerprint(f"{A}.uuid == 'x'", other) != fingerprint(f"{A}.uuid == 'x'", plain)
    assert fingerprint(f"{A}['uu' + 'id'] == 'x'", other) != fingerprint(f"{A}['uu' + 'id'] == 'x'", plain)


def test_devices_as_older_servers_have_them() -> None:
    """`v1beta1`: attributes below `basic`, a request's fields at its top."""
    flat = {"name": "gpu", "deviceClassName": GPU, "allocationMode": "ExactCount", "count": 1}
    old = part("a", {"name": "g", "basic": {"attributes": {"type": {"string": "gpu"}}}})

    assert texts(waiting(asking(), NODES[0], kind(), claim(flat), old)) == {"a": "fits"}
