"""The mapped file of a model that went away under its server."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Pod, check, ending_of, fixes, pod_evidence, setting_evidence
from llmdoctor_checks._consequences import FAILED_START


@check("weights-corrupt", since="0.1")
def weights_corrupt(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """A file of the model is damaged or incomplete.

    A download was cut, a disk was full, a repository was cloned without git-lfs so that the files are small pointers, or a
    proxy stored its error page under the file's name. Loaders then speak of headers, magic characters, zip archives or
    shapes. A restart does not help as long as the damaged file stays in the cache.

    llama.cpp maps the file into memory and reads of it what it needs, also later. Where the file was shortened or replaced
    meanwhile, or its storage fails, it dies by SIGBUS (exit code 135), which in other engines speaks of /dev/shm.

    ## Fix

    Delete the file from the volume or cache and fetch it again. Compare sizes with the model's page: a git-lfs pointer has
    about 130 bytes. Write a new model beside the old one, never over a file that a server has mapped.

    ## References

    - https://huggingface.co/docs/huggingface_hub/guides/download
    - https://huggingface.co/docs/hub/repositories-getting-started
    - https://man7.org/linux/man-pages/man2/mmap.2.html
    """
    container, model = engine.container, engine.explicit("model")
    killed = ending_of(container)
    whole = engine.value("mmap") is False or engine.value("load_mode") in ("none", "dio")
    if engine.name != "llama.cpp" or killed is None or killed.signal != "SIGBUS" or whole or pod.ready:
        return
    maps = engine.found.argv_known or engine.get("mmap") is not None
    yield Finding(
        confidence="likely" if maps else "possible",  # a script may have told it to read the file whole
        summary=f"{engine.label} died by SIGBUS (exit code 135): a page of the model file, which it maps into memory, could not "
        "be read. The file was shortened or replaced under it, or its storage fails.",
        evidence=(
            pod_evidence(pod, killed.path, killed.text),
            *((setting_evidence(container, model),) if model else ()),
        ),
        explains=(*FAILED_START, "engine-dead", "rollout-stuck"),
        fix=fixes.advice(
            "Compare the size of the file with the model's page and fetch it again if it differs; write new models under "
            "new names, and see what the kernel of the node says of the volume"
        ),
    )
