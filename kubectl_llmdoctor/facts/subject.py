"""One target with all its facts: the pods of one replica group, or a workload that has none."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.engine import Engine, engines_of
from kubectl_llmdoctor.facts.events import Event, Events, came_further, events_of
from kubectl_llmdoctor.facts.logs import Log, Logs
from kubectl_llmdoctor.facts.nodes import Node, Nodes, nodes_of
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.starts import last_start
from kubectl_llmdoctor.facts.units import parse_time, say_seconds
from kubectl_llmdoctor.facts.unknown import NOT_APPLICABLE, Later, NotApplicable, Unknown
from kubectl_llmdoctor.facts.workload import Workload, top_of
from kubectl_llmdoctor.platforms.labels import WORKER_INDEX
from kubectl_llmdoctor.snapshot import Missing
from kubectl_llmdoctor.tree import dig

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.accelerator import Accelerator
    from kubectl_llmdoctor.facts.hardware import Hardware
    from kubectl_llmdoctor.facts.metrics import Metrics
    from kubectl_llmdoctor.facts.sizing import Sizing


#: Annotations and labels that name the PodGroup of a pod: KAI's, Volcano's, the coscheduling plugin's.
_GROUPS = ("pod-group-name", "scheduling.k8s.io/group-name", "scheduling.x-k8s.io/pod-group")

#: Kinds between an operator's object and its pods that have conditions of their own.
_BELOW = (
    "Revision", "Configuration", "Service.serving.knative.dev", "LeaderWorkerSet", "RayCluster", "PodClique",
    "PodCliqueScalingGroup", "RoleSet", "Workload",
)  # fmt: skip


#: Reasons of events about what precedes every container of a pod, and what precedes the start of one.
_BEFORE_ANY = frozenset({
    "FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox",
    "FailedCreatePodContainer", "NetworkNotReady", "VolumePermissionChangeInProgress",
})  # fmt: skip
_BEFORE_ONE = frozenset({"Failed", "InspectFailed", "ErrImageNeverPull", "FailedToRetrieveImagePullSecret"})
#: The same said of the pauses between pulls, for which events have the reason of pauses between starts.
_BETWEEN_PULLS = "Back-off pulling image "
#: An engine prints something within this time of its start.
_LATE_SECONDS = 900
#: A controller tries again after so long at most (the rate limiter of its queue): what it has not said since is over.
_TRIED_SECONDS = 1000
#: Why a container waits that has been started, or is about to be.
_ON_THE_WAY = ("CrashLoopBackOff", "ContainerCreating", "PodInitializing", "")

#: How a line of a log names a namespace, of whatever logger.
_NAMESPACE = r'\bnamespace"?(?:\s?[:=]\s?\\?"?|\s\\?")([a-z0-9-]{1,63})'


def _made_in(namespace: str, cluster: Cluster) -> dict[str, list[Item]]:
    """What controllers make in a namespace, and events are about, by the uids of all that stands above it."""
    found: dict[str, list[Item]] = {}
    for kind in ("ReplicaSet", "StatefulSet", "Job", "Revision", "Deployment", "PodGroup"):
        for item in cluster.items(kind, namespace):
            for owner in cluster.chain(item):
                found.setdefault(owner.uid, []).append(item)
    return found


def told_elsewhere(text: str, names: Iterable[str], namespace: str) -> bool:
    """Whether a line of a controller's log speaks of another namespace: `namespace="x"`, `"namespace":"x"`, `"x/name"`."""
    any_name = "|".join(map(re.escape, sorted(names)))
    found = re.findall(rf'{_NAMESPACE}|"([a-z0-9-]{{1,63}})/(?:{any_name})(?!\w)', text)
    spaces = {one or other for one, other in found}
    return bool(spaces) and namespace not in spaces


