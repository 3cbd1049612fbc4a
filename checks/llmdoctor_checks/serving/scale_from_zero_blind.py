"""An autoscaler at zero that sees none of the requests."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Finding,
    Fix,
    Item,
    Line,
    Logs,
    Pod,
    Subject,
    check,
    condition_evidence,
    count_of,
    dig,
    fixes,
    log_evidence,
    say_seconds,
    written_ago,
)
from llmdoctor_checks.serving._autoscaling import EMITTED, Scaler, routed, scaled_object, scalers
from llmdoctor_checks.serving._pickers import NO_CANDIDATES, refused_for, refused_for_nobody

#: Parts of a query that give it a value when no pod emits anything.
_AWAKE = ("absent(", "or vector(", "or on()", "router")

#: KEDA's cooldownPeriod unless it is set.
_COOLDOWN_SECONDS = 300

#: KEDA's pollingInterval unless it is set; requests that were refused for so many of them were not seen.
_POLLING_SECONDS, _POLLS = 30, 3

#: So many requests that a router refused are no chance.
_FEWEST = 3


@check("scale-from-zero-blind", since="0.2", severity="warning", literals=NO_CANDIDATES)
def scale_from_zero_blind(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """An autoscaler that scales to zero sees nothing by which to wake the workload.

    At zero replicas there is no pod, so the metrics of its engine have no value. An autoscaler that looks at nothing
    else never sees the requests that fail meanwhile. KEDA scales to zero unless `minReplicaCount` says otherwise: its
    default is 0. Where there are none now it is the cause. So is one that KEDA says is not active, whatever it looks at, while the
    endpoint picker of the pods' InferencePool, or the router that looks for them by their labels, has refused requests for several
    of KEDA's polling intervals. A router that started meanwhile has never seen the model: it answers 404, upon which clients give up
    instead of asking again, and the rate of requests that is to wake it stays at zero.

    ## Fix

    Keep one replica (`minReplicaCount: 1`), or wake it by something that sees requests without a pod: the gateway's or
    router's metric, KEDA's HTTP add-on, Knative.

    ## References

    - https://keda.sh/docs/latest/reference/scaledobject-spec/
    - https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
    """
    if not subject.engines(pod):
        if pod.ready and logs is not None:
            yield from _of_router(pod, cluster, logs)
        return
    for scaler in scalers(subject, cluster):
        if scaler.paused:
            continue
        if _asleep(subject) and (found := _unseen(pod, scaler, cluster)) is not None:
            yield found
            return
        emitted = [EMITTED.search(look.name) for look in scaler.looks]
        if scaler.minimum > 0 or not emitted or not all(emitted) or _woken(scaler) or routed(pod, cluster):
            continue
        names = ", ".join(dict.fromkeys(match[0] for match in emitted if match))
        keda = scaler.item.kind == "ScaledObject"
        seconds = dig(scaler.item.raw, "spec.cooldownPeriod")
        wait = say_seconds(seconds if isinstance(seconds, int) else _COOLDOWN_SECONDS)
        when = f"{wait} after the last activity the last replica goes" if keda else "the last replica goes when idle"
        said = dig(scaler.item.raw, "spec.minReplicaCount" if keda else "spec.minReplicas")
        low = "minReplicaCount" if keda else "minReplicas"
        if asleep := _asleep(subject):
            when = "there are 0 replicas now"
        yield Finding(
            role="cause" if asleep else "risk",
            summary=f"{scaler.ref} scales to zero on {names}, which only a running pod emits: {when}, and no request "
            "brings one back.",
            evidence=(
                scaler.evidence(f"spec.{low}", f"{low}: {said}" if said is not None else f"no {low}, which means 0"),
                *scaler.quoted,
            ),
            fix=_fix(scaler, low),
        )
        return


def _unseen(pod: Pod, scaler: Scaler, cluster: Cluster) -> Finding | None:
    """Requests for these pods that are refused, and of which the autoscaler, by its own word, sees nothing."""
    said = scaler.item.condition("Active", "False")
    if said is None or scaler.minimum > 0:
        return None
    for who, lines in refused_for(pod, cluster):
        asked = _since_it_slept(lines, scaler, cluster)
        if asked is None:
            continue
        return Finding(
            summary=f"{scaler.ref} has scaled to zero and sees nothing that would wake it, while {who} refused "
            f"{count_of(len(asked), 'request')} for want of a pod.",
            evidence=(
                condition_evidence(scaler.item, said),
                log_evidence(asked[0]),
                log_evidence(asked[-1]),
                *scaler.quoted,
            ),
            fix=_fix(scaler, "minReplicaCount"),
        )
    return None


def _of_router(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A router that has refused every request of late, since all that it looks for is asleep by KEDA's word."""
    for item, lines in refused_for_nobody(pod, cluster, logs):
        keda = (scaled_object(one) for one in cluster.items("ScaledObject", pod.namespace) if _scales(one, item))
        scaler = next((one for one in keda if _inactive(one) and one.minimum == 0 and not one.paused), None)
        lines = _not_before(lines, scaler, cluster) if scaler is not None else []
        if scaler is None or len(lines) < _FEWEST:
            continue
        yield Finding(
            summary=f"{pod.name} looks for the pods of {item.raw.get('kind')}/{item.name}, which {scaler.ref} has scaled to zero. It has "
            f"refused the last {count_of(len(lines), 'request')}, and none of them woke it.",
            evidence=(
                log_evidence(lines[-1]),
                scaler.evidence("status.conditions[Active]", "status: False"),
                *scaler.quoted,
            ),
            fix=_fix(scaler, "minReplicaCount"),
            order=lines[0].order,
        )
        return


