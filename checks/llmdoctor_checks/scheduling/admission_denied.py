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
from llmdoctor_checks.scheduling._invalid import TEMPLATES, Fault, operations, refused
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
        "account",  # KubeRay, which makes the account of a head with an autoscaler only where the head names none
        r"ServiceAccount (?P<who>[\w.-]{1,253}) is not found\. Please create one",
        "The service account {who} that the head of the Ray cluster names does not exist.",
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
        "The account that should make it is not allowed to: {who} {why}.",
    ),
    (
        "finalizers",  # the plugin OwnerReferencesPermissionEnforcement, which OpenShift has
        r"(?P<why>[\w.-]{1,253}) \"[^\"]{1,253}\" is forbidden: "
        r"cannot set blockOwnerDeletion if an ownerReference refers to a resource you can't set finalizers on",
        "The operator that makes its {why} is not allowed to set finalizers on the object that owns them, which this cluster demands.",
    ),
    (
        "ending",
        r"unable to create new content in namespace (?P<who>[\w.-]{1,253}) because it is being terminated",
        "Namespace {who} is being deleted, so that nothing is made in it any more.",
    ),
    (
        "tolerations",
        r"(?P<why>pod tolerations \(possibly merged with namespace default tolerations\) conflict with its namespace whitelist)",
        "The namespace does not allow its pods the tolerations of this one (plugin PodTolerationRestriction).",
    ),
    (
        "selector",
        r"(?P<why>pod node label selector conflicts with its namespace node label selector)",
        "The nodeSelector of the pod contradicts that of its namespace (plugin PodNodeSelector).",
    ),
    (
        "invalid",  # KubeRay (ray-operator/controllers/ray/utils/validation.go), which makes nothing of it then
        r"The Ray(?:Cluster|Service|Job) (?:spec|metadata) is invalid[^:\n]{0,300}: (?P<why>.+)",
        "KubeRay makes no pod, because what is asked for is not valid: {why}.",
    ),
    (
        "invalid",  # a GPU without its limit is gpu-limit-missing's
        r'\b[A-Z]\w{1,60}(?:\.[\w.-]{1,200})? "[^"]{0,253}" is invalid: '
        r"(?P<why>(?!.*non overcommitable|.*must be equal to [\w.-]+/\S+ limit).+)",
        "The API server refuses the pod, because it is not valid: {why}.",
    ),
)