class Subject:
    """One target: its pods (or the pod that its template would make), what owns them, and every fact about them."""

    def __init__(self, pods: list[Pod], cluster: Cluster, *, item: Item | None, workload: Workload | None) -> None:
        #: pods that live and die together; a single template pod when none exists
        self.pods = pods
        self.cluster = cluster
        #: the object the target is named after
        self.item = item
        self.workload = workload
        #: pieces of log lines that checks will look for
        self.literals: tuple[str, ...] = ()
        #: whether logs of pods that are well were not even asked for
        self.only_failing_logs = False
        self._logs: dict[str, Logs] = {}
        self._engines: dict[str, list[Engine]] = {}
        self._hardware: dict[str, Hardware | NotApplicable] = {}
        self._accelerators: dict[tuple[str, str], Accelerator | Unknown | NotApplicable] = {}
        self._sizings: dict[int, Sizing] = {}
        self._metrics: dict[tuple[str, str], Metrics | NotApplicable] = {}

    @property
    def namespace(self) -> str:
        """The namespace of all its objects."""
        return self.item.namespace if self.item else self.pods[0].namespace if self.pods else ""

    @cached_property
    def exists(self) -> bool:
        """Whether it has a pod; a template alone has none."""
        return any(pod.exists for pod in self.pods)

    @property
    def static(self) -> bool:
        """Whether it is known from a manifest only: nothing of the snapshot says that it ever ran."""
        return not self.exists and self.cluster.now is None and not any(p.log_only for p in self.pods)

    @cached_property
    def silent(self) -> bool:
        """Whether nothing speaks of it: it is a manifest, without a log, an event or a status of anything around it."""
        if not self.static or self.cluster.snapshot.logs or len(self.events):
            return False
        return not any(workload.raw.get("status") for workload in self.platform)

    @cached_property
    def quiet(self) -> bool:
        """Whether nothing speaks of pods that are well, and nobody asked for their logs: no event, status or operator."""
        if not self.only_failing_logs or not self.exists or self.refused or len(self.events):
            return False
        if any(workload.said for workload in self.platform):
            return False
        return not any(
            pod.failing
            or pod.status.message
            or self.logs(pod)
            or any(c.waiting or c.terminated for c in pod.containers)
            for pod in self.pods
        )

    def logs(self, pod: Pod) -> Logs:
        """The logs of one of its pods, each from its last telling start on."""
        if pod.name not in self._logs:
            found = [
                last_start(Log(text, self.literals))
                for text in self.cluster.snapshot.logs
                if (text.pod == pod.name and (text.namespace or "default") == pod.namespace)
                or (pod.log_only and not text.pod)
            ]
            self._logs[pod.name] = Logs(found)
        return self._logs[pod.name]

    @property
    def headless(self) -> list[Missing]:
        """Logs of pods that fail and do not reach back to the start of their container: the kubelet keeps the last files only."""
        found = []
        for pod in self.pods:
            for log in self.logs(pod) if pod.exists and pod.failing else ():
                container, first = pod.container(log.container), log.time_of(1)
                began = started(container, previous=log.previous) if container else None
                if began is None or first is None or (late := (first - began).total_seconds()) < _LATE_SECONDS:
                    continue
                ref = f"{pod.namespace}/{pod.name}/{log.container}" + (" (previous)" if log.previous else "")
                reason = f"begins {say_seconds(late)} after its container: what was before is no longer kept, or nothing was said"
                found.append(Missing(source="logs", ref=ref, reason=reason))
        return found

    def engines(self, pod: Pod) -> list[Engine]:
        """The inference engines of one pod."""
        if pod.name not in self._engines:
            self._engines[pod.name] = engines_of(pod, self.logs(pod))
        return self._engines[pod.name]

    def engine_of(self, container: Container) -> Engine | None:
        """The engine of one container."""
        return next((engine for engine in self.engines(container.pod) if engine.container is container), None)

    @cached_property
    def related(self) -> dict[tuple[str, str], Item]:
        """The objects whose events concern this target: pods, owners, claims; by kind and name."""
        found: dict[tuple[str, str], Item] = {}
        starts = [pod.item for pod in self.pods if pod.item] + ([self.item] if self.item else [])
        for start in starts:
            for item in (start, *self.cluster.chain(start)):
                found[item.kind, item.name] = item
        return found

    @cached_property
    def platform(self) -> list[Workload]:
        """What stands above its pods, the top first, and what the top refers to: each may say what is wrong."""
        found: dict[int, Workload] = {}
        if self.workload:
            found[id(self.workload.item)] = self.workload
        for item in reversed(self.related.values()):
            if item.kind not in ("Pod", "Node"):
                found.setdefault(id(item), Workload(item, self.cluster))
        top = self.workload.item if self.workload else None
        for kind in _BELOW if top else ():
            for item in self.cluster.items(kind, self.namespace):
                if any(owner is top for owner in self.cluster.chain(item)):
                    found.setdefault(id(item), Workload(item, self.cluster))
        cache = dig(top.raw, "spec.storage.nimCache.name") if top else None
        named = self.cluster.item("NIMCache", self.namespace, cache) if isinstance(cache, str) else None
        if named:
            found.setdefault(id(named), Workload(named, self.cluster))
        return list(found.values())

    @cached_property
    def refused(self) -> bool:
        """Whether an operator says that what serves here has failed, or what it waits for, whatever its pods look like."""
        return any(said.failed or said.holds for workload in self.platform for said in workload.said) or bool(
            self.warned
        )

    @cached_property
    def warned(self) -> list[Event]:
        """What operators warn of about their own objects, and tried again of late, while those are not ready."""
        unready = {
            (workload.kind, workload.name)
            for workload in self.platform
            for condition in workload.item.conditions
            if condition.type == "Ready" and condition.status != "True"
        }
        return [
            event
            for event in (self.events if unready else ())
            if event.warning
            and (event.kind, event.name) in unready
            and (self.cluster.seconds_since(event.last) or 0) <= _TRIED_SECONDS
        ]

    @cached_property
    def controllers(self) -> list[tuple[Pod, Log]]:
        """Logs of controllers: pods of other workloads that say in their names that they watch over objects."""
        mine = {pod.name for pod in self.pods}
        found = []
        for text in self.cluster.snapshot.logs:
            item = self.cluster.item("Pod", text.namespace, text.pod) if text.pod not in mine else None
            if item and re.search(r"controller|operator|manager|karpenter|autoscaler", item.name):
                pod = Pod.of(item, self.cluster)
                found.append((pod, Log(text, self.literals)))
        return found

    @cached_property
    def events(self) -> Events:
        """Events of pods, owners, their replica sets, scheduling groups and claims, oldest first."""
        if next(self.cluster.items("Event"), None) is None:
            return Events([], self.cluster.now)
        uids = {item.uid for item in self.related.values() if item.uid}
        names = self._named_in_events(uids)
        chosen = []
        for event in events_of(self.cluster).about(names, uids):
            near = event.kind == "Node" or (event.namespace or self.namespace) == self.namespace
            mine = (event.kind, event.name) in names and near
            if mine or (event.uid and event.uid in uids):
                chosen.append(event)
        begun = [event for event in chosen if event.reason == "Started" and event.kind == "Pod" and event.last]
        left = (
            event
            for event in chosen
            if not came_further(event, chosen) and not any(_overtaken(event, pod, begun) for pod in self.pods)
        )
        in_order = sorted(left, key=lambda e: (e.last.timestamp() if e.last else 0.0, e.name, e.reason))
        return Events(in_order, self.cluster.now)

    def _named_in_events(self, uids: Collection[str]) -> set[tuple[str, str]]:
        """Kinds and names of the objects whose events are about it."""
        names = {(kind.partition(".")[0], name) for kind, name in self.related}
        names |= {(workload.kind, workload.name) for workload in self.platform}
        for pod in self.pods:
            names |= {("Pod", pod.name), ("Node", pod.spec.node_name), *_groups_and_claims(pod)}
        # what a workload made: FailedCreate stands at replica sets and jobs, why Volcano waits at its group
        if self.workload:
            made = self.cluster.once(f"made in {self.namespace}", lambda: _made_in(self.namespace, self.cluster))
            names.update((item.kind, item.name) for uid in uids for item in made.get(uid, ()))
        return names

    def node(self, pod: Pod) -> Node | Unknown | NotApplicable:
        """The node that a pod runs on."""
        name = pod.spec.node_name
        if not name:
            return NOT_APPLICABLE
        found = self.nodes.get(name)
        return found or Unknown(f"node {name} was not read")

    def hardware(self, pod: Pod) -> Hardware | NotApplicable:
        """What only the node knows, seen from a pod; where nobody asked the node the report says so once."""
        from kubectl_llmdoctor.facts.hardware import hardware_of

        if pod.name not in self._hardware:
            self._hardware[pod.name] = hardware_of(pod) or NOT_APPLICABLE
        return self._hardware[pod.name]

    @cached_property
    def nodes(self) -> Nodes:
        """All nodes of the snapshot."""
        return nodes_of(self.cluster)

    @cached_property
    def scopes(self) -> dict[str, list[dict[str, Any]]]:
        """For each fact that a check may be called once per, the facts of each call."""
        per_pod: list[dict[str, Any]] = []
        per_container: list[dict[str, Any]] = []
        per_engine: list[dict[str, Any]] = []
        for pod in self.pods:
            logs = self.logs(pod)
            events_known = any(self.cluster.items("Event")) or self.cluster.now is not None
            facts: dict[str, Any] = {
                "Pod": pod,
                "Logs": logs or self.no_logs(pod),
                "Events": self.events if events_known else NOT_APPLICABLE,
                "Node": self.node(pod),
                "Hardware": Later(partial(self.hardware, pod)),
                "Nodes": self.nodes if len(self.nodes) else Unknown("nodes were not read"),
                "Workload": self.workload or NOT_APPLICABLE,
                "Subject": self,
                "Cluster": self.cluster,
                "Pending": self._pending(pod),
                "Metrics": Later(partial(self.metrics, pod)),
            }
            per_pod.append(facts)
            engines = {engine.container.name: engine for engine in self.engines(pod)}
            for container in pod.containers:
                engine = engines.get(container.name)
                own = facts | {"Container": container, "Accelerator": Later(partial(self.accelerator, container))}
                per_container.append(own | {"Engine": engine or NOT_APPLICABLE})
                if engine:
                    dear = {"Sizing": Later(partial(self.sizing, engine))}
                    dear["Metrics"] = Later(partial(self.metrics, pod, engine))
                    per_engine.append(own | {"Engine": engine, **dear})
        whole: dict[str, Any] = {
            "Events": self.events,
            "Nodes": self.nodes if len(self.nodes) else Unknown("nodes were not read"),
            "Workload": self.workload or NOT_APPLICABLE,
            "Subject": self,
            "Cluster": self.cluster,
        }
        return {"pod": per_pod, "container": per_container, "engine": per_engine, "subject": [whole]}

    def accelerator(self, container: Container) -> Accelerator | Unknown | NotApplicable:
        """The GPU of a container, found once; the tables behind it load when somebody asks."""
        from kubectl_llmdoctor.facts.gpu import gpu_of

        key = container.pod.name, container.name
        if key not in self._accelerators:
            self._accelerators[key] = gpu_of(container, self.logs(container.pod), self.nodes)
        return self._accelerators[key]

    def sizing(self, engine: Engine) -> Sizing:
        """The GPU memory of an engine, computed once; the tables behind it load when somebody asks."""
        from kubectl_llmdoctor.facts.sizing import Sizing

        if id(engine) not in self._sizings:
            self._sizings[id(engine)] = Sizing(
                engine, self.logs(engine.pod), partial(self.accelerator, engine.container)
            )
        return self._sizings[id(engine)]

    def metrics(self, pod: Pod, engine: Engine | None = None) -> Metrics | NotApplicable:
        """The metrics of a pod and its engine (the first one, unless another is named), read once."""
        if not (self.cluster.snapshot.metrics or self.cluster.snapshot.prometheus):
            return NOT_APPLICABLE
        from kubectl_llmdoctor.facts.metrics import metrics_of_pod

        chosen = engine or next(iter(self.engines(pod)), None)
        key = pod.name, chosen.container.name if chosen else ""
        if key not in self._metrics:
            self._metrics[key] = metrics_of_pod(pod, chosen) or NOT_APPLICABLE
        return self._metrics[key]

    def no_logs(self, pod: Pod) -> Unknown | NotApplicable:
        """Why a pod has no log here: it never ran, or its log was not read."""
        reason = self.unread(pod)
        return Unknown(reason) if reason else NOT_APPLICABLE

    def unread(self, pod: Pod) -> str:
        """That no log of a pod was read which has one; empty where it never ran, or nobody wanted it."""
        if not pod.exists or pod.unscheduled or (self.only_failing_logs and not pod.failing):
            return ""
        if not pod.begun:
            return ""
        return f"no log of {pod.name} was read" if len(self.pods) > 1 else "no log was read"

    def _pending(self, pod: Pod) -> Any:
        if not pod.unscheduled or pod.awaits_node:
            return NOT_APPLICABLE
        from kubectl_llmdoctor.facts.scheduling.pending import Pending

        return Pending(pod, self)


