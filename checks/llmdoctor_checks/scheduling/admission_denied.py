"""A policy, an admission webhook or the API server's own rules refuse the pod."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from kubectl_llmdoctor.api import (
    Cluster,
    Evidence,
    Finding,
    Fix,
    Pod,
    Subject,
    check,
    dig,
    expression,
    fixes,
    object_evidence,
    pod_evidence,
    rows,
    words,
)
from llmdoctor_checks.scheduling._invalid import refused
from llmdoctor_checks.scheduling._let_in import by_policy, past_webhook, within_constraint
from llmdoctor_checks.scheduling._refused import LITERALS, hurts, refusals

#: What kind of refusal it is, how it is worded, and how it is said here.
#: Texts: API server (PodSecurity, webhooks, ValidatingAdmissionPolicy, ServiceAccount, Priority, RuntimeClass), OpenShift.
_TEXTS: tuple[tuple[str, str, str], ...] = (
    ("level", r'violates PodSecurity "(?P<who>[^"]+)": (?P<why>.+)', "Pod Security {who} refuses the pod: {why}."),
    (
        "silent",
        r'failed calling webhook "(?P<who>[^"]+)": (?:failed to call webhook: )?(?P<why>.+)',
        "The webhook {who}, which must agree first, does not answer: {why}.",
    ),
    (
        "policy",
        r'admission webhook "(?P<who>[^"]+)" denied the request: (?P<why>.+)',
        "The webhook {who} refuses the pod: {why}.",
    ),
    (
        "policy",
        r"ValidatingAdmissionPolicy '(?P<who>[^']+)' with binding '[^']+' denied request: (?P<why>.+)",
        "The policy {who} refuses the pod: {why}.",
    ),
    (
        "constraint",
        r"unable to validate against any security context constraint: (?P<why>.+)",
        "No security context constraint of OpenShift allows the pod: {why}.",
    ),
    (
        "account",
        r'error looking up service account (?P<why>\S+): serviceaccount "(?P<who>[^"]+)" not found',
        "The service account {who} that the pod names does not exist.",
    ),
    (
        "class",
        r"no PriorityClass with name (?P<who>\S+) was found",
        "The priority class {who} that the pod names does not exist.",
    ),
    (
        "class",
        r'pod rejected: RuntimeClass "(?P<who>[^"]+)" not found',
        "The runtime class {who} that the pod names does not exist.",
    ),
    (
        "rights",
        r'is forbidden: User "(?P<who>[^"]+)" '
        r'(?P<why>cannot (?P<verb>\w+) resource "(?P<what>[^"]+)" in API group "(?P<group>[^"]*)"[^:]*)',
        "The account that should make it may not: {who} {why}.",
    ),
    (
        "finalizers",  # the plugin OwnerReferencesPermissionEnforcement, which OpenShift has
        r"(?P<why>[\w.-]{1,253}) \"[^\"]{1,253}\" is forbidden: "
        r"cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on",
        "The operator that makes its {why} may not set finalizers on the object that is to own them, which this cluster demands.",
    ),
    (
        "invalid",  # a GPU without its limit is gpu-limit-missing's
        r'\b[A-Z]\w+(?:\.[\w.-]+)? "[^"]*" is invalid: (?P<why>(?!.*non overcommitable|.*must be equal to [\w.-]+/\S+ limit).+)',
        "The API server refuses the pod, because it is not valid: {why}.",
    ),
)

#: What `baseline` lets a container add to its capabilities.
_CAPABILITIES = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"}
    | {"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
#: The kinds of volumes that `restricted` allows.
_VOLUMES = frozenset(
    [
        "configMap",
        "csi",
        "downwardAPI",
        "emptyDir",
        "ephemeral",
        "image",
        "persistentVolumeClaim",
        "projected",
        "secret",
    ]
)
#: Characters of a refusal that are quoted.
_LONGEST = 300
#: Faults of a manifest that are named one by one.
_MOST = 4
_EXPLAINS = (
    "rollout-stuck",
    "pod-pending",
    "not-ready",
    "gang-incomplete",
    "progress-deadline",
    "ray-cluster",
    "multinode-discovery",
)
#: What Pod Security says of what no level but `privileged` allows (pod-security-admission/policy); `restricted` has words of its own for
#: paths of the node, among its volume types.
_BEYOND_BASELINE = (
    r"host namespaces|privileged \(|hostPath volumes|hostPort|hostProcess|forbidden AppArmor|forbidden sysctls|seLinuxOptions"
    r'|procMount|restricted volume types? [^()]{0,60}"hostPath"|type to "Unconfined"'
)
#: The webhook by which GKE keeps to Autopilot's rules, and what it says of a GPU whose type nobody named.
_AUTOPILOT = ".common-webhooks.networking.gke.io"
_GPU_TYPES = expression(
    r"specify a GPU type with node selector '(?P<key>[\w./-]{1,120})'.{0,200}?supported values are: \[(?P<types>[\w, -]{1,300})\]"
)

_LABEL = "pod-security.kubernetes.io/enforce"


#: The volume of the NIM operator for the certificates of a proxy's CA.
_PROXY_CA = 'Not found: "custom-ca"'


@check("admission-denied", since="0.2", literals=LITERALS)
def admission_denied(subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """A policy, an admission webhook or the API server's own rules refuse the pod.

    Before a pod is stored, the API server asks its admission plugins: Pod Security by the label of the namespace,
    webhooks such as Kyverno, Gatekeeper or a mesh's, validating policies, and whether the service account, priority and
    runtime class exist. Then it validates the pod: a request above its limit, a mount of a volume that is not declared, a name
    that is too long. What the plugins refuse are the pods, while the object that makes them was accepted: there is no pod to
    look at, and only the `FailedCreate` events of the ReplicaSet, StatefulSet or Job say why.

    Model servers often ask for what `baseline` forbids: `hostIPC`, `hostNetwork`, hostPath volumes, the capabilities
    IPC_LOCK and SYS_NICE, privileged containers. In manifests this is computed where the Namespace with its label is in
    the files.

    What is not valid by itself is refused when it is applied, and shown in manifests of Kubernetes' own kinds: numbers and truth
    values where a string is due (`value: 8000`, `args: [--port, 8000]`, a label `version: 1.0`), quantities such as `16GB`, a
    selector that the template's labels do not meet, a mount of a volume that is not declared, names that stand there twice,
    are too long or have capitals, a request above its limit, half a GPU. A StatefulSet is accepted with most of it, and its pods are
    refused. So are those that a LeaderWorkerSet, JobSet, Rollout, PodCliqueSet or CloneSet makes of its template.

    ## Fix

    Take away what is forbidden (a memory-backed volume at /dev/shm takes the place of hostIPC, a PVC that of hostPath),
    add what the policy misses, or have it excepted for this namespace. On OpenShift a service account is let use a wider
    constraint (`oc adm policy add-scc-to-user`). A webhook that does not answer must be repaired first.

    ## References

    - https://kubernetes.io/docs/concepts/security/pod-security-standards/
    - https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
    """
    for message, evidence in refusals(subject, cluster):
        for kind, pattern, form in _TEXTS:
            found = re.search(pattern, message, re.DOTALL)
            if found:
                yield _stated(subject, evidence, kind, form, {"who": "", "why": "", **found.groupdict()})
                return
    if not subject.exists:
        for pod in subject.pods:
            yield from _computed(pod)
            if subject.static and (subject.engines(pod) or any(x.gpus for x in pod.containers)):
                yield from _by_itself(pod)


def _stated(subject: Subject, evidence: Evidence, kind: str, form: str, parts: dict[str, str]) -> Finding:
    """What the API server said of pods that could not be made."""
    why = " ".join(parts["why"].split()).rstrip(".")
    if len(why) > _LONGEST:
        why = f"{why[:_LONGEST].rpartition(' ')[0].rstrip(' ,;:')} …"
    missed = hurts(subject)
    return Finding(
        role="cause" if missed else "risk",
        confidence="certain",
        summary=form.format(who=parts["who"], why=why).replace("….", "…"),
        evidence=(evidence,),
        explains=_EXPLAINS,
        fixes=tuple(_answers(subject, kind, parts)),
    )


def _corrected(subject: Subject, where: str, why: str) -> str:
    """What to change where the API server does not take an object: that itself, or what an operator makes it of."""
    raw = subject.workload.raw if subject.workload else {}
    # the NIM operator mounts a volume for it, which it makes of this ConfigMap alone
    if _PROXY_CA in why and dig(raw, "spec.proxy") and not dig(raw, "spec.proxy.certConfigMap"):
        return (
            f"Set spec.proxy.certConfigMap of {where} to a ConfigMap with the certificates of the proxy's CA: this release of the NIM "
            "operator makes no valid pod of a proxy without one; or take a release that does"
        )
    if raw and why.lstrip("[").startswith("spec.template.") and dig(raw, "spec.template") is None:
        return (
            f"Its operator writes these fields: change in {where} what it makes them of, or take a release of the operator that makes "
            "them right"
        )
    return f"Correct the field that it names in {where}"


def _answers(subject: Subject, kind: str, parts: dict[str, str]) -> Iterator[Fix]:
    who = parts["who"]
    where = subject.workload.ref if subject.workload else "the pod"
    namespace = subject.namespace
    if kind == "silent":
        yield from past_webhook(subject, who, parts["why"])
    elif kind == "account":
        yield fixes.advice(
            f"Create the service account {who}, or name one that exists in {where}",
            f"kubectl -n {namespace} create serviceaccount {shlex.quote(who)}",
        )
    elif kind == "class":
        yield fixes.advice(f"Name one that exists in {where}", "kubectl get priorityclasses,runtimeclasses")
    elif kind == "rights":
        what = f"{parts['verb']} {shlex.quote('.'.join(filter(None, (parts['what'], parts['group']))))}"
        yield fixes.advice(
            f"Give {who} the right that it lacks: a Role and a RoleBinding in {namespace}",
            f"kubectl auth can-i {what} -n {namespace} --as={shlex.quote(who)}",
            owner="platform",
        )
    elif kind == "finalizers":
        yield fixes.advice(
            "Let the operator's service account update the finalizers of the kind that is to own them: a rule of its ClusterRole for "
            "KIND/finalizers (resources in the plural), as its releases for OpenShift have it",
            "kubectl get clusterroles -o yaml | grep -n /finalizers",
            owner="platform",
        )
    elif kind == "invalid":
        yield fixes.advice(_corrected(subject, where, parts["why"]))
    elif kind == "constraint":
        yield from within_constraint(subject, parts["why"])
    elif who.endswith(_AUTOPILOT):
        named = _GPU_TYPES.search(parts["why"])
        yield fixes.advice(
            f"Name the GPU's type in {where}: nodeSelector {named['key']}, one of {named['types']}"
            if named
            else f"Change {where} as the message asks: nobody is exempted from the rules of GKE Autopilot; a Standard cluster has fewer"
        )
    elif kind == "level":
        yield from _of_level(subject, where, who, parts["why"])
    else:
        yield from by_policy(subject, who, parts["why"])


def _of_level(subject: Subject, where: str, who: str, why: str) -> Iterator[Fix]:
    """What lets a pod in that the Pod Security level of its namespace refuses."""
    namespace = subject.namespace
    yield fixes.advice(f"Change {where} as the message asks, or have namespace {namespace} exempted from the policy")
    wider = "baseline" if who.startswith("restricted") and _within_baseline(why) else "privileged"
    yield fixes.advice(
        f"Raise the Pod Security level of namespace {namespace} to {wider}, if everyone who may create pods there may have that",
        f"kubectl label namespace {namespace} {_LABEL}={wider} --overwrite",
        owner="platform",
    )


def _within_baseline(why: str) -> bool:
    """Whether what `restricted` refuses is nothing that `baseline` would refuse, too."""
    added = re.findall(r"must not include ([^;()]{1,600}) in securityContext", why[:8000])
    names = {name for words in added for name in re.findall(r'"(\w{1,40})"', words)}
    return names <= _CAPABILITIES and not re.search(_BEYOND_BASELINE, why[:8000])


def _computed(pod: Pod) -> Iterator[Finding]:
    """A template against the Pod Security level of its namespace."""
    item = pod.cluster.item("Namespace", "", pod.namespace)
    enforced = item.labels.get(_LABEL) if item else None
    spec = dig(pod.template.pod, "spec") if pod.template else pod.item.raw.get("spec") if pod.item else None
    if item is None or enforced not in ("baseline", "restricted") or not isinstance(spec, dict):
        return
    wrong = list(_violations(spec))
    if enforced == "restricted":
        wrong += list(_restricted(spec))
    if not wrong:
        return
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"Namespace {pod.namespace} enforces Pod Security {enforced}, which refuses this pod: "
        f"{', '.join(f'{place} {text}' for place, text, _ in wrong)}.",
        evidence=(
            object_evidence(item, f"metadata.labels[{_LABEL}]", enforced),
            *(pod_evidence(pod, place, text) for place, text, _ in wrong),
        ),
        fixes=tuple(_fixes(pod, wrong)),
    )


def _by_itself(pod: Pod) -> Iterator[Finding]:
    """A manifest that is not valid, wherever it is applied."""
    wrong = list(dict.fromkeys(refused(pod)))
    if not wrong:
        return
    shown = "; ".join(f"{place}: {text}" for place, text in wrong[:_MOST])
    more = f"; and {len(wrong) - _MOST} more" if len(wrong) > _MOST else ""
    # of a StatefulSet's template only types and labels are validated, the rest with each pod
    pods = " or its pods" if pod.template_of is not None and pod.template_of.kind not in _VALIDATED else ""
    yield Finding(
        role="risk",
        severity="critical",
        # a selector may still be added, with the labels that kustomize gives to all
        confidence="likely" if [place for place, _ in wrong] == ["spec.selector"] else "certain",
        summary=f"The API server refuses {fixes.edited(pod)}{pods}, because it is not valid: {shown}{more}.",
        evidence=tuple(_wrong(pod, place, text) for place, text in wrong[:_MOST]),
        fixes=(fixes.advice(f"Correct {', '.join(place for place, _ in wrong[:_MOST])}{more} in {fixes.edited(pod)}"),),
    )


def _wrong(pod: Pod, place: str, text: str) -> Evidence:
    item = pod.template_of or pod.item
    if item is not None and place.startswith(("metadata", "spec.")):
        return object_evidence(item, place, text)
    return pod_evidence(pod, place, text)


#: The kinds whose templates the API server validates as pods.
_VALIDATED = ("Deployment", "DaemonSet", "ReplicaSet", "Job", "CronJob")

#: A violation: where in the pod spec, what stands there, and the patch that takes it away, if one does.
_Violation = tuple[str, str, dict[str, Any] | None]


def _containers(spec: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Every container: where it stands for people and for a patch, and itself."""
    for group in ("containers", "initContainers"):
        for index, container in enumerate(rows(spec, group)):
            yield f"{group}[{container.get('name')}]", f"/{group}/{index}", container


