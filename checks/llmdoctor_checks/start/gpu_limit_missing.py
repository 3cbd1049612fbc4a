"""A GPU that is requested without a limit."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Evidence,
    Finding,
    Fix,
    Pod,
    Subject,
    check,
    expression,
    fixes,
    is_accelerator,
    pod_evidence,
    units,
)
from llmdoctor_checks.scheduling._refused import LITERALS, hurts, lacking, refusals

#: Texts: API server, validation of container resources.
_REFUSED = expression(
    r"Limit must be set for non overcommitable resources"
    r"|must be equal to (?P<resource>[\w.-]+/[\w.-]+) limit"
)

#: A node selector of GKE, whose Autopilot sets the limit of what is only requested before the pod is judged.
_GKE = "cloud.google.com/"


@check("gpu-limit-missing", since="0.2", literals=LITERALS)
def gpu_limit_missing(pod: Pod, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """A GPU is requested without the same limit, and the API server refuses the pod.

    GPUs are extended resources, of which no more can be promised than there are. So the API server demands a limit for
    each that is requested, and a request that equals it; a limit alone is enough. The Deployment is accepted, and only
    the events of its ReplicaSet say that no pod can be made: "Limit must be set for non overcommitable resources".

    On GKE Autopilot the limit is filled in from the request, so that it is only noted where the pod selects nodes of GKE.

    ## Fix

    State the GPU under `limits`, the request follows by itself:

        resources: {limits: {nvidia.com/gpu: 1}}

    ## References

    - https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources
    """
    told = tuple(evidence for message, evidence in refusals(subject, cluster) if _REFUSED.search(message))[:1]
    if pod.exists and told and pod is subject.pods[0]:
        yield _of_a_member(subject, told)
    if pod.exists or pod.partial:
        return
    lacks = lacking(subject) and not subject.static
    for container in pod.containers:
        for resource, asked, limit in _unequal(container):
            gke = limit is None and not told and any(key.startswith(_GKE) for key in pod.spec.node_selector)
            missed = lacks and not gke  # there it may lack its pods for something else
            have = "no limit" if limit is None else f"a limit of {limit}"
            yield Finding(
                role="cause" if missed else "note" if gke else "risk",
                severity=None if missed else "info" if gke else "critical",
                confidence="certain" if told or missed else "possible" if gke else "likely",
                summary=f"Container {container.name} requests {asked} {resource} and has {have}: "
                f"the API server refuses {'the pod' if not gke else 'it, unless Autopilot sets the limit'}.",
                evidence=(
                    pod_evidence(container, f"resources.requests[{resource}]", str(asked)),
                    pod_evidence(container, "resources.limits", f"{resource}: {limit}" if limit is not None else have),
                    *told,
                ),
                explains=("rollout-stuck", "pod-pending") if missed else (),
                fix=_fix(container, resource, asked),
            )
            return


def _of_a_member(subject: Subject, told: tuple[Evidence, ...]) -> Finding:
    """Of a group that has some of its pods, where others are refused: the workers of a Ray cluster beside its head."""
    missed = hurts(subject)
    said = _REFUSED.search(told[0].text)
    resource = (said and said["resource"]) or "its GPU"
    return Finding(
        role="cause" if missed else "risk",
        confidence="certain",
        summary=f"Another pod of the group requests {resource} without a limit of the same number: the API server refuses it.",
        evidence=told,
        explains=("rollout-stuck", "not-ready", "ray-cluster", "gang-incomplete"),
        fix=fixes.advice(
            f"Put {resource} under limits, with the number that is requested, in "
            f"{subject.workload.ref if subject.workload else 'the object that makes the pods'}"
        ),
    )


def _unequal(container: Container) -> Iterator[tuple[str, object, object]]:
    resources = container.spec.resources
    for resource, asked in resources.requests.items():
        limit = resources.limits.get(resource)
        if is_accelerator(resource) and units(asked) and units(limit) != units(asked):
            yield resource, asked, limit


def _fix(container: Container, resource: str, asked: object) -> Fix:
    return fixes.set_resource(container, "limits", resource, str(asked), f"Limit {resource} to the {asked} requested")
