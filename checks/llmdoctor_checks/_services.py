"""Services that lead to a pod, and what the cluster says of where they lead."""

import msgspec

from kubectl_llmdoctor.api import Cluster, Evidence, Item, Pod, dig, is_headless, object_evidence, rows


class Endpoints(msgspec.Struct, frozen=True):
    """The endpoints of a Service, by its slices or the older object of its name."""

    some: bool
    #: of a Service that has none
    none: Evidence


def service_of(pod: Pod) -> Item | None:
    """The first Service that sends requests to the pod; a headless one is for its peers."""
    return next((item for item in pod.services if not is_headless(item)), None)


def endpoints_of(service: Item, cluster: Cluster) -> Endpoints | None:
    """What is known of a Service's endpoints; None where they were not read."""
    if slices := slices_of(service, cluster):
        some = any(dig(one.raw, "endpoints") for one in slices)
        return Endpoints(some, object_evidence(slices[0], "endpoints", "none"))
    older = cluster.item("Endpoints", service.namespace, service.name)
    return Endpoints(bool(dig(older.raw, "subsets")), object_evidence(older, "subsets", "none")) if older else None


def target_ports(pool: Item) -> set[int]:
    """The ports of pods to which an InferencePool sends, in either of its versions."""
    listed = [row.get("number") for row in rows(pool.raw, "spec.targetPorts")]
    return {port for port in listed or [dig(pool.raw, "spec.targetPortNumber")] if isinstance(port, int)}


def slices_of(service: Item, cluster: Cluster) -> list[Item]:
    """Its EndpointSlices."""
    slices = cluster.items("EndpointSlice", service.namespace)
    return [one for one in slices if one.labels.get("kubernetes.io/service-name") == service.name]
