"""A read-only root file system, and no volume where the engine has to write."""

import re
from collections.abc import Iterator
from typing import Any

import msgspec

from kubectl_llmdoctor.api import Container, Engine, Finding, Fix, Pod, check, fixes, pod_evidence, setting_evidence
from llmdoctor_checks.start._images import root_image
from llmdoctor_checks.start._scripts import INSTALLS, PIP, fails_at, quoted
from llmdoctor_checks.start._storage import cache_path, hub_model, other_user

#: Where Python's tempfile looks, behind TMPDIR, TEMP and TMP; last in the working directory.
_TEMPORARY = ("/tmp", "/var/tmp", "/usr/tmp")

#: Working directories of the images whose engines make their sockets with tempfile (vllm/envs.py, VLLM_RPC_BASE_PATH; SGLang's
#: PortArgs).
_WORKING = {"vllm": ("/vllm-workspace", "/workspace"), "sglang": ("/sgl-workspace",)}

#: Where no model is fetched, or from elsewhere.
_NO_DOWNLOAD = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_USE_MODELSCOPE", "SGLANG_USE_MODELSCOPE")

_NON_ROOT = "securityContext.runAsNonRoot"

#: Where pip installs to elsewhere than for its user: into ~/.local, which is in / for a user without a home.
_PIP_ELSEWHERE = r"\s(?:--target|-t|--prefix|--root)\b|\bvenv\b|\bHOME=|\bPYTHONUSERBASE\b|\bPIP_(?:TARGET|PREFIX)\b"

#: Python's own images: their directories are root's, and they have no other user.
_OF_PYTHON = r"(?:docker\.io/)?(?:library/)?python(?:$|[:@])"

#: Kinds that only OpenShift has.
_OF_OPENSHIFT = frozenset({"Route", "SecurityContextConstraints", "DeploymentConfig", "ImageStream", "BuildConfig"})


