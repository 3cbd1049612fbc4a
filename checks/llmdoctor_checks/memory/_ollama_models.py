"""What the models that a pod pulls for Ollama take at least, by their names."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from kubectl_llmdoctor.api import MIB, Container, Evidence, Pod, pod_evidence
from llmdoctor_checks._raw import QUOTED, words

_PULL = (
    r"\bollama\s{1,9}(?:pull|run)\s{1,9}[\"']?(?P<name>(?:[a-z0-9][\w.-]{0,40}/)?[a-z0-9][\w.-]{0,60})(?::(?P<tag>[\w.-]{1,60}))?"
    r"(?=[\"'\s;&|)]|$)"
)

#: Billions of parameters of the tag `latest`, as ollama.com/library listed them in 2024 to 2026 (the least of these).
_LATEST = {
    "codegemma": 7.0, "codellama": 7.0, "command-r": 32.0, "deepseek-coder-v2": 16.0, "deepseek-r1": 7.0, "dolphin-mistral": 7.0,
    "dolphin3": 8.0, "falcon": 7.0, "gemma": 7.0, "gemma2": 9.0, "gemma3": 4.0, "gpt-oss": 20.0, "llama2": 7.0,
    "llama2-uncensored": 7.0, "llama3": 8.0, "llama3-chatqa": 8.0, "llama3.1": 8.0, "llama3.2": 3.0, "llama3.2-vision": 10.0,
    "llama3.3": 70.0, "llava": 7.0, "meditron": 7.0, "medllama2": 7.0, "mistral": 7.0, "mistral-nemo": 12.0, "mistral-small": 22.0,
    "mixtral": 46.0, "neural-chat": 7.0, "openchat": 7.0, "openhermes": 7.0, "orca2": 7.0, "phi3": 3.8, "phi3.5": 3.8, "phi4": 14.0,
    "qwen2": 7.0, "qwen2.5": 7.0, "qwen2.5-coder": 7.0, "qwen2.5vl": 7.0, "qwen3": 8.0, "qwen3-coder": 30.0, "qwq": 32.0,
    "sqlcoder": 7.0, "starling-lm": 7.0, "vicuna": 7.0, "wizardlm2": 7.0, "yi": 6.0, "zephyr": 7.0,
}  # fmt: skip

#: `8b`, `1.5b-instruct-q8_0`, `30b-a3b`; of `8x7b` and `e4b` the number says something else.
_BILLIONS = r"(?:^|-)(\d{1,3}(?:\.\d{1,2})?)b(?=$|-)"

#: Bits of a weight by the digit of its quantization, blocks' scales included; without a word the library gives four.
_BITS = {"2": 2.5, "3": 3.4, "4": 4.5, "5": 5.5, "6": 6.5, "8": 8.5}
_QUANTIZED, _FLOATS, _DEFAULT_BITS = r"(?:^|-)i?q([2-8])(?=_|$)", r"(?:^|-)(?:b?f|fp)16\b", 4.5

#: A model of "7b" has 6.7 billions and more; beside the weights stand the cache of 2048 tokens and the graph's buffers.
_AT_LEAST, _BESIDE = 0.95, 256 * MIB


class Pulled(NamedTuple):
    """A model by the name that the library gives it, the host memory that it takes at least, and who pulls it."""

    model: str
    size: int
    evidence: Evidence


def largest_pulled(pod: Pod, container: Container) -> Pulled | None:
    """The largest model that the container, its hook or an init container pulls; None where no size is known."""
    found = (pulled for owner in _owners(pod, container) for pulled in _pulls(owner))
    return max(found, key=lambda pulled: pulled.size, default=None)


def _owners(pod: Pod, container: Container) -> Iterator[Container]:
    yield container
    yield from (other for other in pod.containers if other.role == "init")


def _pulls(owner: Container) -> Iterator[Pulled]:
    hook = owner.spec.lifecycle.post_start if owner.spec.lifecycle else None
    told = [("lifecycle.postStart.exec.command", word) for word in words(hook, "exec.command")]
    for path, word in (*owner.words, *told):
        if "ollama" not in word:
            continue
        for line in word.splitlines():
            match = None if line.lstrip().startswith("#") else re.search(_PULL, line)
            size = _size(match["name"].removeprefix("library/"), match["tag"] or "latest") if match else None
            if match and size:
                model = match["name"] + (f":{match['tag']}" if match["tag"] else "")
                yield Pulled(model, size, pod_evidence(owner, path, line.strip()[:QUOTED]))


def _size(name: str, tag: str) -> int | None:
    """Bytes that a model takes at least; `-cloud` runs elsewhere."""
    said = re.search(_BILLIONS, tag)
    billions = float(said[1]) if said else _LATEST.get(name) if tag == "latest" else None
    if billions is None or "cloud" in tag:
        return None
    quantized = re.search(_QUANTIZED, tag)
    bits = 16.0 if re.search(_FLOATS, tag) else _BITS.get(quantized[1], _DEFAULT_BITS) if quantized else _DEFAULT_BITS
    return int(billions * 1e9 * _AT_LEAST * bits / 8) + _BESIDE
