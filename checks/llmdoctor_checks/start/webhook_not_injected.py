"""What a webhook should have added to the pod, and did not."""

import math
import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    APP_NAME,
    INFERENCE_SERVICE,
    RAY_NODE_TYPE,
    Container,
    Evidence,
    Finding,
    Fix,
    Line,
    Logs,
    Pod,
    Subject,
    check,
    dig,
    event_evidence,
    fixes,
    k8s,
    log_evidence,
    object_evidence,
    pod_evidence,
    setting_evidence,
)
from llmdoctor_checks._consequences import CRASHED

#: What asks for an injection, the container that comes of it, and who injects it.
_INJECTIONS: tuple[tuple[str, tuple[str, ...], tuple[str, ...], str], ...] = (
    ("sidecar.istio.io/inject", ("true",), ("istio-proxy",), "Istio"),
    ("linkerd.io/inject", ("enabled", "ingress"), ("linkerd-proxy",), "Linkerd"),
    ("vault.hashicorp.com/agent-inject", ("true",), ("vault-agent", "vault-agent-init"), "the Vault injector"),
    ("gke-gcsfuse/volumes", ("true",), ("gke-gcsfuse-sidecar",), "GKE's Cloud Storage FUSE driver"),
)

#: Those without which the pod surely cannot do what it was made for: its files are not there.
_NEEDED = ("vault.hashicorp.com/agent-inject", "gke-gcsfuse/volumes")

_EXPLAINS = ("model-not-found", "storage-initializer-failed", "volume-mount-failed", *CRASHED)

#: The driver of GKE's buckets, the annotation by which its webhook picks pods, and the label of volumes that it mounts for all.
_BUCKETS, _ASKS = "gcsfuse.csi.storage.gke.io", "gke-gcsfuse/volumes"
_SHARED = "gcsfuse.csi.storage.gke.io/shared-mount"

#: Where Vault's agent puts secrets, and what a server without them is refused.
_SECRETS = "/vault/secrets"
_REFUSED = ("hf-unauthorized", "ngc-unauthorized", "model-registry-failed", "hf-unreachable", "secret-missing")

#: Clouds that give a pod the role of its service account by a variable which their webhook adds: the annotation that names the
#: role, the label by which a pod must ask for it, if any, the variable, and how the cloud's clients say that they have nothing.
_ROLES: tuple[tuple[str, str, str, str], ...] = (
    ("eks.amazonaws.com/role-arn", "", "AWS_WEB_IDENTITY_TOKEN_FILE", "Unable to locate credentials"),
    (
        "azure.workload.identity/client-id",
        "azure.workload.identity/use",
        "AZURE_FEDERATED_TOKEN_FILE",
        "WorkloadIdentityCredential authentication unavailable",
    ),
)

#: GKE's webhook for TPUs of Ray (ai-on-gke, applications/ray/kuberay-tpu-webhook): what it adds for a slice of several hosts, by
#: which label it picks pods, and what JAX prints of a host that knows of no other.
_TPU_HOSTS, _TPU_FAILS = "TPU_WORKER_HOSTNAMES", "TPU initialization failed"
_TOPOLOGY = "cloud.google.com/gke-tpu-topology"

#: Where KServe's init container puts the model.
_MODELS = "/mnt/models"

#: How a server says that nothing is there.
_MISSES = (
    r"(?i)no such file|not found|n[o']t exist|not a (?:local|valid)|must be in the form|incorrect|invalid|fail|unable|missing|"
    r"can(?:no|')t|could ?n[o']t|does ?n[o']t|is no\b|no \w+ (?:file|model|config)"
)

#: How one says that the folder itself is not there, which a mount would have made.
_NO_FOLDER = (
    rf"(?i)(?:no such file|can't load|incorrect path|locate|base path|local path|invalid repo).{{0,200}}{_MODELS}/?(?![\w./-])|"
    rf"{_MODELS}/?(?![\w./-]).{{0,80}}(?:not found|n[o']t exist|not a (?:local|valid)|no such file|must be in the form)"
)

