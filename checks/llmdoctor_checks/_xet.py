"""The hub's Xet storage, which huggingface_hub downloads from where the package hf_xet is there."""

from kubectl_llmdoctor.api import Container, Fix, fixes

#: What has huggingface_hub download plainly (constants.py).
_OFF = "HF_HUB_DISABLE_XET"


def without_xet(container: Container, what: str) -> tuple[Fix, ...]:
    """Plain HTTP in the place of Xet, where the container was not told so yet."""
    told = container.env.get(_OFF)
    if told is not None and str(told.value).lower() not in ("0", "", "false", "no", "off"):
        return ()
    return (fixes.set_env(container, _OFF, "1", f"Download {what} without Xet, which stands still at times: {_OFF}=1"),)
