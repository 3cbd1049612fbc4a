"""Pods: spec and status joined, what they ask for, and how far they have come."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, cast

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.events import Event, came_further, events_of
from kubectl_llmdoctor.facts.nodes import nodes_of
from kubectl_llmdoctor.facts.scheduling.message import is_provisioner
from kubectl_llmdoctor.facts.troubles import STARTING, Trouble, troubles_of
from kubectl_llmdoctor.facts.units import parse_time, units
from kubectl_llmdoctor.tree import dig, say, table

if TYPE_CHECKING:
    from kubectl_llmdoctor import platforms
    from kubectl_llmdoctor.facts.workload import Workload

#: How long a node may take from the autoscaler's decision: after 15 minutes cluster-autoscaler (--max-node-provision-time) and Karpenter
#: (its registration TTL) themselves give it up.
_NODE_SECONDS = 930

#: What the labels begin with that LeaderWorkerSet gives to its pods.
_LWS = "leaderworkerset.sigs.k8s.io/"

#: What autoscalers say of a pod, and which of it promises a node.
_SCALING = ("NotTriggerScaleUp", "TriggeredScaleUp", "FailedScaleUp", "Nominated")
_PROMISES = ("TriggeredScaleUp", "Nominated")

#: Who set a gate before a new pod opens it sooner, where nothing is in the way; and the scheduler has refused it sooner, or waits for
#: a volume that is being made.
_FIRST_WORD_SECONDS, _DECIDES_SECONDS = 30, 60

#: The machine that Karpenter is getting for a pod, in the event that promises it.
_CLAIM = r"\bnodeclaim/([\w.-]+)"
#: The node that it means, once there is one.
_NAMED = r"\bnode/([\w.-]+)"

#: How long after its grace period a pod that was deleted may still be listed.
_LEAVING_SECONDS = 60

#: What the kubelet says of volumes of a pod that it has only just heard of; the next try succeeds.
_BLIPS = expression(r"failed to sync \w+ cache: timed out waiting for the condition|object \S+ not registered")

#: Warnings that say nothing of a pod that has a node, or that do not stop it by themselves.
_NO_STOP = frozenset({"FailedScheduling", "FailedToRetrieveImagePullSecret"})


def _itself(template: platforms.Template) -> platforms.Template:
    return template


def _of_its_owner(item: Item, cluster: Cluster) -> platforms.Template | None:
    """The template of a pod, in what owns it."""
    from kubectl_llmdoctor.facts.workload import top_of

    owner = top_of(item, cluster)
    return owner.template_of(cast(k8s.Pod, item.typed())) if owner is not None else None


class Pod:
    """A pod, or the pod that a workload's template would make (`exists` is False then)."""

    def __init__(
        self,
        obj: k8s.Pod,
        cluster: Cluster,
        *,
        item: Item | None = None,
        exists: bool = True,
        template: Callable[[], platforms.Template | None] | None = None,
        template_of: Item | None = None,
        by_operator: bool = False,
        log_only: bool = False,
    ) -> None:
        self.obj = obj
        self.cluster = cluster
        self.item = item
        self.exists = exists
        self._template = template
        #: whether an operator stands above it, and not a kind of Kubernetes itself
        self.by_operator = by_operator
        #: the workload whose template this is, when the pod does not exist
        self.template_of = template_of
        #: a log came without its pod: nothing is known but what it says
        self.log_only = log_only

    @classmethod
    def of(cls, item: Item, cluster: Cluster) -> Pod:
        """A pod of the snapshot."""
        return cls(cast(k8s.Pod, item.typed()), cluster, item=item, template=partial(_of_its_owner, item, cluster))

    @classmethod
    def planned(cls, workload: Workload) -> list[Pod]:
        """The pods that the templates of a workload would make, one of each."""
        item, found = workload.item, []
        for template, typed in workload.templates:
            name = f"{item.name}/{template.part}" if len(workload.templates) > 1 and template.part else item.name
            meta = msgspec.structs.replace(typed.metadata, name=name, namespace=template.namespace or item.namespace)
            pod = k8s.Pod(metadata=meta, spec=typed.spec)
            made = partial(_itself, template)
            operator = not workload.built_in
            found.append(
                cls(pod, workload.cluster, exists=False, template=made, template_of=item, by_operator=operator)
            )
        return found

    @cached_property
    def template(self) -> platforms.Template | None:
        """The template that it came from, where its workload has one."""
        return self._template() if self._template else None

    @property
    def spec_path(self) -> str:
        """Where its spec stands in its object: `spec`, `spec.template.spec`."""
        return self.template.shown("") if self.template and not self.exists else "spec"

    @property
    def partial(self) -> bool:
        """Whether it is a template about which another object that is not here may say more."""
        return not self.exists and self.template is not None and self.template.partial

    @property
    def lent(self) -> bool:
        """Whether it is the template of a runtime: the objects that use it may ask for other resources and say more."""
        return not self.exists and self.template is not None and self.template.context

    @property
    def completed(self) -> bool:
        """Whether it is a template to which the operator may add volumes and probes that nobody wrote."""
        return not self.exists and self.template is not None and (self.template.completed or self.template.partial)

    @property
    def nodes(self) -> int | None:
        """How many pods one replica consists of; None where it is not known."""
        return self.template.nodes if self.template else 1

    @property
    def name(self) -> str:
        """The pod's name; for a template the workload's."""
        return self.obj.metadata.name

    @property
    def namespace(self) -> str:
        """The pod's namespace."""
        return self.obj.metadata.namespace or "default"

    def config_map(self, name: str) -> Item | None:
        """The ConfigMap that it names: of its namespace, else one of its folder that goes there."""
        if (found := self.cluster.item("ConfigMap", self.namespace, name)) is not None:
            return found
        near = self.cluster.beside(self.template_of or self.item, "ConfigMap")
        return next((item for item in near if item.name == name), None)

    def config_data(self, name: str) -> dict[str, Any]:
        """The texts of such a ConfigMap by key; none where it was not read."""
        item = self.config_map(name)
        config = item.typed() if item else None
        return config.data if isinstance(config, k8s.ConfigMap) else {}

    @cached_property
    def services(self) -> list[Item]:
        """The Services whose selector it matches: of its namespace, else those of its folder that go there."""
        found = self._selecting(self.cluster.items("Service", self.namespace))
        return found or self._selecting(self.cluster.beside(self.template_of or self.item, "Service"))

    @cached_property
    def pools(self) -> list[Item]:
        """The InferencePools of its namespace that select it: by `matchLabels`, or, before their v1, by the labels themselves."""
        found = []
        for pool in self.cluster.items("InferencePool", self.namespace):
            selector = table(dig(pool.raw, "spec.selector"))
            wanted = table(selector.get("matchLabels", selector))
            if wanted and all(self.labels.get(key) == say(value) for key, value in wanted.items()):
                found.append(pool)
        return found

    @cached_property
    def labels(self) -> dict[str, str]:
        """Its labels as strings, which a manifest may write as numbers."""
        return {key: say(value) for key, value in self.obj.metadata.labels.items()}

    @cached_property
    def annotations(self) -> dict[str, str]:
        """Its annotations, likewise."""
        return {key: say(value) for key, value in self.obj.metadata.annotations.items()}

    @property
    def _of_controller(self) -> dict[str, str]:
        """The labels that its controller gives to the first of the pods of a template, and Services select."""
        item = self.template_of
        if item is not None and item.kind == "StatefulSet":
            return {"statefulset.kubernetes.io/pod-name": f"{item.name}-0", "apps.kubernetes.io/pod-index": "0"}
        if item is not None and item.kind == "LeaderWorkerSet" and self.template:
            # without a leader's template the first pod is of the workers', and leads
            index = {} if self.template.part == "worker" and self.nodes != 1 else {f"{_LWS}worker-index": "0"}
            return {f"{_LWS}name": item.name, **index}
        return {}

    def _selecting(self, services: Iterable[Item]) -> list[Item]:
        found, labels = [], {**self._of_controller, **self.labels}
        for item in services:
            selector = cast(k8s.Service, item.typed()).spec.selector
            if selector and all(labels.get(key) == str(value) for key, value in selector.items()):
                found.append(item)
        return found

    @property
    def spec(self) -> k8s.PodSpec:
        """What was asked for."""
        return self.obj.spec

    @property
    def status(self) -> k8s.PodStatus:
        """What became of it."""
        return self.obj.status

    @cached_property
    def containers(self) -> tuple[Container, ...]:
        """Init containers, then the others, in order."""
        inits = {s.name: s for s in self.status.init_container_statuses}
        mains = {s.name: s for s in self.status.container_statuses}
        return (
            *(Container(self, c, inits.get(c.name), init=True) for c in self.spec.init_containers),
            *(Container(self, c, mains.get(c.name), init=False) for c in self.spec.containers),
        )

    def container(self, name: str) -> Container | None:
        """A container by its name, of whatever role."""
        return next((c for c in self.containers if c.name == name), None)

    @property
    def gpu_container(self) -> Container | None:
        """Its one container that asks for a GPU: what serves, where no engine is known; None of none, and of several."""
        asking = [one for one in self.containers if one.role != "init" and one.gpus]
        return asking[0] if len(asking) == 1 else None

    def volume(self, name: str) -> k8s.Volume | None:
        """A volume of the spec by its name."""
        return next((v for v in self.spec.volumes if v.name == name), None)

    def field(self, path: str) -> str | None:
        """A field of the downward API; None where it is not known."""
        meta, status = self.obj.metadata, self.status
        known = {
            "metadata.name": meta.name if self.exists else None,
            "metadata.namespace": meta.namespace or None,
            "metadata.uid": meta.uid or None,
            "spec.nodeName": self.spec.node_name or None,
            "spec.serviceAccountName": self.spec.service_account_name or None,
            "status.podIP": status.pod_ip or None,
            "status.podIPs": status.pod_ip or None,
            "status.hostIP": status.host_ip or None,
        }
        if path in known:
            return known[path]
        group, bracket, key = path.partition("['")
        if bracket and group in ("metadata.labels", "metadata.annotations"):
            value = (meta.labels if group.endswith("labels") else meta.annotations).get(key.rstrip("']"))
            return None if value is None else str(value)
        return None

    @cached_property
    def memory_limit(self) -> int | None:
        """The pod's memory limit in bytes: its own, or the sum when every container has one."""
        own = units(self.spec.resources.limits.get("memory"))
        limits = [c.limit("memory") for c in self.containers if c.role != "init"]
        if own or not limits or None in limits:
            return own
        return sum(limit or 0 for limit in limits)

    @cached_property
    def accelerators(self) -> dict[str, int]:
        """Accelerators of the whole pod by the scheduler's rule: the sum of containers, or the largest init container."""
        totals: dict[str, int] = {}
        for container in sorted(self.containers, key=lambda one: one.role == "init"):
            for name, count in container.accelerators.items():
                had = totals.get(name, 0)
                totals[name] = max(had, count) if container.role == "init" else had + count
        return totals

    @property
    def gpus(self) -> int:
        """How many accelerators the pod asks for."""
        return sum(self.accelerators.values())

    @property
    def sees_all(self) -> bool:
        """Whether it has all GPUs of its node without a request, by NVIDIA's runtime class."""
        of_nvidia = (self.spec.runtime_class_name or "").startswith("nvidia")
        return of_nvidia and any(container.sees_all for container in self.containers)

    def port_named(self, name: object) -> int | None:
        """The number of the port that one of its servers declares by a name."""
        declared = (p for c in self.containers if c.role != "init" for p in c.spec.ports)
        return next((p.container_port for p in declared if p.name == name), None)

    @property
    def declared_ports(self) -> set[int]:
        """The ports that its containers declare."""
        return {port for container in self.containers for port in container.declared_ports}

    @property
    def of_namespace(self) -> Iterator[Pod]:
        """The pods of its namespace, with itself."""
        return (Pod.of(item, self.cluster) for item in self.cluster.items("Pod", self.namespace))

    def condition(self, kind: str, status: str = "") -> k8s.Condition | None:
        """Its condition of this type, and of this status where one is named."""
        return self.status.condition(kind, status)

    @cached_property
    def scheduled(self) -> bool:
        """Whether it has a node."""
        return bool(self.spec.node_name or self.condition("PodScheduled", "True"))

    @cached_property
    def unscheduled(self) -> bool:
        """Whether it exists and waits for a node."""
        return self.exists and not self.scheduled and self.status.phase in ("", "Pending") and not self.begun

    @property
    def begun(self) -> bool:
        """Whether any of its containers runs or has run."""
        return any(c.running or c.terminated for c in self.containers)

    @cached_property
    def ready(self) -> bool:
        """Whether it counts as ready."""
        condition = self.condition("Ready")
        if condition is not None:
            return condition.status == "True"
        mains = [c for c in self.containers if c.role == "main"]
        return self.status.phase == "Running" and all(c.status.ready for c in mains) and bool(mains)

    @cached_property
    def started_at(self) -> datetime | None:
        """When the kubelet accepted it, else when it was made."""
        return parse_time(self.status.start_time) or parse_time(self.obj.metadata.creation_timestamp)

    @cached_property
    def warned(self) -> bool:
        """Whether the kubelet warned about the pod as a whole (sandbox, volumes, images) and has not come further since."""
        mine = [e for e in self.events if e.warning and e.reason.startswith("Failed") and e.reason not in _NO_STOP]
        return any(not (_BLIPS.search(e.message) or came_further(e, self.events) or self.handed_over(e)) for e in mine)

    def handed_over(self, event: Event) -> bool:
        """Whether it says that a volume is still attached elsewhere, where a pod that is leaving has it: it comes with its end."""
        if "Multi-Attach error" not in event.message:
            return False
        mine = self.spec.claim_names
        others = [
            Pod(other, self.cluster)
            for other in self.cluster.all(k8s.Pod, "Pod", self.namespace)
            if other.metadata.name != self.name
            and other.spec.node_name not in ("", self.spec.node_name)
            and other.status.phase not in ("Succeeded", "Failed")
            and any(
                v.persistent_volume_claim and v.persistent_volume_claim.claim_name in mine for v in other.spec.volumes
            )
        ]
        return bool(others) and all(other.leaving for other in others)

    @cached_property
    def events(self) -> list[Event]:
        """What was said of it."""
        found = events_of(self.cluster).about([("Pod", self.name)])
        return [event for event in found if (event.namespace or self.namespace) == self.namespace]

    @cached_property
    def just_made(self) -> bool:
        """Whether it is seconds old, and nobody has said anything of it yet but, maybe, that its gate is closed."""
        age, said = self.cluster.seconds_since(self.obj.metadata.creation_timestamp), self.condition("PodScheduled")
        young = age is not None and age <= (_DECIDES_SECONDS if said is None else _FIRST_WORD_SECONDS)
        return young and self.unscheduled and not self.events and (said is None or said.reason == "SchedulingGated")

    @cached_property
    def awaits_node(self) -> bool:
        """Whether it is new, and an autoscaler is making a node for it."""
        return self.promised_node(_NODE_SECONDS)

    def promised_node(self, within: float) -> bool:
        """Whether the last word of an autoscaler on a pod that is no older than so many seconds was a promise of a node.

        A node that was made since and is ready did not help, so that the promise is over; so it is where the cloud did not
        give the machine, and where the node that it names is no new one: what keeps the pod off that is no lack of time.
        """
        made = parse_time(self.obj.metadata.creation_timestamp)
        age = self.cluster.seconds_since(made)
        said = [(e.last, e) for e in self.events if e.last and (e.reason in _SCALING or is_provisioner(e.reporter))]
        if not said or not made or age is None or age > within:
            return False
        last, newest = max(said, key=lambda pair: pair[0])
        if newest.reason not in _PROMISES or any(map(self._unlaunched, re.findall(_CLAIM, newest.message))):
            return False
        since = max(made, newest.first or last)
        named = re.findall(_NAMED, newest.message)
        return not any(
            node.ready
            and (at := parse_time(node.obj.metadata.creation_timestamp))
            and (at >= since or (node.name in named and not node.joining))
            for node in nodes_of(self.cluster)
        )

    def _unlaunched(self, claim: str) -> bool:
        """Whether Karpenter says that it could not launch a machine."""
        item = self.cluster.item("NodeClaim", "", claim)
        launched = item.condition("Launched") if item else None
        return launched is not None and launched.reason == "LaunchFailed"

    @property
    def being_made(self) -> bool:
        """Whether it is given a node, or its containers are, and nothing is wrong with it so far."""
        made = self.awaits_node or any(c.waiting and c.waiting.reason in STARTING for c in self.containers)
        return self.exists and made and not self.troubles

    @cached_property
    def leaving(self) -> bool:
        """Whether it was deleted and is within its grace period, in which it is taken out of service and ends."""
        over = self.cluster.seconds_since(self.obj.metadata.deletion_timestamp)
        return over is not None and over <= _LEAVING_SECONDS

    @cached_property
    def troubles(self) -> tuple[Trouble, ...]:
        """What is wrong by its status, or by what its own port answers or its log ends with, the gravest first."""
        return tuple(troubles_of(self)) if self.exists else ()

    @cached_property
    def failing(self) -> bool:
        """Whether anything is wrong; a log without its pod counts as failing."""
        return self.log_only or bool(self.troubles)

    @cached_property
    def failing_by_status(self) -> bool:
        """The same without an engine that died behind a ready server: all has started then."""
        return self.log_only or any(trouble.kind != "dead" for trouble in self.troubles)