@check("permission-denied", since="0.1")
def permission_denied(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """The container cannot write, read or bind what it needs.

    The pod runs as a user without a home (a policy, OpenShift's random user, `runAsNonRoot`), with a read-only root file
    system, or on a volume that belongs to another user. Caches of the hub, of compiled kernels and of the engine then
    cannot be written: `/.cache` is the sign of a user without HOME. Ports below 1024 need a capability; a script from a
    ConfigMap needs an executable mode.

    In a manifest it is a risk where the root file system is read-only, the image is the engine's own, and no volume is
    mounted over a place that the start must write: the hub's cache of a model that is downloaded, a directory for
    temporary files (vLLM, SGLang), Ollama's `~/.ollama`, where it keeps its key. So it is where `runAsNonRoot` stands without
    `runAsUser` over an image that runs as root, which the kubelet does not start, and where a script that ends at the first
    error installs packages as another user than root (with pip: in an image of Python's own, where that user has no home to
    install them into). OpenShift gives each pod a user: nothing is said of manifests for it, and it is a note where they are
    written as it wants them (all capabilities dropped, or HOME in a volume).

    ## Fix

    Set `fsGroup` so that volumes belong to the pod's group; point `HOME`, `HF_HOME`, `XDG_CACHE_HOME` and
    `TRITON_CACHE_DIR` to a writable volume; mount emptyDir volumes over the places that must be writable under a
    read-only root.

    ## References

    - https://kubernetes.io/docs/tasks/configure-pod-container/security-context/
    - https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    if pod.exists or pod.completed or pod.partial or pod.log_only:
        return
    if engine.own_image and engine.container.spec.security_context.read_only_root_filesystem:
        yield from _read_only(engine)
    for container in (engine.container, *(c for c in pod.containers if c.role == "init")):
        if other_user(container) and (found := _as_other_user(container)):
            yield found
            return


def _read_only(engine: Engine) -> Iterator[Finding]:
    """No volume where the start must write."""
    container, places = engine.container, _places(engine)
    if not places:
        return
    model = engine.explicit("model")
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"{container.name} has a read-only root file system, and no volume at "
        f"{', nor at '.join(f'{path}, {what}' for path, what in places.items())}.",
        evidence=(
            pod_evidence(container, "securityContext.readOnlyRootFilesystem", "true"),
            pod_evidence(
                container, "volumeMounts", ", ".join(m.mount_path for m in container.spec.volume_mounts) or "none"
            ),
            *([setting_evidence(container, model)] if model else []),
        ),
        fix=fixes.mount_scratch(container, tuple(places), f"Mount an emptyDir at {' and '.join(places)}"),
    )


def _as_other_user(container: Container) -> Finding | None:
    """An image of root's, or a script that only root may run, in a container that must not be root."""
    who = _user(container)
    if who is None:
        return None
    where, field, value = who
    evidence = pod_evidence(where, field, value)
    found = fails_at(container, INSTALLS)
    pip = _pip_installs(container) if found is None and field != _NON_ROOT else None
    if runs := found or pip:
        path, line, command = runs
        why = f"which only root may, and {field} is {value}: it ends there."
        fix = "Take an image that has the packages"
        if pip:
            why = f"and {field} is {value}, a user without a home in its image: pip may write neither to its packages nor to ~/.local, "
            why += "and it ends there."
            fix = f"Set HOME of {container.name} to a folder that it may write (/tmp), or take an image that has the packages"
        return Finding(
            role="risk",
            severity="critical",
            summary=f"The script of {container.name} runs `{command}`, {why}",
            evidence=(pod_evidence(container, path, quoted(line)), evidence),
            fix=fixes.advice(f"{fix}, in {fixes.edited(container.pod)}"),
        )
    if field == _NON_ROOT and root_image(container) and not _on_openshift(container.pod):
        given = _as_openshift_wants(container)
        return Finding(
            role="note" if given else "risk",
            severity="info" if given else "critical",
            confidence="possible" if given else "likely",
            summary=f"{container.name} must not run as root, its image {container.spec.image} does, and nothing names another user: "
            f"the kubelet does not start it{', unless the cluster gives it a user, as OpenShift does' if given else ''}.",
            evidence=(evidence, pod_evidence(container, "image", container.spec.image)),
            fix=_as_a_user(container),
        )
    return None


#: What a user without a name and a home of its own needs: torch asks for the name, caches go below the home.
_NEEDED = {"HOME": "/tmp", "USER": "llm", "HF_HOME": "/tmp/hf"}


class _Home(msgspec.Struct, frozen=True):
    """The home of a container that is to run as a user of its own, where it has none or root's.

    Only root may enter /root, whoever may write to what is mounted below it; a volume in its place is the group's.
    """

    container: Container

    @property
    def of_root(self) -> bool:
        home = self.container.env.get("HOME")
        return home is None or str(home.value or "").rstrip("/") == "/root"

    @property
    def _paths(self) -> list[str]:
        return [mount.mount_path.rstrip("/") for mount in self.container.spec.volume_mounts]

    @property
    def kept(self) -> bool:
        """Whether a volume is in the place of root's home."""
        return self.of_root and "/root" in self._paths

    @property
    def moved(self) -> list[tuple[int, str]]:
        """The mounts below it, which move with the home, each with its place in the list."""
        if not self.of_root or self.kept:
            return []
        return [(at, path) for at, path in enumerate(self._paths) if path.startswith("/root/")]

    @property
    def variables(self) -> dict[str, str]:
        """What must be set, or set otherwise."""
        env, moved = self.container.env, self.moved
        needed = {name: value for name, value in sorted(_NEEDED.items()) if name not in env}
        if moved or self.kept:
            needed.pop("HF_HOME", None)
        for one in self.container.spec.env if moved else ():
            if (value := str(one.value or "")).startswith("/root/"):
                needed[one.name] = f"/tmp/{value[6:]}"
        if self.of_root and (self.kept or "HOME" in env):
            needed["HOME"] = "/root" if self.kept else _NEEDED["HOME"]
        return needed

    @property
    def told(self) -> list[dict[str, Any]]:
        """What is changed of arguments that name a mount that moves."""
        moved = self.moved
        return [
            {
                "op": "replace",
                "path": f"{self.container.pointer}/{place[:-1].replace('[', '/')}",
                "value": word.replace("/root/", "/tmp/"),
            }
            for place, word in (self.container.words if moved and not self.container.told else ())
            if any(path in word for _, path in moved)
        ]


def _as_a_user(container: Container) -> Fix:
    """A user with a number, a group for its volumes, and a home, where the container has none or root's, whose mounts move with it."""
    home = _Home(container)
    told = home.told
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": f"{container.pointer}/securityContext/runAsUser", "value": 1000},
        {"op": "add", "path": "/securityContext/fsGroup", "value": 1000},
        *(
            {"op": "replace", "path": f"{container.pointer}/volumeMounts/{at}/mountPath", "value": f"/tmp/{path[6:]}"}
            for at, path in home.moved
        ),
        *told,
    ]
    summary = f"Run {container.name} as user 1000, with a group for its volumes and a home that it may write"
    summary += ", which has what is mounted below /root" if home.moved else ", the volume at /root" if home.kept else ""
    summary += ", also by its arguments" if told else ""
    return fixes.patch(container.pod, summary, operations + fixes.variable_operations(container, home.variables)[0])


