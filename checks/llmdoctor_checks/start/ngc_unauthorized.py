"""A NIM that has no key to download its model with."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Pod, check, fixes, pod_evidence

#: Where a NIM keeps what it downloaded, unless NIM_CACHE_PATH names another folder.
_CACHE = "/opt/nim/.cache"

#: Variables by which it takes its model, or the key, from elsewhere than NGC by NGC_API_KEY.
_FROM_ELSEWHERE = (
    "NIM_DISABLE_MODEL_DOWNLOAD", "NGC_API_KEY", "NGC_CLI_API_KEY", "NIM_NGC_API_KEY", "NIM_MODEL_NAME",
    "NIM_MODEL_PATH", "NIM_FT_MODEL", "NIM_REPOSITORY_OVERRIDE", "HF_TOKEN",
)  # fmt: skip

#: The first release for which NVIDIA's documentation asks for no key (but for those of its production branch).
_WITHOUT_KEY = "2.0.10"

#: Where NVIDIA publishes them.
_OF_NIM = "nvcr.io/nim/"

#: Kinds to whose pods no operator gives the key; NVIDIA's does, from `authSecret`.
_PLAIN = frozenset({"Pod", "Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "LeaderWorkerSet"})


@check("ngc-unauthorized", since="0.1")
def ngc_unauthorized(pod: Pod, engine: Engine) -> Iterator[Finding]:
    """NVIDIA's registry refuses to give the model.

    A NIM container downloads its model from NGC at its first start and needs an API key in `NGC_API_KEY` (from 2.0.10 on only
    those of the production branch do). The key is missing, expired or belongs to an organisation without a right to the model.
    The image was pulled with another secret (user `$oauthtoken`), so a pull that works says nothing about the key in the
    container.

    In a manifest it is a risk where the release is known to need a key, nothing gives one to the container, and no volume may
    hold the model already; a note, where the tag does not tell the release.

    ## Fix

    Create a key in NGC, store it in a Secret and set it as `NGC_API_KEY`; accept the model's terms in the catalogue. In
    air-gapped clusters fill the cache beforehand.

    ## References

    - https://docs.nvidia.com/nim/large-language-models/latest/getting-started.html
    - https://docs.nvidia.com/ngc/latest/ngc-user-guide.html
    """
    container = engine.container
    plain = pod.template_of is not None and pod.template_of.kind in _PLAIN
    if pod.exists or pod.partial or pod.lent or not plain or not container.spec.image.startswith(_OF_NIM):
        return
    spec = container.spec
    newer = engine.at_least(_WITHOUT_KEY)
    known = engine.name == "nim" and engine.found.argv_known and newer is not True
    if not known or spec.env_from or any(name in container.env for name in _FROM_ELSEWHERE):
        return
    volumes = {mount.name: pod.volume(mount.name) for mount in spec.volume_mounts}
    if any(volume is None or volume.secret or volume.projected or volume.csi for volume in volumes.values()):
        return  # the key may be in a file of it
    cache = container.env.get("NIM_CACHE_PATH")
    over = container.mount_over(str(cache.value) if cache and cache.value else _CACHE)
    # some releases keep it in a cache of another name (/home/nvs/.cache/nim)
    caches = [over, *(mount for mount in spec.volume_mounts if "cache" in mount.mount_path)]
    if any(mount and (volume := volumes[mount.name]) and not volume.empty_dir for mount in caches):
        return  # which may hold the model already
    yield Finding(
        role="risk" if newer is False else "note",
        confidence="likely" if newer is False else "possible",
        summary=f"{engine.title} downloads its model from NGC when it first starts, and container {container.name} has no NGC_API_KEY"
        + ("." if newer is False else f", which releases before {_WITHOUT_KEY} need."),
        evidence=(pod_evidence(container, "image", spec.image), pod_evidence(container, "env", "no NGC_API_KEY")),
        fix=fixes.set_credential(
            container,
            "NGC_API_KEY",
            "ngc-api",
            f"Give the key of an organisation that may use this model as NGC_API_KEY to {container.name}",
        ),
    )
