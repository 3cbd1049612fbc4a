"""Which CUDA the driver of a pod's node knows, and which one an image was built for."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.evidence import log_evidence, node_evidence, pod_evidence
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.hardware import hardware_of
from kubectl_llmdoctor.facts.logs import Logs
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.report.document import Evidence

#: Major and minor of a CUDA release; a minor of None is not known.
Cuda = tuple[int, int | None]

#: The release that each branch of the driver brought (CUDA toolkit's release notes, driver versions).
_BRANCHES = {
    410: (10, 0),
    418: (10, 1),
    440: (10, 2),
    450: (11, 0),
    455: (11, 1),
    460: (11, 2),
    465: (11, 3),
    470: (11, 4),
    495: (11, 5),
    510: (11, 6),
    515: (11, 7),
    520: (11, 8),
    525: (12, 0),
    530: (12, 1),
    535: (12, 2),
    545: (12, 3),
    550: (12, 4),
    555: (12, 5),
    560: (12, 6),
    565: (12, 7),
    570: (12, 8),
    575: (12, 9),
    580: (13, 0),
    590: (13, 1),
}

#: Labels of NVIDIA's GPU feature discovery; older releases have parts alone, under other names.
_RUNTIME = "nvidia.com/cuda.runtime-version.full"
_RUNTIME_PARTS = (
    ("nvidia.com/cuda.runtime-version.major", "nvidia.com/cuda.runtime-version.minor"),
    ("nvidia.com/cuda.runtime.major", "nvidia.com/cuda.runtime.minor"),
)
_DRIVERS = (
    "nvidia.com/cuda.driver-version.full",
    "nvidia.com/cuda.driver-version.major",
    "nvidia.com/cuda.driver.major",
)

#: What prints the CUDA of an image: PyTorch's version (xFormers names two, that for which it was built and the one that "you have"),
#: and the start-up script of NVIDIA's images (nvidia-smi, with a colon, means the driver's).
_PRINTED = (
    ("+cu1", r"\d\+cu(1\d)(\d)\b(?!.{0,80}\(you have )"),
    ("CUDA Version ", r"^\s*CUDA Version (1\d)\.(\d{1,2})(?:\.\d{1,3})?\s*$"),
)
#: What Ollama lists of a GPU (discover/types.go).
_LISTED = 'msg="inference compute"'
_LISTED_CUDA = r" library=(?i:cuda) .{0,600} driver=(\d{1,2})\.(\d{1,2})(?!\d)"
_TAGGED = r"(?:^|[-_.])cu(?:da)?-?(?P<major>1[1-9])(?:\.?(?P<minor>\d))?(?![\d])"
#: vLLM's images: the CUDA that they are built for, by the first release of each (its Dockerfile's CUDA_VERSION).
_VLLM = r"(?:^|/)vllm/vllm-openai:v0\.(\d{1,3})\.(\d{1,3})"
_VLLM_BUILT = (((20, 0), (13, 0)), ((11, 1), (12, 9)), ((9, 0), (12, 8)), ((5, 0), (12, 4)))
#: The last month of which the table below is known to be right.
_LAST_MONTH = (26, 1)
#: NVIDIA's monthly images of frameworks, by the first month of each CUDA (Frameworks Support Matrix), also under another registry;
#: but for Triton's with TensorRT-LLM or vLLM, which are built on those of months before.
_MONTHLY = (
    r"(?:/|^)(?:tritonserver|nvidia/(?:pytorch|tensorflow|tensorrt|jax)):(2\d)\.(\d{2})-"
    r"(?!trtllm|vllm)(?:\w{1,20}-)?(?:py\d|pyt|min|sdk)"
)
_MONTHS = (
    ((25, 12), (13, 1)), ((25, 8), (13, 0)), ((25, 4), (12, 9)), ((25, 1), (12, 8)), ((24, 8), (12, 6)), ((24, 6), (12, 5)),
    ((24, 3), (12, 4)), ((23, 11), (12, 3)), ((23, 8), (12, 2)), ((23, 3), (12, 1)), ((23, 1), (12, 0)), ((22, 9), (11, 8)),
    ((22, 5), (11, 7)), ((22, 1), (11, 6)), ((21, 11), (11, 5)), ((21, 7), (11, 4)), ((21, 4), (11, 3)), ((21, 2), (11, 2)),
    ((20, 10), (11, 1)), ((20, 6), (11, 0)),
)  # fmt: skip


def driver_cuda(pod: Pod, node: Node | None) -> tuple[Cuda, Evidence] | None:
    """The newest CUDA that the driver of the pod's node knows, by the node's labels or the agent."""
    if node is not None and (found := _by_runtime(node)) is not None:
        return found
    agent = hardware.agent if (hardware := hardware_of(pod)) is not None else None
    if hardware is not None and agent is not None and (known := _version(agent.cuda_version)):
        return known, Evidence(
            source="agent",
            ref=f"Node/{hardware.node} agent driver",
            text=f"{agent.driver_version}, CUDA {agent.cuda_version}",
        )
    return _by_branch(node) if node is not None else None


def said_cuda(container: Container, logs: Logs | None) -> Cuda | None:
    """The newest CUDA that the driver knows, by what Ollama prints of the GPUs that it finds."""
    for log in container.own_logs(logs):
        for line in log.find(_LISTED):
            if (said := re.search(_LISTED_CUDA, line.text[:2000])) is not None:
                return int(said[1]), int(said[2])
    return None


def _by_runtime(node: Node) -> tuple[Cuda, Evidence] | None:
    """The labels that give the release itself."""
    labels = node.labels
    if known := _version(labels.get(_RUNTIME, "")):
        return known, node_evidence(node, f"{_RUNTIME}={labels[_RUNTIME]}")
    for major, minor in _RUNTIME_PARTS:
        if known := _version(f"{labels.get(major, '')}.{labels.get(minor, '')}"):
            return known, node_evidence(node, f"{major}={labels[major]}, {minor}={labels[minor]}")
    return None


def _by_branch(node: Node) -> tuple[Cuda, Evidence] | None:
    """The labels that give the driver's version."""
    for label in _DRIVERS:
        branch = node.labels.get(label, "").partition(".")[0]
        if branch.isdecimal() and int(branch) in _BRANCHES:
            return _BRANCHES[int(branch)], node_evidence(node, f"{label}={node.labels[label]}")
    return None