def _violations(spec: dict[str, Any]) -> Iterator[_Violation]:
    """What the level `baseline` forbids."""
    for name in ("hostIPC", "hostPID", "hostNetwork"):
        if spec.get(name) is True:
            yield name, "true", {"op": "remove", "path": f"/{name}"}
    for volume in rows(spec, "volumes"):
        if isinstance(volume.get("hostPath"), dict):
            yield f"volumes[{volume.get('name')}].hostPath", str(dig(volume, "hostPath.path")), None
    for place, at, container in _containers(spec):
        context = container.get("securityContext")
        if dig(context, "privileged") is True:
            path = f"{at}/securityContext/privileged"
            yield f"{place}.securityContext.privileged", "true", {"op": "remove", "path": path}
        added = [name for name in words(context, "capabilities.add") if name not in _CAPABILITIES]
        if added:
            path = f"{at}/securityContext/capabilities/add"
            yield f"{place}.securityContext.capabilities.add", ", ".join(added), {"op": "remove", "path": path}
        for port in rows(container, "ports"):
            if port.get("hostPort"):
                yield f"{place}.ports.hostPort", str(port["hostPort"]), None


def _restricted(spec: dict[str, Any]) -> Iterator[_Violation]:
    """What the level `restricted` demands beyond that."""
    whole = spec.get("securityContext")
    for volume in rows(spec, "volumes"):
        kinds = [key for key in volume if key not in ("name", "hostPath") and key not in _VOLUMES]
        if kinds:
            yield f"volumes[{volume.get('name')}]", kinds[0], None
    for place, at, container in _containers(spec):
        own = container.get("securityContext")
        if dig(own, "allowPrivilegeEscalation") is not False:
            path = f"{at}/securityContext/allowPrivilegeEscalation"
            yield f"{place}.securityContext", "allowPrivilegeEscalation is not false", _add(path, value=False)
        if "ALL" not in words(own, "capabilities.drop"):
            path = f"{at}/securityContext/capabilities/drop"
            yield f"{place}.securityContext", "capabilities.drop lacks ALL", _add(path, value=["ALL"])
        if (
            dig(own, "runAsNonRoot") if dig(own, "runAsNonRoot") is not None else dig(whole, "runAsNonRoot")
        ) is not True:
            # whether the image can run as another user is not known: no patch
            yield f"{place}.securityContext", "runAsNonRoot is not true", None
        if (dig(own, "seccompProfile.type") or dig(whole, "seccompProfile.type")) not in (
            "RuntimeDefault",
            "Localhost",
        ):
            path = f"{at}/securityContext/seccompProfile"
            yield f"{place}.securityContext", "seccompProfile is not set", _add(path, value={"type": "RuntimeDefault"})


def _add(path: str, *, value: object) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def _fixes(pod: Pod, wrong: list[_Violation]) -> Iterator[Fix]:
    operations = [operation for _, _, operation in wrong if operation]
    left = [f"{place} {text}" for place, text, operation in wrong if operation is None]
    if operations and not left:
        yield fixes.patch(pod, "Take away what the namespace's Pod Security level forbids", operations)
    else:
        yield fixes.advice(
            f"Take what it forbids out of {fixes.edited(pod)} ({'; '.join(left or [place for place, _, _ in wrong])}), or "
            "serve from a namespace of another Pod Security level"
        )
