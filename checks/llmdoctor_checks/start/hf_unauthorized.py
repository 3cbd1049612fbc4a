"""A gated model, and no token for the Hub."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Engine,
    Finding,
    Logs,
    Pod,
    check,
    fixes,
    parse_time,
    phase_of,
    pod_evidence,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.models import gated

_TOKENS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HUGGINGFACE_TOKEN", "HF_TOKEN_PATH", "HUGGINGFACE_HUB_TOKEN",
    "HF_API_TOKEN",
)  # fmt: skip

#: A gated model is refused with the first file, within a minute where the Hub is reached.
_REFUSED_SECONDS = 300


@check("hf-unauthorized", since="0.1")
def hf_unauthorized(pod: Pod, engine: Engine, logs: Logs | None) -> Iterator[Finding]:
    """The Hugging Face Hub refuses the model: no token, a wrong one, or a licence not accepted.

    A gated or private repository answers 401 without a valid token, and 403 with a token whose account has not
    accepted the model's licence. For a repository that does not exist the Hub answers anonymous users with 401 as
    well, so check the name first. The token must reach the process that downloads: under KServe that is the init
    container `storage-initializer`, not the server.

    ## Fix

    Accept the licence on the model's page with the account that owns the token, then give the token as HF_TOKEN:

        kubectl -n NAMESPACE create secret generic hf-token --from-literal=HF_TOKEN="${HF_TOKEN:?}"
        env: [{name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hf-token, key: HF_TOKEN}}}]

    ## References

    - https://huggingface.co/docs/hub/models-gated
    - https://huggingface.co/docs/huggingface_hub/package_reference/environment_variables
    """
    model = engine.explicit("model")
    if model is None or not isinstance(model.value, str) or not gated(model.value):
        return
    container = engine.container
    if pod.ready or pod.log_only or _has_token(pod, container) or engine.explicit("hf_token"):
        return
    if container.spec.env_from or container.env.get("HF_HUB_OFFLINE") or engine.explicit("download_dir"):
        return  # a token may come from there, or none is needed
    if pod.partial and not pod.exists:
        return  # a runtime or the operator's own settings may give one
    if _cached(container) or any(phase_of(log) for log in container.own_logs(logs)):
        return  # it is there already, or the log shows that it was read
    if _ran_on(container):
        return  # a server that the Hub refuses ends at once
    yield Finding(
        role="risk",
        summary=f"{model.value} is gated on the Hugging Face Hub, and container {container.name} has no token.",
        evidence=(
            setting_evidence(container, model),
            pod_evidence(container, "env", "none of HF_TOKEN, HUGGING_FACE_HUB_TOKEN"),
        ),
        fix=fixes.set_credential(
            container,
            "HF_TOKEN",
            "hf-token",
            f"Give the token of an account that accepted the licence as HF_TOKEN to {container.name}",
        ),
    )


def _ran_on(container: Container) -> bool:
    """Whether an instance ran for longer than the Hub's refusal, the first answer that a server gets, would have let it."""
    ended = container.terminated
    spans = (
        (container.started, container.pod.cluster.now),
        (ended and parse_time(ended.started_at), ended and parse_time(ended.finished_at)),
    )
    return any(a and b and (b - a).total_seconds() >= _REFUSED_SECONDS for a, b in spans)


def _has_token(pod: Pod, container: Container) -> bool:
    """Whether a token may reach the container: a variable, or a mounted Secret."""
    for name in _TOKENS:
        variable = container.env.get(name)
        if variable is not None and variable.value != "":
            return True
    for mount in container.spec.volume_mounts:
        volume = pod.volume(mount.name)
        if volume and (volume.secret or volume.projected):
            return True
    return False


def _cached(container: Container) -> bool:
    """Whether the Hub's cache lies on a volume that may hold the model already."""
    home = next(
        (v.value for n in ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") if (v := container.env.get(n))), None
    )
    mount = container.mount_over(home or "/root/.cache/huggingface")
    volume = container.pod.volume(mount.name) if mount else None
    return bool(volume and not volume.empty_dir)
