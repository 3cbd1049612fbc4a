"""A program that a hook or a start script calls, and that the image is known not to have."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Container, Finding, Pod, check, fixes, pod_evidence, words
from llmdoctor_checks.start._images import Lacking, lacking, old_client, shell_image
from llmdoctor_checks.start._scripts import quoted

#: The servers of images that start none by themselves.
_SERVERS = {
    "lmsysorg/sglang": ["python3", "-m", "sglang.launch_server"],
    "nvidia/tritonserver": ["tritonserver"],
}


@check("entrypoint-missing", since="0.1")
def entrypoint_missing(pod: Pod) -> Iterator[Finding]:
    """The command is not in the image.

    The runtime or the start script calls a program that the image does not contain: a wrong name, a path of another image, or
    arguments given as `command`, so that the first argument is taken for a program. It also happens when the image's
    entrypoint changes between versions: vLLM's was `python3 -m vllm.entrypoints.openai.api_server` up to 0.11 and is
    `vllm serve` from 0.12 on. The container ends with StartError (128), or with 127 when a shell says it.

    In a manifest it is a risk where the image is known not to have the program: Ollama's has neither curl nor wget. A loop such as
    `until curl …; do sleep 1; done` then waits forever, and what stands behind it, usually `ollama pull`, is never done; in a postStart
    hook the container never counts as started. It is one as well where nothing says what to run and the image starts a shell then
    (Triton's, SGLang's, LMDeploy's, Xinference's): without a terminal the shell ends at once, with exit code 0, and the container is
    restarted forever; options alone are taken for the program to run. And so it is where a script installs huggingface_hub in no
    particular version and downloads with huggingface-cli: from 1.0 on there is none, or one that only says so and ends with 1.

    ## Fix

    Correct `command` and `args`. `args` alone go to the image's entrypoint; `command` replaces it. In Ollama's image wait with
    `until ollama list`. Write `hf download` for `huggingface-cli download`.

    ## References

    - https://kubernetes.io/docs/tasks/inject-data-application/define-command-argument-container/
    - https://docs.vllm.ai/en/latest/deployment/docker/
    - https://huggingface.co/docs/huggingface_hub/guides/cli
    """
    if pod.exists or pod.log_only:
        return
    for container in pod.containers:
        if _says_nothing(pod, container) and shell_image(container):
            yield _of_shell(pod, container)
            return
        if _options_alone(pod, container) and shell_image(container):
            yield _of_options(pod, container)
            return
        if client := old_client(container):
            yield _of_client(pod, container, *client)
            return
        hook = container.spec.lifecycle.post_start if container.spec.lifecycle else None
        asked = words(hook, "exec.command") if hook else ()
        if asked and (found := lacking(container, asked)):
            then = (
                "the hook never ends, and the container does not count as started"
                if found.waits
                else "the hook fails, and the kubelet kills the container for it"
            )
            yield _finding(pod, container, "lifecycle.postStart.exec.command", found, then)
            return
        script = (*container.spec.command, *container.spec.args)
        found = lacking(container, script)
        if found and (found.waits or not any("serve" in str(word) for word in script)):
            then = "it waits forever, and what follows is never done" if found.waits else "it ends with 127"
            yield _finding(pod, container, "command", found, then)
            return


def _says_nothing(pod: Pod, container: Container) -> bool:
    """Whether nobody gives it a command, though it is more than the outline of a server: no operator does, nor a base."""
    spec = container.spec
    completed = pod.lent or pod.completed or container.role != "main"
    said = spec.command or spec.args or spec.tty or spec.stdin
    return not completed and not said and bool(spec.resources.limits or spec.resources.requests or spec.volume_mounts)


def _options_alone(pod: Pod, container: Container) -> bool:
    """Whether its arguments begin with an option, and nobody gives it a command before them."""
    completed = pod.lent or pod.completed or container.role != "main"
    first = next(iter(container.spec.words("args")), "")
    return not completed and not container.spec.command and first.startswith("--")


def _of_options(pod: Pod, container: Container) -> Finding:
    """Options that an entrypoint takes for a program: that of NVIDIA's images ends with `exec "$@"`, as others do."""
    image, first = container.spec.image, container.spec.words("args")[0]
    program = next((words for name, words in _SERVERS.items() if container.repository.endswith(name)), [])
    summary = f"Set command to {' '.join(program)}, before the arguments"
    return Finding(
        role="risk",
        severity="critical",
        summary=f"Container {container.name} has arguments and no command, and the entrypoint of {image} is no server: "
        f"`{first.partition('=')[0]}` is taken for the program to run.",
        evidence=(pod_evidence(container, "command", "none"), pod_evidence(container, "args[0]", first)),
        fix=fixes.set_spec(pod, f"{container.pointer}/command", program, summary)
        if program
        else fixes.advice(f"Say in {fixes.edited(pod)} which program takes the arguments, as `command`"),
    )


def _of_shell(pod: Pod, container: Container) -> Finding:
    return Finding(
        role="risk",
        severity="critical",
        summary=f"Container {container.name} has neither command nor arguments, and {container.spec.image} starts a shell then, "
        "which ends at once.",
        evidence=(pod_evidence(container, "image", container.spec.image),),
        fix=fixes.advice(f"Say in {fixes.edited(pod)} what to run, as `command` or `args`"),
    )


def _finding(pod: Pod, container: Container, path: str, found: Lacking, then: str) -> Finding:
    return Finding(
        role="risk",
        severity="critical",
        summary=f"{'The postStart hook' if path.startswith('lifecycle') else 'The script'} of {container.name} calls {found.program}, "
        f"which {container.spec.image} does not have: {then}.",
        evidence=(pod_evidence(container, path, quoted(found.text)),),
        fix=fixes.advice(
            f"Use a program of the image (`until ollama list; do sleep 1; done`), or an image that has {found.program}, in "
            f"{fixes.edited(pod)}"
        ),
    )


def _of_client(pod: Pod, container: Container, path: str, call: str) -> Finding:
    return Finding(
        role="risk",
        severity="critical",
        summary=f"The script of {container.name} installs huggingface_hub in its newest release and calls huggingface-cli, which no "
        "release from 1.0 on has: nothing is downloaded.",
        evidence=(pod_evidence(container, path, quoted(call)),),
        fix=fixes.advice(
            "Write hf download for it, with the same arguments but --local-dir-use-symlinks and --resume-download, or install "
            f"'huggingface_hub<1.0', in {fixes.edited(pod)}"
        ),
    )
