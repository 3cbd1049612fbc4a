"""What the pod and its objects are called, and the object or kind that a line names."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import get_args

from kubectl_llmdoctor.advice.declared import Condition, OfObjects
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import UNNAMED, Value
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.named import alike, keys_named, making
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.fixes import unread
from kubectl_llmdoctor.platforms.llmkube import option_field
from kubectl_llmdoctor.template_values import template_value
from kubectl_llmdoctor.tree import dig

#: Where the definitions of a group are, of the newest release of who makes them.
_DEFINED_AT = {
    "gateway.networking.k8s.io": "kubernetes-sigs/gateway-api/releases/latest/download/standard-install.yaml",
    "inference.networking.k8s.io": "kubernetes-sigs/gateway-api-inference-extension/releases/latest/download/manifests.yaml",
    "inference.networking.x-k8s.io": "kubernetes-sigs/gateway-api-inference-extension/releases/latest/download/manifests.yaml",
    "leaderworkerset.x-k8s.io": "kubernetes-sigs/lws/releases/latest/download/manifests.yaml",
    "monitoring.coreos.com": "prometheus-operator/prometheus-operator/releases/latest/download/stripped-down-crds.yaml",
}

#: Programs that ask for the definitions of the very release that they are of: kinds were renamed and dropped between releases
#: (InferenceModel with v1.0, InferenceObjective after v1.5).
_OF_RELEASE = expression(
    r"(?:^|/)gateway-api-inference-extension/epp:(?P<release>v\d{1,3}(?:\.\d{1,3}){2}[\w.-]{0,40})(?:$|@)"
)

#: Who does one of these with a client that keeps a copy of the objects does all of them.
_READS = ("get", "list", "watch")

#: Kinds with a plain number of replicas.
_SCALABLE = ("Deployment", "StatefulSet")


class Objects(Topic):
    """The names of the pod and what is around it, and the object that the line names."""

    decides = get_args(OfObjects)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "pod": "the pod" if self.log_only else self.pod.name if self.pod else "",
            "namespace": self.subject.namespace,
            "container": self.container.name if self.container and self.container.name else UNNAMED,
            "workload": lambda: self._edited,
            "node": self.node_name,
            "account": self.account,
            "verbs": "get,list,watch" if (verb := self.captured.get("verb", "")) in _READS else verb,
            "verbs_said": "get, list and watch" if verb in _READS else verb,
            "resource_in": ".".join(filter(None, map(self.captured.get, ("plain", "group"))))
            + self.captured.get("part", ""),
            "copied_from": lambda: self.made[1],
            "other_name": lambda: self.made[2],
            "data_field": "stringData" if self.here.kind == "Secret" else "data",
        }

    def _holds(self) -> Iterator[Condition]:
        yield self._where_is_made
        yield "definition known" if self.defined_at else "definition unknown"

    @template_value
    def at(self) -> str:
        """The place of the container in the pod's spec: of the one that the line names, else of the one that printed it."""
        every = self.pod.containers if self.pod else ()
        who, image = self.captured.get("who"), self.captured.get("image")
        named = [c for c in every if c.name == who or (image and c.spec.image == image)]
        servers = [c for c in every if c.role == "main"]
        found = next(iter([*named, *filter(None, [self.container]), *servers]), None)
        return found.pointer.strip("/") if found else "containers/0"

    @template_value
    def flash_switch(self) -> str:
        """`yes` where it is LLMKube that adds the option, for a field of its object."""
        raw = self.workload.raw if self.workload else {}
        ours = str(raw.get("apiVersion")).startswith("inference.llmkube.dev/")
        return "yes" if ours and dig(raw, "spec.flashAttention") is True else ""

    @template_value
    def option_field(self) -> str:
        """The field of LLMKube's object for which it adds the option that the line names."""
        option = self.captured.get("what") or self.captured.get("flag") or ""
        return option_field(self.workload.raw, option) if self.workload else ""

    @cached_property
    def made(self) -> tuple[str, str, str]:
        """Of the object that the line names: the command that makes it, the namespace that has it, and one that may be meant."""
        name = self.captured.get("name", "")
        if self.pod is None or not self.here.kind or not name:
            return "", "", ""
        return *making(self.pod, self.here.kind, name), alike(self.pod, self.here.kind, name)

    @property
    def _where_is_made(self) -> Condition:
        """Where the object that the line names may be from."""
        if self.made[2]:
            return "object alike"
        return "object elsewhere" if self.made[1] else "object nowhere"

    @template_value
    def more_replicas(self) -> str:
        """Twice the replicas that the workload has."""
        told = dig(self.workload.raw, "spec.replicas") if self.workload else None
        if told is None and self.workload is not None and self.workload.kind in _SCALABLE:
            told = 1  # which is what Kubernetes takes it for
        return str(2 * told) if isinstance(told, int) and told > 0 else "twice as many"

    def scales_by_hand(self, workload: Workload) -> bool:
        """Whether a number of replicas lasts that is set by hand: no autoscaler sets it."""
        targets = (
            dig(scaler.raw, "spec.scaleTargetRef.name")
            for kind in ("HorizontalPodAutoscaler", "ScaledObject")
            for scaler in self.subject.cluster.items(kind, self.subject.namespace)
        )
        return workload.kind in _SCALABLE and workload.name not in targets

    @property
    def _edited(self) -> str:
        """The object that a person edits, as kubectl takes it."""
        if self.log_only:
            return "its workload"
        name = self.pod.name if self.pod else ""
        return (unread(self.pod) if self.pod else "") or (self.workload.ref if self.workload else f"Pod/{name}")

    @template_value
    def defined_at(self) -> str:
        """Where the definitions of the group that the line names are: of the program's release, or the newest of who makes them."""
        at, release = _DEFINED_AT.get(self.captured.get("group", ""), ""), self._release
        ours = release and "/gateway-api-inference-extension/" in at
        return at.replace("/latest/download/", f"/download/{release}/") if ours else at

    @template_value
    def defined_by(self) -> str:
        """Of which release the definitions at `defined_at` are."""
        if "/latest/" not in self.defined_at:
            return f"{self._release}, the release of {self.container.name if self.container else 'the program'}"
        return "the newest release by the command, of an older one where that no longer has them"

    @property
    def _release(self) -> str:
        """The release of the program, where it is known by its image to be of the project that defines the kinds."""
        found = _OF_RELEASE.search(self.container.spec.image) if self.container else None
        return found["release"] if found else ""

    @template_value
    def with_keys(self) -> str:
        """` with the keys a, b`: those that the pod wants of the object."""
        kind = self.here.kind
        keys = keys_named(self.pod, kind, self.captured.get("name", "")) if self.pod and kind else []
        return f" with the key{'s' if len(keys) > 1 else ''} {', '.join(keys)}" if keys else ""
