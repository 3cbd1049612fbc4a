"""A hub that the start does not reach, or may not ask; what clients print of it is in the YAML file beside."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Logs, Pod, check, fixes, log_evidence, setting_evidence
from llmdoctor_checks._consequences import FAILED_START

#: What llama.cpp prints (common/, llama.cpp, 2026) when it was given no file of a model, whatever the reason.
_NO_FILE = "exactly one out metadata, path_model, and file must be defined"

#: What it printed before where the hub was asked.
_ASKED = ("get_repo_", "download failed")


@check("hf-unreachable", since="0.1", literals=(_NO_FILE, *_ASKED))
def hf_unreachable(pod: Pod, engine: Engine, logs: Logs) -> Iterator[Finding]:
    """The hub that the model comes from cannot be reached.

    The engine asks the hub for the model at every start, even when the files are in its cache. Without DNS, an egress
    rule, a proxy setting or a trusted certificate this fails; so does a hub that limits the rate (429) or has an outage
    (5xx), and an offline mode without a filled cache. The last line is usually the same, "couldn't connect to
    huggingface.co"; the reason stands higher: a name that is not resolved, a certificate that is not trusted, a status
    code.

    ## Fix

    Open the way: DNS, NetworkPolicy, proxy with its certificate. Better for production: keep the model on a volume or in
    an image, and set `HF_HUB_OFFLINE=1`, so that a start needs nothing from outside.

    ## References

    - https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    - https://huggingface.co/docs/transformers/installation#offline-mode
    - https://huggingface.co/docs/hub/rate-limits
    """
    offline, repository = engine.explicit("offline"), engine.explicit("model")
    container = engine.container
    crashed = container.crashed
    if engine.name != "llama.cpp" or not offline or offline.value is False or not repository or not crashed:
        return
    for log in logs.of(container.name):
        line = next(log.find(_NO_FILE), None)
        if line is None or any(asked in log.text for asked in _ASKED):
            continue
        yield Finding(
            summary=f"llama.cpp is told not to download ({offline.text}), and {repository.value} is not in its cache.",
            evidence=(
                log_evidence(line),
                setting_evidence(container, offline),
                setting_evidence(container, repository),
            ),
            explains=("model-not-found", *FAILED_START),
            fix=fixes.advice(
                "Put the file into the cache that LLAMA_CACHE or HF_HOME names (a volume that was filled before), "
                f"name it with -m, or leave --offline out in {fixes.edited(pod)}"
            ),
            order=line.order,
        )
        return
