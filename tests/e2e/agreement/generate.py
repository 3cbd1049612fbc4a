"""Random clusters and pods; the same ones for the same seed.

Realistic in shape (pools of nodes with GPU products, zones, taints; pods that ask for what some pool has), adversarial
in detail: each rule of the scheduler is met on both sides of its edge. What a cluster has is drawn first, so that
simple ones stay simple enough for a difference to be understood.
"""

from __future__ import annotations

import random
from collections.abc import Iterable

from . import devices, spreading, storage
from .draw import Draw
from .model import Case, Object, Part, World

#: What may have a part in a cluster and its pods, and how often.
FEATURES = {
    "affinity": 0.5,
    "ports": 0.35,
    "init": 0.35,
    "pod-level": 0.3,
    "overhead": 0.3,
    "hugepages": 0.25,
    "resized": 0.35,
    "priority": 0.3,
    "preemptor": 0.15,
    "declared": 0.1,
    "gates": 0.08,
    "storage": 0.4,
    "disks": 0.15,
    "pod-affinity": 0.4,
    "spread": 0.35,
    "devices": 0.3,
}
NAMESPACES = {
    "serving": {"team": "ml", "env": "prod"},
    "research": {"team": "ml", "env": "dev"},
    "web": {"env": "prod"},
    "kube-system": {},
}
PODS_PER_WORLD = 14


def world(seed: str, *, allowed: Iterable[str] = FEATURES, pods: int = PODS_PER_WORLD) -> World:
    """A cluster and the pods to be judged on it."""
    draw = Draw(random.Random(seed))
    chosen = {name for name, often in FEATURES.items() if draw.chance(often)} & set(allowed)
    made = World(seed)
    # In a calm cluster the filters that come first have little to say, so that the later ones are heard.
    draw.calm = draw.chance(0.6)
    pools = _pools(draw)
    nodes = _nodes(draw, pools, chosen)
    made.parts += [_kept(draw, item) for item in nodes]
    made.parts += [Part(item) for item in _common()]
    store = storage.Store(draw, nodes) if "storage" in chosen else None
    claims = devices.Devices(draw, nodes) if "devices" in chosen else None
    running = list(_running(draw, nodes, chosen, store, claims))  # gives its pods claims, so it comes first
    made.parts += (store.parts if store else []) + (claims.parts if claims else []) + running
    made.parts += store.attachments() if store else []
    if "preemptor" in chosen:
        made.preemptor = _case(draw, "first", nodes, pools, set(), None, None).pod
        made.preemptor["spec"]["priorityClassName"] = "urgent"
        made.preemptor["spec"]["tolerations"] = [{"operator": "Exists"}]
        made.preemptor["spec"].pop("nodeSelector", None)
    for number in range(pods):
        made.cases.append(_case(draw, f"p{number}", nodes, pools, chosen, store, claims))
    return made


def _kept(draw: Draw, node: Object) -> Part:
    """A node, now and then one that is being deleted."""
    if draw.chance(0.01):
        node["metadata"]["finalizers"] = ["example.com/keep"]
        return Part(node, deleted=0)
    return Part(node)


def _common() -> list[Object]:
    api = "scheduling.k8s.io/v1"
    return [
        {"apiVersion": api, "kind": "PriorityClass", "metadata": {"name": "urgent"}, "value": 1000},
        {"apiVersion": api, "kind": "PriorityClass", "metadata": {"name": "spare"}, "value": -10},
        {
            "apiVersion": api,
            "kind": "PriorityClass",
            "metadata": {"name": "polite"},
            "value": 1000,
            "preemptionPolicy": "Never",
        },
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "metadata": {"name": "kata"},
            "handler": "kata",
            "overhead": {"podFixed": {"cpu": "250m", "memory": "160Mi"}},
        },
    ]