#: Ends of containers that were made and could not be started.
_NEVER_STARTED = ("StartError", "ContainerCannotRun", "RunContainerError", "ContainerStatusUnknown")


def _groups_and_claims(pod: Pod) -> Iterator[tuple[str, str]]:
    """The group that a pod is scheduled with, the set of workers that it leads, and its claims."""
    meta = pod.obj.metadata
    groups = (tags.get(key) for tags in (meta.annotations, meta.labels) for key in _GROUPS)
    yield from (("PodGroup", group) for group in groups if isinstance(group, str))
    if str(meta.labels.get(WORKER_INDEX)) == "0":
        yield "StatefulSet", pod.name  # the one that makes the workers has the name of their leader
    for volume in pod.spec.volumes:
        if volume.persistent_volume_claim:
            yield "PersistentVolumeClaim", volume.persistent_volume_claim.claim_name
        elif volume.ephemeral:
            yield "PersistentVolumeClaim", f"{pod.name}-{volume.name}"


def _overtaken(event: Event, pod: Pod, begun: Sequence[Event]) -> bool:
    """Whether a complaint of the kubelet is over: what it says could not be done was done, since a container started later.

    `begun` are the events that tell of starts.
    """
    if event.kind != "Pod" or event.name != pod.name or event.last is None or not event.warning:
        return False
    if event.reason in _BEFORE_ANY:
        return any(_began_after(event.last, c, begun) for c in pod.containers)
    if event.reason not in _BEFORE_ONE and not event.message.startswith(_BETWEEN_PULLS):
        return False
    concerned = [c for c in pod.containers if f"{{{c.name}}}" in event.field_path]
    if not concerned and any(c.waiting and c.waiting.reason not in _ON_THE_WAY for c in pod.containers):
        return False
    concerned = concerned or [c for c in pod.containers if c.role == "main"]
    return bool(concerned) and all(_began_after(event.last, c, begun) for c in concerned)


