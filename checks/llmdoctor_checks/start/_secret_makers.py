"""Secrets that an operator's object should have made, and why it has not.

Sources: the API types of External Secrets, cert-manager, HashiCorp's and 1Password's operators, Infisical, Sealed Secrets, and of the
Secrets Store CSI driver, which makes a Secret only while a pod mounts its class (docs/topics/sync-as-kubernetes-secret).
"""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Events,
    Finding,
    Item,
    Pod,
    dig,
    event_evidence,
    events_of,
    fixes,
    object_evidence,
    rows,
)
from llmdoctor_checks._consequences import CRASHED

#: The kubelet's words for a Secret that is not there, at the container and at a volume.
_ABSENT = r'\bsecrets? "([\w.-]{1,253})" not found'
#: Where objects that make a Secret name it; others give it their own name.
_TARGETS = ("spec.target.name", "spec.destination.name", "spec.secretName", "spec.managedSecretReference.secretName")
_CLASS, _CLASS_DRIVER = "SecretProviderClass", "secrets-store.csi.k8s.io"
#: What such kinds are called; any other that names a Secret only uses it.
_MAKES = r"Secret|^Certificate$|^OnePasswordItem$"
#: Conditions that are good where they are not met.
_BAD = r"Degraded|Deleted|Err(?:or|ed)|Fail|Issuing|Paused|Reconciling|Stalled|Suspended"
_EXPLAINS = (*CRASHED, "pod-pending")
#: Before the finding that has the kubelet's words alone.
_MORE = -2.0


def unmade(pod: Pod, events: Events | None) -> Iterator[Finding]:
    """Secrets that a failing pod lacks and that an object of an operator is to make, where that says why there is none."""
    if not pod.failing:
        return
    waits = [status.state.waiting.message for status in pod.obj.status.container_statuses if status.state.waiting]
    told = [e.message for e in events or () if e.kind == "Pod" and e.name == pod.name and e.reason == "FailedMount"]
    for name in dict.fromkeys(found for text in (*waits, *told[-1:]) for found in re.findall(_ABSENT, text or "")):
        for item in _makers(pod, name):
            found = _unmounted(pod, item, name) if item.kind == _CLASS else _failed(pod, item, name)
            if found:
                yield found
                return


def _makers(pod: Pod, name: str) -> Iterator[Item]:
    """Objects of operators in the pod's namespace that are to make a Secret of that name."""
    for kind in pod.cluster.kinds():
        if kind == "Secret" or not re.search(_MAKES, kind):
            continue
        for item in pod.cluster.items(kind, pod.namespace):
            named = [dig(item.raw, path) for path in _TARGETS]
            named += [row.get("secretName") for row in rows(item.raw, "spec.secretObjects")]
            if name in named or (not any(named) and name == item.name):
                yield item


def _unmounted(pod: Pod, item: Item, name: str) -> Finding | None:
    """A class of the Secrets Store driver that the pod does not mount."""
    for volume in pod.spec.volumes:
        if dig(volume.csi or {}, "volumeAttributes.secretProviderClass") == item.name:
            return None
    return Finding(
        confidence="certain",
        summary=f"The secret {name} that the pod names does not exist in {pod.namespace}: {_CLASS} {item.name} makes it only while a "
        "pod mounts the class, and this one does not.",
        evidence=(object_evidence(item, "spec.secretObjects", f"secretName: {name}"),),
        explains=_EXPLAINS,
        fix=fixes.advice(
            f"Mount {_CLASS} {item.name} in the pod, by a volume of the driver {_CLASS_DRIVER}",
            f"kubectl -n {pod.namespace} get secretproviderclasses {item.name} -o yaml",
        ),
        order=_MORE,
    )


def _failed(pod: Pod, item: Item, name: str) -> Finding | None:
    """An object that says that it could not make its Secret, or whose store says so."""
    faults = [*_faults(item), *(fault for store in _stores(pod, item) for fault in _faults(store))]
    if not faults:
        return None
    last, _, words = faults[-1]
    about = events_of(pod.cluster).about([(last.kind, last.name)])
    told = [e for e in about if e.warning and e.message and e.namespace in (last.namespace, "default")][-1:]
    words += "".join(f" ({e.message[:240]})" for e in told if e.message not in words)
    return Finding(
        confidence="certain",
        summary=f"The secret {name} that the pod names does not exist in {pod.namespace}: {item.kind} {item.name} should make it, and "
        f"{last.kind} {last.name} says {words}.",
        evidence=(*(object_evidence(*fault) for fault in faults), *(event_evidence(e, pod.cluster) for e in told)),
        explains=_EXPLAINS,
        fix=fixes.platform(
            f"Fix what keeps {last.kind} {last.name} from it{_asked_for(item)}; {item.kind} {item.name} makes the Secret then",
            f"kubectl -n {pod.namespace} describe {last.plain_kind.lower()} {last.name}",
        ),
        order=_MORE,
    )


def _asked_for(item: Item) -> str:
    """What External Secrets reads, and from where."""
    keys = [str(key) for row in rows(item.raw, "spec.data") if (key := dig(row, "remoteRef.key"))]
    store = dig(item.raw, "spec.secretStoreRef.name")
    where = f"{dig(item.raw, 'spec.secretStoreRef.kind') or 'SecretStore'} {store}"
    return f" (it reads {', '.join(dict.fromkeys(keys))} through {where})" if keys and store else ""


def _stores(pod: Pod, item: Item) -> Iterator[Item]:
    """Where External Secrets reads a value."""
    kind, name = (str(dig(item.raw, f"spec.secretStoreRef.{key}") or "") for key in ("kind", "name"))
    for namespace in (pod.namespace, ""):
        if store := pod.cluster.item(kind or "SecretStore", namespace, name):
            yield store
            return


def _faults(item: Item) -> Iterator[tuple[Item, str, str]]:
    """The conditions of an object that are not met: where they stand, and what they say."""
    for condition in item.conditions:
        if condition.status == "False" and condition.text and not re.search(_BAD, condition.type):
            yield item, f"status.conditions[{condition.type}]", condition.text
