"""Random devices of dynamic resource allocation: classes, slices, claims that are allocated, shared, on their way out."""

from __future__ import annotations

from .draw import Draw
from .model import Case, Object, Part
from .storage import owner

API = "resource.k8s.io/v1"
DRIVER = "gpu.nvidia.com"
_SPACES = ("serving", "research", "web")
_PRODUCTS = ("NVIDIA H100 80GB HBM3", "NVIDIA L4")


class Devices:
    """The devices and claims of one cluster."""

    def __init__(self, draw: Draw, nodes: list[Object]) -> None:
        self.draw = draw
        self.parts: list[Part] = []
        #: devices that no claim has yet, by node
        self.free: dict[str, list[str]] = {}
        self.claims: dict[str, list[str]] = {space: [] for space in _SPACES}
        self._count = 0
        self._shared: dict[str, list[tuple[str, str]]] = {space: [] for space in _SPACES}
        self._classes()
        for node in nodes:
            if draw.chance(0.7):
                self._slice(node)
        if draw.chance(0.3):
            self._fabric(nodes)
        for space in _SPACES:
            for _ in range(draw.between(2, 6)):
                self._claim(space, nodes)

    def _classes(self) -> None:
        def add(name: str, *expressions: str, **more: object) -> None:
            spec = {"selectors": [{"cel": {"expression": text}} for text in expressions], **more}
            self.parts.append(
                Part({"apiVersion": API, "kind": "DeviceClass", "metadata": {"name": name}, "spec": spec})
            )

        mapped = {"extendedResourceName": "nvidia.com/gpu"} if self.draw.chance(0.5) else {}
        add(DRIVER, f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].type == "gpu"', **mapped)
        add("mig.nvidia.com", f'device.driver == "{DRIVER}" && device.attributes["{DRIVER}"].type == "mig"')
        add("fabric.example.com", 'device.driver == "fabric.example.com"')
        if self.draw.chance(0.3):
            add("anything")

    def _slice(self, node: Object) -> None:
        draw, name = self.draw, node["metadata"]["name"]
        status = node["status"]
        if draw.chance(0.7):  # served by the driver instead of the device plugin
            status["allocatable"].pop("nvidia.com/gpu", None)
            if draw.chance(0.7):
                status["capacity"].pop("nvidia.com/gpu", None)
        product = draw.one(_PRODUCTS)
        devices: list[Object] = []
        for number in range(draw.one([1, 2, 4, 8])):
            kind = "mig" if draw.chance(0.15) else "gpu"
            device: Object = {
                "name": f"{kind}-{number}",
                "attributes": {
                    "type": {"string": kind},
                    "productName": {"string": product},
                    "index": {"int": number},
                    "numa": {"int": number % 2},
                    "driverVersion": {"version": "580.65.6"},
                    "ecc": {"bool": draw.chance(0.5)},
                },
                "capacity": {"memory": {"value": "81559Mi" if "H100" in product else "23034Mi"}},
            }
            if draw.chance(0.08):
                device["taints"] = [
                    {"key": "example.com/unhealthy", "effect": draw.one(["NoSchedule", "NoExecute", "None"])}
                ]
            devices.append(device)
        parted: Object = {}
        if draw.chance(0.08):  # parts of one GPU that exclude each other
            name_of = "gpu-memory"
            parted = {"sharedCounters": [{"name": name_of, "counters": {"memory": {"value": "80Gi"}}}]}
            for device, size in zip(devices, ("80Gi", "40Gi", "40Gi", "20Gi"), strict=False):
                device["consumesCounters"] = [{"counterSet": name_of, "counters": {"memory": {"value": size}}}]
        elif draw.chance(0.08):  # devices that several claims share by their memory
            for device in devices:
                device["allowMultipleAllocations"] = True
        pool = {"name": name, "generation": draw.one([1, 1, 3]), "resourceSliceCount": 1}
        if draw.chance(0.05):
            pool["resourceSliceCount"] = 2  # the other half is not there
        if parted:  # counters have a slice of their own
            pool["resourceSliceCount"] += 1
            spec = {"driver": DRIVER, "pool": pool, "nodeName": name, **parted}
            item = {"apiVersion": API, "kind": "ResourceSlice", "metadata": {"name": f"{name}-counters"}, "spec": spec}
            self.parts.append(Part(item))
        self._add_slice(f"{name}-gpu", DRIVER, pool, devices, nodeName=name)
        if pool["generation"] == 3:
            self._add_slice(
                f"{name}-gpu-old",
                DRIVER,
                pool | {"generation": 2},
                [{"name": "gone", "attributes": {"type": {"string": "gpu"}}}],
                nodeName=name,
            )
        self.free[name] = [d["name"] for d in devices if "taints" not in d]

    def _add_slice(self, name: str, driver: str, pool: Object, devices: list[Object], **where: object) -> None:
        spec = {"driver": driver, "pool": pool, "devices": devices, **where}
        self.parts.append(Part({"apiVersion": API, "kind": "ResourceSlice", "metadata": {"name": name}, "spec": spec}))

    def _fabric(self, nodes: list[Object]) -> None:
        """Devices that are not of one node."""
        draw = self.draw
        where: Object = {"allNodes": True}
        if draw.chance(0.6):
            zone = draw.one(["zone-a", "zone-b"])
            row = {"key": "topology.kubernetes.io/zone", "operator": "In", "values": [zone]}
            where = {"nodeSelector": {"nodeSelectorTerms": [{"matchExpressions": [row]}]}}
        devices: list[Object] = [{"name": f"link-{n}"} for n in range(draw.between(1, 3))]
        pool = {"name": "fabric", "generation": 1, "resourceSliceCount": 1}
        self._add_slice("fabric", "fabric.example.com", pool, devices, **where)

    def _request(self, name: str = "gpu") -> Object:
        draw = self.draw
        if draw.chance(0.1):
            rows = [
                {"name": "large", "deviceClassName": DRIVER, "count": draw.one([4, 8])},
                {"name": "small", "deviceClassName": draw.one(["mig.nvidia.com", DRIVER]), "count": 1},
            ]
            return {"name": name, "firstAvailable": rows}
        exactly: Object = {
            "deviceClassName": DRIVER
            if draw.chance(0.75)
            else draw.one(["mig.nvidia.com", "fabric.example.com", "no-such-class"])
        }
        if draw.chance(0.1):
            exactly["allocationMode"] = "All"
        elif draw.chance(0.4):
            exactly["count"] = draw.one([1, 2, 4, 8])
        if draw.chance(0.3):
            attributes = f'device.attributes["{DRIVER}"]'
            text = draw.one(
                [
                    f'{attributes}.productName == "NVIDIA L4"',
                    f'{attributes}.productName.matches("^NVIDIA H100")',
                    f'{attributes}.productName.lowerAscii().contains("h100")',
                    f"{attributes}.index < 2",
                    f"{attributes}.numa == 1 || {attributes}.ecc",
                    f'device.capacity["{DRIVER}"].memory.compareTo(quantity("40Gi")) >= 0',
                    f'{attributes}.driverVersion.isGreaterThan(semver("570.0.0"))',
                    f'"missing" in {attributes} && {attributes}.missing == "x"',
                ]
            )
            exactly["selectors"] = [{"cel": {"expression": text}}]
        if draw.chance(0.05):
            exactly["capacity"] = {"requests": {"memory": draw.one(["10Gi", "60Gi"])}}
        if draw.chance(0.15):
            exactly["tolerations"] = [{"key": "example.com/unhealthy", "operator": "Exists"}]
        return {"name": name, "exactly": exactly}

    def _spec(self) -> Object:
        draw = self.draw
        requests = [self._request()]
        if draw.chance(0.15):
            requests.append(self._request("second"))
        spec: Object = {"requests": requests}
        if draw.chance(0.15):
            attribute = draw.one([f"{DRIVER}/numa", f"{DRIVER}/productName"])
            spec["constraints"] = [{"matchAttribute": attribute}]
        return {"devices": spec}

    def _claim(self, space: str, nodes: list[Object]) -> None:
        draw = self.draw
        self._count += 1
        name = f"claim-{self._count}"
        item: Object = {
            "apiVersion": API,
            "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": space},
            "spec": self._spec(),
        }
        self.claims[space].append(name)
        match draw.between(1, 10):
            case 1 | 2 | 3:
                node = draw.one(nodes)["metadata"]["name"]
                if self.free.get(node):
                    item["spec"] = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": DRIVER}}]}}
                    self.parts.append(Part(item, self._allocated(node, [])))
                    self._shared[space].append((name, node))
                    return
            case 4:
                item["metadata"]["finalizers"] = ["example.com/keep"]
                self.parts.append(Part(item, deleted=0))
                return
            case 5 if draw.chance(0.3):
                node = draw.one(nodes)["metadata"]["name"]
                if self.free.get(node):
                    item["spec"] = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": DRIVER}}]}}
                    users = [{"resource": "pods", "name": f"other-{n}", "uid": f"uid-{n}"} for n in range(256)]
                    self.parts.append(Part(item, self._allocated(node, users)))
                    return
        self.parts.append(Part(item))

    def _allocated(self, node: str, users: list[Object]) -> Object:
        device = self.free[node].pop()
        row = {"request": "gpu", "driver": DRIVER, "pool": node, "device": device}
        field = {"key": "metadata.name", "operator": "In", "values": [node]}
        allocation: Object = {
            "devices": {"results": [row]},
            "nodeSelector": {"nodeSelectorTerms": [{"matchFields": [field]}]},
        }
        allocation["allocationTimestamp"] = "2026-01-01T00:00:00Z"  # the scheduler adds one, and then it is immutable
        return {"allocation": allocation, "reservedFor": users}

    def use(self, pod: Object, node: Object) -> None:
        """Lets a pod that runs on the node hold a device of it."""
        draw, where = self.draw, node["metadata"]["name"]
        space = pod["metadata"]["namespace"]
        if space not in self.claims or not self.free.get(where):
            return
        self._count += 1
        name = f"claim-{self._count}"
        spec = {"devices": {"requests": [{"name": "gpu", "exactly": {"deviceClassName": DRIVER}}]}}
        item = {
            "apiVersion": API,
            "kind": "ResourceClaim",
            "metadata": {"name": name, "namespace": space},
            "spec": spec,
        }
        users = [{"resource": "pods", "name": pod["metadata"]["name"], "uid": f"uid-{name}"}]
        self.parts.append(Part(item, self._allocated(where, users)))
        pod["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": name}]
        if draw.chance(0.3):
            self.claims[space].append(name)

    def claim(self, case: Case) -> None:
        """Lets the pod that is judged ask for devices."""
        draw, pod = self.draw, case.pod
        space = pod["metadata"]["namespace"]
        resources = pod["spec"]["containers"][0]["resources"]
        if draw.chance(0.25):  # in the words of a device plugin
            word = draw.one(["nvidia.com/gpu", f"deviceclass.resource.kubernetes.io/{DRIVER}"])
            resources["limits"] = {k: v for k, v in resources["limits"].items() if "/" not in k} | {
                word: draw.one(["1", "2", "8"])
            }
            return
        if draw.chance(0.8):
            resources["limits"] = {k: v for k, v in resources["limits"].items() if "/" not in k}
        if draw.chance(0.4):
            self._templated(case)
        else:
            name = draw.one(self.claims[space]) if draw.chance(0.95) else "missing"
            pod["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimName": name}]
        resources["claims"] = [{"name": "gpu"}]

    def _templated(self, case: Case) -> None:
        draw, pod = self.draw, case.pod
        name, space = pod["metadata"]["name"], pod["metadata"]["namespace"]
        pod["spec"]["resourceClaims"] = [{"name": "gpu", "resourceClaimTemplateName": f"{name}-template"}]
        spec = self._spec()
        template = {
            "apiVersion": API,
            "kind": "ResourceClaimTemplate",
            "metadata": {"name": f"{name}-template", "namespace": space},
            "spec": {"spec": spec},
        }
        case.made.append(Part(template))
        if draw.chance(0.93):
            made = f"{name}-gpu-x7k2p"
            metadata = {
                "name": made,
                "namespace": space,
                "annotations": {"resource.kubernetes.io/pod-claim-name": "gpu"},
                "ownerReferences": [owner(pod)],
            }
            case.made.append(Part({"apiVersion": API, "kind": "ResourceClaim", "metadata": metadata, "spec": spec}))
            case.claim_statuses.append({"name": "gpu", "resourceClaimName": made})