#: What a pool's nodes are: labels, devices (resource: amounts), taints that such pools usually have.
_GPU_TAINT = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
_KINDS: list[tuple[str, dict[str, str], dict[str, list[int]], list[Object]]] = [
    ("cpu", {}, {}, []),
    ("cpu", {"node-role.kubernetes.io/worker": ""}, {}, []),
    (
        "h100",
        {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"},
        {"nvidia.com/gpu": [8]},
        [_GPU_TAINT],
    ),
    (
        "a100",
        {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-40GB", "nvidia.com/gpu.memory": "40960"},
        {"nvidia.com/gpu": [4, 8]},
        [],
    ),
    (
        "l4",
        {"nvidia.com/gpu.product": "NVIDIA-L4", "nvidia.com/gpu.memory": "23034"},
        {"nvidia.com/gpu": [1, 2]},
        [_GPU_TAINT],
    ),
    (
        "shared",
        {
            "nvidia.com/gpu.product": "NVIDIA-L40S-SHARED",
            "nvidia.com/gpu.memory": "46068",
            "nvidia.com/gpu.replicas": "4",
        },
        {"nvidia.com/gpu": [4, 8]},
        [],
    ),
    (
        "shared-renamed",
        {"nvidia.com/gpu.product": "NVIDIA-L40S", "nvidia.com/gpu.memory": "46068", "nvidia.com/gpu.replicas": "4"},
        {"nvidia.com/gpu.shared": [4, 8]},
        [],
    ),
    (
        "mig-mixed",
        {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/mig.strategy": "mixed"},
        {"nvidia.com/mig-1g.10gb": [2, 7], "nvidia.com/mig-3g.40gb": [1, 2], "nvidia.com/gpu": [0]},
        [_GPU_TAINT],
    ),
    (
        "mig-single",
        {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB-MIG-2g.20gb", "nvidia.com/mig.strategy": "single"},
        {"nvidia.com/gpu": [3, 24]},
        [],
    ),
    (
        "amd",
        {"amd.com/gpu.product-name": "AMD_Instinct_MI300X_OAM"},
        {"amd.com/gpu": [8]},
        [{"key": "amd.com/gpu", "effect": "NoSchedule"}],
    ),
    ("gaudi", {"habana.ai/gaudi.model": "gaudi3"}, {"habana.ai/gaudi": [8]}, []),
    (
        "tpu",
        {"cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice"},
        {"google.com/tpu": [4]},
        [{"key": "google.com/tpu", "value": "present", "effect": "NoSchedule"}],
    ),
    ("neuron", {"node.kubernetes.io/instance-type": "inf2.48xlarge"}, {"aws.amazon.com/neuron": [12]}, []),
]
_DEDICATED = [
    {"key": "dedicated", "value": "search", "effect": "NoSchedule"},
    {"key": "dedicated", "value": "ml", "effect": "NoExecute"},
    {"key": "spot", "effect": "PreferNoSchedule"},
    {"key": "spot", "value": "true", "effect": "NoSchedule"},
    {"key": "generation", "value": "3", "effect": "NoSchedule"},
]
#: A feature that nodes say to have, and that a rule for restarts needs.
_RESTARTS = "RestartAllContainersOnContainerExits"
ZONES = ("zone-a", "zone-b", "zone-c")


def _pools(draw: Draw) -> list[Object]:
    pools = []
    for number in range(draw.between(1, 5)):
        kind, labels, devices_of, taints = draw.one(_KINDS)
        pools.append(
            {
                "name": f"{kind}-{number}",
                "labels": labels | {"pool": f"{kind}-{number}"},
                "devices": {name: draw.one(amounts) for name, amounts in devices_of.items()},
                "taints": (taints if draw.chance(0.7) else []) + ([draw.one(_DEDICATED)] if draw.chance(0.25) else []),
                "cpu": draw.one([64, 128]) if draw.calm else draw.one([2, 4, 8, 16, 64, 128]),
                "memory": draw.one([512, 2048]) if draw.calm else draw.one([8, 32, 128, 512, 2048]),
                "zones": draw.some(ZONES, 1, 3),
            }
        )
    if draw.chance(0.4):
        control = {"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}
        pools.append(
            {
                "name": "control-plane",
                "labels": {"node-role.kubernetes.io/control-plane": ""},
                "devices": {},
                "taints": [control],
                "cpu": 4,
                "memory": 16,
                "zones": list(ZONES),
            }
        )
    return pools


def _nodes(draw: Draw, pools: list[Object], chosen: set[str]) -> list[Object]:
    count = int(2 * 20 ** draw.random.random())
    uneven = draw.chance(0.3)
    nodes = []
    for number in range(count):
        pool = draw.one(pools)
        name = f"{pool['name']}-{number}"
        host = name if draw.chance(0.9) else f"ip-10-0-0-{number}"
        labels = {"kubernetes.io/hostname": host, "kubernetes.io/os": "linux"} | pool["labels"]
        labels["topology.kubernetes.io/zone"] = draw.one(pool["zones"])
        labels["topology.kubernetes.io/region"] = "region-1"
        labels["rack"] = f"r{number % 4}"
        if draw.chance(0.3):
            labels["generation"] = str(draw.between(1, 12))
        if draw.chance(0.1):
            labels["generation"] = draw.one(["three", "", "0", "3.5", "007"])
        if uneven:
            for key in ("topology.kubernetes.io/zone", "kubernetes.io/hostname", "rack"):
                if draw.chance(0.15):
                    del labels[key]
        amounts: dict[str, str] = {
            "cpu": draw.one([str(pool["cpu"]), f"{pool['cpu'] * 1000 - 230}m"]),
            "memory": draw.one([f"{pool['memory']}Gi", f"{pool['memory'] * 1048576 - 100000}Ki"]),
            "pods": "110" if draw.chance(0.97 if draw.calm else 0.9) else str(draw.between(1, 4)),
            "ephemeral-storage": draw.one(["100Gi", "94992122582", "1Ti"]),
        }
        if "hugepages" in chosen:
            amounts["hugepages-2Mi"] = draw.one(["0", "256Mi", "1Gi"])
            amounts["hugepages-1Gi"] = draw.one(["0", "4Gi"])
        have = {resource: str(amount) for resource, amount in pool["devices"].items()}
        if pool["devices"].get("nvidia.com/gpu"):
            labels["nvidia.com/gpu.present"] = "true"
            labels["nvidia.com/gpu.count"] = str(pool["devices"]["nvidia.com/gpu"])
        allocatable = amounts | have
        if have and draw.chance(0.12):  # the device plugin is not there, or says that some are broken
            for resource in have:
                if draw.chance(0.5):
                    allocatable[resource] = str(max(int(have[resource]) - draw.between(1, 8), 0))
                else:
                    allocatable.pop(resource)
        taints, unschedulable, ready = _state(draw, pool["taints"])
        declared = ["GuaranteedQoSPodCPUResize"]  # a kubelet of this age always has something to declare
        if "declared" in chosen and draw.chance(0.7):
            declared.append(_RESTARTS)
        nodes.append(
            {
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": labels},
                "spec": {"taints": taints} | ({"unschedulable": True} if unschedulable else {}),
                "status": {
                    "capacity": amounts | have,
                    "allocatable": allocatable,
                    "conditions": [{"type": "Ready", "status": ready, "reason": "Kubelet"}],
                    "declaredFeatures": declared,
                },
            }
        )
    return nodes


def _state(draw: Draw, pool_taints: list[Object]) -> tuple[list[Object], bool, str]:
    """The taints of a node, whether it is cordoned, and its Ready condition."""
    taints = [dict(taint) for taint in pool_taints]
    unschedulable, ready = False, "True"
    if draw.calm and draw.chance(0.7):
        return taints, unschedulable, ready
    cordon = {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    match draw.between(1, 30):
        case 1 | 2:
            unschedulable = True
            taints.append(cordon)
        case 3:  # between the two writes
            unschedulable = True
        case 4:
            taints.append(cordon)
        case 5:
            ready = "False"
            taints += [{"key": "node.kubernetes.io/not-ready", "effect": e} for e in ("NoSchedule", "NoExecute")]
        case 6:
            ready = "Unknown"
            taints += [{"key": "node.kubernetes.io/unreachable", "effect": e} for e in ("NoSchedule", "NoExecute")]
        case 7:
            ready = "False"
        case 8:
            taints.append({"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"})
        case 9:
            kind = draw.one(["memory-pressure", "disk-pressure", "pid-pressure", "network-unavailable"])
            taints.append({"key": f"node.kubernetes.io/{kind}", "effect": "NoSchedule"})
        case 10:
            taints.append({"key": "ToBeDeletedByClusterAutoscaler", "value": "1760000000", "effect": "NoSchedule"})
        case 11:
            taints.append(
                {"key": "node.cloudprovider.kubernetes.io/uninitialized", "value": "true", "effect": "NoSchedule"}
            )
        case _:
            pass
    unique = {(t["key"], t["effect"]): t for t in taints}
    return list(unique.values()), unschedulable, ready


# --- pods that run -----------------------------------------------------------------------------------------------------


def _running(
    draw: Draw,
    nodes: list[Object],
    chosen: set[str],
    store: storage.Store | None,
    claims: devices.Devices | None,
) -> Iterable[Part]:
    full = draw.one([0.1, 0.3]) if draw.calm else draw.one([0.1, 0.4, 0.7, 0.95])
    for node in nodes:
        name, allocatable = node["metadata"]["name"], node["status"]["allocatable"]
        left = {r: int(a) for r, a in allocatable.items() if "/" in r}
        taken: set[tuple[str, int]] = set()
        cores = _cores(allocatable["cpu"]) * (1 if full > 0.9 else full)
        for number in range(draw.between(1, 5) if {"spread", "pod-affinity"} & chosen else draw.between(0, 4)):
            resources: Object = {"requests": {}, "limits": {}}
            device = draw.one([r for r, a in left.items() if a > 0]) if any(left.values()) else ""
            if device and draw.chance(full):
                amount = min(draw.one([1, 1, 2, 4, 8]), left[device])
                left[device] -= amount
                resources["limits"][device] = str(amount)
            cpu = min(draw.one([0.1, 0.5, 1, 2, 4, 16]), cores)
            if cpu > 0.01:
                cores -= cpu
                resources["requests"]["cpu"] = f"{int(cpu * 1000)}m"
            if draw.chance(0.7):
                resources["requests"]["memory"] = draw.one(["128Mi", "1Gi", "1500M", "3e9", "4Gi"])
            space = "serving" if draw.chance(0.4) else draw.one(list(NAMESPACES))
            pod = _pod(draw, f"run-{name}-{number}", space, resources)
            pod["spec"]["nodeName"] = name if draw.chance(0.99) else "gone-9"
            pod["spec"]["tolerations"] = [{"operator": "Exists"}]
            _dress(draw, pod, chosen)
            if "ports" in chosen and draw.chance(0.3):
                _ports(draw, pod, taken)
            if "pod-affinity" in chosen and draw.chance(0.25):
                spreading.affinity(draw, pod, required=True, anti_only=draw.chance(0.8))
            if "disks" in chosen and draw.chance(0.3):
                storage.disk(draw, pod)
            if store and draw.chance(0.3):
                store.use(pod, node)
            if claims and draw.chance(0.35):
                claims.use(pod, node)
            yield _fate(draw, pod, chosen)


def _fate(draw: Draw, pod: Object, chosen: set[str]) -> Part:
    """What became of a pod that has a node."""
    match draw.between(1, 16):
        case 1:
            return Part(pod, deleted=300)
        case 2:
            pod["metadata"]["finalizers"] = ["example.com/keep"]
            return Part(pod, deleted=0)
        case 3:
            return Part(pod, status={"phase": "Succeeded"})
        case 4:
            return Part(pod, status={"phase": "Failed", "reason": "Evicted"})
        case 5:
            pod["metadata"]["finalizers"] = ["example.com/keep"]
            return Part(pod, status={"phase": "Failed"}, deleted=0)
    if "resized" in chosen and draw.chance(0.35):
        return Part(pod, status=_resized(draw, pod))
    return Part(pod, status={"phase": "Running"} if draw.chance(0.3) else None)


def _resized(draw: Draw, pod: Object) -> Object:
    """A resize in place that the kubelet has not taken over, or only in part."""
    rows = []
    for container in pod["spec"]["containers"]:
        asked = container["resources"].get("requests", {})
        actual = {
            r: draw.one(["2", "250m"]) if r == "cpu" else draw.one(["64Mi", "6Gi"])
            for r in asked
            if r in ("cpu", "memory")
        }
        row: Object = {
            "name": container["name"],
            "image": "x",
            "imageID": "",
            "ready": True,
            "restartCount": 0,
            "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
        }
        if actual:
            row["allocatedResources"] = actual
            if draw.chance(0.7):
                row["resources"] = {
                    "requests": {r: draw.one([v, "3" if r == "cpu" else "5Gi"]) for r, v in actual.items()}
                }
            if draw.chance(0.2):
                del row["allocatedResources"]
        rows.append(row)
    conditions = []
    if draw.chance(0.4):
        reason = draw.one(["Infeasible", "Deferred"])
        conditions.append({"type": "PodResizePending", "status": "True", "reason": reason})
    status: Object = {"phase": "Running", "containerStatuses": rows, "conditions": conditions}
    whole = pod["spec"].get("resources", {}).get("requests")
    if whole and draw.chance(0.6):
        actual = {r: draw.one(["4", "90"]) if r == "cpu" else draw.one(["64Mi", "150Gi"]) for r in whole}
        status["resources"] = {"requests": actual}
        if draw.chance(0.7):
            status["allocatedResources"] = draw.one([actual, whole])
    return status


# --- pods that wait ----------------------------------------------------------------------------------------------------


def _case(
    draw: Draw,
    name: str,
    nodes: list[Object],
    pools: list[Object],
    chosen: set[str],
    store: storage.Store | None,
    claims: devices.Devices | None,
) -> Case:
    used: list[str] = []
    node = draw.one(nodes)  # what the pod asks for is mostly what this one has
    resources = _resources(draw, node, used)
    pod = _pod(draw, name, draw.one(["serving", "serving", "research", "web"]), resources)
    spec = pod["spec"]
    _dress(draw, pod, chosen)
    spec["tolerations"] = list(_tolerations(draw, node, pools))
    if draw.chance(0.15 if draw.calm else 0.3):
        spec["nodeSelector"] = _selector(draw, node)
        used.append("selector")
    if "affinity" in chosen and draw.chance(0.25 if draw.calm else 0.5):
        spec.setdefault("affinity", {})["nodeAffinity"] = _node_affinity(draw, nodes)
        used.append("affinity")
    if "ports" in chosen and draw.chance(0.35):
        _ports(draw, pod)
        used.append("ports")
    if "disks" in chosen and draw.chance(0.4):
        storage.disk(draw, pod)
        used.append("disks")
    if "pod-affinity" in chosen and draw.chance(0.5):
        spreading.affinity(draw, pod, required=draw.chance(0.9), anti_only=False)
        used.append("pod-affinity")
    if "spread" in chosen and draw.chance(0.5):
        spreading.spread(draw, pod)
        used.append("spread")
    if "priority" in chosen and draw.chance(0.3):
        spec["priorityClassName"] = draw.one(["urgent", "polite", "spare"])
        used.append("priority")
    if "declared" in chosen and draw.chance(0.4):
        rule = {"action": "RestartAllContainers", "exitCodes": {"operator": "In", "values": [42]}}
        holder = draw.one([*spec["containers"], *spec.get("initContainers", [])])
        holder.setdefault("restartPolicy", "Never")
        holder["restartPolicyRules"] = [rule]
        used.append("declared")
    if "gates" in chosen and draw.chance(0.1):
        spec["schedulingGates"] = [{"name": "example.com/quota"}]
        used.append("gates")
    case = Case(pod)
    if store and draw.chance(0.6):
        store.mount(case)
        used.append("storage")
    if claims and draw.chance(0.6):
        claims.claim(case)
        used.append("devices")
    case.features = tuple(used)
    return case


def _resources(draw: Draw, node: Object, used: list[str]) -> Object:
    """Requests and limits of the main container."""
    allocatable = node["status"]["allocatable"]
    resources: Object = {"requests": {}, "limits": {}}
    device = [r for r in node["status"]["capacity"] if "/" in r]
    if draw.calm and not draw.chance(0.3):
        resources["requests"] = {"cpu": "100m", "memory": "64Mi"}
    elif device and draw.chance(0.75):
        amount = (
            draw.one([1, 1, 1, 2, 4, 8, 16])
            if draw.chance(0.8)
            else int(allocatable.get(device[0], 1)) + draw.between(0, 1)
        )
        resources["limits"][draw.one(device)] = str(amount)
        used.append("device")
    elif draw.chance(0.1):
        resources["limits"][draw.one(["nvidia.com/gpu", "example.com/fpga", "nvidia.com/mig-1g.5gb"])] = "1"
        used.append("device")
    if not draw.calm and draw.chance(0.8):
        resources["requests"]["cpu"] = draw.one(["0", "1m", "100m", "0.5", "1", "2", "4", "15500m", "64"])
    if not draw.calm and draw.chance(0.7):
        resources["requests"]["memory"] = draw.one(["1Mi", "500m", "1Gi", "2000M", "16Gi", "120Gi", "1e12"])
    if draw.chance(0.05 if draw.calm else 0.2):
        resources["requests"]["ephemeral-storage"] = draw.one(["1Gi", "93Gi", "200Gi"])
    if draw.chance(0.2) and "memory" in resources["requests"]:
        resources["limits"]["memory"] = resources["requests"].pop("memory")
    return resources


def _pod(draw: Draw, name: str, namespace: str, resources: Object) -> Object:
    resources["requests"] = {**resources["requests"]}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "labels": draw.labels()},
        "spec": {"containers": [{"name": "main", "image": "example.com/model-server:1", "resources": resources}]},
    }


def _dress(draw: Draw, pod: Object, chosen: set[str]) -> None:
    """What decides how much a pod asks for: further containers, overhead, resources of the whole pod."""
    spec = pod["spec"]
    main = spec["containers"][0]["resources"]
    if draw.chance(0.2):
        spec["containers"].append({"name": "side", "image": "x", "resources": {"requests": {"cpu": "150m"}}})
    if "init" in chosen and draw.chance(0.4):
        steps = []
        for number in range(draw.between(1, 3)):
            step: Object = {"name": f"init-{number}", "image": "x", "resources": {"requests": {}}}
            step["resources"]["requests"] = {
                "cpu": draw.one(["50m", "1", "3"]),
                "memory": draw.one(["64Mi", "2Gi", "12Gi"]),
            }
            if draw.chance(0.5):
                step["restartPolicy"] = "Always"
            devices_of = [r for r in main["limits"] if "/" in r]
            if devices_of and draw.chance(0.3):
                step["resources"]["limits"] = {devices_of[0]: draw.one(["1", "2"])}
            steps.append(step)
        spec["initContainers"] = steps
    if "overhead" in chosen and draw.chance(0.3):
        spec["runtimeClassName"] = "kata"
    if "hugepages" in chosen and draw.chance(0.4):
        amount = draw.one(["64Mi", "256Mi", "512Mi"])
        main["limits"]["hugepages-2Mi"] = amount
        main["requests"].setdefault("cpu", "10m")
    if "pod-level" in chosen and draw.chance(0.4):
        spec["resources"] = (
            {"requests": {"cpu": draw.one(["70", "5"])}} if draw.chance(0.5) else {"requests": {"memory": "130Gi"}}
        )
        main["limits"].pop("memory", None)
        main["requests"] = {k: v for k, v in main["requests"].items() if k not in ("cpu", "memory")} | {"cpu": "1"}


def _tolerations(draw: Draw, node: Object, pools: list[Object]) -> Iterable[Object]:
    if draw.chance(0.5 if draw.calm else 0.05):
        yield {"operator": "Exists"}
    for taint in node["spec"]["taints"]:
        if not draw.chance(0.65):
            continue
        key, value, effect = taint["key"], taint.get("value", ""), taint["effect"]
        yield draw.one(
            [
                {"key": key, "operator": "Exists"},
                {"key": key, "operator": "Exists", "effect": effect},
                {"key": key, "value": value},
                {"key": key, "operator": "Equal", "value": value, "effect": effect},
                {"key": key, "operator": "Equal", "value": value + "x", "effect": effect},
                {"operator": "Exists", "effect": effect},
                {"key": key, "operator": "Exists", "effect": "PreferNoSchedule"},
            ]
        )
    if draw.chance(0.3):
        taints = draw.one(pools)["taints"] or [_GPU_TAINT]
        yield {"key": draw.one(taints)["key"], "operator": "Exists"}


_KEYS = ("nvidia.com/gpu.product", "pool", "topology.kubernetes.io/zone", "rack", "kubernetes.io/hostname")


def _selector(draw: Draw, node: Object) -> dict[str, str]:
    labels = node["metadata"]["labels"]
    found = (
        {key: labels[key] for key in draw.some([k for k in _KEYS if k in labels], 1, 2)} if draw.chance(0.85) else {}
    )
    return found or draw.one([{"pool": "none"}, {"nvidia.com/gpu.product": "NVIDIA-H200"}, {"no-such-label": "x"}])


def _node_affinity(draw: Draw, nodes: list[Object]) -> Object:
    found: Object = {}
    if draw.chance(0.9):
        terms = [_term(draw, nodes) for _ in range(draw.between(1, 3))]
        found["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": terms}
    if draw.chance(0.2):
        term = {"matchExpressions": [_expression(draw, nodes)]}
        if draw.chance(0.1):  # taken by the API server, an error to the scheduler
            term = {"matchExpressions": [{"key": "pool", "operator": "In", "values": ["-1"]}]}
        found["preferredDuringSchedulingIgnoredDuringExecution"] = [{"weight": 5, "preference": term}]
    return found


def _term(draw: Draw, nodes: list[Object]) -> Object:
    term: Object = {}
    if draw.chance(0.04):
        return term
    if draw.chance(0.85):
        term["matchExpressions"] = [_expression(draw, nodes) for _ in range(draw.between(1, 2))]
    if draw.chance(0.15) or not term:
        name = draw.one(nodes)["metadata"]["name"] if draw.chance(0.85) else "gone-1"
        term["matchFields"] = [{"key": "metadata.name", "operator": draw.one(["In", "In", "NotIn"]), "values": [name]}]
    return term


def _expression(draw: Draw, nodes: list[Object]) -> Object:
    labels = draw.one(nodes)["metadata"]["labels"]
    key = draw.one(list(labels)) if draw.chance(0.85) else draw.one(["no-such-label", "generation"])
    if draw.chance(0.25):
        key = draw.one(["generation", "nvidia.com/gpu.memory"])
        return {
            "key": key,
            "operator": draw.one(["Gt", "Lt"]),
            "values": [draw.one(["1", "3", "7", "24000", "0", "007"])],
        }
    operator = draw.one(["In", "In", "NotIn", "Exists", "DoesNotExist"])
    if operator in ("Exists", "DoesNotExist"):
        return {"key": key, "operator": operator}
    values = {labels.get(key, "x"), draw.one(nodes)["metadata"]["labels"].get(key, "y")}
    return {"key": key, "operator": operator, "values": sorted(values)}


def _ports(draw: Draw, pod: Object, taken: set[tuple[str, int]] | None = None) -> None:
    """Host ports; those that another pod of the node has taken are left out, as the scheduler would not have let it in."""
    ports: list[Object] = []
    host = draw.chance(0.25)
    for number in draw.some([8000, 8001, 9100], 1, 2):
        port: Object = {"containerPort": number}
        if not host:
            port["hostPort"] = number
            if draw.chance(0.4):
                port["hostIP"] = draw.one(["0.0.0.0", "127.0.0.1", "10.0.0.1", "::"])
        if draw.chance(0.2):
            port["protocol"] = "UDP"
        key = port.get("protocol", "TCP"), number
        if taken is None or key not in taken:
            ports.append(port)
        if taken is not None:
            taken.add(key)
    if host:
        pod["spec"]["hostNetwork"] = True
    holder = pod["spec"]["containers"][0]
    sidecars = [c for c in pod["spec"].get("initContainers", []) if draw.chance(0.3)]
    draw.one([holder, *sidecars])["ports"] = ports


def _cores(quantity: str) -> float:
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)
