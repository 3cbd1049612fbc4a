"""Which image a person may have meant by one that no registry has."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import cache

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.tree import dig, rows

#: A release as a tag, with what may stand before it.
_RELEASE = expression(r"(v?)(\d{1,4}(?:\.\d{1,4}){1,3}(?:[.-]?(?:post|rc)\d{1,3})?)((?:-[\w.-]{1,60})?)")
#: A fourth number of nothing, as Windows and .NET write releases, and none of the publishers below.
_FOURTH = expression(r"^(\d{1,4}\.\d{1,4}\.\d{1,4})\.0$")
#: Whether the tags of releases begin with v, by the last two parts of the image's name.
_WITH_V = {
    "vllm/vllm-openai": True,
    "lmsysorg/sglang": True,
    "openmmlab/lmdeploy": True,
    "localai/localai": True,
    "kserve/huggingfaceserver": True,
    "ollama/ollama": False,
    "huggingface/text-generation-inference": False,
}
#: What a person copies from a browser.
_SCHEME = expression(r"^(?:https?|docker|oci)://(?:hub\.docker\.com/(?:r/|_/))?")
#: An image as the kubelet takes it; what stands for one in a template is none.
_NAME = expression(
    r"[\w.-]{1,200}(?::\d{1,5})?(?:/[a-z0-9._-]{1,200}){0,12}(?::[\w.-]{1,128})?(?:@sha256:[0-9a-f]{64})?"
)
#: What the tags of one variant have in common: `-cuda`, `rocm`, not the release.
_VARIANT = expression(r"(?<![a-z])(?!(?:post|rc|b|v)\d|(?:latest|main|stable|nightly)\b)[a-z]{1,128}")


def split(image: str) -> tuple[str, str]:
    """The repository of an image, as the kubelet writes it whole, and its tag."""
    name = image.partition("@")[0]
    repository, colon, tag = name.rpartition(":")
    if not colon or "/" in tag:
        repository, tag = name, ""
    first = repository.partition("/")[0]
    if "/" not in repository:
        repository = f"docker.io/library/{repository}"
    elif not ("." in first or ":" in first or first == "localhost"):
        repository = f"docker.io/{repository}"
    return repository, tag


def spelt(image: str) -> str:
    """The image without what no name may have, with the tag as its publisher writes releases; empty where it is so already."""
    cleaned = _SCHEME.sub("", image.strip())
    name, colon, digest = cleaned.partition("@")
    path, tagged, tag = name.rpartition(":") if ":" in name.rpartition("/")[2] else (name, "", "")
    cleaned = f"{path.lower()}{tagged}{tag}{colon}{digest}"
    if not _NAME.fullmatch(cleaned):
        return ""
    return cleaned if cleaned != image else _as_released(image)


def _as_released(image: str) -> str:
    """The image with a v before its release, or without one, and with three numbers, where its publisher writes it so."""
    repository, tag = split(image)
    found = _RELEASE.fullmatch(tag)
    with_v = _WITH_V.get("/".join(repository.split("/")[-2:]))
    if found is None or with_v is None or "@" in image:
        return ""
    written = ("v" if with_v else "") + _FOURTH.sub(r"\1", found[2]) + found[3]
    return image[: -len(tag)] + written if written != tag else ""


def released(image: str) -> str:
    """The next release of the same minor one that is known to be published, or the last, where an engine's tag names one; else empty."""
    repository, tag = split(image)
    found = _RELEASE.fullmatch(tag)
    samples = _releases().get(repository, ())
    if found is None or found[3] or "@" in image or found[2] in samples:
        return ""
    wanted = _numbers(found[2])
    minor = [one for one in samples if _numbers(one)[:2] == wanted[:2]]
    near = next((one for one in minor if _numbers(one) >= wanted), minor[-1] if minor else "")
    return image[: -len(tag)] + found[1] + near if near else ""


def _numbers(release: str) -> list[int]:
    """The numbers of a release, by which those of one minor release stand in order."""
    return [int(number) for number in re.findall(r"\d+", release)]


@cache
def _releases() -> dict[str, tuple[str, ...]]:
    """Releases of engines that are published as images, by where their makers publish them."""
    from kubectl_llmdoctor.engines import sglang_flags, tgi_flags, vllm_flags

    return {
        "docker.io/vllm/vllm-openai": vllm_flags.SAMPLES,
        # the tags of earlier ones name a CUDA as well
        "docker.io/lmsysorg/sglang": sglang_flags.SAMPLES[sglang_flags.SAMPLES.index("0.5.5.post3") :],
        "ghcr.io/huggingface/text-generation-inference": tgi_flags.SAMPLES,
    }


def had(pod: Pod, image: str) -> tuple[str, str]:
    """Another tag of the same repository and variant that nodes have pulled, and who has it: the workload before, or another pod."""
    repository, missing = split(image)
    variant = _VARIANT.findall(missing.lower())

    def alike(other: str) -> bool:
        where, tag = split(other)
        same = "@" not in other and where == repository and tag not in ("", missing)
        return same and _VARIANT.findall(tag.lower()) == variant

    before = ((other, who) for other, who in _before(pod) if alike(other))
    return next(before, None) or next(_running(pod, alike), ("", ""))


def _before(pod: Pod) -> Iterator[tuple[str, str]]:
    """The images of the ReplicaSets that the workload had before, the newest first, where their pods are ready."""
    owner = pod.cluster.owner(pod.item) if pod.item else None
    above = pod.cluster.owner(owner) if owner else None
    if owner is None or above is None:
        return
    sets = [item for item in pod.cluster.items("ReplicaSet", pod.namespace) if item.name != owner.name]
    mine = [item for item in sets if (top := pod.cluster.owner(item)) is not None and top.name == above.name]
    for item in sorted(mine, key=lambda one: str(one.metadata.get("creationTimestamp")), reverse=True):
        if dig(item.raw, "status.readyReplicas"):
            for container in rows(item.raw, "spec.template.spec.containers"):
                yield str(container.get("image") or ""), f"{Workload(above, pod.cluster).ref} ran before"


def _running(pod: Pod, wanted: Callable[[str], bool]) -> Iterator[tuple[str, str]]:
    """The wanted images with which other pods run, those of the same namespace first."""
    images = pod.cluster.once("pods of images", lambda: _pods_of_images(pod.cluster))
    found = [(item, image) for image, items in images.items() if wanted(image) for item in items]
    for item, image in sorted(
        found, key=lambda one: (one[0].namespace != pod.namespace, one[0].namespace, one[0].name)
    ):
        names = {
            container.get("name") for container in rows(item.raw, "spec.containers") if container.get("image") == image
        }
        for status in rows(item.raw, "status.containerStatuses"):
            if status.get("name") in names and dig(status, "state.running") and status.get("ready"):
                yield image, f"Pod/{item.name} of {item.namespace} runs"


def _pods_of_images(cluster: Cluster) -> dict[str, list[Item]]:
    """The pods that name an image, by that image."""
    found: dict[str, list[Item]] = {}
    for item in cluster.items("Pod"):
        for image in dict.fromkeys(
            str(container.get("image") or "") for container in rows(item.raw, "spec.containers")
        ):
            found.setdefault(image, []).append(item)
    return found
