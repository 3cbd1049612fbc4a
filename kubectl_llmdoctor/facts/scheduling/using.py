"""Which claims the volumes of a pod use, and what is not known of them."""

from __future__ import annotations

import msgspec

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter, left_open
from kubectl_llmdoctor.facts.scheduling.objects import Objects, PersistentVolume, PersistentVolumeClaim
from kubectl_llmdoctor.facts.scheduling.verdict import Reason

#: Where claims and volumes named their storage class once.
_CLASS = "volume.beta.kubernetes.io/storage-class"


class Used(msgspec.Struct, frozen=True):
    """A claim that a volume of a pod uses."""

    name: str
    #: one that is made for the pod, with the pod
    ephemeral: bool
    #: None when it is not known
    found: PersistentVolumeClaim | None
    #: it is known not to exist
    lacks: bool


def used_by(spec: k8s.PodSpec, pod: k8s.Metadata, objects: Objects) -> list[Used]:
    """The claims of a pod's volumes in their order."""
    found, namespace = [], pod.namespace or "default"
    for volume in spec.volumes:
        claim = volume.persistent_volume_claim
        if claim or volume.ephemeral is not None:
            name = claim.claim_name if claim else f"{pod.name}-{volume.name}"
            one = objects.get(PersistentVolumeClaim, name, namespace)
            lacks = one is None and objects.lacks(PersistentVolumeClaim, name, namespace)
            found.append(Used(name, claim is None, one, lacks))
    return found


def claims_of(ask: Ask) -> list[Used]:
    """The claims of the pod that waits."""
    return used_by(ask.spec, ask.pod.obj.metadata, ask.objects)


def class_of(claim: PersistentVolumeClaim | PersistentVolume) -> str:
    """The storage class that a claim or a volume names."""
    return str(claim.metadata.annotations.get(_CLASS) or claim.spec.storage_class_name)


def unread_of(plugin: str, claims: list[Used]) -> Filter | None:
    """The filter of a plugin that cannot know: a claim of the pod was not read."""
    names = [c.name for c in claims if c.found is None and not c.lacks]
    return left_open(plugin, f"claim {', '.join(names)} was not read") if names else None


def refusal(plugin: str, text: str, detail: str) -> Reason:
    """The reason of a plugin that refuses the pod before any node is looked at."""
    return Reason(plugin=plugin, kind="volume", text=text, detail=detail, everywhere=True)
