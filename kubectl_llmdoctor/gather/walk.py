"""From what was named to everything around it: owners, siblings, node, volumes, configuration, logs.

Every step asks for objects and says what follows from them; the steps run as their answers come.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from kubectl_llmdoctor.gather import discovery, kinds, related, slim
from kubectl_llmdoctor.gather.agents import Agents
from kubectl_llmdoctor.gather.capacity import Capacity
from kubectl_llmdoctor.gather.collector import PAGE, Collector, typed
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.kinds import Kind, core
from kubectl_llmdoctor.gather.podlogs import PodLogs
from kubectl_llmdoctor.gather.related import key_of, labels_of, meta, name_of, namespace_of
from kubectl_llmdoctor.gather.transport import query
from kubectl_llmdoctor.platforms.labels import KUEUE_QUEUE, WORKER_INDEX
from kubectl_llmdoctor.platforms.ray import clusters_made
from kubectl_llmdoctor.snapshot import Json
from kubectl_llmdoctor.tree import say_selector

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.cluster import Cluster

#: Logs of so many pods of one workload or group are read, the most broken first.
LOG_PODS = 8

#: Pods of one workload that are read.
_SIBLINGS = 200

#: Other pods of a namespace that are kept whole; of more only what takes place on a node is.
_WHOLE_NEIGHBOURS = 30

#: Pods that ask one, and whose logs are read.
_ASKERS = 4

#: Pods of KAI's that hold a GPU for others, and whose logs are read.
_RESERVATIONS = 4

#: Services that a pod is told to ask and that are followed, and pods behind each.
_SERVERS, _BEHIND = 6, 20
#: The label that every pod of a Job has.
_OF_JOBS = "job-name"

#: Routes that stand elsewhere than in the namespace of the pods.
_OTHERS = "other namespaces"

#: Owners that are followed; the chain of one pod is rarely longer than four.
_MAX_OWNERS = 200

#: What holds for all pods of a namespace.
NAMESPACE_LISTS = (
    core("Service"),
    core("EndpointSlice", "discovery.k8s.io"),
    core("HorizontalPodAutoscaler", "autoscaling"),
    core("PodDisruptionBudget", "policy"),
    core("NetworkPolicy", "networking.k8s.io"),
    core("Ingress", "networking.k8s.io"),
    core("ResourceQuota"),
    core("LimitRange"),
)

#: A namespace's routes may stand in that of their gateway.
_HTTP_ROUTE = core("HTTPRoute", "gateway.networking.k8s.io")
_GATEWAY = Kind("Gateway", "gateways", "gateway.networking.k8s.io", ("v1", "v1beta1"))
_ROUTES = frozenset((_HTTP_ROUTE.group, kind) for kind in ("HTTPRoute", "GRPCRoute"))
_BACKENDS = frozenset(
    (group, "InferencePool") for group in ("inference.networking.k8s.io", "inference.networking.x-k8s.io")
) | {("", "Service")}
_AI_ROUTE = core("AIGatewayRoute", "aigateway.envoyproxy.io")

#: Of operators that need not be installed: autoscaling, ways in, monitoring, another plugin's policies.
NAMESPACE_LISTS_IF_THERE = (
    core("ScaledObject", "keda.sh"),
    core("HTTPScaledObject", "http.keda.sh"),
    _HTTP_ROUTE,
    core("VirtualService", "networking.istio.io"),
    core("DestinationRule", "networking.istio.io"),
    core("AuthorizationPolicy", "security.istio.io"),
    core("BackendTrafficPolicy", "gateway.envoyproxy.io"),
    core("EnvoyExtensionPolicy", "gateway.envoyproxy.io"),
    core("GCPBackendPolicy", "networking.gke.io"),
    core("BackendTLSPolicy", "gateway.networking.k8s.io"),
    core("HTTPProxy", "projectcontour.io"),
    core("IngressRoute", "traefik.io"),
    _AI_ROUTE,
    core("AIServiceBackend", "aigateway.envoyproxy.io"),
    core("Backend", "gateway.envoyproxy.io"),
    core("Route", "route.openshift.io"),
    core("InferencePool", "inference.networking.k8s.io"),
    core("InferencePool", "inference.networking.x-k8s.io"),
    core("ServiceMonitor", "monitoring.coreos.com"),
    core("PodMonitor", "monitoring.coreos.com"),
    core("CiliumNetworkPolicy", "cilium.io"),
    core("CiliumClusterwideNetworkPolicy", "cilium.io"),
)

#: Where a mesh keeps what holds for all of it, unless its installer named another namespace.
_ISTIO = "istio-system"
#: Where most clusters keep their DNS.
_DNS = "kube-system"

_DEPLOYMENT = ("apps", "Deployment")
_VOLCANO_JOB = ("batch.volcano.sh", "Job")
_VOLCANO_QUEUE = Kind("Queue", "queues", "scheduling.volcano.sh", ("v1beta1",), namespaced=False)
_KAI_QUEUE = Kind("Queue", "queues", "scheduling.run.ai", ("v2",), namespaced=False)
_CLUSTER_QUEUE, _FLAVOR, _TOPOLOGY = (
    Kind(kind, plural, "kueue.x-k8s.io", ("v1beta2", "v1beta1"), namespaced=False)
    for kind, plural in (
        ("ClusterQueue", "clusterqueues"),
        ("ResourceFlavor", "resourceflavors"),
        ("Topology", "topologies"),
    )
)
_LEADER_WORKER_SET = ("leaderworkerset.x-k8s.io", "LeaderWorkerSet")


class Walk:
    """One gathering."""

    def __init__(self, pot: Collector, log_cap_bytes: int, agents: Agents | None = None) -> None:
        self._pot = pot
        self._logs = PodLogs(pot, log_cap_bytes)
        self._agents = agents
        self._capacity = Capacity(pot, self._logs, agents)
        self._groups: set[tuple[str, ...]] = set()
        #: whose logs are read because they ask the pods that are explained
        self._asking: set[tuple[str, str]] = set()
        self._owners = 0
        self._lock = threading.Lock()
        self._routing = threading.Lock()
        self._every_route: tuple[list[Json], bool] | None = None
        #: the events of a namespace, and whether there are more
        self.events: dict[str, tuple[list[Json], bool]] = {}
        #: the pods that are explained
        self.pods: list[Json] = []
        #: the namespaces of workloads that are explained and have no pods
        self._asleep: set[str] = set()

    # --- a namespace --------------------------------------------------------------------------------------------------

    def namespace(self, namespace: str) -> None:
        """What holds for all pods of a namespace. Needs nothing but its name, so it is asked for at once."""
        pot = self._pot
        if not pot.once("namespace", namespace):
            return

        def events() -> None:
            self.events[namespace] = pot.page(core("Event"), namespace)

        pot.task("events", namespace, events)
        for kind in NAMESPACE_LISTS:
            pot.get_list(kind, namespace)
        for kind in NAMESPACE_LISTS_IF_THERE:
            if kind is not _HTTP_ROUTE:
                pot.get_list(kind, namespace, if_there=True)
        pot.task(_HTTP_ROUTE.resource, namespace, lambda: self._routes(namespace))
        pot.get(core("Namespace"), "", namespace)
        pot.task("pods", namespace, lambda: self._neighbours(namespace))

    def _routes(self, namespace: str) -> None:
        """The routes to a namespace, wherever they stand; those in it alone where nobody may read more, or where they are many."""
        pot = self._pot
        kind = pot.installed(_HTTP_ROUTE)
        if kind is None or not pot.once("list", kind.key, namespace, "", ""):
            return
        try:
            found, more = self._all_routes(kind)
            if more:
                found, more = pot.page(kind, namespace)
        except RequestError as error:
            if error.why != Why.NO_SUCH_KIND:
                raise
            return
        for route in found:
            if namespace_of(route) == namespace or _may_lead_to(route, namespace):
                pot.add(route)
                self._gateways(route)
                if namespace_of(route) != namespace:  # of the own one they are listed
                    self._made_of(route)
        if more:
            pot.miss(kind.resource, namespace, f"only the first {len(found)} were read")
        else:
            pot.mark(kind.kind, namespace)

    def _gateways(self, route: Json) -> None:
        """The gateways that a route hangs on: by their addresses clients ask what stands behind it."""
        for ref in (route.get("spec") or {}).get("parentRefs") or ():
            if str(ref.get("kind") or _GATEWAY.kind) == _GATEWAY.kind:
                namespace = str(ref.get("namespace") or namespace_of(route))
                self._pot.get(_GATEWAY, namespace, str(ref.get("name") or ""), if_there=True)

    def _made_of(self, route: Json) -> None:
        """What a controller made a route of, which may name its backends more exactly."""
        owners = {str(ref.get("kind") or "") for ref in meta(route).get("ownerReferences") or ()}
        if _AI_ROUTE.kind in owners:
            self._pot.get_list(_AI_ROUTE, namespace_of(route), if_there=True)

    def _all_routes(self, kind: Kind) -> tuple[list[Json], bool]:
        """Those of the cluster, asked for once; that they are many, or that nobody may read them, is noted."""
        with self._routing:
            if self._every_route is None:
                try:
                    self._every_route = self._pot.page(kind, "")
                except RequestError as error:
                    if error.why != Why.FORBIDDEN:
                        raise
                    self._pot.miss(kind.resource, _OTHERS, error.reason)
                    self._every_route = [], True
                else:
                    if self._every_route[1]:
                        self._pot.miss(
                            kind.resource, _OTHERS, f"not read, as there are more than {PAGE} in the cluster"
                        )
            return self._every_route

    def _neighbours(self, namespace: str) -> None:
        """The other pods of the namespace: routers, caches, who holds a volume. Whole as long as they are few."""
        (path,) = kinds.POD.paths(namespace)
        page = self._pot.client.get(path, query(limit=PAGE), decode=slim.decode_pod_page)
        items = page.items or ()
        for item in items:
            if len(items) <= _WHOLE_NEIGHBOURS:
                self._pot.add(typed(msgspec.json.decode(item), kinds.POD))
            elif (decoded := slim.decode_pod(item)) is not None:
                self._pot.add(slim.pod_tree(decoded), is_slim=True)
        if page.metadata.continue_:
            self._pot.miss("pods", namespace, f"only the first {len(items)} were read")
        else:
            self._pot.mark("Pod", namespace)

    # --- pods ---------------------------------------------------------------------------------------------------------

    def explain(self, pods: Iterable[Json], ref: str, log_pods: int = LOG_PODS) -> None:
        """These pods are what the user asked about."""
        ordered = related.most_broken_first(pods)
        for position, pod in enumerate(ordered):
            one = f"{namespace_of(pod)}/{name_of(pod)}"
            self._pot.task("pods", one, partial(self.pod, pod, with_logs=position < log_pods))
        if len(ordered) > log_pods:
            self._pot.miss("logs", ref, f"read of the {log_pods} most broken of {len(ordered)} pods only")

    def pod(self, pod: Json, *, with_logs: bool = True) -> None:
        """A pod that is explained, and everything that it leads to."""
        pot, namespace = self._pot, namespace_of(pod)
        if not pot.once("pod", namespace, name_of(pod)):
            return
        pot.add(pod)
        with self._lock:
            self.pods.append(pod)
        self.named_by(pod, with_logs=with_logs)
        self._owners_of(pod)
        self._label_owners(pod)
        self._group(pod)
        spec = pod.get("spec") or {}
        if spec.get("nodeName"):
            self._node(spec["nodeName"], pod)
            fields = f"spec.nodeName={spec['nodeName']}"
            if pot.once("pods of node", spec["nodeName"]):
                broken = related.brokenness(pod)[0] > 1
                pot.task("pods", fields, lambda: self._capacity.pods(fields, healthy_plugins=broken))
        for name in related.claims(pod):
            pot.get(core("PersistentVolumeClaim"), namespace, name, self._claim)
        if related.claims(pod) and related.brokenness(pod)[0] > 1:
            # what lies on a claim may be what a Job brought, or did not
            found = partial(self._jobs_found, set(related.claims(pod)))
            pot.get_list(kinds.POD, namespace, found, selector=_OF_JOBS, limit=_BEHIND, again=True)
        pot.get(core("PriorityClass", "scheduling.k8s.io"), "", spec.get("priorityClassName") or "")
        if spec.get("runtimeClassName") or any(
            related.asks_for_gpu(c.get("resources")) for c in related.containers(pod)
        ):
            # All of them: the fault may be that the pod names none.
            pot.get_list(core("RuntimeClass", "node.k8s.io"), "")
            if related.brokenness(pod)[0] > 1:
                pot.get_list(core("ClusterPolicy", "nvidia.com"), "", if_there=True)
        if any(c.get("name") == "istio-proxy" for c in related.containers(pod)):
            for place in dict.fromkeys((namespace, _ISTIO)):
                pot.get_list(core("PeerAuthentication", "security.istio.io"), place, if_there=True)
        self.namespace(namespace)

    def _classes(self, workload: Json) -> None:
        """The classes beside one that a workload without pods names: where that is not there, no pod is made."""
        spec = ((workload.get("spec") or {}).get("template") or {}).get("spec") or {}
        if spec.get("priorityClassName"):
            self._pot.get_list(core("PriorityClass", "scheduling.k8s.io"), "")
        if spec.get("runtimeClassName"):
            self._pot.get_list(core("RuntimeClass", "node.k8s.io"), "")

    def askers(self) -> None:
        """Who asks the pods that are explained and ready, or would ask those that are not there: what is wrong with its requests may
        stand in its log alone.
        """
        from kubectl_llmdoctor.gather import serving

        cluster = serving.cluster_of(self._pot.objects())
        found = [*serving.askers(cluster, self.pods), *serving.choosers(cluster, self._asleep)]
        for pod in found[:_ASKERS]:
            self._logs.of(pod)
        self._asking = {key_of(pod) for pod in found[:_ASKERS]}

    def named_in_logs(self) -> None:
        """Who asks the pods that are explained, whom they ask in vain and which replicas know what they do not, by what their logs say,
        when those have been read; and where DNS answers, where a policy speaks of addresses.
        """
        from kubectl_llmdoctor.gather import serving

        broken = [pod for pod in self.pods if related.brokenness(pod)[0] > 1]
        if lines := serving.in_vain(broken, self._pot.logs):
            cluster = serving.cluster_of(self._pot.objects())
            self._follow(cluster, serving.asked_in_vain(cluster, lines))
        seen = serving.clients_seen(self._pot.objects(), self.pods, self._pot.logs)
        others = (pod for pod in seen if key_of(pod) not in self._asking)
        for pod in islice(others, _ASKERS - len(self._asking)):
            self._logs.of(pod)
        for pod in serving.knowing_adapters(self._pot.objects(), self.pods, self._pot.logs)[:_ASKERS]:
            self._logs.of(pod)
        if broken and any(related.names_dns_servers(one) for one in self._pot.objects()):
            self._pot.get_list(core("Service"), _DNS)
            self._pot.get(core("DaemonSet", "apps"), _DNS, "node-local-dns", if_there=True)

    def reservations(self) -> None:
        """The log of KAI's own pod that holds the GPU which a pending pod is to share: why it does not come stands there alone."""
        from kubectl_llmdoctor.facts.events import awaited_reservation

        waiting = {key_of(pod) for pod in self.pods if related.is_unscheduled(pod)}
        events = [obj for obj in self._pot.whole() if obj.get("kind") == "Event"] if waiting else []
        found: dict[tuple[str, str], None] = {}
        for event in events:
            about = event.get("involvedObject") or {}
            if (about.get("namespace"), about.get("name")) in waiting:
                held = awaited_reservation(str(event.get("message") or ""))
                if held is not None:
                    found[held] = None
        for held in islice(found, _RESERVATIONS):
            self._pot.get(kinds.POD, *held, self._logs.of, if_there=True)

    def servers(self) -> None:
        """Whom the pods that are explained are told to ask: what is wrong with a client may be what stands behind a Service."""
        from kubectl_llmdoctor.gather import serving

        cluster = serving.cluster_of(self._pot.objects())
        self._follow(cluster, serving.asked(cluster, self.pods))
        for namespace, selector in serving.sought(cluster, self.pods)[:_SERVERS]:
            found = partial(self._servers_found, namespace)
            self._pot.get_list(kinds.POD, namespace, found, selector=selector, limit=_BEHIND, again=True)

    def _follow(self, cluster: Cluster, asked: list[tuple[str, str]]) -> None:
        if len(asked) > _SERVERS:
            self._pot.miss("services", "asked by pods", f"only {_SERVERS} of {len(asked)} were followed to their pods")
        for namespace, name in asked[:_SERVERS]:
            if not self._pot.once("followed", namespace, name):
                continue
            known = cluster.item("Service", namespace, name)
            if known is not None:
                self._service_found(known.raw)
            else:
                self._pot.get(core("Service"), namespace, name, self._service_found)

    def _service_found(self, service: Json) -> None:
        namespace, wanted = namespace_of(service), (service.get("spec") or {}).get("selector") or {}
        selector = say_selector(wanted)
        if not selector:
            return
        named = f"kubernetes.io/service-name={name_of(service)}"
        self._pot.get_list(core("EndpointSlice", "discovery.k8s.io"), namespace, selector=named)
        self._pot.get_list(core("NetworkPolicy", "networking.k8s.io"), namespace)
        found = partial(self._servers_found, namespace)
        self._pot.get_list(kinds.POD, namespace, found, selector=selector, limit=_BEHIND, again=True)

    def _servers_found(self, namespace: str, pods: list[Json]) -> None:
        """The pods behind a Service: the log of the one that is worst off; where there is none, who is scaled to none."""
        for pod in related.most_broken_first(pods)[:1]:
            self._logs.of(pod)
        for kind in (core("Deployment", "apps"), core("StatefulSet", "apps")) if not pods else ():
            self._pot.get_list(kind, namespace, keep=lambda one: (one.get("spec") or {}).get("replicas") == 0)

    def _jobs_found(self, claims: set[str], pods: list[Json]) -> None:
        """The pods of Jobs in a namespace: whether their Job has done its work, and the log of one that failed and mounts a claim."""
        failed = [pod for pod in pods if claims.intersection(related.claims(pod)) and related.brokenness(pod)[0] > 1]
        for pod in related.most_broken_first(failed)[:1]:
            self._logs.of(pod)
            self._owners_of(pod)

    def named_by(self, pod: Json, *, with_logs: bool = True) -> None:
        """What a pod itself leads to, and no list of a whole cluster holds: logs, configuration, devices, its place."""
        pot, namespace = self._pot, namespace_of(pod)
        # What takes longest is asked for first.
        if with_logs:
            self._logs.of(pod)
        if related.is_unscheduled(pod):
            self._capacity.of(pod)
        for name in related.config_maps(pod):
            pot.get(core("ConfigMap"), namespace, name)
        if related.waits_for_a_head(pod):  # by a name in the domain of the cluster, which its DNS is told
            pot.get(core("ConfigMap"), _DNS, "coredns")
        for name in related.secrets(pod):
            pot.get(core("Secret"), namespace, name, metadata_only=True)
        claims, templates = related.resource_claims(pod)
        for name in claims:
            pot.get(core("ResourceClaim", "resource.k8s.io"), namespace, name)
        for name in templates:
            pot.get(core("ResourceClaimTemplate", "resource.k8s.io"), namespace, name)

    def _node(self, name: str, pod: Json) -> None:
        """The node of a pod, and what its agent says."""
        if self._agents is not None:
            self._agents.of(name, expected=related.has_gpu(pod))
        self._pot.get(core("Node"), "", name)
        # The events of objects without a namespace are in this one.
        involved = f"involvedObject.kind=Node,involvedObject.name={name}"
        self._pot.get_list(core("Event"), "default", fields=involved)

    def _claim(self, claim: Json) -> None:
        spec = claim.get("spec") or {}
        self._pot.get(core("PersistentVolume"), "", spec.get("volumeName") or "")
        self._pot.get(core("StorageClass", "storage.k8s.io"), "", spec.get("storageClassName") or "")

    def _group(self, pod: Json) -> None:
        """The pods that live and die with this one: the cause may stand in the log of another rank."""
        key = related.group_key(pod)
        if key:
            with self._lock:
                self._groups.add(key)
            self._siblings(key[0], f"{key[1]}={key[2]}")
        if labels_of(pod).get(WORKER_INDEX) == "0":
            # of its workers, with its name; there is none where the workers may not be made, or only the leader serves
            self._pot.get(core("StatefulSet", "apps"), namespace_of(pod), name_of(pod), if_there=True)

    def _siblings(self, namespace: str, selector: str) -> None:
        self._pot.get_list(kinds.POD, namespace, self._siblings_found, selector=selector, limit=_SIBLINGS)

    def _siblings_found(self, pods: list[Json]) -> None:
        with self._lock:
            groups = set(self._groups)
        members = [pod for pod in pods if related.group_key(pod) in groups]
        for pod in related.most_broken_first(members)[:LOG_PODS]:
            self._logs.of(pod)
            node = (pod.get("spec") or {}).get("nodeName")
            if node:
                self._node(node, pod)

    # --- owners and workloads -----------------------------------------------------------------------------------------

    def _owners_of(self, obj: Json) -> None:
        namespace = namespace_of(obj)
        for ref in meta(obj).get("ownerReferences") or ():
            api_version, kind_name, name = (str(ref.get(key) or "") for key in ("apiVersion", "kind", "name"))
            if not self._pot.once("owner", api_version, kind_name, namespace, name):
                continue
            with self._lock:
                self._owners += 1
                if self._owners > _MAX_OWNERS:
                    return
            kind = kinds.by_type(api_version, kind_name)
            if kind is not None:
                self._pot.get(kind, namespace, name, self._owner_found)
            else:
                self._pot.task(kind_name, f"{namespace}/{name}", self._foreign(api_version, kind_name, namespace, name))

    def _foreign(self, api_version: str, kind_name: str, namespace: str, name: str) -> Callable[[], None]:
        def work() -> None:
            kind = discovery.find_type(self._pot.client, api_version, kind_name)
            if kind is not None:
                self._pot.get(kind, namespace, name, self._owner_found)

        return work

    def _owner_found(self, obj: Json) -> None:
        self.workload(obj, explain=False)

    def _label_owners(self, obj: Json) -> None:
        marks = {**(meta(obj).get("annotations") or {}), **labels_of(obj)}
        for row in kinds.LABEL_OWNERS:
            name = marks.get(row.key)
            if name and all(marks.get(key) == value for key, value in row.only):
                self._pot.get(row.owner, namespace_of(obj), str(name), self._owner_found, if_there=True)
        spec = obj.get("spec") or {}
        scheduled = spec.get("schedulerName") if obj.get("kind") == "Pod" else None
        told = spec.get("queue") if str(obj.get("apiVersion")).startswith("batch.volcano.sh/") else None
        if (
            queue := marks.get("scheduling.volcano.sh/queue-name")
            or told
            or ("default" if scheduled == "volcano" else "")
        ):
            self._pot.get(_VOLCANO_QUEUE, "", str(queue), if_there=True)
        if marks.get("kai.scheduler/queue") or marks.get("runai/queue"):
            self._pot.get_list(_KAI_QUEUE, "", if_there=True)  # that queue, and those below it
        queued, gated = bool(marks.get(KUEUE_QUEUE)), related.is_gated_by_kueue(obj)
        if queued or gated:
            kind = core("Workload", "kueue.x-k8s.io")  # owned by what waits in the queue: it says why it waits
            keep = partial(_is_owned, owner=obj)
            self._pot.get_list(kind, namespace_of(obj), keep=keep, if_there=True, again=True)
        if gated and not queued:  # it waits for a queue that it does not name: which there are
            self._pot.get_list(
                core("LocalQueue", "kueue.x-k8s.io"), namespace_of(obj), self._queues_found, if_there=True
            )

    def _queues_found(self, queues: list[Json]) -> None:
        for queue in queues:
            self._owner_found(queue)

    def workload(self, obj: Json, *, explain: bool, kind: Kind | None = None) -> None:
        """Something that owns pods. `explain`: its pods are what the user asked about, else they are siblings only."""
        pot, (namespace, name) = self._pot, key_of(obj)
        kind = kind or kinds.of(obj)
        if kind is None or not pot.once("workload", kind.key, namespace, name, explain):
            return
        pot.add(obj)
        self._owners_of(obj)
        if not meta(obj).get("ownerReferences"):
            self._label_owners(obj)
        if kind.key == _VOLCANO_JOB:  # its group is there before any pod, and says why there is none
            pot.get(
                core("PodGroup", "scheduling.volcano.sh"), namespace, f"{name}-{meta(obj).get('uid')}", if_there=True
            )
        if kind.kind == "LocalQueue":
            queue = str((obj.get("spec") or {}).get("clusterQueue") or "")
            pot.get(_CLUSTER_QUEUE, "", queue, self._flavors, if_there=True)
        selector = kinds.pod_selector(obj, kind)
        self._revisions(obj, kind, selector)
        if explain:
            self.namespace(namespace)
            self._explain_workload(obj, kind, selector)
        elif kind.key in kinds.REPLICATORS and selector and not self._is_part(obj, kind):
            self._siblings(namespace, selector)

    def _flavors(self, queue: Json) -> None:
        """What the flavors of a ClusterQueue of Kueue's demand of nodes, and the levels of their topologies."""
        for group in (queue.get("spec") or {}).get("resourceGroups") or ():
            for flavor in group.get("flavors") or ():
                self._pot.get(_FLAVOR, "", str(flavor.get("name") or ""), self._topology, if_there=True)

    def _topology(self, flavor: Json) -> None:
        self._pot.get(_TOPOLOGY, "", str((flavor.get("spec") or {}).get("topologyName") or ""), if_there=True)

    @staticmethod
    def _is_part(obj: Json, kind: Kind) -> bool:
        """Whether another owner knows all the pods: a ReplicaSet's Deployment, the LeaderWorkerSet of a StatefulSet."""
        owned = bool(meta(obj).get("ownerReferences"))
        return owned and kind.kind in ("ReplicaSet", "StatefulSet", "Job")

    def _revisions(self, obj: Json, kind: Kind, selector: str) -> None:
        """What the workload was before."""
        if not selector:
            return
        own = partial(_is_owned, owner=obj)
        if kind.key in (_DEPLOYMENT, ("argoproj.io", "Rollout")):
            self._pot.get_list(core("ReplicaSet", "apps"), namespace_of(obj), selector=selector, keep=own)
        elif kind.key in (("apps", "StatefulSet"), ("apps", "DaemonSet"), _LEADER_WORKER_SET):
            self._pot.get_list(core("ControllerRevision", "apps"), namespace_of(obj), selector=selector, keep=own)

    def _explain_workload(self, obj: Json, kind: Kind, selector: str) -> None:
        pot, (namespace, name) = self._pot, key_of(obj)
        ref = f"{kind.kind}/{namespace}/{name}"

        def pods_found(pods: list[Json]) -> None:
            self.explain(pods, ref)
            if not pods:
                self._asleep.add(namespace)
                self._classes(obj)
            if not pods and not meta(obj).get("ownerReferences"):
                pot.task("pods", ref, lambda: self._below(obj, ref))

        if selector:
            pot.get_list(kinds.POD, namespace, pods_found, selector=selector, limit=_SIBLINGS, again=True)
        elif kind.key in _ROUTES:
            self._backends(obj)
        else:
            pot.task("pods", ref, lambda: self._below(obj, ref))
        for child in kinds.CHILDREN.get(kind.key, ()):
            pot.get_list(child, namespace, self._children_found, selector=selector, if_there=True)
        if kind.key == ("batch", "CronJob"):
            pot.get_list(core("Job", "batch"), namespace, self._children_found, keep=partial(_is_owned, owner=obj))
        if kind.key in (("ray.io", "RayService"), ("ray.io", "RayJob")):
            for cluster in clusters_made(obj):
                pot.get(core("RayCluster", "ray.io"), namespace, cluster, lambda one: self._children_found([one]))
        if kind.key == ("serving.kserve.io", "InferenceService"):
            self._runtimes(obj)
        if kind.key == ("serving.kserve.io", "LLMInferenceService"):
            config = core("LLMInferenceServiceConfig", "serving.kserve.io")
            for ref in (obj.get("spec") or {}).get("baseRefs") or ():
                pot.get(config, namespace, str(ref.get("name") or ""), if_there=True)
        if kind.key == ("kaito.sh", "Workspace"):  # it has no pod before it has its machines
            selector = f"kaito.sh/workspace={name},kaito.sh/workspacenamespace={namespace}"
            pot.get_list(core("NodeClaim", "karpenter.sh"), "", selector=selector, if_there=True)
        if kind.key == ("apps.nvidia.com", "NIMService"):
            storage = (obj.get("spec") or {}).get("storage") or {}
            cache = (storage.get("nimCache") or {}).get("name") or ""
            pot.get(core("NIMCache", "apps.nvidia.com"), namespace, cache, if_there=True)

    def _backends(self, route: Json) -> None:
        """The Services and pools that a route sends requests to, each with its pods."""
        own = namespace_of(route)
        for rule in (route.get("spec") or {}).get("rules") or ():
            for ref in rule.get("backendRefs") or ():
                kind = kinds.by_type(f"{ref.get('group') or ''}/", str(ref.get("kind") or "Service"))
                if kind is not None and kind.key in _BACKENDS:
                    explained = partial(self.workload, explain=True)
                    self._pot.get(kind, str(ref.get("namespace") or own), str(ref.get("name") or ""), explained)

    def _runtimes(self, obj: Json) -> None:
        """The runtime that an InferenceService names, or all among which KServe chooses one."""
        from kubectl_llmdoctor.platforms import kserve

        wanted = kserve.wanted(obj)
        if wanted is None:
            return
        local = core("ServingRuntime", "serving.kserve.io"), namespace_of(obj)
        for kind, namespace in (local, (core("ClusterServingRuntime", "serving.kserve.io"), "")):
            if wanted.name:
                self._pot.get(kind, namespace, wanted.name, if_there=True)
            else:
                self._pot.get_list(kind, namespace, if_there=True)

    def _children_found(self, children: list[Json]) -> None:
        for child in children:
            self.workload(child, explain=True)

    def _below(self, obj: Json, ref: str) -> None:
        """The pods below an object of a kind whose selector nobody knows: down along the ownerReferences."""
        namespace = namespace_of(obj)
        steps = ("ReplicaSet", "apps"), ("Deployment", "apps"), ("StatefulSet", "apps"), ("Job", "batch")
        custom = (
            core("LeaderWorkerSet", "leaderworkerset.x-k8s.io"),
            core("PodClique", "grove.io"),
            core("RayCluster", "ray.io"),
            core("RayClusterReplicaSet", "orchestration.aibrix.ai"),
            core("RoleSet", "orchestration.aibrix.ai"),
            core("PodSet", "orchestration.aibrix.ai"),
            core("ModelServing", "workload.serving.volcano.sh"),
        )
        owned_by: dict[str, list[tuple[Kind, Json]]] = {}
        installed = filter(None, map(self._pot.installed, custom))
        for kind in (kinds.POD, *(core(*step) for step in steps), *installed):
            try:
                items, _ = self._pot.page(kind, namespace, names_only=True)
            except RequestError as error:
                if error.why != Why.NO_SUCH_KIND:
                    self._pot.miss(kind.resource, namespace, error.reason)
                continue
            for item in items:
                for owner in meta(item).get("ownerReferences") or ():
                    owned_by.setdefault(str(owner.get("uid")), []).append((kind, item))
        names: set[str] = set()
        todo, seen = [str(meta(obj).get("uid"))], set[str]()
        while todo:
            uid = todo.pop()
            if uid in seen:
                continue
            seen.add(uid)
            for kind, item in owned_by.get(uid, ()):
                todo.append(str(meta(item).get("uid")))
                if kind is kinds.POD:
                    names.add(name_of(item))
                else:
                    self._pot.get(kind, namespace, name_of(item), self._owner_found)
        self.explain([self._pot.fetch(kinds.POD, namespace, one) for one in sorted(names)[:_SIBLINGS]], ref)


def _is_owned(item: Json, owner: Json) -> bool:
    return any(ref.get("uid") == meta(owner).get("uid") for ref in meta(item).get("ownerReferences") or ())


def _may_lead_to(route: Json, namespace: str) -> bool:
    """Whether a backend of an HTTPRoute is in a namespace, or not found, so that it may have been meant to be in it."""
    rules = (route.get("spec") or {}).get("rules") or ()
    if any(ref.get("namespace") == namespace for rule in rules for ref in rule.get("backendRefs") or ()):
        return True
    parents = (route.get("status") or {}).get("parents") or ()
    said = [row for parent in parents for row in parent.get("conditions") or ()]
    return any(row.get("type") == "ResolvedRefs" and row.get("status") == "False" for row in said)
