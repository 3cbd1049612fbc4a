"""A rollout whose deadline is shorter than the time that its model needs to load."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Logs, Pod, Subject, check, dig, fixes, phase_of, say_seconds

_REASON = "ProgressDeadlineExceeded"

#: Kubernetes' default for a Deployment, and Knative's for a revision.
_DEFAULT_SECONDS = 600


@check("progress-deadline", since="0.1")
def progress_deadline(subject: Subject) -> Iterator[Finding]:
    """The rollout's deadline is shorter than the time that the model needs to load.

    A Deployment that has no new ready pod for `progressDeadlineSeconds` (600 by default) is marked as failed:
    `kubectl rollout status` and pipelines end with an error, though its pods go on and may become ready. Knative, and so
    KServe in its serverless mode, gives a revision up at that time and removes its pod, however far it had come. Images of
    20 GB, nodes that are made first and large models take longer.

    ## Fix

    Raise `spec.progressDeadlineSeconds` of the Deployment above the longest start; for Knative the annotation
    `serving.knative.dev/progress-deadline: 30m` on the revision's template (in KServe on the InferenceService), or
    `progress-deadline` in the ConfigMap config-deployment.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#progress-deadline-seconds
    - https://knative.dev/docs/serving/configuration/deployment/
    """
    told = list(_exceeded(subject))
    if subject.static or not told:
        return
    knative = any(e.ref.startswith("Revision/") for e in told)
    if subject.exists:
        loading = [p for p in subject.pods if _loads(p, subject.logs(p))]
        if len(loading) < len(subject.pods):
            return
        phase = phase_of(next((x for x in subject.logs(loading[0]) if not x.previous), None))
        how = f"its pod is still {phase.name}" if phase else "its pod is still starting"
    elif knative:
        how = "Knative gave it up and took its pod away before it was ready"
    else:
        return
    workload = subject.workload
    seconds = dig(workload.raw, "spec.progressDeadlineSeconds") if workload else None
    deadline = say_seconds(seconds if isinstance(seconds, int) else _DEFAULT_SECONDS)
    advice = (
        "Set the annotation serving.knative.dev/progress-deadline: 30m on the revision's template"
        if knative
        else f"Raise progressDeadlineSeconds of {workload.ref if workload else 'the Deployment'} to 1800 or more"
    )
    yield Finding(
        role="cause",
        severity="warning" if subject.exists and not knative else None,
        confidence="likely" if subject.exists else "possible",
        summary=f"The rollout has passed its deadline ({deadline}); {how}.",
        evidence=tuple(told),
        explains=("rollout-stuck",),
        fixes=(fixes.advice(advice),),
        pods=tuple(p.name for p in subject.pods if p.exists),
    )


def _exceeded(subject: Subject) -> Iterator[Evidence]:
    """Conditions of the target, and of the revision that it belongs to, that say so."""
    for workload in subject.platform:
        item = workload.item
        conditions = dig(item.raw, "status.conditions")
        for condition in conditions if isinstance(conditions, list) else ():
            if (
                isinstance(condition, dict)
                and condition.get("reason") == _REASON
                and condition.get("status") == "False"
            ):
                yield Evidence(
                    source="workload",
                    ref=f"{item.kind.partition('.')[0]}/{item.name} status.conditions[{condition.get('type')}]",
                    text=f"{_REASON}: {condition.get('message') or ''}".rstrip(": "),
                )


def _loads(pod: Pod, logs: Logs) -> bool:
    """Whether a pod is on its way and nothing has gone wrong with it: it never ended, and does not serve."""
    if not pod.exists or pod.ready or pod.unscheduled or any(c.terminated for c in pod.containers if c.role == "main"):
        return False
    if any(t.kind != "not-ready" for t in pod.troubles):
        return False
    phases = [phase_of(log) for log in logs if not log.previous]
    return any(phase and phase.name != "serving" for phase in phases)