def image_cuda(container: Container, logs: Logs | None) -> tuple[Cuda, Evidence] | None:
    """The CUDA that a container's image was built for: by what it prints, its variable or its tag."""
    for log in container.own_logs(logs):
        for literal, pattern in _PRINTED:
            for line in log.find(literal):
                if (said := re.search(pattern, line.text[:2000])) is not None:
                    return (int(said[1]), int(said[2])), log_evidence(line)
    image = container.spec.image
    return next(_told(container, image), None)


def _told(container: Container, image: str) -> Iterator[tuple[Cuda, Evidence]]:
    told = container.env.get("CUDA_VERSION")
    if told is not None and (version := _version(told.value or "")):
        yield version, pod_evidence(container, "env[CUDA_VERSION]", told.value or "")
    tag = image.partition("@")[0].rpartition("/")[2].partition(":")[2]
    if (said := re.search(_TAGGED, tag)) is not None:
        yield (
            (int(said["major"]), int(said["minor"]) if said["minor"] else None),
            pod_evidence(container, "image", image),
        )
    elif (said := re.search(_VLLM, image)) is not None:
        release = int(said[1]), int(said[2])
        built = next((cuda for first, cuda in _VLLM_BUILT if release >= first), None)
        if built is not None:
            yield built, pod_evidence(container, "image", image)
    elif (said := re.search(_MONTHLY, image)) is not None and (month := (int(said[1]), int(said[2]))) <= _LAST_MONTH:
        built = next((cuda for first, cuda in _MONTHS if month >= first), None)
        if built is not None:
            yield built, pod_evidence(container, "image", image)


def suffices(driver: Cuda, wanted: Cuda | None) -> bool | None:
    """Whether a driver runs what was built for a CUDA; None where that is open: older drivers run much of their own major release.

    One of the newest major release has what was built for any, so that the CUDA which is wanted need not be known.
    """
    if wanted is None:
        return True if driver[0] >= max(_BRANCHES.values())[0] else None
    if driver[0] != wanted[0]:
        return driver[0] > wanted[0]
    return True if driver[1] is not None and wanted[1] is not None and driver[1] >= wanted[1] else None


def branch_for(wanted: Cuda) -> int | None:
    """The first branch of the driver that knows all of a CUDA; None of one that is newer than the table."""
    return next((branch for branch, knows in _BRANCHES.items() if knows >= (wanted[0], wanted[1] or 0)), None)


def branch_of(node: Node) -> int | None:
    """The branch of a node's driver, by its labels."""
    told = (node.labels.get(label, "").partition(".")[0] for label in _DRIVERS)
    return next((int(branch) for branch in told if branch.isdecimal()), None)


def say_cuda(version: Cuda) -> str:
    """`12.8`, or `12` where the rest is not known."""
    return ".".join(str(part) for part in version if part is not None)


def _version(text: str) -> Cuda | None:
    found = re.match(r"(\d{1,2})\.(\d{1,2})", text)
    return (int(found[1]), int(found[2])) if found else None
