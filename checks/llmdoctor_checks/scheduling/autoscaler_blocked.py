"""The autoscaler cannot help, and says why."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Event, Finding, Fix, Pending, check, event_evidence, fixes, is_provisioner, parse
from llmdoctor_checks.scheduling._separation import causes
from llmdoctor_checks.scheduling._words import EXPLAINS, said_by

#: Causes that a further node would mend.
_MENDED = frozenset(
    {"gpu-insufficient", "gpu-fragmented", "gpu-resource-absent", "cpu-memory-insufficient", "pods-per-node-limit"}
    | {"ephemeral-storage-insufficient"}
)
_LIMIT = re.compile(
    r"max node group size reached|limit reached|exceed(?:ed|s)? limits?|limits exceeded|MaxSize|no instance type",
    re.IGNORECASE,
)
_FAILED = re.compile(
    r"backoff after failed scale-up|scale[ -]?up .*failed|QUOTA_EXCEEDED|quota exceeded|STOCKOUT|exhausted"
    r"|InsufficientInstanceCapacity|insufficient capacity|not ready for scale-up",
    re.IGNORECASE,
)
#: Karpenter's words on one pool, and what its DaemonSets take there.
_POOL = re.compile(r'incompatible with (?:nodepool|provisioner) \\?"(?P<pool>[^",\\]+)\\?"')
_OVERHEAD = re.compile(r"daemonset overhead=\{[^}]*\},? ?")


@check("autoscaler-blocked", since="0.1")
def autoscaler_blocked(pending: Pending) -> Iterator[Finding]:
    """The autoscaler would have to add a node and cannot.

    The pod needs a node more. The cluster autoscaler or Karpenter has looked at it and says what keeps it from adding
    one: a node group at its maximum, a limit of the node pool, the cloud's quota, no capacity left for that instance
    type, or waiting after such a failure.

    ## Fix

    Raise the limit that it names, ask the cloud for quota, allow further instance types or zones; or free GPUs.

    ## References

    - https://github.com/kubernetes/autoscaler/blob/master/cluster-autoscaler/FAQ.md
    - https://karpenter.sh/docs/troubleshooting/
    """
    found = causes(pending)
    # a group whose nodes would have taken the pod was found: what the nodes that are there lack is not the point
    meant = any(event.reason in ("TriggeredScaleUp", "Nominated") for event in pending.scaling)
    if not pending.scaling:
        return
    event = pending.scaling[-1]
    if event.reason in ("TriggeredScaleUp", "Nominated"):
        return
    pool = _pool(pending, event)
    if found and found[0].id not in _MENDED and not meant and not pool:
        return
    limit, failed = _LIMIT.search(event.message), _FAILED.search(event.message)
    failed = failed or (event.message and event.reason == "FailedScaleUp" and re.search(".+", event.message)) or None
    if not limit and not failed:
        return
    if limit and "instance type" in limit[0] and not pool and found and found[0].id == "gpu-resource-absent":
        return  # pools without GPUs lack them as the nodes do
    mended = failed or pool or "exceed limits for nodepool" in event.message
    who = "Karpenter" if "karpenter" in event.reporter else event.reporter or "The autoscaler"
    why = "is at its limit" if limit and not failed and "instance type" not in limit[0] else "cannot add a node"
    yield Finding(
        role="cause",
        confidence="likely",
        summary=f"{who} {why}: {_cut(pool or _short(event))}",
        evidence=(event_evidence(event, pending.pod.cluster), *said_by(pending)),
        explains=(*EXPLAINS, *(c.id for c in found if mended)),
        fixes=tuple(_fixes(at_limit=limit is not None and failed is None)),
        order=float(len(found)),
        pods=(pending.pod.name,),
    )


def _pool(pending: Pending, event: Event) -> str:
    """What Karpenter says of the pool that is meant for the pod and has no instance type for it; empty without one.

    Taints and requirements were met where it came to instance types. Meant is a pool by its name, or by a requirement that
    the pod's nodeSelector names: a pool for everybody says the same of a GPU that it never had.
    """
    for part in event.message.split("; "):
        name = _POOL.search(part)
        if name is None or "no instance type" not in part:
            continue
        asked = pending.pod.spec.node_selector.items()
        named = any(str(value) in _values(part, key) for key, value in asked)
        if named or "gpu" in name["pool"].lower():
            return f"nodepool {name['pool']}: {_OVERHEAD.sub('', part[name.end() :]).strip(', ')}"
    return ""


def _values(text: str, key: str) -> list[str]:
    """The values that a requirement allows, as Karpenter prints it: `key In [a b]`."""
    return text.partition(f"{key} In [")[2].partition("]")[0].split()


def _short(event: Event) -> str:
    if is_provisioner(event.reporter) and "karpenter" in event.reporter:
        return next((part for part in event.message.split("; ") if "exceed limits" in part), event.message)
    said = parse(event.message.partition(": ")[2] or event.message)
    texts = [f"{c.number} {c.text}" for c in said.of("group-limit")]
    return ", ".join(texts) or event.message


def _cut(text: str) -> str:
    """A sentence, between two words where it would be too long."""
    return text[:240].rpartition(" ")[0] + " …" if len(text) > 240 else text.rstrip(". ") + "."


def _fixes(*, at_limit: bool) -> Iterator[Fix]:
    if at_limit:
        yield fixes.advice("Raise the maximum of the GPU node group or the limits of the node pool", owner="platform")
    else:
        yield fixes.advice(
            "Look for the cloud's own error (quota, capacity) at the node group; allow other zones or instance types",
            "kubectl get events -A --field-selector reason=FailedScaleUp",
            owner="platform",
        )
    yield fixes.advice("Free the GPUs that are there", owner="platform")
