"""A webhook or policy that refuses the pod."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Cluster, Finding, Fix, Subject, check, fixes
from llmdoctor_checks.scheduling._refused import hurts, refusals

#: What the API server's admission says (k8s.io/apiserver admission, plugin/pkg/admission, pod-security-admission, OpenShift's SCC).
_WORDS: tuple[tuple[str, str], ...] = (
    (
        r'failed calling webhook "(?P<name>[^"]+)": (?:failed to call webhook: )?(?P<why>.*)',
        "Webhook {name} must look at every pod and cannot be called: {why}",
    ),
    (
        r'admission webhook "(?P<name>[^"]+)" denied the request: (?P<why>.*)',
        "Webhook {name} refuses the pod: {why}",
    ),
    (
        r"ValidatingAdmissionPolicy '(?P<name>[^']+)' .*?denied request: (?P<why>.*)",
        "The policy {name} refuses the pod: {why}",
    ),
    (
        r'violates PodSecurity "(?P<name>[^"]+)": (?P<why>.*)',
        "The namespace enforces the Pod Security Standard {name}, which the pod violates: {why}",
    ),
    (
        r"unable to validate against any (?P<name>security context constraint|pod security policy): \[?(?P<why>.*?)\]?$",
        "No {name} that the pod's service account may use admits it: {why}",
    ),
    (
        r'error looking up service account (?P<ns>[^/]+)/[^:]+: (?P<why>serviceaccount "(?P<name>[^"]+)" not found)',
        "The pod runs as service account {name}, which does not exist in {ns}.",
    ),
    (
        r"(?P<why>no PriorityClass with name (?P<name>\S+) was found)",
        "The pod names the PriorityClass {name}, which does not exist.",
    ),
)

_LONGEST = 300


@check("admission-denied", since="0.1")
def admission_denied(subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """A webhook or policy of the cluster refuses the pod.

    Before a pod is stored the API server asks its admission plugins and the webhooks that are registered for pods. One that
    refuses leaves no pod behind: the ReplicaSet, StatefulSet or Job tries again and again, and only its `FailedCreate`
    events and a condition say why. A webhook that cannot be called refuses as well, unless its failure policy is Ignore: an
    operator that is down (KServe, Istio, Kyverno, a sidecar injector) keeps all pods from being made.

    ## Fix

    Change the pod so that it satisfies the policy (Pod Security: `securityContext`, no hostPath), or let its namespace have
    another level. Where a webhook cannot be called, look at the pods and the Service behind it, its certificate, and whether
    the control plane reaches its port. A service account or PriorityClass that is missing must be made.

    ## References

    - https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
    - https://kubernetes.io/docs/concepts/security/pod-security-standards/
    """
    for message, evidence in refusals(subject, cluster):
        for pattern, words in _WORDS:
            found = re.search(pattern, message, re.DOTALL)
            if found is None:
                continue
            why = found["why"].strip()
            told = words.format_map(found.groupdict() | {"why": why if len(why) <= _LONGEST else f"{why[:_LONGEST]}…"})
            yield Finding(
                role="cause" if hurts(subject) else "risk",
                severity=None if hurts(subject) else "warning",
                confidence="certain",
                summary=told if told.endswith((".", "…")) else f"{told}.",
                evidence=(evidence,),
                explains=("rollout-stuck", "pod-pending", "progress-deadline", "ray-cluster", "multinode-discovery"),
                fixes=tuple(_fixes(subject, pattern, found.groupdict())),
            )
            return


def _fixes(subject: Subject, pattern: str, names: dict[str, str]) -> Iterator[Fix]:
    where = subject.workload.ref if subject.workload else "the pod"
    name, namespace = names.get("name") or "", subject.namespace
    if pattern.startswith("failed calling"):
        yield fixes.advice(
            f"Bring the server of webhook {name} back: its pods, its Service, its certificate",
            f"kubectl get mutatingwebhookconfigurations,validatingwebhookconfigurations -o yaml | grep -B5 -A20 '{name}'",
            owner="platform",
        )
    elif "serviceaccount" in pattern:
        yield fixes.advice(
            f"Create the service account {name}, or name one that exists in {where}",
            f"kubectl -n {namespace} create serviceaccount {name}",
        )
    elif "PriorityClass" in pattern:
        yield fixes.advice(f"Name a PriorityClass that exists in {where}", "kubectl get priorityclasses")
    elif "PodSecurity" in pattern:
        yield fixes.advice(f"Set what the message names in the securityContext of {where}")
        yield fixes.advice(
            f"Or let the namespace {namespace} have a wider level",
            f"kubectl label namespace {namespace} pod-security.kubernetes.io/enforce=baseline --overwrite",
            owner="platform",
        )
    else:
        yield fixes.advice(f"Change {where} so that it is admitted, or have the policy except it")