def _user(container: Container) -> tuple[Container | Pod, str, str] | None:
    """What says that the container runs as another user than root: of which object, the field, its value."""
    contexts = ((container, container.spec.security_context), (container.pod, container.pod.spec.security_context))
    for where, context in contexts:
        if context.run_as_user is not None:
            return (where, "securityContext.runAsUser", str(context.run_as_user)) if context.run_as_user else None
    for where, context in contexts:
        if context.run_as_non_root is not None:
            return (where, _NON_ROOT, "true") if context.run_as_non_root else None
    return None


def _pip_installs(container: Container) -> tuple[str, str, str] | None:
    """The same of pip, which fails where its user may write neither to the image nor to a home."""
    named = any(name in container.env for name in ("HOME", "PYTHONUSERBASE", "PIP_TARGET", "PIP_PREFIX", "PIP_USER"))
    mounted = any(
        re.search(r"/(?:\.local|site-packages)\b", mount.mount_path) for mount in container.spec.volume_mounts
    )
    if named or mounted or container.spec.env_from or not re.match(_OF_PYTHON, container.spec.image):
        return None
    if any(re.search(_PIP_ELSEWHERE, text) for _, text in container.words):
        return None
    return fails_at(container, PIP)


def _on_openshift(pod: Pod) -> bool:
    """Whether the manifests are for OpenShift, which gives each pod a user of its own."""
    marks = (pod.namespace, *pod.labels, *pod.annotations)
    return bool(_OF_OPENSHIFT.intersection(pod.cluster.kinds())) or any("openshift" in str(mark) for mark in marks)


def _as_openshift_wants(container: Container) -> bool:
    """Whether what its restricted policy asks for is there but a user, or HOME is in a volume, as a user without a home needs it."""
    homes = ((c, _of_env(c, "HOME")) for c in container.pod.containers)
    given = any(home.startswith("/") and c.mount_over(home) for c, home in homes)
    return given or "ALL" in container.spec.security_context.capabilities.get("drop", ())


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
    if working := _WORKING.get(engine.name):
        stated = [_of_env(container, name) for name in ("TMPDIR", "TEMP", "TMP", "VLLM_RPC_BASE_PATH")]
        own = container.spec.working_dir
        if not any(container.mount_over(path) for path in (*stated, *_TEMPORARY, *([own] if own else working)) if path):
            found[_TEMPORARY[0]] = f"where {engine.label} makes its sockets"
    return found


def _of_env(container: Container, name: str) -> str:
    """A directory that a variable names, as far as that is known."""
    variable = container.env.get(name)
    return (variable.value or "").rstrip("/") if variable else ""
