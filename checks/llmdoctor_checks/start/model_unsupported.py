"""A model that is newer than the engine."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Pod,
    Sizing,
    check,
    expression,
    pod_evidence,
    releases,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.arrivals import first_release
from kubectl_llmdoctor.catalog.models import find

#: What stands behind a model's name in a reference to a GGUF file: the part, the ending, and before it the quantization.
_FILE = expression(r"(-\d{5}-of-\d{5})?\.gguf$", re.IGNORECASE)
_QUANTIZATION = expression(r"[-._](UD-)?(I?Q\d\w*|TQ\d_\d|BF16|F16|F32|MXFP4\w*)$", re.IGNORECASE)


@check("model-unsupported", since="0.1")
def model_unsupported(pod: Pod, engine: Engine, sizing: Sizing) -> Iterator[Finding]:
    """This version of the engine does not know the model.

    Every engine has a list of architectures, tokenizers and file formats that it can run, and it grows with each release.
    A model that is newer than the image, or of a kind the engine never had, is refused while its configuration is read.
    When an import error stands above the line, the architecture is known and the image is broken (see import-broken).

    In a manifest it is a risk where the model's architecture is known and came to the engine (vLLM, SGLang, TGI, llama.cpp,
    TensorRT-LLM) only after the version that runs. llama.cpp's builds are known by their number (`server-cuda-b6123`); a tag
    without one says nothing of its age.

    ## Fix

    Use the engine version that the model's page names; for GGUF files a current llama.cpp. vLLM can run some unknown
    models with the implementation of Transformers (`--model-impl transformers`).

    ## References

    - https://docs.vllm.ai/en/latest/models/supported_models/
    - https://docs.sglang.ai/supported_models/generative_models.html
    - https://huggingface.co/docs/text-generation-inference/supported_models
    """
    model = engine.explicit("model")
    if pod.ready or pod.log_only or model is None or engine.explicit("model_impl") or sizing.has_log:
        return
    architecture = _architecture(engine, sizing, str(model.value))
    first = first_release(engine.name, architecture) if _numbered(engine) else None
    if first is None or engine.at_least(first) is not False:
        return
    container, stated = engine.container, engine.found.version_text
    # a version that the command installs stands there, any other is the image's
    installed = "install" in stated
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"{model.value} is a {architecture}, which {engine.title} {_since(first)}; "
        f"{container.name} runs {engine.label} and refuses it at its start.",
        evidence=(
            setting_evidence(container, model),
            pod_evidence(container, "command" if installed else "image", stated if installed else container.spec.image),
        ),
        fix=releases.released(engine, first),
    )


def _since(first: str) -> str:
    """In words, which releases know a class; `X.post1` is any after X, which did not."""
    before = first.removesuffix(".post1")
    return f"knows from {first} on at the earliest" if before == first else f"{before} did not know"


def _numbered(engine: Engine) -> bool:
    """Whether its version is one of the table's: not a fork's, and of TensorRT-LLM's backends the one that has a list."""
    # a fork counts its own commits, and a program built from it is called as somebody likes
    if engine.name == "llama.cpp":
        own = re.search(r"(^|/)llama\.cpp(?=[:@]|$)", engine.container.spec.image)
        return own is not None and re.fullmatch(r"b\d+", engine.version or "") is not None
    return engine.name != "tensorrt-llm" or engine.value("backend", "pytorch") in ("pytorch", None)


def _architecture(engine: Engine, sizing: Sizing, name: str) -> str:
    """The class of the model; of a GGUF file the one that it was made from."""
    if sizing.model is not None:
        return sizing.model[0].name
    if engine.name != "llama.cpp":
        return ""
    bare = _FILE.sub("", name.rpartition("/")[2].partition(":")[0])
    found = find(_QUANTIZATION.sub("", bare)) or find(bare.removesuffix("-GGUF"))
    return found.architecture.name if found else ""