#: What KServe's controller writes on the pods of its Deployments for its webhook, under its groups of now and before 0.7. From
#: every scheme it makes a mount over /mnt/models in the server's container: of an emptyDir that storage-initializer fills, of the
#: claim itself, or of a modelcar's folder (pkg/webhook/admission/pod/storage_initializer_injector.go).
_SOURCE = r"internal\.serving\.(?:kserve\.io|kubeflow\.org)/storage-initializer-sourceuri"

#: By which a pod's InferenceService is named, now and before 0.7, and by what one of any kind names its model
#: (pkg/apis/serving/v1beta1: `GetStorageUri`).
_SERVICE_LABELS = (INFERENCE_SERVICE, "serving.kubeflow.org/inferenceservice")
_BRINGS = r"\"(?:storageUris?|storage|STORAGE_URI)\""

#: The container whose model KServe brings, by the names that its controller gives it, and gave it before 0.7.
_SERVERS = ("kserve-container", "kfserving-container")

#: A label of namespaces that KServe's webhook leaves out (config/webhook/manifests.yaml, `namespaceSelector`).
_LEFT_OUT = "control-plane"


@check("webhook-not-injected", since="0.2", literals=(_MODELS, _SECRETS, _TPU_FAILS, *(role[3] for role in _ROLES)))
def webhook_not_injected(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """A container that a webhook should have added to the pod is missing.

    Meshes, secret injectors, storage drivers and KServe change a pod when it is made. When the webhook was down with
    `failurePolicy: Ignore`, when the namespace is left out by its label, or when the pod was made before the webhook was
    installed, the pod comes without the container and nobody says so: the model is not under /mnt/models, secrets are not
    in their files, a bucket cannot be mounted, the image of a gateway is still `auto`, a host of a TPU slice does not know the
    others.

    Only of a pod that exists can this be said; a manifest never has what a webhook will add.

    ## Fix

    See that the webhook runs and selects the namespace, then delete the pod so that it is recreated:

        kubectl get mutatingwebhookconfigurations
        kubectl -n NAMESPACE delete pod NAME

    ## References

    - https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/
    - https://kserve.github.io/website/docs/model-serving/storage/overview
    """
    if not pod.exists or pod.log_only or pod.unscheduled:
        return
    names = {container.name for container in pod.containers}
    asked = {**pod.annotations, **pod.labels}
    for key, values, containers, who in _INJECTIONS:
        value = str(asked.get(key, ""))
        if value not in values or names.intersection(containers):
            continue
        needed = pod.failing_by_status and key in _NEEDED
        kind = "labels" if key in pod.labels else "annotations"
        missed = _misses_secret(logs) if needed and logs and "vault" in key else None
        yield _finding(
            pod,
            "cause" if needed else "note",
            f"The pod asks {who} for {containers[0]} ({key}: {value}), and has no such container"
            f"{f': nothing is in {_SECRETS}' if missed else ''}.",
            (
                pod_evidence(pod, f"metadata.{kind}[{key}]", value),
                _present(pod),
                *((log_evidence(missed),) if missed else ()),
            ),
            _REFUSED if missed else (),
        )
        return
    yield from _unasked(pod)
    yield from _kserve(pod, subject, logs)
    yield from _auto(pod)
    yield from _role(pod, logs)
    yield from _slice(pod, logs)


def _unasked(pod: Pod) -> Iterator[Finding]:
    """A bucket of GKE's driver that cannot be mounted in a pod that does not ask for the container which mounts it.

    Newer releases of the driver say then that the bucket refuses: they look with rights that are not those of the pod's account.
    """
    volume = next((name for v in pod.spec.volumes if (name := _bucket(pod, v))), None)
    failed = next((e for e in reversed(pod.events) if e.reason == "FailedMount" and f'"{volume}"' in e.message), None)
    if volume is None or failed is None or pod.annotations.get(_ASKS) == "true" or not pod.failing_by_status:
        return
    if any(container.name == "gke-gcsfuse-sidecar" for container in pod.containers):
        return
    yield _finding(
        pod,
        "cause",
        f"Volume {volume} is a bucket that the container gke-gcsfuse-sidecar mounts, and the pod has none: it does not ask for it by the "
        f'annotation {_ASKS}: "true".',
        (
            event_evidence(failed, pod.cluster),
            pod_evidence(pod, f"metadata.annotations[{_ASKS}]", "none"),
            _present(pod),
        ),
        _REFUSED,
        fixes.annotate(pod, {_ASKS: "true"}, f'Give {fixes.pods_of(pod)} the annotation {_ASKS}: "true"'),
    )


def _bucket(pod: Pod, volume: k8s.Volume) -> str:
    """The name by which the kubelet calls a volume, if it is a bucket of GKE's driver that the pod itself must mount."""
    if volume.csi is not None:
        return volume.name if volume.csi.get("driver") == _BUCKETS else ""
    if volume.persistent_volume_claim is None:
        return ""
    claim = pod.cluster.item("PersistentVolumeClaim", pod.namespace, volume.persistent_volume_claim.claim_name)
    bound = pod.cluster.item("PersistentVolume", "", str(dig(claim.raw, "spec.volumeName"))) if claim else None
    if bound is None or dig(bound.raw, "spec.csi.driver") != _BUCKETS or _SHARED in bound.labels:
        return ""
    return bound.name


def _role(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A pod without the cloud role of its service account, whose log says that it has no credentials."""
    account = pod.cluster.item("ServiceAccount", pod.namespace, pod.spec.service_account_name or "default")
    if not pod.failing_by_status or logs is None:
        return
    for annotation, label, variable, lacks in _ROLES:
        line = next(logs.find(lacks), None)
        role = account.annotations.get(annotation) if account else None
        asks = pod.labels.get(label, "") == "true" if label else role is not None
        if line is None or not (asks or role) or any(variable in c.env for c in pod.containers):
            continue
        evidence = [_present(pod), log_evidence(line)]
        if account and role is not None:
            evidence.insert(0, object_evidence(account, f"metadata.annotations[{annotation}]", str(role)))
        why = (
            f"the pod does not ask for it by the label {label}"
            if not asks
            else "the pod was made while the webhook, or the annotation, was not there"
        )
        yield _finding(
            pod,
            "cause",
            f"No container has {variable}, by which the service account's role comes into the pod: {why}.",
            tuple(evidence),
            _REFUSED,
            None
            if asks
            else fixes.annotate(
                pod, {label: "true"}, f'Put the label {label}: "true" on {fixes.pods_of(pod)}', field="labels"
            ),
        )
        return


def _slice(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """A host of a TPU slice that was not told who the others are: of a Ray worker GKE's webhook for KubeRay does it."""
    labels = pod.labels
    line = next(logs.find(_TPU_FAILS), None) if logs else None
    chips = sum(c.accelerators.get("google.com/tpu", 0) for c in pod.containers)
    topology = str(pod.spec.node_selector.get(_TOPOLOGY, ""))
    sides = [int(side) for side in topology.split("x") if side.isdecimal() and len(side) < 6]
    if line is None or labels.get(RAY_NODE_TYPE) != "worker" or not 0 < chips < math.prod(sides or [0]):
        return
    if any(_TPU_HOSTS in container.env for container in pod.containers):
        return
    asks = labels.get(APP_NAME) == "kuberay"
    why = (
        "the webhook adds it to groups whose numOfHosts is greater than 1"
        if asks
        else f"the webhook looks at pods with the label {APP_NAME}: kuberay alone, and this one does not have it"
    )
    fix = (
        f"Set numOfHosts of the worker group to the hosts of the slice in {fixes.edited(pod)}"
        if asks
        else f"Put the label {APP_NAME}: kuberay on {fixes.pods_of(pod)}"
    )
    yield _finding(
        pod,
        "cause",
        f"The pod is one host of a TPU slice of {topology}, and no container has {_TPU_HOSTS}: {why}.",
        (log_evidence(line), pod_evidence(pod, f"nodeSelector[{_TOPOLOGY}]", topology), _present(pod)),
        ("multinode-discovery", "gpu-runtime-missing", "worker-lost", "ray-cluster"),
        fixes.advice(f"{fix}, and see that kuberay-tpu-webhook runs"),
    )


def _auto(pod: Pod) -> Iterator[Finding]:
    """Istio's own image name for "put in the mesh's": only its webhook knows what that is."""
    for container in pod.containers:
        if container.spec.image == "auto" and pod.failing_by_status:
            yield _finding(
                pod,
                "cause",
                f"The image of container {container.name} is still auto, which Istio's webhook replaces when a pod is made.",
                (pod_evidence(container, "image", "auto"),),
                ("image-pull-failed",),
            )
            return


def _kserve(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """A pod of an InferenceService that reads /mnt/models, where nothing was put."""
    labelled = _service(pod) is not None
    server = next((container for container in pod.containers if container.name in _SERVERS), None)
    if not pod.failing_by_status or not (labelled or server):
        return
    if any(container.name.startswith("storage-initializer") for container in pod.containers):
        return  # the webhook did its work; the mount may be left out of what was read
    asked = next((pair for pair in pod.annotations.items() if re.fullmatch(_SOURCE, pair[0])), None)
    if asked and not any(c.mount_over(_MODELS) for c in pod.containers):
        why, left_out = _left_out(pod)
        yield _finding(
            pod,
            "cause",
            f"KServe's webhook should have brought {asked[1]}; the pod has no storage-initializer, and nothing is mounted at "
            f"{_MODELS}{why}.",
            (pod_evidence(pod, f"metadata.annotations[{asked[0]}]", asked[1]), _present(pod), *left_out),
            fix=_moved(pod) if left_out else None,
        )
    elif asked or not _brings_nothing(pod):
        loads = next(_loads_what_is_not_there(pod, subject, logs), None) if labelled else None
        if found := loads or (_told_a_folder(pod, server, logs) if server else None):
            yield found


def _loads_what_is_not_there(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """Engines that are told a model below the folder, by nothing but that."""
    listed, by_one = _listed_image(pod)
    for engine in subject.engines(pod):
        model = engine.explicit("model")
        if model is None or not f"{model.value}/".startswith(f"{_MODELS}/"):
            continue
        if engine.container.mount_over(_MODELS) is None and not _fails_otherwise(engine.container, logs):
            yield _finding(
                pod,
                "cause",
                f"{engine.label} loads {model.value}, but the pod has neither KServe's storage-initializer nor another volume there"
                f"{listed}.",
                (setting_evidence(engine.container, model), _present(pod)),
                fix=by_one,
            )


def _told_a_folder(pod: Pod, server: Container, logs: Logs | None) -> Finding | None:
    """A server that is no engine, as of scikit-learn or TensorFlow: its runtime tells it the folder."""
    told = next((x for x in server.spec.argv if _MODELS in x), None)
    missed = _misses_model(server, logs, _NO_FOLDER) if told and server.mount_over(_MODELS) is None else None
    if not told or not missed:
        return None
    listed, by_one = _listed_image(pod)
    why, left_out = _left_out(pod)
    return _finding(
        pod,
        "cause",
        f"{server.name} is told to serve from {_MODELS}, where KServe brings what storageUri names, and finds nothing there: the pod "
        f"has neither its storage-initializer nor another volume there{why or listed}.",
        (log_evidence(missed), pod_evidence(server, "args", told), _present(pod), *left_out),
        fix=_moved(pod) if left_out else by_one,
    )


def _listed_image(pod: Pod) -> tuple[str, Fix | None]:
    """That the InferenceService lists its one model as an image, and what mends it: KServe before 0.19 brings one from storageUri alone."""
    for item in pod.cluster.items("InferenceService", pod.namespace):
        rows = dig(item.raw, "spec.predictor.storageUris")
        uris = [str(row.get("uri")) for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
        of_pod = item.name == _service(pod) or pod.name.startswith(f"{item.name}-predictor-")
        if not (of_pod and len(uris) == 1 and uris[0].startswith("oci://") and dig(item.raw, "spec.predictor.model")):
            continue
        fix = fixes.patch_object(
            item,
            f"Name the image by storageUri of the model in InferenceService {item.name}, {uris[0]}, in place of storageUris",
            [
                {"op": "remove", "path": "/spec/predictor/storageUris"},
                {"op": "add", "path": "/spec/predictor/model/storageUri", "value": uris[0]},
            ],
        )
        return f": KServe before 0.19 brings no image that storageUris lists ({uris[0]})", fix
    return "", None


def _service(pod: Pod) -> str | None:
    """The InferenceService that a pod is of, by its label."""
    return next((pod.labels[label] for label in _SERVICE_LABELS if label in pod.labels), None)


def _brings_nothing(pod: Pod) -> bool:
    """Whether the InferenceService is there and names no model that KServe would bring: by storageUri, or by a custom server's variable."""
    import json  # dearer than this module, and few pods are of such an object

    name = _service(pod)
    service = pod.cluster.item("InferenceService", pod.namespace, name) if name else None
    return service is not None and not re.search(_BRINGS, json.dumps(service.raw.get("spec"), default=str))


def _left_out(pod: Pod) -> tuple[str, tuple[Evidence, ...]]:
    """Whether the namespace says that KServe's webhook passes it over."""
    item = pod.cluster.item("Namespace", "", pod.namespace)
    label = dig(item.raw, f"metadata.labels.{_LEFT_OUT}") if item else None
    if item is None or label is None:
        return "", ()
    why = f": it passes over namespaces with the label {_LEFT_OUT}, and {pod.namespace} has it"
    return why, (object_evidence(item, f"metadata.labels[{_LEFT_OUT}]", str(label)),)


def _moved(pod: Pod) -> Fix:
    """What lets KServe's webhook see the pods of a namespace that it passes over: a new pod there would come without, too."""
    item = pod.cluster.item("Namespace", "", pod.namespace)
    runs = re.search("kserve|kfserving|opendatahub", str(dig(item.raw, f"metadata.labels.{_LEFT_OUT}")) if item else "")
    name = _service(pod)
    what = f"InferenceService {name}" if name else "the InferenceService"
    return fixes.advice(
        f"Make {what} in another namespace, without the label {_LEFT_OUT}, and delete it in {pod.namespace}"
        + (
            ", where KServe itself runs"
            if runs
            else f"; or take that label off {pod.namespace}, where nothing else needs it, and delete the pod"
        ),
        f"kubectl get namespaces -l '!{_LEFT_OUT}'",
        *(() if runs else (f"kubectl label namespace {pod.namespace} {_LEFT_OUT}-",)),
        owner="model",
    )


def _misses_secret(logs: Logs) -> Line | None:
    """A line that says of a file of Vault's agent that it is not there."""
    return next((line for line in logs.find(_SECRETS) if re.search(_MISSES, line.text)), None)


def _fails_otherwise(container: Container, logs: Logs | None) -> bool:
    """Whether the server printed something, and nothing of a model that it misses there."""
    texts = [log for log in container.own_logs(logs) if log.text]
    return bool(texts) and _misses_model(container, logs, _MISSES) is None


def _misses_model(container: Container, logs: Logs | None, says: str) -> Line | None:
    """A line of the container that says of something under /mnt/models that it is not there."""
    lines = (line for log in container.own_logs(logs) for line in log.find(_MODELS))
    return next((line for line in lines if re.search(says, line.text[:2000])), None)


def _present(pod: Pod) -> Evidence:
    return pod_evidence(pod, "containers", ", ".join(container.name for container in pod.containers))


def _finding(
    pod: Pod,
    role: str,
    summary: str,
    evidence: tuple[Evidence, ...],
    explains: tuple[str, ...] = (),
    fix: Fix | None = None,
) -> Finding:
    return Finding(
        role="cause" if role == "cause" else "note",
        confidence="likely" if role == "cause" else "possible",
        summary=summary,
        evidence=evidence,
        explains=(*_EXPLAINS, *explains) if role == "cause" else (),
        fix=fix
        or fixes.platform(
            f"Recreate the pod, which then passes the webhook again{fixes.lone(pod)}; where it comes back without, the webhook "
            f"does not run, or its namespaceSelector leaves {pod.namespace} out",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
            "kubectl get mutatingwebhookconfigurations -o yaml | grep -A12 namespaceSelector",
            f"kubectl get namespace {pod.namespace} --show-labels",
        ),
    )
