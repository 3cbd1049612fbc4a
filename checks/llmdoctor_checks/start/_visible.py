"""What CUDA_VISIBLE_DEVICES leaves a container of its GPUs."""

import re

from kubectl_llmdoctor.api import Container, Evidence, Fix, count_of, fixes, pod_evidence

_VISIBLE = "CUDA_VISIBLE_DEVICES"


def hides_all(container: Container) -> tuple[str, tuple[Evidence, ...], Fix] | None:
    """That the variable has the number that a GPU has on its node: within the container they count from 0."""
    visible, gpus = container.env.get(_VISIBLE), container.limit("nvidia.com/gpu")
    text = (visible.value or "").replace(" ", "") if visible else ""
    if not gpus or not re.fullmatch(r"\d{1,3}(?:,\d{1,3}){0,31}", text) or "NVIDIA_VISIBLE_DEVICES" in container.env:
        return None
    context = container.spec.security_context
    if int(text.partition(",")[0]) < gpus or context.privileged:
        return None  # CUDA takes those before the first that is not there; who is privileged sees all of the node
    return (
        f"{_VISIBLE} of {container.name} is {text}, and its {count_of(gpus, 'GPU')} "
        f"{'is number 0' if gpus == 1 else f'are numbers 0 to {gpus - 1}'}, whatever they are on the node: CUDA finds none.",
        (
            pod_evidence(container, f"env[{_VISIBLE}]", text),
            pod_evidence(container, "resources.limits[nvidia.com/gpu]", str(gpus)),
        ),
        fixes.remove_env(container, _VISIBLE, f"Remove {_VISIBLE}: the container sees its own GPUs alone"),
    )
