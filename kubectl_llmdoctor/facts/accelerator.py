"""Which resources are accelerators, and the GPU of a container, with what says so; facts.gpu finds it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import msgspec

from kubectl_llmdoctor.facts.logs import Line
from kubectl_llmdoctor.tree import rows

if TYPE_CHECKING:
    from kubectl_llmdoctor.catalog.gpus import Gpu

#: The one that nearly every pod asks for, which takes no expression to tell.
_MOST_USUAL = "nvidia.com/gpu"

#: Resources of which each is a GPU of its own, so that several can work as one; slices of one cannot.
WHOLE_GPUS = frozenset({_MOST_USUAL, "amd.com/gpu"})

#: HAMi gives the memory and the cores of an accelerator names of their own (`huawei.com/Ascend910B4-1-memory`, `-core`); they are amounts,
#: no devices.
_GPU_RESOURCES = (
    r"nvidia\.com/(gpu|gpu\.shared|mig-[\w.]+)|amd\.com/(gpu|[a-z]+_nps\d)|gpu\.intel\.com/(i915|xe|tiles)|npu\.intel\.com/accel|"
    r"habana\.ai/gaudi|google\.com/tpu|aws\.amazon\.com/(neuron|neuroncore|neurondevice)|"
    r"huawei\.com/(Ascend\w[\w.-]*|ascend-[\w-]+)(?<!-memory)(?<!-core)|"
    r"[\w-]+(\.[\w-]+)?\.(com|ai)/(gpu|mlu|vgpu|sgpu|dcu|gcu|xpu)|intel\.com/gpu|volcano\.sh/vgpu-number"
)

#: The annotation in which HAMi's device plugin registers the GPUs of a node, whose `nvidia.com/gpu` then counts shares of them.
HAMI_REGISTER = "hami.io/node-nvidia-register"
#: Where HAMi and Volcano write which shares a pod was given: `UUID,type,MiB,cores:` for each, and `;` after each container.
#: Sources: HAMi pkg/device/devices.go, Volcano pkg/scheduler/api/devices/nvidia/vgpu.
GIVEN_SHARES = ("hami.io/vgpu-devices-allocated", "volcano.sh/vgpu-ids-new")
_SHARE = r"(GPU-[\w-]{1,60})(?:\[[\d-]{1,8}\])?,[^,;:]{0,60},(\d{1,9})(?=[,:;]|$)"

#: Fields of a GPU in the older form of what a plugin registers: `GPU-ab…,10,24576,100,NVIDIA-A10,0,true:`.
_FIELDS = 5

Source = Literal["label", "agent", "log", "selector", "nodes"]


def say_devices(accelerators: Mapping[str, int]) -> str:
    """How many of which resource: `2 nvidia.com/gpu`."""
    return ", ".join(f"{number} {resource}" for resource, number in accelerators.items())


def is_accelerator(resource: str) -> bool:
    """Whether a resource name is a GPU or another accelerator."""
    return "/" in resource and (resource == _MOST_USUAL or re.fullmatch(_GPU_RESOURCES, resource) is not None)


class Accelerator(msgspec.Struct, frozen=True, kw_only=True):
    """The GPU that each device of a container is, and what says so.

    `text` is quotable and `ref` its place. `shared` is by how many containers a device may be used at once (time
    slicing, MPS); `memory` is then still the whole device's.
    """

    gpu: Gpu
    source: Source
    ref: str
    text: str
    shared: int = 1
    sharing: str = ""
    line: Line | None = None


def shares_of(labels: Mapping[str, str]) -> int:
    """By how many containers each GPU of a node may be used at once (time slicing, MPS), by its labels; 1 where none says so."""
    named = ("nvidia.com/gpu.replicas", "cloud.google.com/gke-max-shared-clients-per-gpu")
    counts = [labels.get(name, "") for name in named]
    return max(1, *(int(text) for text in counts if text.isdecimal() and len(text) < 8), 1)


def given_shares(annotations: Mapping[str, str]) -> dict[str, int]:
    """The bytes of each GPU, by its UUID, that a pod was given as a share, by its annotations."""
    found: dict[str, int] = {}
    for name in GIVEN_SHARES:
        for uuid, mib in re.findall(_SHARE, str(annotations.get(name) or "")[:20_000]):
            found[uuid] = found.get(uuid, 0) + int(mib) * 2**20
    return found


def registered(text: str) -> int | None:
    """How many GPUs a plugin registered in an annotation; None where it cannot be read, names none, or one that is cut by MIG."""
    if re.search(r'"mode":\s{0,3}"mig"|,mig\b', text):
        return None
    if text.lstrip().startswith("["):
        try:
            devices = msgspec.json.decode(text)
        except msgspec.DecodeError:
            return None
        ids = {str(d.get("id")) for d in rows(devices)}
    else:
        ids = {one.partition(",")[0] for one in text.split(":") if one.count(",") >= _FIELDS - 1}
    return len(ids) or None
