"""Nodes and what takes place on them: why no node will do for a pod is a statement about all of them."""

from __future__ import annotations

from kubectl_llmdoctor.gather import kinds, related, slim
from kubectl_llmdoctor.gather.agents import Agents
from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.kinds import core
from kubectl_llmdoctor.gather.podlogs import PodLogs
from kubectl_llmdoctor.gather.related import name_of, namespace_of
from kubectl_llmdoctor.gather.transport import query
from kubectl_llmdoctor.snapshot import UNFINISHED, Json

#: Device plugins whose logs are read: on many nodes they say the same.
_DEVICE_PLUGINS = 4
#: The same of the pods that bring drivers and container toolkits, where they are broken.
_BEFORE_PLUGINS = 2

#: APIs whose machines stand in the cluster that they are nodes of: OpenShift's, kubermatic's.
_MACHINES = ("machine.openshift.io", "cluster.k8s.io")

#: Of a kind that decides about a pod's place so many are read; of more the filters that need them all do not judge.
_MANY = 5000

#: In a cluster with more pods than this, those that have finished are left out: they take no place, and may be many.
_MANY_PODS = 5000


class Capacity:
    """Reads all nodes, or the pods of one."""

    def __init__(self, pot: Collector, logs: PodLogs, agents: Agents | None) -> None:
        self._pot = pot
        self._agents = agents
        self._logs = logs

    def of(self, pod: Json) -> None:
        """All nodes and what takes place on them: why no node will do for a pod is a statement about all of them."""
        pot = self._pot
        if pot.once("nodes"):
            pot.say("reading all nodes and the pods on them")
            pot.task("nodes", "", lambda: self._all_nodes(ask_agents=related.has_gpu(pod)))
            if pot.once("all pods"):
                pot.task("pods", "", self._all_pods)
            pot.get_list(core("StorageClass", "storage.k8s.io"), "")
            pot.get_list(core("NodeClaim", "karpenter.sh"), "", self._claim_events, if_there=True)
            pot.get_list(core("NodePool", "karpenter.sh"), "", if_there=True)
            for group in _MACHINES:
                pot.get_list(core("Machine", group), "", if_there=True, limit=_MANY)
        if related.claims(pod) or related.attaches_disks(pod):
            for name in ("PersistentVolume", "PersistentVolumeClaim"):
                pot.get_list(core(name), "", limit=_MANY)
            for name in ("CSINode", "CSIDriver", "CSIStorageCapacity", "VolumeAttachment"):
                pot.get_list(core(name, "storage.k8s.io"), "", limit=_MANY)
        if related.selects_namespaces(pod):
            pot.get_list(core("Namespace"), "", limit=_MANY)
        claims = (pod.get("spec") or {}).get("resourceClaims")
        # A DeviceClass may serve what looks like a plain extended resource (DRAExtendedResource).
        if claims or any(related.asks_for_devices(c.get("resources")) for c in related.containers(pod)):
            for kind in ("DeviceClass", "ResourceSlice", "ResourceClaim"):
                pot.get_list(core(kind, "resource.k8s.io"), "", if_there=not claims, limit=_MANY)
            pot.get_list(core("DaemonSet", "apps"), "", keep=related.brings_devices, limit=_MANY)

    def _claim_events(self, _claims: list[Json]) -> None:
        """Events of NodeClaims, also of those that are gone: one that the cloud refused is deleted soon, and its events stay.

        Events of objects without a namespace are in the namespace `default`.
        """
        self._pot.get_list(core("Event"), "default", fields="involvedObject.kind=NodeClaim")

    def _all_nodes(self, *, ask_agents: bool) -> None:
        nodes: list[slim.Node] = []
        for page in self._pot.pages(core("Node"), "", slim.decode_node_page):
            for node in page.items or ():
                self._pot.add(slim.node_tree(node), is_slim=True)
            nodes += page.items or ()
        self._pot.mark("Node")
        if self._agents is not None and ask_agents:
            self._agents.of_candidates(nodes)

    def _all_pods(self) -> None:
        (path,) = kinds.POD.paths("")
        first = self._pot.client.get(path, query(limit=1), decode=slim.decode_page)
        many = first.metadata.remaining_item_count > _MANY_PODS
        self.pods(UNFINISHED if many else "", healthy_plugins=True)

    def pods(self, fields: str, *, healthy_plugins: bool) -> None:
        """Pods of all namespaces as the scheduler sees them, and the logs of device plugins among them and of what these wait for."""
        plugins = []
        before: list[Json] = []
        for page in self._pot.pages(kinds.POD, "", slim.decode_pod_page, fields=fields):
            for item in page.items or ():
                decoded = slim.decode_pod(item)
                if decoded is None:
                    self._pot.miss("pods", fields, "a pod was not understood")
                    continue
                pod = slim.pod_tree(decoded)
                self._pot.add(pod, is_slim=True)
                if related.is_device_plugin(pod) and (healthy_plugins or related.brokenness(pod)[0]):
                    plugins.append(pod)
                if related.comes_before_plugins(pod) and related.brokenness(pod)[0] > 1:
                    before.append(pod)
        self._pot.mark("Pod", "", fields)
        first = related.most_broken_first(before)[:_BEFORE_PLUGINS]
        for one in (*related.most_broken_first(plugins)[:_DEVICE_PLUGINS], *first):
            self._pot.get(kinds.POD, namespace_of(one), name_of(one), self._logs.of)
