"""The hub's Xet storage, which huggingface_hub downloads from where the package hf_xet is there."""

from kubectl_llmdoctor.api import Container, Fix, fixes

#: What has huggingface_hub download plainly (constants.py), and what has an engine download nothing from the hub.
_OFF = "HF_HUB_DISABLE_XET"
_NOT_FROM_THE_HUB = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_USE_MODELSCOPE", "SGLANG_USE_MODELSCOPE")
_NO = ("0", "", "false", "no", "off")


def without_xet(container: Container, what: str) -> tuple[Fix, ...]:
    """Plain HTTP in the place of Xet, where the container was not told so yet."""
    told = container.env.get(_OFF)
    if told is not None and str(told.value).lower() not in _NO:
        return ()
    if any(name in container.env and str(container.env[name].value).lower() not in _NO for name in _NOT_FROM_THE_HUB):
        return ()
    return (fixes.set_env(container, _OFF, "1", f"Download {what} without Xet, which stands still at times: {_OFF}=1"),)