def _began_after(moment: datetime, container: Container, begun: Sequence[Event]) -> bool:
    """Whether an instance of a container started later, by its status or by an event."""
    told = [
        e.last for e in begun if e.name == container.pod.name and f"{{{container.name}}}" in e.field_path and e.last
    ]
    return any(at > moment for at in (*starts(container), *told))


def starts(container: Container) -> list[datetime]:
    """When its instances started, as far as its status tells; not those that the runtime could not start."""
    status = container.status
    ended = (status.state.terminated, status.last_state.terminated)
    begun = [t.started_at for t in ended if t and t.reason not in _NEVER_STARTED]
    begun += [status.state.running.started_at] if status.state.running else []
    return [at for at in map(parse_time, begun) if at]


def started(container: Container, *, previous: bool) -> datetime | None:
    """When the instance that wrote a log started, as far as the status still tells."""
    state, last = container.status.state, container.status.last_state.terminated
    now = state.running or state.terminated
    instance = last if previous and not (state.terminated and last is None) else now
    return parse_time(instance.started_at) if instance else None


def workload_of(pod: Pod) -> Workload | None:
    """What owns a pod, at the top."""
    if pod.template_of:
        return top_of(pod.template_of, pod.cluster) or Workload(pod.template_of, pod.cluster)
    return top_of(pod.item, pod.cluster)
