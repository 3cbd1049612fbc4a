"""Images of inference servers that are built for the CPU only or for the GPUs of one maker, and the twin that uses a GPU.

Sources: the publishers' tags. llama.cpp names its CUDA, ROCm, Vulkan, SYCL, MUSA and CANN builds and leaves the CPU
build without a word (docs/docker.md). KServe's huggingfaceserver has a `-gpu` twin from 0.15 on, which its controller
adds for `nvidia.com/gpu` alone (`UpdateImageTag`, pkg/controller/v1beta1/inferenceservice/utils). vLLM, SGLang, Text
Generation Inference and Text Embeddings Inference put `cpu` into the name or the tag. Builds for AMD's GPUs say `rocm`; those for
NVIDIA's are what vLLM, SGLang and Text Generation Inference publish under the plain name. LinuxServer's faster-whisper has `gpu` before
its version for CUDA, whisper-asr-webservice has it behind; without it both are built for the CPU (their README).
"""

from __future__ import annotations

import re

import msgspec

from kubectl_llmdoctor.engines.version import split_image
from kubectl_llmdoctor.expressions import expression


class CpuBuild(msgspec.Struct, frozen=True, kw_only=True):
    """An image that cannot use a GPU: what says so, and the image to take instead where its name is known."""

    why: str
    twin: str = ""


_LLAMA_GPU = expression(r"cuda|rocm|hip|vulkan|intel|sycl|musa|cann|openvino|s390x")


def cpu_build(image: str) -> CpuBuild | None:
    """Whether an image's name says that it holds a CPU build."""
    repository, tag, _ = split_image(image)
    head, slash, name = repository.rpartition("/")
    lower, low_tag = name.lower(), tag.lower()
    if lower == "llama.cpp" or lower == "llama-cpp":
        kind = re.match(r"(server|full|light)(?=$|-)", low_tag)
        if kind and not _LLAMA_GPU.search(low_tag):
            twin = f"{repository}:{kind[1]}-cuda{tag[kind.end() :]}"
            return CpuBuild(why=f"the tag {tag} of llama.cpp is its CPU build", twin=twin)
        return None
    if lower == "huggingfaceserver":
        version = re.match(r"v?0\.(\d+)\.", low_tag)
        newest = low_tag == "latest" or (not low_tag and "@" not in image)  # a digest alone may be of any age
        if "gpu" not in low_tag.split("-") and (newest or (version and int(version[1]) >= 15)):
            twin = f"{repository}:{tag or 'latest'}-gpu"
            return CpuBuild(why="from 0.15 on huggingfaceserver without -gpu is the CPU build", twin=twin)
        return None
    for part, words in (("name", lower), ("tag", low_tag)):
        if "cpu" in re.split(r"[-_.+]", words):
            twin = ""
            if lower == "vllm-openai-cpu":
                twin = f"{head}{slash}vllm-openai:{tag}".rstrip(":")
            return CpuBuild(why=f"`cpu` stands in its {part}", twin=twin)
    return None


#: Servers of speech: repositories whose tags without `gpu` are built for the CPU, and the tag with CUDA.
_SPEECH = {
    "linuxserver/faster-whisper": "gpu",
    "onerahmet/openai-whisper-asr-webservice": "{tag}-gpu",
}


def cpu_build_of_speech(image: str) -> CpuBuild | None:
    """The same of servers of speech, which are no engines here: by their name alone it is certain."""
    repository, tag, _ = split_image(image)
    known = next((one for one in _SPEECH if repository == one or repository.endswith(f"/{one}")), None)
    if known is None or "@" in image or re.search(r"gpu|cu(?:da|1\d)", tag.lower()):
        return None
    twin = _SPEECH[known].format(tag=tag or "latest")
    return CpuBuild(why=f"the tags of {known} without gpu are for the CPU", twin=f"{repository}:{twin}")


