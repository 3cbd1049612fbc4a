"""A key that the Secret or ConfigMap of the same files does not have."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Events,
    Evidence,
    Finding,
    Fix,
    Item,
    Pod,
    Workload,
    check,
    dig,
    event_evidence,
    fixes,
    k8s,
    object_evidence,
    pod_evidence,
)
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks.start._other_keys import misnamed_keys
from llmdoctor_checks.start._secret_makers import unmade


@check("secret-missing", since="0.1")
def secret_missing(pod: Pod, events: Events | None) -> Iterator[Finding]:
    """A Secret or ConfigMap that the pod names is not there.

    An environment variable or a volume of the pod refers to a Secret, a ConfigMap or a key of one that does not exist in
    the pod's namespace. The container waits with CreateContainerConfigError, or the volume cannot be mounted and the pod
    stays in ContainerCreating. The kubelet looks again every minute or two: as soon as the object exists the container
    starts.

    Many Secrets are made by an operator (External Secrets, cert-manager, Vault's, the Secrets Store driver), whose object then says
    why there is none.

    Of a manifest only what stands in the same files can be judged: an object that is not there may be in the cluster, one
    that is there without the key is not what the pod needs. One of another example is not meant.

    ## Fix

    Create the object in the namespace of the pod, or correct the name or key. `optional: true` lets the pod start
    without it.

    ## References

    - https://kubernetes.io/docs/concepts/configuration/secret/
    """
    if pod.exists or pod.log_only:
        yield from _pull_secret(pod, events)
        yield from unmade(pod, events)
        yield from misnamed_keys(pod, events)
        return
    for container in pod.containers:
        for index, variable in enumerate(container.spec.env):
            source = variable.value_from
            refs = (("Secret", source.secret_key_ref), ("ConfigMap", source.config_map_key_ref)) if source else ()
            for kind, ref in refs:
                if ref and not ref.optional:
                    yield from _judge(pod, container, index, variable.name, kind, ref.name, ref.key)
    for volume in pod.spec.volumes:
        if volume.secret and not volume.secret.optional:
            yield from _items(pod, volume.name, "Secret", volume.secret.secret_name, volume.secret.items)
        elif volume.config_map and not volume.config_map.optional:
            yield from _items(pod, volume.name, "ConfigMap", volume.config_map.name, volume.config_map.items)


#: What a registry says that wants credentials.
_REFUSED = r"(?i)unauthorized|authentication required|forbidden|access denied|no basic auth credentials|denied:"


def _pull_secret(pod: Pod, events: Events | None) -> Iterator[Finding]:
    """A pull secret that is not there, where the registry gives the image to nobody without one."""
    if not pod.failing or events is None:
        return
    own = [e for e in events if e.kind == "Pod" and e.name == pod.name]
    missing = [e for e in own if e.reason == "FailedToRetrieveImagePullSecret"]
    refused = [e for e in own if "Failed to pull image" in e.message and re.search(_REFUSED, e.message)]
    names = [secret.name for secret in pod.spec.image_pull_secrets]
    named = [name for name in names if missing and name in missing[-1].message]
    if not refused or not named:
        return
    secret = named[0]
    image = re.search(r'image "([^"]+)"', refused[-1].message)
    first = image[1].partition("/")[0] if image and "/" in image[1] else ""
    registry = first if "." in first or ":" in first else "https://index.docker.io/v1/"
    user = "'$oauthtoken'" if registry == "nvcr.io" else "USER"
    create = (
        f"kubectl -n {pod.namespace} create secret docker-registry {secret} --docker-server={registry} --docker-username={user} "
        '--docker-password="${PASSWORD:?}"'
    )
    text = f"Create the image pull secret {secret} in {pod.namespace}, or name one that is there in imagePullSecrets"
    if other := next(
        (i for i in pod.cluster.items("Secret") if i.name == secret and i.namespace != pod.namespace), None
    ):
        text = f"Copy the image pull secret {secret} from {other.namespace} to {pod.namespace}, as only the pod's own namespace counts"
        create = (
            f"kubectl -n {other.namespace} get secret {secret} -o yaml | sed '/^  \\(namespace\\|uid\\|resourceVersion\\):/d' | "
            f"kubectl -n {pod.namespace} create -f -"
        )
    yield Finding(
        summary=f"The image pull secret {secret} does not exist in {pod.namespace}, and the registry refuses the image without it.",
        evidence=(event_evidence(missing[-1], pod.cluster), event_evidence(refused[-1], pod.cluster)),
        explains=("image-pull-failed", *CRASHED, "pod-pending"),
        fix=fixes.advice(text, create),
    )


def _items(pod: Pod, volume: str, kind: str, name: str, items: tuple[k8s.KeyToPath, ...]) -> Iterator[Finding]:
    """The keys that a volume maps to files."""
    keys = _keys(pod, kind, name)
    for item in items:
        if keys is not None and item.key not in keys:
            said = pod_evidence(pod, f"volumes[{volume}]", f"name: {name}, key: {item.key}")
            yield _finding(pod, f"Volume {volume}", kind, name, item.key, keys, said)


def _judge(
    pod: Pod, container: Container, index: int, variable: str, kind: str, name: str, key: str
) -> Iterator[Finding]:
    keys = _keys(pod, kind, name)
    if keys is None or key in keys:
        return
    field = "secretKeyRef" if kind == "Secret" else "configMapKeyRef"
    said = pod_evidence(container, f"env[{variable}].valueFrom.{field}", f"name: {name}, key: {key}")
    what = f"Variable {variable} of {container.name}"
    fix: tuple[Fix, ...] = ()
    if len(keys) == 1:  # the one key that is there is surely the one that was meant
        at = f"{container.pointer}/env/{index}/valueFrom/{field}/key"
        operation = {"op": "replace", "path": at, "value": keys[0]}
        fix = (fixes.patch(pod, f"Name the key {keys[0]}, which the {kind} {name} has", [operation]),)
    yield _finding(pod, what, kind, name, key, keys, said, fix)


def _finding(
    pod: Pod, what: str, kind: str, name: str, key: str, keys: list[str], said: Evidence, fix: tuple[Fix, ...] = ()
) -> Finding:
    item = pod.cluster.item(kind, pod.namespace, name)
    have = (object_evidence(item, "", f"keys: {', '.join(keys)}"),) if item else ()
    return Finding(
        role="risk",
        severity="critical",
        summary=f"{what} names the key {key} of the {kind} {name}, which has only {', '.join(keys)}: "
        "the container cannot be made (CreateContainerConfigError).",
        evidence=(said, *have),
        fixes=fix or (fixes.advice(f"Add the key {key} to {kind}/{name}, or name one that it has"),),
    )


def _keys(pod: Pod, kind: str, name: str) -> list[str] | None:
    """The keys of an object of these files; None where it is not there, is empty, something else fills it, or another one is meant."""
    cluster, namespace = pod.cluster, pod.namespace
    item = cluster.item(kind, namespace, name)
    typed = item.typed() if item else None
    if item is None or not _together(pod, item):
        return None
    if isinstance(typed, k8s.Secret) and _filled_by_others(cluster, item.metadata, namespace, name):
        return None
    if isinstance(typed, k8s.Secret):
        keys = {*typed.data, *typed.string_data}
    elif isinstance(typed, k8s.ConfigMap):
        keys = {*typed.data, *(dig(item.raw, "binaryData") or {})}
    else:
        return None
    return sorted(keys) or None


def _together(pod: Pod, item: Item) -> bool:
    """Whether it stands in the file of the pod's object, or in one without pods, in its folder, above or below it.

    What stands elsewhere, or with pods of its own, belongs to another example, and examples share names.
    """
    own = pod.template_of or pod.item
    if own is None or own.origin is None or item.origin is None or own.origin.file == item.origin.file:
        return True
    folders = sorted(f"{one.file.rpartition('/')[0]}/" for one in (own.origin, item.origin))
    beside = folders[1].startswith(folders[0]) or folders[0] == "/"
    return beside and item.origin.file not in pod.cluster.once("files with pods", lambda: _with_pods(pod.cluster))


def _with_pods(cluster: Cluster) -> set[str]:
    """The files in which something stands that makes pods, or is one."""
    items = (item for kind in cluster.kinds() for item in cluster.items(kind) if item.origin)
    made = (item for item in items if item.kind == "Pod" or Workload(item, cluster).templates)
    return {item.origin.file for item in made if item.origin}


def _filled_by_others(cluster: Cluster, metadata: dict[str, object], namespace: str, name: str) -> bool:
    """Whether a controller adds keys to a Secret: External Secrets may merge into one, others ask for it by annotation."""
    for kind in ("ExternalSecret", "SecretProviderClass", "SealedSecret"):
        for item in cluster.items(kind, namespace):
            if name in (item.name, dig(item.raw, "spec.target.name")):
                return True
    return bool(metadata.get("annotations"))
