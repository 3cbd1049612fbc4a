"""An autoscaler at zero that waits for a metric which only a running pod emits."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Finding, Fix, Pod, Subject, check, dig, fixes, say_seconds
from llmdoctor_checks.serving._autoscaling import EMITTED, Scaler, routed, scalers

#: Parts of a query that give it a value when no pod emits anything.
_AWAKE = ("absent(", "or vector(", "or on()", "router")

#: KEDA's cooldownPeriod unless it is set.
_COOLDOWN_SECONDS = 300


@check("scale-from-zero-blind", since="0.2", severity="warning")
def scale_from_zero_blind(pod: Pod, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """Scaled to zero on a metric that only a running pod emits: nothing wakes it.

    At zero replicas there is no pod, so the metrics of its engine have no value. An autoscaler that looks at nothing
    else never sees the requests that fail meanwhile. KEDA scales to zero unless `minReplicaCount` says otherwise: its
    default is 0.

    ## Fix

    Keep one replica (`minReplicaCount: 1`), or wake it by something that sees requests without a pod: the gateway's or
    router's metric, KEDA's HTTP add-on, Knative.

    ## References

    - https://keda.sh/docs/latest/reference/scaledobject-spec/
    - https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/
    """
    if not subject.engines(pod):
        return
    for scaler in scalers(subject, cluster):
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
        asleep = not subject.static and subject.workload is not None and subject.workload.replicas == 0
        now = f"{subject.workload.ref} has none now" if asleep and subject.workload else when
        yield Finding(
            role="cause" if asleep else "risk",
            severity="warning",
            confidence="likely",
            summary=f"{scaler.ref} scales to zero on {names}, which only a running pod emits: {now}, and no request "
            "brings one back.",
            evidence=(
                scaler.evidence(f"spec.{low}", f"{low}: {said}" if said is not None else f"no {low}, which means 0"),
                *(scaler.evidence(look.path, look.text) for look in scaler.looks),
            ),
            fixes=(_fix(scaler, low),),
            pods=(pod.name,) if pod.exists else (),
        )
        return


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
