"""A GPU that is requested without the same limit."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Finding, Subject, check, fixes, is_accelerator, pod_evidence
from llmdoctor_checks.scheduling._refused import lacking, refusals

#: Texts of the API server's validation of extended resources (pkg/apis/core/validation).
_WORDS = ("Limit must be set for non overcommitable resources", "must be equal to ")


@check("gpu-limit-missing", since="0.1")
def gpu_limit_missing(subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """A GPU is requested without the same limit.

    GPUs and other extended resources cannot be overcommitted: request and limit must be equal. The API server refuses a pod
    that has one in `requests` and none, or another number, in `limits`. A limit alone suffices: the request follows it.

    ## Fix

    Put the GPU into `limits`:

        resources: {limits: {nvidia.com/gpu: 1}}

    ## References

    - https://kubernetes.io/docs/tasks/manage-gpus/scheduling-gpus/
    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#extended-resources
    """
    if subject.exists:
        return
    said = next((e for message, e in refusals(subject, cluster) if any(w in message for w in _WORDS)), None)
    for pod in subject.pods:
        for container in pod.containers:
            resources = container.spec.resources
            for name, asked in resources.requests.items():
                limit = resources.limits.get(name)
                if not is_accelerator(name) or str(limit) == str(asked) or (limit is None and pod.partial):
                    continue
                written = pod_evidence(container, "resources", f"requests: {asked}, limits: {limit or 'none'} ({name})")
                yield Finding(
                    role="cause" if lacking(subject) and not subject.static else "risk",
                    severity="critical",
                    confidence="certain",
                    summary=f"{container.name} requests {name}: {asked} and has "
                    + (f"{limit} as its limit" if limit is not None else "no limit of it")
                    + "; the API server refuses such a pod.",
                    evidence=(said, written) if said else (written,),
                    explains=("rollout-stuck",),
                    fixes=(
                        fixes.set_resource(
                            container, "limits", name, str(asked), f"Give {container.name} the same limit"
                        ),
                    ),
                )
                return