#: What `baseline` lets a container add to its capabilities.
_CAPABILITIES = frozenset(
    {"AUDIT_WRITE", "CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "KILL", "MKNOD", "NET_BIND_SERVICE"}
    | {"SETFCAP", "SETGID", "SETPCAP", "SETUID", "SYS_CHROOT"}
)
#: The kinds of volumes that `restricted` allows.
_VOLUMES = frozenset([
    "configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "image", "persistentVolumeClaim", "projected", "secret",
])  # fmt: skip
#: Characters of a refusal that are quoted.
_LONGEST = 300
#: Faults of a manifest that are named one by one.
_MOST = 4
#: The highest value of a priority class that is not the system's.
_HIGHEST = 1000000000
_EXPLAINS = (
    "rollout-stuck", "pod-pending", "not-ready", "gang-incomplete", "progress-deadline", "ray-cluster",
    "multinode-discovery",
)  # fmt: skip
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

#: What it says of init containers (autogke-gpu-limitation).
_GPU_INIT = "GPU-using init containers"

#: A request that is more than its limit, in words of the validation.
_ABOVE_LIMIT = expression(
    r'containers\[(?P<index>\d{1,3})\]\.resources\.requests: Invalid value: "(?P<asked>[\w.]{1,40})": '
    r"must be less than or equal to (?P<resource>[\w-]{1,60}) limit of (?P<limit>[\w.]{1,40})"
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
    add what the policy misses, or have it excepted for this namespace. On OpenShift a service account can be given a wider
    constraint (`oc adm policy add-scc-to-user`). A webhook that does not answer must be repaired first.

    ## References

    - https://kubernetes.io/docs/concepts/security/pod-security-standards/
    - https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
    """
    for message, evidence in refusals(subject, cluster):
        for kind, pattern, form in _TEXTS:
            if found := re.search(pattern, message, re.DOTALL):
                yield _stated(subject, evidence, kind, form, {"who": "", "why": "", "": message, **found.groupdict()})
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
    return f"Correct in {where}: {' '.join(why.split()).strip('[].')[:_LONGEST]}"


def _answers(subject: Subject, kind: str, parts: dict[str, str]) -> Iterator[Fix]:
    who = parts["who"]
    where = subject.workload.ref if subject.workload else "the pod"
    namespace = subject.namespace
    if kind == "silent":
        yield from past_webhook(subject, who, parts["why"])
    elif kind == "account":
        yield fixes.advice(
            f"Create the service account {who} in {namespace}, which {where} names",
            f"kubectl -n {namespace} create serviceaccount {shlex.quote(who)}",
        )
    elif kind == "ending":
        yield fixes.advice(
            f"Make {where} in another namespace, or make {who} again once it is gone, and all of it that is still needed",
            f"kubectl get namespace {who} -o jsonpath='{{.status.conditions}}'",
        )
    elif kind in ("tolerations", "selector"):
        key = "tolerationsWhitelist" if kind == "tolerations" else "node-selector"
        field = "tolerations" if kind == "tolerations" else "nodeSelector"
        yield fixes.advice(
            f"Bring the {field} of {where} and the annotation scheduler.alpha.kubernetes.io/{key} of namespace {namespace} into line: "
            "the pod may have only what the annotation has, which whoever runs the cluster can widen",
            f"kubectl get namespace {namespace} -o jsonpath='{{.metadata.annotations}}'",
        )
    elif kind == "class":
        if "RuntimeClass" in parts[""]:
            yield from _of_runtime_class(subject, where, who)
        else:
            yield from _of_priority_class(subject, where, who)
    elif kind == "rights":
        yield _of_rights(who, parts, namespace)
    elif kind == "finalizers":
        # LeaderWorkerSet's workers are of a StatefulSet that their leader, a Pod, owns
        owner = "pods" if "leader pod" in parts[""] else f"{where.partition('/')[0].lower()}s"
        yield fixes.platform(
            f"Let the operator's service account update {owner}/finalizers: a rule of its ClusterRole, as its releases for OpenShift "
            "have it",
            f"kubectl get clusterroles -o yaml | grep -n {owner}/finalizers",
        )
    elif kind == "invalid":
        pod = next(iter(subject.pods), None)
        yield from _of_invalid(subject, pod, where, parts["why"])
    elif kind == "constraint":
        yield from within_constraint(subject, parts["why"])
    elif who.endswith(_AUTOPILOT):
        named = _GPU_TYPES.search(parts["why"])
        of_init = _of_init_container(subject, where) if _GPU_INIT in parts["why"] else None
        yield of_init or fixes.advice(
            f"Name the GPU's type in {where}: nodeSelector {named['key']}, one of {named['types']}"
            if named
            else f"Change {where} as the message asks: nobody is exempted from the rules of GKE Autopilot; a Standard cluster has fewer"
        )
    elif kind == "level":
        yield from _of_level(subject, where, who, parts["why"])
    else:
        pod = next(iter(subject.pods), None)
        wrong = list(_named_by_policy(pod, parts["why"])) if pod else []
        yield from _fixes(pod, wrong, who) if pod and wrong else by_policy(subject, who, parts["why"])


def _of_init_container(subject: Subject, where: str) -> Fix | None:
    """What keeps GPUs out of init containers, which Autopilot does not take: up to 0.6 KubeRay gave its own those of the worker."""
    pods = (pod for pod in subject.pods if pod.template or pod.exists)
    if named := next((c.name for pod in pods for c in pod.containers if c.role == "init" and c.accelerators), ""):
        return fixes.advice(
            f"Take the GPUs out of the resources of init container {named} of {where}: Autopilot gives them to none"
        )
    if subject.workload is None or subject.workload.kind not in ("RayCluster", "RayService", "RayJob"):
        return None
    return fixes.platform(
        "Take KubeRay's operator 1.0 or newer: up to 0.6 it gave its init container wait-gcs-ready the GPUs of the worker, which "
        "Autopilot does not take; or set ENABLE_INIT_CONTAINER_INJECTION=false on the operator",
        "kubectl get deployments -A -l app.kubernetes.io/name=kuberay-operator -o wide",
    )


#: How policies are called that demand what Pod Security does (Kyverno's and Gatekeeper's libraries), and the fields that they are about.
_POLICIES = (
    (r"host-?ipc|host-?namespaces?", ("hostIPC",)),
    (r"host-?pid|host-?namespaces?", ("hostPID",)),
    (r"host-?network|host-?namespaces?", ("hostNetwork",)),
    (r"host-?path", ("hostPath",)),
    (r"host-?ports?", ("hostPort",)),
    (r"privileged-?containers?|psp-?privileged", ("privileged",)),
    (r"privilege-?escalation", ("allowPrivilegeEscalation",)),
    (r"capabilities", ("capabilities",)),
    (r"run-?as-?non-?root", ("runAsNonRoot",)),
    (r"seccomp", ("seccompProfile",)),
)


def _named_by_policy(pod: Pod, why: str) -> Iterator[_Violation]:
    """What of a pod's template the name of a policy is about."""
    spec = _spec(pod)
    fields = [field for pattern, names in _POLICIES if re.search(pattern, why, re.IGNORECASE) for field in names]
    for place, text, operation in (*_violations(spec), *_restricted(spec)) if spec and fields else ():
        if any(field in f"{place} {text}" for field in fields):
            yield place, text, operation


def _of_runtime_class(subject: Subject, where: str, who: str) -> Iterator[Fix]:
    """A runtime class that a pod names and that nobody made; often it is the handler's name, and the class has another."""
    handlers = {item.name: str(item.raw.get("handler") or "") for item in subject.cluster.items("RuntimeClass")}
    same = [name for name, handler in handlers.items() if handler == who]
    of_nvidia = [name for name, handler in handlers.items() if handler.startswith("nvidia")]
    named = same or (of_nvidia if who.startswith("nvidia") and len(of_nvidia) == 1 else [])
    pod = next(iter(subject.pods), None)
    if named and pod:
        text = f"Name the RuntimeClass {named[0]} in {where}, whose handler is {handlers[named[0]]}: {who} is no class here"
        yield fixes.set_spec(pod, "/runtimeClassName", named[0], text)
        return
    text = f"Make the RuntimeClass {who}, whose handler the container runtime of the nodes must have (nvidia: the container toolkit)"
    yield fixes.platform(text, fixes.create("node.k8s.io/v1", "RuntimeClass", who, handler=who))
    yield fixes.advice(
        f"Take runtimeClassName: {who} out of {where}, or name one that exists", "kubectl get runtimeclasses"
    )


def _same_words(one: str, other: str) -> bool:
    """Whether two names are the same words, some of them cut short: `high-prio` and `high-priority`."""
    words = [re.split(r"[-._]", name.lower()) for name in (one, other)]
    return len(words[0]) == len(words[1]) and all(
        a == b or (min(len(a), len(b)) > _SHORT_WORD and (a.startswith(b) or b.startswith(a)))
        for a, b in zip(*words, strict=True)
    )


#: A word as short as that is none cut short: `low`, `p1`.
_SHORT_WORD = 3


def _of_priority_class(subject: Subject, where: str, who: str) -> Iterator[Fix]:
    """A priority class that a pod names and that nobody made, with a value that stands in no way of the others."""
    values = {item.name: item.raw.get("value") for item in subject.cluster.items("PriorityClass")}
    own = {n: v for n, v in values.items() if isinstance(v, int) and not n.startswith("system-")}
    meant, pod = [name for name in own if _same_words(name, who)], next(iter(subject.pods), None)
    if len(meant) == 1 and pod:
        text = f"Name the PriorityClass {meant[0]} ({own[meant[0]]}) in {where}: {who} is no class here"
        yield fixes.set_spec(pod, "/priorityClassName", meant[0], text)
    shown = ", ".join(f"{name}: {value}" for name, value in sorted(own.items(), key=lambda one: -one[1])[:_MOST])
    value = min(max((v for v in own.values() if v > 0), default=1000), _HIGHEST)
    than = f"as high as the highest that is here ({shown})" if shown else "above the 0 of pods without a class"
    yield fixes.platform(
        f"Make the PriorityClass {who} with the value {value}, {than}; without Never as its preemptionPolicy its pods push lower ones out",
        f"kubectl create priorityclass {shlex.quote(who)} --value={value} --preemption-policy=Never",
    )
    others = f"one that exists ({shown})" if shown else "one that exists"
    yield fixes.advice(f"Take priorityClassName: {who} out of {where}, or name {others}", "kubectl get priorityclasses")


#: What gives more power than it says: of these an account is given no more than the right that it lacks.
_POWERS = frozenset(
    {"secrets", "serviceaccounts", "roles", "rolebindings", "clusterroles", "clusterrolebindings", "nodes"}
    | {"mutatingwebhookconfigurations", "validatingwebhookconfigurations", "customresourcedefinitions"}
)


def _of_rights(who: str, parts: dict[str, str], namespace: str) -> Fix:
    """A role with what an account lacks; an operator that may not make something needs to read and change it as well."""
    what, _, part = parts["what"].partition("/")
    resource = shlex.quote(f"{'.'.join(filter(None, (what, parts['group'])))}{f'/{part}' if part else ''}")
    parted = who.removeprefix("system:serviceaccount:")
    holder = f"--serviceaccount={parted}" if parted != who else f"--user={who}"
    name = re.sub(r"[^\w.-]{1,253}", "-", f"{parted.rpartition(':')[2]}-{parts['what']}"[:60]).strip("-")
    keeps = parts["verb"] == "create" and not part and what not in _POWERS
    verbs = "get,list,watch,create,update,patch,delete" if keeps else parts["verb"]
    whole = "at the cluster scope" in parts["why"]
    told = re.search(r'in the namespace "([\w-]{1,63})"', parts["why"])
    namespace = told[1] if told else namespace
    kind, inside = ("clusterrole", "") if whole else ("role", f"-n {namespace} ")
    return fixes.platform(
        f"Give {who} the right that it lacks: {verbs} of {resource}{'' if whole else f' in {namespace}'}",
        f"kubectl {inside}create {kind} {name} --verb={verbs} --resource={resource}",
        f"kubectl {inside}create {kind}binding {name} --{kind}={name} {shlex.quote(holder)}",
        f"kubectl auth can-i {parts['verb']} {resource} {inside}--as={shlex.quote(who)}",
    )


def _of_invalid(subject: Subject, pod: Pod | None, where: str, why: str) -> Iterator[Fix]:
    """A field that is not valid: what is computed of the template, else what the API server says of it."""
    wrong = list({(fault.place, fault.text): fault for fault in refused(pod)}.values()) if pod else []
    over = _ABOVE_LIMIT.search(why)
    containers = pod.spec.containers if pod else ()
    index = int(over["index"]) if over else 0
    if wrong:
        yield from corrections(pod, wrong) if pod else ()
    elif pod and over and index < len(containers):
        path = f"/containers/{index}/resources/limits/{over['resource']}"
        text = f"Raise the {over['resource']} limit of {containers[index].name} from {over['limit']} to {over['asked']}, what it requests"
        yield fixes.set_spec(pod, path, over["asked"], text)
    else:
        yield fixes.advice(_corrected(subject, where, why))


def _of_level(subject: Subject, where: str, who: str, why: str) -> Iterator[Fix]:
    """What lets a pod in that the Pod Security level of its namespace refuses."""
    namespace, pod = subject.namespace, next(iter(subject.pods), None)
    spec = _spec(pod)
    wrong = [*_violations(spec), *(_restricted(spec) if who.startswith("restricted") else ())] if spec else []
    inside = (
        [*_fixes(pod, wrong)]
        if pod and wrong
        else [
            fixes.advice(
                f"Take out of {where}, or state in it, what the level names: {' '.join(why.split())[:_LONGEST]}"
            )
        ]
    )
    wider = "baseline" if who.startswith("restricted") and _within_baseline(why) else "privileged"
    raising = fixes.platform(
        f"Raise the Pod Security level of namespace {namespace} to {wider}, if everyone who may create pods there may have that",
        f"kubectl label namespace {namespace} {_LABEL}={wider} --overwrite",
    )
    # without its device the server is another one
    yield from (raising, *inside) if any(_is_device(one) for one in wrong) else (*inside, raising)


def _is_device(violation: _Violation) -> bool:
    """Whether it is about a device of the node, mounted from its path."""
    place, path, _ = violation
    return place.endswith(".hostPath") and path.startswith("/dev/") and not path.startswith("/dev/shm")


def _within_baseline(why: str) -> bool:
    """Whether what `restricted` refuses is nothing that `baseline` would refuse, too."""
    added = re.findall(r"must not include ([^;()]{1,600}) in securityContext", why[:8000])
    names = {name for words in added for name in re.findall(r'"(\w{1,40})"', words)}
    return names <= _CAPABILITIES and not re.search(_BEYOND_BASELINE, why[:8000])


def _computed(pod: Pod) -> Iterator[Finding]:
    """A template against the Pod Security level of its namespace."""
    item = pod.cluster.item("Namespace", "", pod.namespace)
    enforced = item.labels.get(_LABEL) if item else None
    spec = _spec(pod)
    if item is None or enforced not in ("baseline", "restricted") or spec is None:
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


def _spec(pod: Pod | None) -> dict[str, Any] | None:
    """The spec of a pod as it is written: by its template, or of the pod itself."""
    raw = pod.template.pod if pod and pod.template else pod.item.raw if pod and pod.item else None
    spec = dig(raw, "spec")
    return spec if isinstance(spec, dict) else None


def _by_itself(pod: Pod) -> Iterator[Finding]:
    """A manifest that is not valid, wherever it is applied."""
    wrong = list({(fault.place, fault.text): fault for fault in refused(pod)}.values())
    if not wrong:
        return
    shown = "; ".join(f"{fault.place}: {fault.text}" for fault in wrong[:_MOST])
    more = f"; and {len(wrong) - _MOST} more" if len(wrong) > _MOST else ""
    # of a StatefulSet's template only types and labels are validated, the rest with each pod
    pods = " or its pods" if pod.template_of is not None and pod.template_of.kind not in _VALIDATED else ""
    yield Finding(
        role="risk",
        severity="critical",
        # a selector may still be added, with the labels that kustomize gives to all
        confidence="likely" if [fault.place for fault in wrong] == ["spec.selector"] else "certain",
        summary=f"The API server refuses {fixes.edited(pod)}{pods}, because it is not valid: {shown}{more}.",
        evidence=tuple(_wrong(pod, fault.place, fault.text) for fault in wrong[:_MOST]),
        fixes=tuple(corrections(pod, wrong)),
    )


def corrections(pod: Pod, wrong: list[Fault]) -> Iterator[Fix]:
    """What of a manifest is to be written otherwise: as a patch where all of it is known, else in words."""
    item, where = pod.template_of or pod.item, fixes.edited(pod)
    known = item is not None and item.kind in TEMPLATES
    body = operations(item, TEMPLATES[item.kind], wrong) if item and known else None
    more = f"; and {len(wrong) - 2 * _MOST} more" if len(wrong) > 2 * _MOST else ""
    text = f"Correct {where}: {'; '.join(fault.told for fault in wrong[: 2 * _MOST])}{more}"
    yield fixes.patch_object(item, text, body) if item and body else fixes.advice(text)


def _wrong(pod: Pod, place: str, text: str) -> Evidence:
    item = pod.template_of or pod.item
    if item is not None and place.startswith(("metadata", "spec.")):
        return object_evidence(item, place, text)
    return pod_evidence(pod, place, text)


#: The kinds whose templates the API server validates as pods.
_VALIDATED = ("Deployment", "DaemonSet", "ReplicaSet", "Job", "CronJob")

#: The user that a pod is given where it states none: images mostly run as root.
_USER = 1000

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
        if added := [name for name in words(context, "capabilities.add") if name not in _CAPABILITIES]:
            path = f"{at}/securityContext/capabilities/add"
            yield f"{place}.securityContext.capabilities.add", ", ".join(added), {"op": "remove", "path": path}
        for port in rows(container, "ports"):
            if port.get("hostPort"):
                yield f"{place}.ports.hostPort", str(port["hostPort"]), None


def _restricted(spec: dict[str, Any]) -> Iterator[_Violation]:
    """What the level `restricted` demands beyond that."""
    whole = spec.get("securityContext")
    for volume in rows(spec, "volumes"):
        if kinds := [key for key in volume if key not in ("name", "hostPath") and key not in _VOLUMES]:
            yield f"volumes[{volume.get('name')}]", kinds[0], None
    for place, at, container in _containers(spec):
        own = container.get("securityContext")
        if dig(own, "allowPrivilegeEscalation") is not False:
            path = f"{at}/securityContext/allowPrivilegeEscalation"
            yield f"{place}.securityContext", "allowPrivilegeEscalation is not false", _add(path, value=False)
        if "ALL" not in words(own, "capabilities.drop"):
            path = f"{at}/securityContext/capabilities/drop"
            yield f"{place}.securityContext", "capabilities.drop lacks ALL", _add(path, value=["ALL"])
        if dig(own, "runAsUser") == 0:
            path = f"{at}/securityContext/runAsUser"
            yield f"{place}.securityContext.runAsUser", "0", {"op": "remove", "path": path}
        added = [name for name in words(own, "capabilities.add") if name != "NET_BIND_SERVICE"]
        if added and _CAPABILITIES.issuperset(added):  # of others `baseline` has spoken
            path = f"{at}/securityContext/capabilities/add"
            yield f"{place}.securityContext.capabilities.add", ", ".join(added), {"op": "remove", "path": path}
        if (
            dig(own, "runAsNonRoot") if dig(own, "runAsNonRoot") is not None else dig(whole, "runAsNonRoot")
        ) is not True:
            path = f"{at}/securityContext/runAsNonRoot"
            yield f"{place}.securityContext", "runAsNonRoot is not true", _add(path, value=True)
        if (dig(own, "seccompProfile.type") or dig(whole, "seccompProfile.type")) not in (
            "RuntimeDefault",
            "Localhost",
        ):
            path = f"{at}/securityContext/seccompProfile"
            yield f"{place}.securityContext", "seccompProfile is not set", _add(path, value={"type": "RuntimeDefault"})


def _add(path: str, *, value: object) -> dict[str, Any]:
    return {"op": "add", "path": path, "value": value}


def _fixes(pod: Pod, wrong: list[_Violation], who: str = "its Pod Security level") -> Iterator[Fix]:
    """What the level of Pod Security forbids taken away, and what it demands stated."""
    body = [operation for _, _, operation in wrong if operation]
    left = [f"{place} ({text})" for place, text, operation in wrong if operation is None]
    names = [
        str(operation["path"]).rpartition("/securityContext/")[2].strip("/").replace("/", ".") for operation in body
    ]
    if "hostIPC" in names and not any(c.mount_at("/dev/shm") for c in pod.containers):
        body += list(_own_memory(pod))
    said = []
    if taken := [place for place, _, operation in wrong if operation and operation["op"] == "remove"]:
        said.append(f"take away {', '.join(taken)}")
    if stated := [n for n, operation in zip(names, body, strict=False) if operation["op"] == "add"]:
        said.append(f"state {', '.join(dict.fromkeys(stated))}")
    text = f"{'; '.join(said)[:1].upper()}{'; '.join(said)[1:]} in {fixes.edited(pod)}, as {who} demands"
    if "runAsNonRoot" in names and (given := list(_as_user(pod))):
        body += given
        text += f" (as user {_USER}, with its home in /tmp; if the image cannot, a namespace of a wider level)"
    if body and not left:
        yield fixes.patch(pod, text, body)
        return
    paths = f"take {', '.join(left)} out of {fixes.edited(pod)}: "
    paths += "a PersistentVolumeClaim holds what a hostPath did, a Service leads to a port"
    if any(_is_device(one) for one in wrong):
        paths += ", and a device comes by the resource of its device plugin"
    yield fixes.advice(f"{text}; {paths}" if body else f"{paths[:1].upper()}{paths[1:]}")


def _as_user(pod: Pod) -> Iterator[dict[str, Any]]:
    """What a pod that names no user needs to run as another than root: a home that it may write, volumes of its group."""
    users = [c.spec.security_context.run_as_user for c in pod.containers]
    spec = _spec(pod)
    if dig(spec, "securityContext.runAsUser") or all(users):
        return
    yield _add("/securityContext/runAsUser", value=_USER)
    if dig(spec, "securityContext.fsGroup") is None:
        yield _add("/securityContext/fsGroup", value=_USER)
    for container in pod.containers:
        for name, value in (("HOME", "/tmp"), ("USER", "model")):
            if name not in container.env:
                yield _add(f"{container.pointer}/env/-", value={"name": name, "value": value})


def _own_memory(pod: Pod) -> Iterator[dict[str, Any]]:
    """Shared memory of its own for each container with GPUs, in place of the host's."""
    used = [container for container in pod.containers if container.gpus > 1]
    if used and all(volume.name != "shm" for volume in pod.spec.volumes):
        yield {"op": "add", "path": "/volumes/-", "value": {"name": "shm", "emptyDir": {"medium": "Memory"}}}
        for container in used:
            mount = {"name": "shm", "mountPath": "/dev/shm"}
            yield {"op": "add", "path": f"{container.pointer}/volumeMounts/-", "value": mount}
