"""A whole namespace or cluster: each kind is asked for once, and of its answer stays what an audit uses.

Lists come plainly from the API server's watch cache (`resourceVersion=0`), compressed, and are decoded one object at a
time. Pods are kept whole where they serve models, and reduced to what takes place on a node elsewhere. No object is asked
for by its name, except what the pods that need explaining lead to: their logs and configuration, the most broken first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from kubectl_llmdoctor.gather import kinds, listing, related, slim
from kubectl_llmdoctor.gather.agents import Agents
from kubectl_llmdoctor.gather.collector import Collector, typed
from kubectl_llmdoctor.gather.failure import RequestError, Why, unreachable
from kubectl_llmdoctor.gather.kinds import Kind, core
from kubectl_llmdoctor.gather.live import Live
from kubectl_llmdoctor.gather.related import key_of, labels_of, meta, name_of, namespace_of
from kubectl_llmdoctor.gather.selection import serving
from kubectl_llmdoctor.gather.session import Cluster
from kubectl_llmdoctor.gather.transport import PARALLEL, query
from kubectl_llmdoctor.gather.walk import LOG_PODS, NAMESPACE_LISTS, NAMESPACE_LISTS_IF_THERE, Walk
from kubectl_llmdoctor.gather.workers import Workers
from kubectl_llmdoctor.platforms import labels
from kubectl_llmdoctor.snapshot import Json, Snapshot, TargetRef

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.cluster import Query

T = TypeVar("T")

#: Requests within any second, as much as clients of Kubernetes allow themselves.
PER_SECOND = 50

#: Broken pods that are explained by their logs, one for each workload and state; a group counts once.
MAX_EXPLAINED = 100

#: Of one log so much is kept; of all together eight times as much.
_LOG_CAP_BYTES = 4 * 2**20

#: A list that still comes in after so many request timeouts is cut.
_TIMEOUTS = 6

#: Revisions of a Deployment that are kept: the present one and the one before.
_REVISIONS = 2

_WORKLOADS = (core("Deployment", "apps"), core("StatefulSet", "apps"), core("DaemonSet", "apps"), core("Job", "batch"))
_REPLICA_SET = core("ReplicaSet", "apps")

#: Kept in the namespaces where models are served; a whole list tells what does not exist there.
_AROUND = (
    *NAMESPACE_LISTS,
    core("PersistentVolumeClaim"),
    *NAMESPACE_LISTS_IF_THERE,
    core("Workload", "kueue.x-k8s.io"),
    core("LocalQueue", "kueue.x-k8s.io"),
)

#: Few in any cluster, or each a model that is served.
_WHOLE = (
    core("Namespace"),
    core("PersistentVolume"),
    core("StorageClass", "storage.k8s.io"),
    core("PriorityClass", "scheduling.k8s.io"),
    core("RuntimeClass", "node.k8s.io"),
    core("PeerAuthentication", "security.istio.io"),
    core("LeaderWorkerSet", "leaderworkerset.x-k8s.io"),
    core("InferenceService", "serving.kserve.io"),
    core("LLMInferenceService", "serving.kserve.io"),
    core("LLMInferenceServiceConfig", "serving.kserve.io"),
    core("ServingRuntime", "serving.kserve.io"),
    core("ClusterServingRuntime", "serving.kserve.io"),
    core("Service", "serving.knative.dev"),
    core("Configuration", "serving.knative.dev"),
    core("Revision", "serving.knative.dev"),
    core("RayCluster", "ray.io"),
    core("RayService", "ray.io"),
    core("RayJob", "ray.io"),
    core("NIMService", "apps.nvidia.com"),
    core("NIMCache", "apps.nvidia.com"),
    core("DynamoGraphDeployment", "nvidia.com"),
    core("DynamoComponentDeployment", "nvidia.com"),
    core("JobSet", "jobset.x-k8s.io"),
    core("PodCliqueSet", "grove.io"),
    core("PodCliqueScalingGroup", "grove.io"),
    core("PodClique", "grove.io"),
    core("StormService", "orchestration.aibrix.ai"),
    core("RoleSet", "orchestration.aibrix.ai"),
    core("ModelServing", "workload.serving.volcano.sh"),
    core("RoleBasedGroup", "workloads.x-k8s.io"),
    core("InferenceService", "inference.llmkube.dev"),
    core("Model", "kubeai.org"),
    core("Rollout", "argoproj.io"),
)

#: Every list of an audit; those of custom resources are asked for where the cluster has them.
LISTED = (kinds.POD, core("Node"), core("Event"), _REPLICA_SET, *_WORKLOADS, *_AROUND, *_WHOLE)

_State = tuple[Any, ...]


def gather(
    cluster: Cluster,
    namespace: str,
    wanted: Query,
    *,
    progress: Callable[[str], None] | None = None,
    meanwhile: Callable[[], object] = lambda: None,
) -> Snapshot:
    """Everything an audit of a namespace (empty: the whole cluster) can use, masked; its targets are the pods that serve.

    Of what is wanted the sources count: the agents of the nodes of broken pods are asked, and Prometheus about one ready pod
    of each workload and revision. `meanwhile` is done while the server works. What cannot be read stands in `missing`.
    Raises AccessError when the pods cannot be had.
    """
    workers = Workers(PARALLEL)
    pot = Collector(cluster.client, workers, progress)
    fleet = _Fleet(pot, namespace, Agents(pot) if wanted.agent else None)
    live = Live(pot, wanted.prometheus, wanted.ports, namespace)
    try:
        live.begin()
        fleet.read()
        meanwhile()
        workers.drain()
        live.read(fleet.ready(), pot.whole())
        workers.drain()
        if fleet.failure is not None:
            what = f"the pods of namespace {namespace}" if namespace else "the pods of the cluster"
            raise unreachable(cluster.endpoint, fleet.failure, what)
    except BaseException:
        cluster.client.close()
        raise
    finally:
        workers.stop()
        live.close()
    return pot.snapshot(
        [TargetRef(kind="Pod", namespace=ns, name=name, api_version="v1") for ns, name in sorted(fleet.serving)]
    )


class _Fleet:
    """One gathering."""

    def __init__(self, pot: Collector, namespace: str, agents: Agents | None) -> None:
        self._pot = pot
        self._agents = agents
        self._namespace = namespace
        self._walk = Walk(pot, _LOG_CAP_BYTES)
        #: why not even the pods could be read
        self.failure: RequestError | None = None
        #: namespace and name of the pods that serve
        self.serving: set[tuple[str, str]] = set()
        self._pods: list[Json] = []
        self._explained: set[tuple[str, str]] = set()
        self._rows: dict[Kind, list[bytes]] = {}
        self._events: list[tuple[slim.Event, bytes]] = []
        self._revisions: dict[str, list[tuple[int, bytes]]] = {}
        self._gpu_nodes: set[str] = set()
        self._open = len(LISTED)
        self._lock = threading.Lock()

    # --- lists --------------------------------------------------------------------------------------------------------

    def read(self) -> None:
        """Asks for every list, the pods first: what needs explaining is known when they are here."""
        pot = self._pot
        # What a walk would ask for is here already.
        for key in ("nodes", "all pods"):
            pot.once(key)
        for kind in LISTED:
            pot.once("list", kind.key, self._where(kind), "", "")
        pot.say("reading the pods")
        takers: dict[Kind, Callable[[Kind], None]] = {
            kinds.POD: self._all_pods,
            core("Node"): self._all_nodes,
            core("Event"): self._all_events,
            _REPLICA_SET: self._all_replica_sets,
            **dict.fromkeys(_WORKLOADS, self._workloads),
        }
        for kind in LISTED:
            pot.task(kind.resource, self._where(kind), self._of(kind, takers.get(kind, self._keep)))

    def _of(self, kind: Kind, take: Callable[[Kind], None]) -> Callable[[], None]:
        """The task for one list; the last of them to end settles what stays, while logs still come in."""

        def work() -> None:
            try:
                take(kind)
            finally:
                with self._lock:
                    self._open -= 1
                    last = not self._open
                self._pot.say(f"{len(LISTED) - self._open} of {len(LISTED)} lists read")
                if last and self.failure is None:
                    self._pot.task("objects", "", self._settle)

        return work

    def _where(self, kind: Kind) -> str:
        return self._namespace if kind.namespaced else ""

    def _list(self, kind: Kind, namespace: str, decode: Callable[[bytes], T]) -> Iterator[tuple[bytes, T]]:
        """A list as it comes in. What has another shape than its kind is noted."""
        (path,) = kind.paths(namespace)
        client = self._pot.client
        pieces = client.stream(path, query(resourceVersion="0"), seconds=_TIMEOUTS * client.timeout)
        for text, found in listing.items(pieces, decode):
            if found is None:
                self._pot.miss(kind.resource, namespace, "an object was not understood")
            else:
                yield text, found

    def _whole(self, kind: Kind, namespace: str, decode: Callable[[bytes], T], one: Callable[[bytes, T], None]) -> None:
        """All of a list, once more from its beginning where the connection breaks; `one` may see an object twice."""
        try:
            for text, found in self._list(kind, namespace, decode):
                one(text, found)
        except RequestError as error:
            if error.why != Why.BROKEN:
                raise
            for text, found in self._list(kind, namespace, decode):
                one(text, found)

    def _all_pods(self, kind: Kind) -> None:
        whole: dict[tuple[str, str], bytes] = {}
        groups: dict[tuple[str, ...], dict[tuple[str, str], tuple[bytes, Json]]] = {}
        served_groups: set[tuple[str, ...]] = set()
        plugins: list[Json] = []

        def one(text: bytes, pod: slim.Pod) -> None:
            key = pod.metadata.namespace, pod.metadata.name
            serves = serving(pod.spec) or labels.of_served_model(pod.metadata.labels or {})
            tree = slim.pod_tree(pod)
            group = related.group_key(tree)
            if serves and self._namespace in ("", pod.metadata.namespace) and _lives(tree):
                whole[key] = text
                served_groups.add(group)
                return
            if group:  # whether another member of it serves is not known yet
                groups.setdefault(group, {})[key] = text, tree
                return
            self._pot.add(tree, is_slim=True)
            if (related.is_device_plugin(tree) or related.comes_before_plugins(tree)) and related.brokenness(tree)[0]:
                plugins.append(typed(msgspec.json.decode(text), kinds.POD))

        try:
            try:
                self._whole(kind, "", slim.decode_whole_pod, one)
                self._pot.mark("Pod")
            except RequestError as error:
                if error.why != Why.FORBIDDEN or not self._namespace:
                    raise
                self._pot.miss("pods", "", error.reason)
                self._whole(kind, self._namespace, slim.decode_whole_pod, one)
                self._pot.mark("Pod", self._namespace)
        except RequestError as error:
            self.failure = error
            return
        for group, members in groups.items():
            for key, (text, tree) in members.items():
                if group in served_groups and _lives(tree):
                    whole[key] = text
                else:
                    self._pot.add(tree, is_slim=True)
        self._pods = [typed(msgspec.json.decode(text), kinds.POD) for text in whole.values()]
        self.serving = set(whole)
        for pod in self._pods:
            self._pot.add(pod)
        self._explain(plugins)

    def _all_nodes(self, kind: Kind) -> None:
        def one(_: bytes, node: slim.Node) -> None:
            tree = slim.node_tree(node)
            self._pot.add(tree, is_slim=True)
            capacity = (tree.get("status") or {}).get("capacity")
            if related.asks_for_gpu({"limits": capacity}):
                self._gpu_nodes.add(node.metadata.name)

        self._whole(kind, "", slim.decode_node, one)
        self._pot.mark("Node")

    def _all_events(self, kind: Kind) -> None:
        found: dict[tuple[str, str], tuple[slim.Event, bytes]] = {}

        def one(text: bytes, event: slim.Event) -> None:
            found[event.metadata.namespace, event.metadata.name] = (event, text)

        self._whole(kind, self._namespace, slim.decode_event, one)
        self._events = list(found.values())

    def _all_replica_sets(self, kind: Kind) -> None:
        """Of a workload that serves, the newest revisions: what it is, and what it was before."""

        def one(text: bytes, found: slim.Owner) -> None:
            if not serving(found.spec.template.spec):
                return
            refs = found.metadata.owner_references or ()
            owner = next((str(ref.get("uid")) for ref in refs), found.metadata.uid)
            number = (found.metadata.annotations or {}).get("deployment.kubernetes.io/revision", "")
            rows = self._revisions.setdefault(owner, [])
            rows.append((int(number) if number.isdecimal() else 0, text))
            rows.sort(reverse=True)
            del rows[_REVISIONS:]

        self._whole(kind, self._namespace, slim.decode_owner, one)

    def _workloads(self, kind: Kind) -> None:
        def one(text: bytes, found: slim.Owner) -> None:
            if serving(found.spec.template.spec):
                self._pot.add(typed(msgspec.json.decode(text), kind))

        self._whole(kind, self._namespace, slim.decode_owner, one)

    def _keep(self, kind: Kind) -> None:
        """The rows of a list, as they came: which of them matter is known when the pods are here."""
        there = self._pot.installed(kind)
        if there is None:
            return
        rows: dict[tuple[str, str], bytes] = {}

        def one(text: bytes, found: slim.Head) -> None:
            rows[found.metadata.namespace, found.metadata.name] = text

        try:
            self._whole(there.at(there.versions[0]), self._where(kind), slim.decode_head, one)
        except RequestError as error:
            if error.why != Why.NO_SUCH_KIND:
                raise
            return
        self._rows[there] = list(rows.values())

    # --- what needs explaining ----------------------------------------------------------------------------------------

    def _explain(self, plugins: list[Json]) -> None:
        """Asks for what the broken pods lead to: for each workload and state those of one replica."""
        pot = self._pot
        groups: dict[_State, list[Json]] = {}
        for pod in self._pods:
            group = related.group_key(pod)
            key: _State = ("group", *group) if group else ("pod", namespace_of(pod), *_origin(pod), *_state(pod))
            groups.setdefault(key, []).append(pod)
        broken = []
        for key, pods in groups.items():
            worst = related.most_broken_first(pods)
            if related.brokenness(worst[0])[0]:
                broken.append((related.urgency(worst[0]), worst[:LOG_PODS] if key[0] == "group" else worst[:1]))
        broken.sort(key=lambda row: row[0])
        chosen = broken[:MAX_EXPLAINED]
        if len(broken) > len(chosen):
            text = f"read of the {len(chosen)} most broken of {len(broken)} replicas that differ only"
            pot.miss("logs", self._namespace, text)
        if chosen:
            pot.say(f"reading the logs of {len(chosen)} broken pods")
        for _, members in chosen:
            for pod in members:
                self._explained.add(key_of(pod))
                node = (pod.get("spec") or {}).get("nodeName")
                if node and self._agents is not None:
                    self._agents.of(node, expected=related.has_gpu(pod))
                pot.task("pods", f"{namespace_of(pod)}/{name_of(pod)}", partial(self._walk.named_by, pod))
        for plugin in related.most_broken_first(plugins)[:LOG_PODS]:
            pot.add(plugin)
            pot.task("pods", f"{namespace_of(plugin)}/{name_of(plugin)}", partial(self._walk.named_by, plugin))

    def ready(self) -> list[Json]:
        """One pod of each workload and revision that is up: how they do is told by metrics alone."""
        found: dict[_State, Json] = {}
        for pod in related.most_broken_first(self._pods):
            if related.brokenness(pod)[0] <= 1:  # it may have restarted
                found.setdefault(_origin(pod), pod)
        return list(found.values())

    # --- what stays ---------------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Keeps of all lists what is about the pods that serve; needs everything to be here."""
        owned = {uid for pod in self._pods for uid in _owners(pod)}
        self._keep_revisions()
        self._keep_rows()
        self._keep_events(owned)

    def _keep_revisions(self) -> None:
        """The revisions of workloads: what a rollout changed is told of what is broken; elsewhere one only leads to its Deployment."""
        explained = {uid for pod in self._pods if key_of(pod) in self._explained for uid in _owners(pod)}
        for rows in self._revisions.values():
            revisions = [typed(msgspec.json.decode(text), _REPLICA_SET) for _, text in rows]
            told = any(str(meta(obj).get("uid")) in explained for obj in revisions)
            for obj in revisions:
                if not told and _owners(obj):
                    obj["spec"] = {key: value for key, value in obj["spec"].items() if key != "template"}
                self._pot.add(obj)

    def _keep_rows(self) -> None:
        """Of each list what is around the pods that serve; where a pod waits for a place, the volumes of all others count."""
        pot = self._pot
        served = {namespace for namespace, _ in self.serving}
        served |= {namespace_of(obj) for obj in pot.whole() if obj.get("kind") in ("Deployment", "StatefulSet")}
        claims = {(namespace_of(pod), name) for pod in self._pods for name in related.claims(pod)}
        waiting = any(map(related.is_unscheduled, self._pods))
        for kind, texts in self._rows.items():
            around = any(kind.key == row.key for row in _AROUND)
            volumes = kind.kind in ("PersistentVolumeClaim", "PersistentVolume")
            of_claims = volumes and not waiting
            for text in texts:
                obj = typed(msgspec.json.decode(text), kind)
                if of_claims:
                    claim = (obj.get("spec") or {}).get("claimRef") or meta(obj)
                    wanted = (str(claim.get("namespace") or ""), str(claim.get("name") or "")) in claims
                else:
                    wanted = volumes or not around or namespace_of(obj) in served
                if wanted:
                    pot.add(obj)
            if of_claims:
                for namespace, name in claims if around else ():
                    pot.mark(kind.kind, namespace, f"metadata.name={name}")
                continue
            for namespace in sorted(served) if around and not volumes else [self._where(kind)]:
                pot.mark(kind.kind, namespace)
        self._rows.clear()

    def _keep_events(self, owned: set[str]) -> None:
        """The events about what is explained, its owners and the GPU nodes; of other pods only the warnings."""
        pot = self._pot
        names = {(str(obj.get("kind")), namespace_of(obj), name_of(obj)) for obj in pot.whole()}
        for event, text in self._events:
            about = event.involved_object
            key = about.namespace, about.name
            if about.kind == "Pod":
                keep = key in self._explained or (key in self.serving and event.type == "Warning")
            elif about.kind == "Node":
                keep = about.name in self._gpu_nodes
            else:
                keep = about.uid in owned or (about.kind, *key) in names
            if keep:
                pot.add(typed(msgspec.json.decode(text), core("Event")))
        self._events.clear()
        for namespace, name in sorted(self._explained):
            pot.mark("Event", namespace, f"involvedObject.name={name}")


