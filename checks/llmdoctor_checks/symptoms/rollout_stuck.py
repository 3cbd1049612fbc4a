"""The symptom of a workload that cannot make or renew its pods."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Pod, Subject, Workload, check, event_evidence, workload_evidence
from llmdoctor_checks.scheduling._refused import REASONS

#: What a model may take to load.
_LOADING_SECONDS = 630
#: What no model takes: an operator that does not call its object ready so long after its pods were waits for something else.
_NO_LOADING_SECONDS = 3600


@check("rollout-stuck", since="0.1")
def rollout_stuck(subject: Subject, workload: Workload) -> Iterator[Finding]:
    """The workload does not get the pods that it wants.

    No pod exists although replicas are wanted, or a rollout has passed its progress deadline.

    ## Fix

    Fix the cause that is named above it. Without one, look at the events of the workload and of its ReplicaSet or Job:
    a refused pod leaves no pod, only a FailedCreate event there.

    ## References

    - https://kubernetes.io/docs/concepts/workloads/controllers/deployment/#failed-deployment
    """
    if subject.static or _lacks_none(subject, workload):
        return
    evidence = [
        workload_evidence(workload, f"status.conditions[{c.type}]", c.text)
        for c in workload.status.conditions
        if (c.type == "Progressing" and c.status == "False") or (c.type == "ReplicaFailure" and c.status == "True")
    ]
    evidence += [event_evidence(e, subject.cluster) for e in subject.events.of(*REASONS)[-1:]]
    # nor does it lack pods that its status counts
    absent = not subject.exists and workload.replicas != 0 and not workload.ready
    if absent and workload.item.kind not in ("Job", "CronJob"):
        yield _no_pod(subject, workload, evidence)
    elif any(e.source == "workload" for e in evidence):
        yield Finding(
            role="symptom",
            severity="warning",
            confidence="certain",
            summary=f"The rollout of {workload.ref} does not get ahead.",
            evidence=tuple(evidence),
        )
    else:
        yield from _by_its_operator(subject, workload)


def _told(subject: Subject) -> list[Evidence]:
    """What operators say of the objects above."""
    return [workload_evidence(above, said.path, said.text) for above in subject.platform for said in above.said]


def _lacks_none(subject: Subject, workload: Workload) -> bool:
    """Whether pods that are not here are none that it should have: it wants none, or its status counts them, or they are others'."""
    wanted = workload.replicas
    if subject.exists:
        return False
    counted = bool(wanted) and (workload.ready or 0) >= (wanted or 0)
    return workload.at_rest or counted or (bool(workload.release) and not _told(subject))


def _no_pod(subject: Subject, workload: Workload, evidence: list[Evidence]) -> Finding:
    wanted = workload.replicas
    spec = [workload_evidence(workload, "spec.replicas", str(wanted))] if wanted else []
    every = [*evidence, *spec, *_told(subject)]
    return Finding(
        role="symptom",
        confidence="certain",
        summary=f"{workload.ref} {f'wants {wanted} and has no pod' if wanted else 'has no pod'}.",
        evidence=tuple(every or [workload_evidence(workload, "status", "no pod of it is in the snapshot")]),
    )


def _by_its_operator(subject: Subject, workload: Workload) -> Iterator[Finding]:
    """What an operator says of an object that fails, or of whose pods one does."""
    told = _told(subject)
    broken = any(said.failed for above in subject.platform for said in above.said)
    failed = broken or _unready_for_long(workload)
    if told and (failed or any(map(_fails, subject.pods))):
        yield Finding(
            role="symptom",
            severity="critical" if failed else "warning",
            confidence="certain",
            summary=f"The operator of {workload.ref} says that it {'has failed' if broken else 'is not ready'}{_words(told[0].text)}.",
            evidence=tuple(told[:4]),
        )


def _fails(pod: Pod) -> bool:
    """Whether anything is wrong with a pod but that it started only minutes ago and is not ready yet."""
    return any(
        t.kind != "not-ready" or (age := pod.cluster.seconds_since(t.since)) is None or age > _LOADING_SECONDS
        for t in pod.troubles
    )


def _unready_for_long(workload: Workload) -> bool:
    """Whether its own condition Ready has not been met for longer than any model takes to load."""
    unready = workload.item.condition("Ready", "False")
    since = workload.cluster.seconds_since(unready.last_transition_time) if unready else None
    return since is not None and since > _NO_LOADING_SECONDS


def _words(text: str) -> str:
    """The first line of what an operator says, where it says more than a condition's value."""
    line = " ".join(text.strip().partition("\n")[0][:200].split()).rstrip(". ")
    return f": {line}" if line not in ("", "False", "True") else ""
