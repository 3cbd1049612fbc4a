"""KServe's storage initializer that ended with an error, whatever its log says; what names the error is the signature's."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Ending,
    Finding,
    Fix,
    Log,
    Logs,
    Pod,
    check,
    endings,
    expression,
    fixes,
    log_evidence,
    log_of,
    looks_like_error,
    pod_evidence,
    said,
    say_seconds,
)
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks._xet import without_xet

#: The words of a download that is under way (huggingface_hub's bar, the initializer's own), and how long none takes that goes on.
_ON_THE_WAY, _LONG_SECONDS = ("Fetching ", "Copying contents of", "Downloading", "it/s]", "B/s]"), 1800
#: What a quoted error may take of a sentence.
_QUOTED = 200
#: Exceptions of the clients of object stores.
_STORE = r"(?:botocore|boto3|s3transfer|google|azure)\.[\w.]+: "
#: Containers of KServe whose image holds the model: they link it to where the server looks (storage_initializer_injector.go, oci://).
_OF_IMAGE = expression(r"modelcar(?:-init)?(?:-\d{1,3})?")
#: What `ln` and `os.symlink` say, last, of a link that is there from before.
_THERE_BEFORE = expression(r"\bln: .{0,400}File exists|FileExistsError: .{0,20} File exists: '[^']{1,400}' -> '")
_LAST_LINES = 3
#: Whoever sent these (the kernel, the kubelet) knows why the container ended; the initializer does not.
_SIGNALLED = frozenset({137, 143})


@check("storage-initializer-failed", since="0.1")
def storage_initializer_failed(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """KServe's storage initializer could not fetch the model.

    KServe puts an init container before the server that downloads the model to `/mnt/models`. It failed, so that the server's
    container never starts: credentials that do not reach it (they belong to the service account, not to the server's environment), a
    wrong address or endpoint, a store that refuses, too little memory (1 GiB by default) or disk. Its last line names the reason
    it saw, which for the Hugging Face hub is not always the true one. One that runs since its first start for half an hour is told
    of as possible: a download may stand still without a word.

    A model that comes as an image (`oci://`) has a container of its own in the pod, `modelcar`, which links the image's files to
    `/mnt/models`. While it fails, the server finds nothing there. What it links, and what an initializer of older releases links
    for a claim, stays in the pod's volume when the container is started again, after a reboot of the node, say: where the link is
    not made by force, it fails from then on, until the pod is recreated.

    ## Fix

    Delete the pod where the name is there from before, and take a release of KServe that replaces it. Else correct the storageUri;
    attach the Secret with the store's credentials to the pod's service account; raise the initializer's limits in the ConfigMap
    `inferenceservice-config` or a ClusterStorageContainer.

    ## References

    - https://kserve.github.io/website/docs/model-serving/storage/overview
    - https://github.com/kserve/kserve
    """
    if logs is not None and (found := _endless(pod, logs)) is not None:
        yield found
    for ending in endings(pod):
        name, of_image = ending.container.name, _OF_IMAGE.fullmatch(ending.container.name) is not None
        if not (of_image or name.startswith("storage-initializer")) or ending.oom_killed or ending.code in _SIGNALLED:
            continue
        if of_image and ending.container.running and ending.container.status.ready:
            continue  # it has linked the model since
        log = log_of(ending, logs)
        if log is not None and (found := _there_before(pod, ending, log)) is not None:
            yield found
            return
        last_first = reversed([*log.lines()]) if log else ()  # what a shell says last has no level and no exception
        error = next(
            (line for line in last_first if looks_like_error(line.text) or (of_image and line.text.strip())), None
        )
        words = said(error.text).text.strip() if error else ""
        how = f": {words[:_QUOTED]}" if error else "; its log says why."
        of_store = re.match(_STORE, words) is not None
        yield Finding(
            confidence="likely" if of_store or of_image else "possible",
            summary=f"{name} ended with exit code {ending.code} "
            f"{'and brings no model' if of_image else 'before the model was there'}{how}",
            evidence=(pod_evidence(pod, ending.path, ending.text), *([log_evidence(error)] if error else [])),
            explains=(
                *(("model-registry-failed",) if of_store else ()),
                *(("model-not-found", "permission-denied") if of_image else ()),
                *CRASHED,
            ),
            fixes=(*_azure(pod, words), _name_taken(pod, name, words) or _see_why(pod, name, of_image=of_image)),
        )


def _azure(pod: Pod, words: str) -> Iterator[Fix]:
    """What lets a pod of AKS ask as somebody, where azure-identity found nothing by which it could."""
    if "DefaultAzureCredential failed to retrieve a token" in words:
        account = pod.spec.service_account_name or "default"
        yield fixes.platform(
            'Label the pod azure.workload.identity/use: "true" (in the labels of what KServe makes it from) and annotate service account '
            f"{account} with azure.workload.identity/client-id of an identity that may read the store, then recreate the pod: the webhook "
            "of Azure's workload identity gives the token only to such pods; or attach a Secret with a client's keys",
            f"kubectl -n {pod.namespace} get pod {pod.name} --show-labels",
            f"kubectl -n {pod.namespace} get serviceaccount {account} -o yaml",
        )


def _name_taken(pod: Pod, container: str, words: str) -> Fix | None:
    """What to do where the first initializer of a pod finds the name already that it would link the model to."""
    taken = re.search(r"File exists: '[^']{1,400}' -> '(?P<path>[^']{1,400})'", words)
    if taken is None:
        return None
    return fixes.advice(
        f"Take out of {fixes.edited(pod)} what brings {taken['path']} before {container} links the model there: a volume of its own that "
        "is mounted there, or another init container",
        f"kubectl -n {pod.namespace} get pod {pod.name} -o yaml",
    )


def _see_why(pod: Pod, container: str, *, of_image: bool) -> Fix:
    log = f"kubectl -n {pod.namespace} logs {pod.name} -c {container} --previous"
    if of_image:
        return fixes.advice(
            "See in the container's log why it does not link the image's /models: an image without a shell or that folder, "
            "or another user than the server's",
            log,
        )
    account = pod.spec.service_account_name or "default"
    words = next((c.spec.words("args") for c in pod.containers if c.name == container), [])
    uri = words[0] if words and "://" in words[0] else "the model's address"
    return fixes.advice(
        f"Correct {uri} in storageUri of {fixes.edited(pod)} where the store has no such thing; where it refuses, give service account "
        f"{account} of {pod.namespace} its credentials (a Secret that its secrets name; annotations of it name the S3 endpoint)",
        f"kubectl -n {pod.namespace} get serviceaccount {account} -o yaml",
        log,
    )


def _there_before(pod: Pod, ending: Ending, log: Log) -> Finding | None:
    """One that would link what is linked from the time before it was started again."""
    name = ending.container.name
    line = next((line for line in reversed([*log.find("File exists")]) if _THERE_BEFORE.search(line.text[:2000])), None)
    if line is None or line.number <= len(log) - _LAST_LINES or not ending.container.restarts:
        return None
    return Finding(
        confidence="certain",
        summary=f"{name} cannot link the model to where the server looks: the link is there from before it was started again, "
        "and stays as long as the pod does.",
        evidence=(pod_evidence(pod, ending.path, ending.text), log_evidence(line)),
        explains=("model-not-found", *CRASHED),
        fix=fixes.advice(
            "Delete the pod, so that it is recreated with empty volumes; a later release of KServe replaces the link",
            f"kubectl -n {pod.namespace} delete pod {pod.name}",
        ),
    )


def _endless(pod: Pod, logs: Logs) -> Finding | None:
    """One that has fetched for half an hour since its first start, and whose last word is of the way."""
    for trouble in pod.troubles:
        container, seconds = trouble.container, pod.cluster.seconds_since(trouble.since)
        if trouble.kind != "creating" or container is None or not container.name.startswith("storage-initializer"):
            continue
        log = logs.current(container.name)
        last = next((line for line in reversed([*log.lines()]) if line.text.strip()), None) if log else None
        if last is None or seconds is None or not any(word in last.text for word in _ON_THE_WAY):
            continue
        if container.restarts or seconds < _LONG_SECONDS:
            continue
        return Finding(
            severity="warning",
            confidence="possible",  # a large model from a slow store looks the same
            summary=f"{container.name} has fetched the model for {say_seconds(seconds)} and is not done.",
            evidence=(log_evidence(last), pod_evidence(pod, "status.initContainerStatuses", trouble.text)),
            explains=("not-ready", "rollout-stuck"),
            fixes=_of_the_way(pod, container),
            order=last.order,
        )
    return None


def _of_the_way(pod: Pod, container: Container) -> tuple[Fix, ...]:
    """What gets a download on that stands still: of one from the hub, plain HTTP in the place of Xet."""
    look = fixes.advice(
        f"See whether bytes still come in, and delete {pod.name} where none do: the download then begins again{fixes.lone(pod)}",
        f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- cat /proc/1/io",
    )
    told = [*container.spec.command, *container.spec.args]
    return (*(without_xet(container, "the model") if any(str(word).startswith("hf://") for word in told) else ()), look)
