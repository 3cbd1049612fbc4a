"""The image that the container has or the line names, where it is pulled from, and the Secret for that."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cached_property
from typing import get_args

from kubectl_llmdoctor.advice.declared import Condition, OfImages
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.engines.version import split_image
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.pulled import had, released, spelt, split
from kubectl_llmdoctor.template_values import template_value

#: As whom registries know those who come with a key.
_REGISTRY_USERS = (
    (r"nvcr\.io", "$oauthtoken"),
    (r".*\.dkr\.ecr\..*", "AWS"),
    (r".*\.pkg\.dev|.*gcr\.io", "_json_key"),
)

#: The types of Secrets that the kubelet pulls images with.
_PULLED_WITH = ("kubernetes.io/dockerconfigjson", "kubernetes.io/dockercfg")

#: How the tags of Text Embeddings Inference begin, by the compute capability that an image is built for (its README.md), and since
#: which release there is one; nothing of it takes less than 7.5.
_TEI_TAGS = {"75": ("turing-", "0"), "80": ("", "0"), "86": ("86-", "0"), "89": ("89-", "0"), "90": ("hopper-", "0"),
             "100": ("100-", "1.9"), "120": ("120-", "1.9")}  # fmt: skip
_TEI_IMAGE = expression(
    r"(?P<name>[\w./:-]{0,200}text-embeddings-inference:)(?:(?:turing|86|89|hopper|cuda|100|120)-)?(?P<release>\d[\w.]{0,20}|latest)"
)

#: NVIDIA's images of Triton by the backend that only they hold, among them the one that has neither (-py3) or the other one.
_TRITON_TAGS = {"tensorrtllm": "trtllm-python-py3", "vllm": "vllm-python-py3"}
_TRITON_IMAGE = expression(
    r"(?P<release>(?:[\w.:-]{1,100}/){0,3}nvcr\.io/nvidia/tritonserver:(?:23\.1[0-2]|2[4-9]\.(?:0[1-9]|1[0-2]))-)(?:py3(?:-min|-igpu)?|pyt-python-py3|tf2-python-py3|trtllm-python-py3|vllm-python-py3)"
)

_NVIDIA = "nvidia.com/gpu"
#: Where engines publish their images, with which tags, and from which release on each has one (the releases of their repositories).
_PUBLISHED = {
    "ollama": ("ollama/ollama", "{}", "0.1.17"),
    "tgi": ("ghcr.io/huggingface/text-generation-inference", "{}", "1.0.0"),
    "vllm": ("vllm/vllm-openai", "v{}", "0.3.0"),
}
_RELEASE = expression(r"\d{1,3}\.\d{1,3}\.\d{1,3}(?:\.post\d)?")
#: Words of an image that is built for other machines than those that the published one is for.
_BUILT_FOR = expression(
    r"(?i)(?:^|[^a-z])(?:rocm|hip|xpu|hpu|gaudi|cpu|tpu|npu|ascend|cann|neuron|musa|vulkan|sycl|intel|arm64|aarch64|l4t|jetson|tegra"
    r"|cu\d{2,3}(?!\d)|pascal|volta|sm_?\d{2})"
)
#: Options by which vLLM takes in code that somebody may have added to an image, and the variable that does so.
_TAKES_IN = expression(
    r"--[\w-]{1,40}-plugin\b|--(?:logits-processors|middleware|worker-(?:extension-)?cls|kv-transfer-config)\b"
)
_PLUGINS = "VLLM_PLUGINS"
#: Programs that the images of engines have, and folders that all of them have.
_PROGRAMS, _ANYWAY = ("vllm", "ollama", "text-generation-launcher"), ("/tmp/", "/dev/")
_MODULE = "vllm.entrypoints.openai.api_server"


class Images(Topic):
    """The image, its registry and the Secret that it is pulled with."""

    decides = get_args(OfImages)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "image": self._own,
            "image_now": self._own or "the one that runs",
            "registry_user": lambda: next(
                (user for host, user in _REGISTRY_USERS if re.fullmatch(host, self.registry)), "USER"
            ),
            "known_image": lambda: self._had[0],
            "known_by": lambda: self._had[1],
            "spelt_image": lambda: spelt(self._named),
            "repository": lambda: split(self._named)[0],
            "pull_secret": lambda: self._pull_secret[0],
            "pull_secret_type": lambda: self._pull_secret[1],
        }

    def _holds(self) -> Iterator[Condition]:
        yield self._which_image
        named, unread_type = self._pull_secret
        if self.pod is None or not named:
            yield "pull secret unused" if self.free_pull_secret else "no pull secret"
        else:
            yield "pull secret of another type" if unread_type else "pull secret named"

    @property
    def _which_image(self) -> Condition:
        """Whether another image is known that may be meant."""
        if spelt(self._named):
            return "image misspelt"
        return "image known" if self._had[0] else "no image known"

    @cached_property
    def _pull_secret(self) -> tuple[str, str]:
        """The Secret with which the pod pulls its images, and its type where it is one that is not read for that."""
        for secret in self.pod.spec.image_pull_secrets if self.pod else ():
            item = self.subject.cluster.item("Secret", self.subject.namespace, secret.name)
            kind = str(item.raw.get("type") or "") if item else ""
            return secret.name, "" if kind in ("", *_PULLED_WITH) else kind
        return "", ""

    @template_value
    def free_pull_secret(self) -> str:
        """A Secret of the namespace for pulling images, where there is one and the pod names none."""
        if self.pod is None or self._pull_secret[0]:
            return ""
        listed = self.subject.cluster.items("Secret", self.subject.namespace)
        found = [item.name for item in listed if item.raw.get("type") in _PULLED_WITH]
        return found[0] if len(found) == 1 else ""

    @template_value
    def tei_image(self) -> str:
        """The image of Text Embeddings Inference for the captured `have`, of the same release; empty where there is none."""
        begins, since = _TEI_TAGS.get(self.captured.get("have", ""), ("", ""))
        parts = _TEI_IMAGE.fullmatch(self._own.partition("@")[0])
        if parts is None or not since:
            return ""
        older = self.engine is not None and self.engine.at_least(since) is False
        release = since if older else parts["release"]
        found = f"{parts['name']}{begins}{release}"
        return found if found != self._own else ""

    @template_value
    def backend_image(self) -> str:
        """NVIDIA's image of Triton, of the same release, that holds the captured `backend`; empty where there is none."""
        tag, parts = _TRITON_TAGS.get(self.captured.get("backend", "")), _TRITON_IMAGE.fullmatch(self._own)
        found = f"{parts['release']}{tag}" if tag and parts else ""
        return found if found != self._own else ""

    @template_value
    def released_image(self) -> str:
        """A release of the engine that is published, of the same minor release as one that is not there."""
        return "" if self._which_image != "no image known" else released(self._named)

    @template_value
    def published_image(self) -> str:
        """The image that the engine's makers publish of the release that runs, where another one runs in the same way."""
        engine, container = self.engine, self.container
        name, tag, since = _PUBLISHED.get(engine.name if engine else "", ("", "", ""))
        if engine is None or container is None or not name or not _RELEASE.fullmatch(engine.version or ""):
            return ""
        repository, own_tag, _ = split_image(self._own)
        released = tag.format(engine.version)
        others = any(resource != _NVIDIA for resource in container.accelerators)
        on_nvidia = not others and (engine.name == "ollama" or bool(container.limit(_NVIDIA)))
        copied = f"/{repository}".endswith(f"/{name}") or (
            engine.name != "ollama" and own_tag == released and repository.rpartition("/")[2] == name.rpartition("/")[2]
        )
        if not on_nvidia or copied or _BUILT_FOR.search(self._own) or not self._runs_alike(engine.name, container):
            return ""
        return f"{name}:{released}" if engine.at_least(since) else ""

    def _runs_alike(self, engine: str, container: Container) -> bool:
        """Whether the engine's own image takes a container's words, and names nothing that somebody may have added to another one."""
        command, args = container.spec.command, container.spec.words("args")
        words = [str(word) for word in container.spec.argv]
        if command:
            program = words[0].rpartition("/")[2]
            runs = program in _PROGRAMS or (
                program.startswith("python") and words[1:2] == ["-m"] and words[2:3] == [_MODULE]
            )
        else:
            runs = not args or args[0].startswith("-") or (engine, args[0]) == ("ollama", "serve")
        paths = (
            word[word.find("/") :] for word in words[1 if command else 0 :] if word.startswith("/") or "=/" in word
        )
        added = any(_TAKES_IN.match(word) for word in words) or _PLUGINS in container.env
        return runs and not added and all(path.startswith(_ANYWAY) or container.mount_over(path) for path in paths)

    @property
    def _own(self) -> str:
        """The container's image."""
        return self.container.spec.image if self.container else ""

    @property
    def _named(self) -> str:
        """The image that the line names, else the container's."""
        return self.captured.get("image") or self._own

    @cached_property
    def _had(self) -> tuple[str, str]:
        """An image of the same repository that was pulled, and who has it."""
        return had(self.pod, self._named) if self.pod and self._named else ("", "")

    @template_value
    def registry(self) -> str:
        """Where the image is pulled from, as a pull secret names it."""
        first, slash, _ = self._named.partition("/")
        named = bool(slash) and ("." in first or ":" in first or first == "localhost")
        return first if named and first != "docker.io" else "https://index.docker.io/v1/"

    @template_value
    def registry_host(self) -> str:
        """The host that answers for the image."""
        host = split(self._named)[0].partition("/")[0]
        return "registry-1.docker.io" if host == "docker.io" else host