#: Repositories whose plain tags are built for CUDA, as the projects' Dockerfiles show.
_CUDA = expression(
    r"(?:^|/)(?:vllm/vllm-openai|lmsysorg/sglang|huggingface/text-generation-inference|openmmlab/lmdeploy)$"
)
#: What the repositories are called in which the makers of engines publish each release under a tag of its own, and copies of them.
_MAKERS_OWN = expression(
    r"(?:^|/)(?:vllm-openai(?:-rocm|-cpu)?|sglang|text-generation-inference|lmdeploy|llama\.cpp|ollama|tensorrt-llm/release)$"
)
#: What a plain tag consists of: numbers, dates and digests, channels, processors. Whatever else stands there may name other
#: hardware, as in `main-cann8.5.0-910b`, `dsv32-a3`, `v0.5.6-xeon` and `3.3.5-gaudi`.
_PLAIN = expression(
    r"v?\d\w*|[0-9a-f]{7,40}|(?:rc|post|dev)\d*|latest|nightly|main|stable|release|sha|runtime|x86|amd64|arm64|aarch64"
    r"|blackwell|g?b[23]00|ubuntu\d*|trtllm"
)
#: NVIDIA's registry, in which a few builds are for the CPU.
_NVIDIAS = "nvcr.io/"


def maker(image: str) -> str:
    """Whose GPUs an image is built for, `AMD` or `NVIDIA`; empty where its name does not tell."""
    reference = image.strip().partition("@")[0].lower()
    head, _, last = reference.rpartition("/")
    name, _, tag = last.partition(":")
    registry, _, path = head.partition("/")
    owners = path if "." in registry or ":" in registry else head
    words = [word for word in re.split(r"[-_.+/:]", last) if word]
    rocm = any(re.fullmatch(r"rocm\d*", word) for word in [*words, *re.split(r"[-_./]", owners)])
    cuda = any(re.fullmatch(r"(?:cuda|cu1[1-4])\d*", word) for word in words)
    if rocm or cuda:
        return "" if rocm and cuda else "AMD" if rocm else "NVIDIA"
    if reference.startswith(_NVIDIAS):
        return "" if "cpu" in words else "NVIDIA"
    plain = all(_PLAIN.fullmatch(word) for word in re.split(r"[-_.+]", tag or "latest"))
    return "NVIDIA" if plain and _CUDA.search(f"{head}/{name}") else ""


#: Words of images that are built for accelerators of a maker, and as what device plugins of that maker offer these.
_BUILT_FOR = {
    "310p": "huawei.com/Ascend310P",
    "ascend": "huawei.com/Ascend910",
    "cann": "huawei.com/Ascend910",
    "gaudi": "habana.ai/gaudi",
    "hpu": "habana.ai/gaudi",
    "xpu": "gpu.intel.com/xe",
    "tpu": "google.com/tpu",
    "neuron": "aws.amazon.com/neuron",
    "neuronx": "aws.amazon.com/neuron",
    "rocm": "amd.com/gpu",
}


#: Whose images are all built for accelerators of one maker, be it said in the name itself or not.
_MAKERS_FOLDERS = (
    "rocm/",
    "docker.io/rocm/",
    "quay.io/ascend/",
    "public.ecr.aws/neuron/",
    "vault.habana.ai/gaudi-docker/",
)


def foreign_resource(image: str) -> str:
    """The resource of another maker's accelerators than NVIDIA's for which an image is built; empty where its name does not tell.

    A registry and its folders are called as somebody likes, who may keep images for NVIDIA's GPUs there too.
    """
    path = image.partition("@")[0].lower()
    told = path if path.startswith(_MAKERS_FOLDERS) else path.rpartition("/")[2]
    words = {word.rstrip("0123456789") for word in re.split(r"[-_.+/:]", told)}
    return next((resource for word, resource in _BUILT_FOR.items() if word in words), "")


def published(repository: str) -> bool:
    """Whether it has the releases of an engine's makers by its name; elsewhere somebody else builds images with some of them."""
    return _MAKERS_OWN.search(repository) is not None