def _scales(scaler: Item, item: Item) -> bool:
    target = dig(scaler.raw, "spec.scaleTargetRef")
    named = isinstance(target, dict) and target.get("name") == item.name
    return named and str(dig(target, "kind") or "Deployment") == item.raw.get("kind")


def _inactive(scaler: Scaler) -> bool:
    """Whether KEDA says that nothing which it looks at calls for a pod."""
    return scaler.item.condition("Active", "False") is not None


def _not_before(lines: list[Line], scaler: Scaler, cluster: Cluster) -> list[Line]:
    """The refusals that were not, as far as is known, made before KEDA was last active."""
    since = cluster.seconds_since(dig(scaler.item.raw, "status.lastActiveTime"))
    ages = [(line, written_ago(line, cluster.now)) for line in lines]
    return [line for line, ago in ages if since is None or ago is None or ago <= since]


def _since_it_slept(lines: list[Line], scaler: Scaler, cluster: Cluster) -> list[Line] | None:
    """The refusals since KEDA was last active, where they go on for longer than it needs to see a request."""
    interval = dig(scaler.item.raw, "spec.pollingInterval")
    patience = _POLLS * (interval if isinstance(interval, int) else _POLLING_SECONDS)
    # one that was never active has seen nothing since it is there
    told = dig(scaler.item.raw, "status.lastActiveTime") or scaler.item.metadata.get("creationTimestamp")
    since = cluster.seconds_since(told)
    timed = [(ago, line) for line in lines if (ago := written_ago(line, cluster.now)) is not None]
    late = [(ago, line) for ago, line in timed if since is None or ago < since - patience]
    return None if len(late) < 2 or late[0][0] - late[-1][0] < patience else [line for _, line in late]


def _asleep(subject: Subject) -> bool:
    """Whether the workload stands at zero in a cluster, not only in a manifest."""
    raw = subject.workload.raw if subject.workload else {}
    return dig(raw, "spec.replicas") == 0 and isinstance(raw.get("status"), dict) and not dig(raw, "status.replicas")


def _woken(scaler: Scaler) -> bool:
    """Whether a query has a value without pods, or KEDA falls back to replicas when it has none."""
    if any(word in look.name for look in scaler.looks for word in _AWAKE):
        return True
    fallback = dig(scaler.item.raw, "spec.fallback.replicas")
    triggers = dig(scaler.item.raw, "spec.triggers")
    strict = any(str(dig(t, "metadata.ignoreNullValues")).lower() == "false" for t in triggers or ())
    return isinstance(fallback, int) and fallback > 0 and strict


def _fix(scaler: Scaler, low: str) -> Fix:
    operations = [{"op": "add", "path": f"/spec/{low}", "value": 1}]
    if dig(scaler.item.raw, "spec.idleReplicaCount") is not None:
        operations.append({"op": "remove", "path": "/spec/idleReplicaCount"})
    return fixes.patch_object(scaler.item, f"Keep one replica: {low} 1", operations)
