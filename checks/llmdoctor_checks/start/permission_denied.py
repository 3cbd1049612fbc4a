"""A read-only root file system, and no volume where the engine has to write."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Container, Engine, Finding, Pod, check, fixes, pod_evidence, setting_evidence
from llmdoctor_checks.start._storage import cache_path, hub_model, other_user

#: Where Python's tempfile looks, behind TMPDIR, TEMP and TMP; last in the working directory.
_TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")

#: Working directories of the images whose engines make their sockets with tempfile (vllm/envs.py, VLLM_RPC_BASE_PATH; SGLang's
#: PortArgs).
_WORKING = {"vllm": ("/vllm-workspace", "/workspace"), "sglang": ("/sgl-workspace",)}

#: Where no model is fetched, or from elsewhere.
_NO_DOWNLOAD = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_USE_MODELSCOPE", "SGLANG_USE_MODELSCOPE")


@check("permission-denied", since="0.1")
def permission_denied(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """The container may not write, read or bind what it needs.

    The pod runs as a user without a home (a policy, OpenShift's random user, `runAsNonRoot`), with a read-only root file
    system, or on a volume that belongs to another user. Caches of the hub, of compiled kernels and of the engine then
    cannot be written: `/.cache` is the sign of a user without HOME. Ports below 1024 need a capability; a script from a
    ConfigMap needs an executable mode.

    In a manifest it is a risk where the root file system is read-only, the image is the engine's own, and no volume is
    mounted over a place that the start must write: the hub's cache of a model that is downloaded, a directory for
    temporary files (vLLM, SGLang), Ollama's `~/.ollama`, where it keeps its key.

    ## Fix

    Set `fsGroup` so that volumes belong to the pod's group; point `HOME`, `HF_HOME`, `XDG_CACHE_HOME` and
    `TRITON_CACHE_DIR` to a writable volume; mount emptyDir volumes over the places that must be writable under a
    read-only root.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
    - https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    container = engine.container
    if pod.exists or pod.completed or pod.partial or pod.log_only or not engine.own_image:
        return
    if not container.spec.security_context.read_only_root_filesystem:
        return
    places = _places(engine)
    if not places:
        return
    model = engine.explicit("model")
    yield Finding(
        role="risk",
        severity="critical",
        confidence="likely",
        summary=f"{container.name} has a read-only root file system, and no volume at "
        f"{', nor at '.join(f'{path}, {what}' for path, what in places.items())}.",
        evidence=(
            pod_evidence(container, "securityContext.readOnlyRootFilesystem", "true"),
            pod_evidence(
                container, "volumeMounts", ", ".join(m.mount_path for m in container.spec.volume_mounts) or "none"
            ),
            *([setting_evidence(container, model)] if model else []),
        ),
        fixes=(fixes.mount_scratch(container, tuple(places), f"Mount an emptyDir at {' and '.join(places)}"),),
    )


def _places(engine: Engine) -> dict[str, str]:
    """The paths under no volume that the start must write, and what it writes there."""
    container, found = engine.container, {}
    if engine.name == "ollama":
        home = _of_env(container, "HOME") or ("" if other_user(container) else "/root")
        if home and not container.mount_over(f"{home}/.ollama"):
            found[f"{home}/.ollama"] = "where Ollama writes its key when it starts"
        return found
    if hub_model(engine) and not any(name in container.env for name in _NO_DOWNLOAD):
        cache = cache_path(engine) or ("/data" if engine.name == "tei" and not other_user(container) else "")
        if cache and not container.mount_over(cache):
            root = "/root/.cache"  # the caches of compiled kernels lie there as well
            found[root if cache.startswith(f"{root}/") else cache] = "where the model is downloaded to"
    working = _WORKING.get(engine.name)
    if working:
        stated = [_of_env(container, name) for name in ("TMPDIR", "TEMP", "TMP", "VLLM_RPC_BASE_PATH")]
        own = container.spec.working_dir
        if not any(container.mount_over(path) for path in (*stated, *_TEMPORARY, *([own] if own else working)) if path):
            found[_TEMPORARY[0]] = f"where {engine.label} makes its sockets"
    return found


def _of_env(container: Container, name: str) -> str:
    """A directory that a variable names, as far as that is known."""
    variable = container.env.get(name)
    return (variable.value or "").rstrip("/") if variable else ""
