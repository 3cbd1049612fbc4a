"""A model that is newer than the engine."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Engine,
    Finding,
    Pod,
    Sizing,
    check,
    fixes,
    pod_evidence,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.arrivals import first_release


@check("model-unsupported", since="0.1")
def model_unsupported(pod: Pod, engine: Engine, sizing: Sizing) -> Iterator[Finding]:
    """This version of the engine does not know the model.

    Every engine has a list of architectures, tokenizers and file formats that it can run, and it grows with each release.
    A model that is newer than the image, or of a kind the engine never had, is refused while its configuration is read.
    When an import error stands above the line, the architecture is known and the image is broken (see import-broken).

    In a manifest it is a risk where the model's architecture is known and came to the engine (vLLM, SGLang,
    TGI) only after the version that runs.

    ## Fix

    Use the engine version that the model's page names; for GGUF files a current llama.cpp. vLLM can run some unknown
    models with the implementation of Transformers (`--model-impl transformers`).

    ## References

    - https://docs.vllm.ai/en/latest/models/supported_models/
    - https://docs.sglang.ai/supported_models/generative_models.html
    - https://huggingface.co/docs/text-generation-inference/supported_models
    """
    model = engine.explicit("model")
    if pod.ready or pod.log_only or model is None or sizing.model is None or engine.explicit("model_impl"):
        return
    architecture = sizing.model[0].name
    first = first_release(engine.name, architecture)
    if first is None or engine.at_least(first) is not False or sizing.has_log:
        return
    container, stated = engine.container, engine.found.version_text
    # a version that the command installs stands there, any other is the image's
    installed = "install" in stated
    yield Finding(
        role="risk",
        severity="critical",
        confidence="likely",
        summary=f"{model.value} is a {architecture}, which {engine.title} knows from {first} on at the earliest; "
        f"{container.name} runs {engine.label} and refuses it at its start.",
        evidence=(
            setting_evidence(container, model),
            pod_evidence(container, "command" if installed else "image", stated if installed else container.spec.image),
        ),
        fixes=(fixes.advice(f"Run the {engine.title} release that the model's page names, in {fixes.edited(pod)}"),),
        pods=(pod.name,) if pod.exists else (),
    )