def _owners(obj: Json) -> list[str]:
    """The uids of what made it."""
    return [str(ref.get("uid")) for ref in meta(obj).get("ownerReferences") or ()]


def _lives(pod: Json) -> bool:
    """Whether it has not finished well: a Job that loaded a model is no server."""
    return bool((pod.get("status") or {}).get("phase") != "Succeeded")


def _origin(pod: Json) -> _State:
    """What made it, in which revision; replicas share both."""
    refs: Iterable[Json] = meta(pod).get("ownerReferences") or ()
    owner = next((str(ref.get("uid")) for ref in refs), name_of(pod))
    return owner, str(labels_of(pod).get("controller-revision-hash", ""))


def _state(pod: Json) -> _State:
    """What its status says, without what differs between replicas that fare alike."""
    status = pod.get("status") or {}
    rows = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    conditions = [(row.get("type"), row.get("status"), row.get("reason")) for row in status.get("conditions") or ()]
    return (status.get("phase"), status.get("reason"), tuple(conditions), *map(_of_container, rows))


def _of_container(row: Json) -> _State:
    ends = [(row.get(key) or {}).get("terminated") or {} for key in ("state", "lastState")]
    waiting = (row.get("state") or {}).get("waiting") or {}
    return (
        row.get("name"),
        bool(row.get("ready")),
        waiting.get("reason"),
        *((end.get("reason"), end.get("exitCode")) for end in ends),
    )
