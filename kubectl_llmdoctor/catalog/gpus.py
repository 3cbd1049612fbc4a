"""GPUs that serve language models: memory, compute capability, links; found by label, name or instance type.

Sources. `reported` is what nvidia-smi and GPU Feature Discovery's `nvidia.com/gpu.memory` say, in MiB (drivers before
R515 said less by what they reserve). `memory` is the total of cudaMemGetInfo, which PyTorch and llama.cpp see: the
lowest that public logs of vLLM ("Free memory on device (x/79.18 GiB)"), llama.cpp ("VRAM: 81081 MiB") and PyTorch
("total capacity of") show; drivers differ by half a percent. Where no such log was found `measured` is False and it is
`reported` less 1 % (from 90 GiB on) or 2.5 %, which is what the other cards of that size lose at most. Compute
capability: developer.nvidia.com/cuda-gpus. MIG slices: `nvidia-smi mig -lgip` and GPU Feature Discovery on such nodes.
Cloud names: the documentation of GKE's accelerator labels, of Karpenter's `instance-gpu-name`, of the machine types of
AWS, Azure and Google. AMD's memory is what rocm-smi says; a GCD of an MI250 is a device by itself.
"""

from __future__ import annotations

import re
from functools import cache
from typing import Literal

import msgspec

from kubectl_llmdoctor.expressions import expression

_MIB = 2**20

Vendor = Literal["nvidia", "amd", "intel"]


class Gpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU model, or a slice of one.

    `nvlink` is None where it depends on a bridge or where several models of this name differ; `compute` is None for
    other makers than NVIDIA.
    """

    name: str
    #: bytes in total as a program sees them
    memory: int
    #: MiB in total as nvidia-smi and the node's label say it
    reported: int
    vendor: Vendor = "nvidia"
    compute: tuple[int, int] | None = None
    nvlink: bool | None = None
    #: whether `memory` was read from a log, rather than derived from `reported`
    measured: bool = True
    #: 8-bit floating point in hardware
    fp8: bool = False
    #: the MIG profile, `1g.10gb`; empty for a whole GPU
    profile: str = ""

    @property
    def capability(self) -> str:
        """`8.9`; empty when it is none of NVIDIA's."""
        return f"{self.compute[0]}.{self.compute[1]}" if self.compute else ""


class _Row(msgspec.Struct, frozen=True):
    name: str
    #: words that its name always has
    need: str
    #: words of which one must stand there, so that it is not taken for its more usual sibling
    either: str
    #: words that may stand there too
    may: str
    reported: int
    seen: int
    compute: str
    nvlink: bool | None


_BRIDGE = None

# name | need | either | may | reported MiB | seen MiB | compute capability | NVLink
_NVIDIA: tuple[_Row, ...] = (
    # Blackwell Ultra and Blackwell
    _Row("GB300", "gb300", "", "288gb 277gb", 284208, 0, "10.3", True),
    _Row("B300", "b300", "", "sxm6 sxm 288gb 270gb 275gb", 275040, 0, "10.3", True),
    _Row("GB200", "gb200", "", "186gb 192gb 189gb", 189471, 188728, "10.0", True),
    _Row("B200", "b200", "", "sxm6 sxm 180gb 192gb 183gb", 183359, 182642, "10.0", True),
    _Row("GB10", "gb10", "", "", 122572, 122572, "12.1", False),
    _Row("RTX PRO 6000 Blackwell", "pro 6000", "", "rtx blackwell server max-q 96gb", 97887, 97247, "12.0", False),
    _Row("RTX PRO 5000 Blackwell 72GB", "pro 5000", "72gb", "rtx blackwell", 73415, 0, "12.0", False),
    _Row("RTX PRO 5000 Blackwell", "pro 5000", "", "rtx blackwell 48gb", 48935, 0, "12.0", False),
    _Row("RTX PRO 4500 Blackwell", "pro 4500", "", "rtx blackwell server 32gb", 32623, 0, "12.0", False),
    _Row("RTX PRO 4000 Blackwell", "pro 4000", "", "rtx blackwell sff 24gb", 24467, 0, "12.0", False),
    _Row("GeForce RTX 5090 D v2", "5090 d v2", "", "rtx geforce 24gb", 24455, 24454, "12.0", False),
    _Row("GeForce RTX 5090", "5090", "", "rtx geforce d 32gb", 32607, 32109, "12.0", False),
    _Row("GeForce RTX 5080", "5080", "", "rtx geforce 16gb", 16303, 0, "12.0", False),
    _Row("GeForce RTX 5070 Ti", "5070 ti", "", "rtx geforce 16gb", 16303, 15808, "12.0", False),
    _Row("GeForce RTX 5070", "5070", "", "rtx geforce 12gb", 12227, 0, "12.0", False),
    _Row("GeForce RTX 5060 Ti 16GB", "5060 ti", "", "rtx geforce 16gb", 16311, 15825, "12.0", False),
    _Row("GeForce RTX 5060 Ti 8GB", "5060 ti", "", "rtx geforce 8gb", 8151, 0, "12.0", False),
    # Hopper
    _Row("GH200 144GB", "gh200", "144gb 144g", "hbm3e", 146831, 0, "9.0", True),
    _Row("GH200 96GB", "gh200", "", "96gb 480gb 120gb hbm3", 97871, 96768, "9.0", True),
    _Row("H200 NVL", "h200", "nvl", "141gb", 143771, 143073, "9.0", _BRIDGE),
    _Row("H200", "h200", "", "sxm sxm5 141gb hbm3e", 143771, 143073, "9.0", True),
    _Row("H100 NVL", "h100", "nvl 94gb", "pcie hbm3", 95830, 95334, "9.0", _BRIDGE),
    _Row("H100 SXM 96GB", "h100", "96gb", "sxm sxm5 hbm3", 97871, 0, "9.0", True),
    _Row("H100 SXM 64GB", "h100", "64gb", "sxm sxm5 hbm2", 65247, 0, "9.0", True),
    _Row("H100 PCIe", "h100", "", "pcie 80gb hbm2e", 81559, 81008, "9.0", _BRIDGE),
    _Row("H100 SXM", "h100", "", "sxm sxm5 80gb hbm3 mega", 81559, 81008, "9.0", True),
    _Row("H800", "h800", "", "sxm sxm5 pcie nvl 80gb hbm3", 81559, 81008, "9.0", _BRIDGE),
    _Row("H20 141GB", "h20", "141gb 3e h20-3e", "hbm3e", 143771, 143073, "9.0", True),
    _Row("H20", "h20", "", "96gb hbm3", 97871, 97272, "9.0", True),
    # Ada Lovelace
    _Row("L40S", "l40s", "", "48gb 45gb", 46068, 45467, "8.9", False),
    _Row("L40", "l40", "", "48gb", 46068, 45467, "8.9", False),
    _Row("L20", "l20", "", "48gb", 46068, 45467, "8.9", False),
    _Row("L4", "l4", "", "24gb", 23034, 22563, "8.9", False),
    _Row("L2", "l2", "", "24gb", 23034, 0, "8.9", False),
    _Row("RTX 6000 Ada", "6000", "", "rtx ada 48gb", 49140, 48506, "8.9", False),
    _Row("RTX 5880 Ada", "5880", "", "rtx ada 48gb", 49140, 0, "8.9", False),
    _Row("RTX 5000 Ada", "5000", "", "rtx ada 32gb", 32760, 0, "8.9", False),
    _Row("RTX 4500 Ada", "4500", "", "rtx ada 24gb", 24570, 0, "8.9", False),
    _Row("RTX 4000 Ada", "4000", "", "rtx ada sff 20gb", 20475, 0, "8.9", False),
    _Row("GeForce RTX 4090", "4090", "", "rtx geforce d 24gb", 24564, 24080, "8.9", False),
    _Row("GeForce RTX 4080 SUPER", "4080 super", "", "rtx geforce 16gb", 16376, 0, "8.9", False),
    _Row("GeForce RTX 4080", "4080", "", "rtx geforce 16gb", 16376, 16076, "8.9", False),
    _Row("GeForce RTX 4070 Ti SUPER", "4070 ti super", "", "rtx geforce 16gb", 16376, 0, "8.9", False),
    _Row("GeForce RTX 4070 Ti", "4070 ti", "", "rtx geforce 12gb", 12282, 0, "8.9", False),
    _Row("GeForce RTX 4070 SUPER", "4070 super", "", "rtx geforce 12gb", 12282, 0, "8.9", False),
    _Row("GeForce RTX 4070", "4070", "", "rtx geforce 12gb", 12282, 11866, "8.9", False),
    _Row("GeForce RTX 4060 Ti 16GB", "4060 ti", "", "rtx geforce 16gb", 16380, 0, "8.9", False),
    _Row("GeForce RTX 4060 Ti 8GB", "4060 ti", "", "rtx geforce 8gb", 8188, 0, "8.9", False),
    # Ampere
    _Row("A100 SXM 80GB", "a100", "", "sxm sxm4 80gb", 81920, 81037, "8.0", True),
    _Row("A100 PCIe 80GB", "a100", "", "pcie 80gb", 81920, 81037, "8.0", _BRIDGE),
    _Row("A100 SXM 40GB", "a100", "", "sxm sxm4 40gb", 40960, 40337, "8.0", True),
    _Row("A100 PCIe 40GB", "a100", "", "pcie 40gb", 40960, 40337, "8.0", _BRIDGE),
    _Row("A800 80GB", "a800", "", "sxm sxm4 pcie 80gb", 81920, 81037, "8.0", _BRIDGE),
    _Row("A800 40GB", "a800", "", "40gb active pcie", 40960, 0, "8.0", _BRIDGE),
    _Row("A30", "a30", "", "pcie 24gb", 24576, 24064, "8.0", _BRIDGE),
    _Row("A40", "a40", "", "pcie 48gb", 46068, 45403, "8.6", _BRIDGE),
    _Row("A16", "a16", "", "16gb", 15356, 0, "8.6", False),
    _Row("A10G", "a10g", "", "24gb", 23028, 22502, "8.6", False),
    _Row("A10", "a10", "", "24gb", 23028, 22502, "8.6", False),
    _Row("A10M", "a10m", "", "20gb", 20475, 0, "8.6", False),
    _Row("A2", "a2", "", "16gb", 15356, 0, "8.6", False),
    _Row("RTX A6000", "a6000", "", "rtx 48gb", 49140, 48506, "8.6", _BRIDGE),
    _Row("RTX A5500", "a5500", "", "rtx 24gb", 24564, 0, "8.6", _BRIDGE),
    _Row("RTX A5000", "a5000", "", "rtx 24gb", 24564, 24080, "8.6", _BRIDGE),
    _Row("RTX A4500", "a4500", "", "rtx 20gb", 20470, 0, "8.6", _BRIDGE),
    _Row("RTX A4000", "a4000", "", "rtx 16gb", 16376, 0, "8.6", False),
    _Row("GeForce RTX 3090 Ti", "3090 ti", "", "rtx geforce 24gb", 24564, 24080, "8.6", _BRIDGE),
    _Row("GeForce RTX 3090", "3090", "", "rtx geforce 24gb", 24576, 24111, "8.6", _BRIDGE),
    _Row("GeForce RTX 3080 Ti", "3080 ti", "", "rtx geforce 12gb", 12288, 0, "8.6", False),
    _Row("GeForce RTX 3080 12GB", "3080", "", "rtx geforce 12gb", 12288, 0, "8.6", False),
    _Row("GeForce RTX 3080 10GB", "3080", "", "rtx geforce 10gb", 10240, 0, "8.6", False),
    _Row("GeForce RTX 3070", "3070", "", "rtx geforce 8gb", 8192, 0, "8.6", False),
    _Row("GeForce RTX 3060 Ti", "3060 ti", "", "rtx geforce 8gb", 8192, 0, "8.6", False),
    _Row("GeForce RTX 3060", "3060", "", "rtx geforce 12gb", 12288, 11902, "8.6", False),
    _Row("Jetson AGX Orin 64GB", "orin", "", "agx jetson 64gb", 62841, 0, "8.7", False),
    # Turing and older
    _Row("T4", "t4", "", "16gb", 15360, 14909, "7.5", False),
    _Row("T4G", "t4g", "", "16gb", 15360, 14909, "7.5", False),
    _Row("Quadro RTX 8000", "rtx 8000", "", "quadro 48gb", 49152, 0, "7.5", _BRIDGE),
    _Row("Quadro RTX 6000", "rtx 6000", "", "quadro 24gb", 24576, 0, "7.5", _BRIDGE),
    _Row("Quadro RTX 5000", "rtx 5000", "", "quadro 16gb", 16384, 15927, "7.5", _BRIDGE),
    _Row("TITAN RTX", "titan rtx", "", "24gb", 24576, 0, "7.5", _BRIDGE),
    _Row("GeForce RTX 2080 Ti", "2080 ti", "", "rtx geforce 11gb", 11264, 0, "7.5", _BRIDGE),
    _Row("V100 32GB", "v100", "", "sxm sxm2 sxm3 32gb pcie", 32768, 32494, "7.0", _BRIDGE),
    _Row("V100 16GB", "v100", "", "sxm sxm2 16gb pcie", 16384, 16151, "7.0", _BRIDGE),
    _Row("V100S 32GB", "v100s", "", "pcie 32gb", 32768, 32494, "7.0", _BRIDGE),
    _Row("TITAN V", "titan v", "", "12gb", 12288, 0, "7.0", False),
    _Row("P100 16GB", "p100", "", "sxm sxm2 16gb pcie", 16384, 16276, "6.0", _BRIDGE),
    _Row("P100 12GB", "p100", "", "12gb pcie", 12288, 0, "6.0", False),
    _Row("P40", "p40", "", "24gb", 23040, 22905, "6.1", False),
    _Row("P4", "p4", "", "8gb", 7680, 0, "6.1", False),
    _Row("GeForce GTX 1080 Ti", "1080 ti", "", "gtx geforce 11gb", 11264, 0, "6.1", False),
    _Row("M60", "m60", "", "8gb", 7680, 0, "5.2", False),
    _Row("K80", "k80", "", "12gb", 11441, 11441, "3.7", False),
)

# name | words | MiB | 8-bit floating point
_OTHERS: tuple[tuple[str, Vendor, str, int, bool], ...] = (
    ("Instinct MI355X", "amd", "mi355x", 294896, True),
    ("Instinct MI350X", "amd", "mi350x", 294896, True),
    ("Instinct MI325X", "amd", "mi325x", 262128, True),
    ("Instinct MI308X", "amd", "mi308x", 196592, True),
    ("Instinct MI300X", "amd", "mi300x", 196592, True),
    ("Instinct MI300A", "amd", "mi300a", 131056, True),
    ("Instinct MI250X", "amd", "mi250x", 65520, False),
    ("Instinct MI250", "amd", "mi250", 65520, False),
    ("Instinct MI210", "amd", "mi210", 65520, False),
    ("Instinct MI100", "amd", "mi100", 32752, False),
    ("Radeon PRO W7900", "amd", "w7900", 49136, False),
    ("Radeon RX 7900 XTX", "amd", "7900 xtx", 24560, False),
    ("Radeon AI PRO R9700", "amd", "r9700", 32624, True),
    ("Gaudi 3", "intel", "gaudi 3", 131072, True),
    ("Gaudi 2", "intel", "gaudi 2", 98304, True),
)

#: Words that tell models of one name apart; any other word of a label says nothing about the model.
_TELLING = frozenset((
    "pcie", "sxm", "sxm2", "sxm3", "sxm4", "sxm5", "sxm6", "nvl", "hbm2", "hbm2e", "hbm3", "hbm3e", "3e", "144g", "ti",
    "super", "d", "v2", "ada", "pro", "blackwell", "server", "sff", "max-q", "active", "laptop", "mobile", "quadro",
    "geforce", "gtx", "titan",
))  # fmt: skip

#: Names in which clouds say less than the model.
_CLOUD = {
    "nvidia-tesla-a100": "A100 SXM 40GB",
    "nvidia-a100-80gb": "A100 SXM 80GB",
    "nvidia-h100-80gb": "H100 SXM",
    "nvidia-h100-mega-80gb": "H100 SXM",
    "nvidia-tesla-v100": "V100 16GB",
    "nvidia-tesla-p100": "P100 16GB",
}

#: Machine types of AWS, Google and Azure with whole GPUs: a pattern of the type, the model.
_INSTANCES = (
    (r"g4dn\..+", "T4"),
    (r"g5g\..+", "T4G"),
    (r"g5\..+", "A10G"),
    (r"gr?6\..+", "L4"),
    (r"g6e\..+", "L40S"),
    (r"g7e\..+", "RTX PRO 6000 Blackwell"),
    (r"p3dn\..+", "V100 32GB"),
    (r"p3\..+", "V100 16GB"),
    (r"p4d\..+", "A100 SXM 40GB"),
    (r"p4de\..+", "A100 SXM 80GB"),
    (r"p5\..+", "H100 SXM"),
    (r"p5en?\..+", "H200"),
    (r"p6-b200\..+", "B200"),
    (r"p6-b300\..+", "B300"),
    (r"p6e-gb200\..+", "GB200"),
    (r"a2-(high|mega)gpu-.+", "A100 SXM 40GB"),
    (r"a2-ultragpu-.+", "A100 SXM 80GB"),
    (r"a3-(high|mega|edge)gpu-.+", "H100 SXM"),
    (r"a3-ultragpu-.+", "H200"),
    (r"a4-highgpu-.+", "B200"),
    (r"a4x-highgpu-.+", "GB200"),
    (r"g2-standard-.+", "L4"),
    (r"standard_n[cd]\d+ad?s_t4_v3", "T4"),
    (r"standard_nc\d+r?s_v3", "V100 16GB"),
    (r"standard_nd40rs_v2", "V100 32GB"),
    (r"standard_nd96asr_v4", "A100 SXM 40GB"),
    (r"standard_nd96am?sr_a100_v4", "A100 SXM 80GB"),
    (r"standard_nc(24|48|96)ads_a100_v4", "A100 PCIe 80GB"),
    (r"standard_nv(36|72)adm?s_a10_v5", "A10"),
    (r"standard_nd96isr_h100_v5", "H100 SXM"),
    (r"standard_nc(40|80)adi?s_h100_v5", "H100 NVL"),
    (r"standard_nd96isr_h200_v5", "H200"),
    (r"standard_nd96isr_mi300x_v5", "Instinct MI300X"),
)

#: How many GPUs a machine type has, where that is in none of the clouds' names (`a2-highgpu-4g` says it): their pages of the
#: families named. The first pattern that fits counts.
_COUNTS = (
    (r"g4dn\.metal", 8),
    (r"g4dn\.12xlarge", 4),
    (r"g(?:5|6|6e)\.48xlarge", 8),
    (r"g(?:5|6|6e)\.(?:12|24)xlarge", 4),
    (r"(?:g4dn|g5|gr?6|g6e)\.\d{0,2}xlarge", 1),
    (r"p3\.2xlarge|p5\.4xlarge", 1),
    (r"p3\.8xlarge", 4),
    (r"p3\.16xlarge|p3dn\.24xlarge|p4de?\.24xlarge|p5(?:en?)?\.48xlarge|p6-b[23]00\.48xlarge", 8),
    (r"g2-standard-(?:4|8|12|16|32)", 1),
    (r"g2-standard-24", 2),
    (r"g2-standard-48", 4),
    (r"g2-standard-96", 8),
    (r"standard_nc(?:4|8|16)as_t4_v3|standard_nc6s_v3|standard_nc24ads_a100_v4|standard_nc40adi?s_h100_v5", 1),
    (r"standard_nc12s_v3|standard_nc48ads_a100_v4|standard_nc80adi?s_h100_v5", 2),
    (r"standard_nc64as_t4_v3|standard_nc24r?s_v3|standard_nc96ads_a100_v4", 4),
    (r"standard_nd96\w{1,24}|standard_nd40rs_v2", 8),
)

# MiB of a slice, by a word of the model's name and the profile.
_SLICES: dict[str, dict[str, int]] = {
    "A30": {"1g.6gb": 5952, "2g.12gb": 11968, "4g.24gb": 24064},
    "A100 40GB": {"1g.5gb": 4864, "1g.10gb": 9856, "2g.10gb": 9856, "3g.20gb": 19968, "4g.20gb": 19968},
    "A100 80GB": {"1g.10gb": 9728, "1g.20gb": 19968, "2g.20gb": 19968, "3g.40gb": 40192, "4g.40gb": 40192},
    "H100 80GB": {"1g.10gb": 9856, "1g.20gb": 19968, "2g.20gb": 19968, "3g.40gb": 40192, "4g.40gb": 40192},
    "H100 94GB": {"1g.12gb": 11008, "1g.24gb": 22144},
    "GH200 96GB": {"1g.12gb": 11008, "1g.24gb": 22144},
    "H200": {"1g.18gb": 16384},
    "B200": {"1g.23gb": 20992},
}
_SLICED = {
    "A100 SXM 40GB": "A100 40GB",
    "A100 PCIe 40GB": "A100 40GB",
    "A100 SXM 80GB": "A100 80GB",
    "A100 PCIe 80GB": "A100 80GB",
    "H100 SXM": "H100 80GB",
    "H100 PCIe": "H100 80GB",
    "H100 NVL": "H100 94GB",
    "H200 NVL": "H200",
}

_PROFILE = expression(r"(?:^|[^a-z0-9])(?:mig[-_ ]?)?(\d)g\.(\d+)gb(?:[.+]me(?:\.all)?)?(?=$|[^a-z0-9.])")


@cache
def _table() -> dict[str, tuple[Gpu, _Row]]:
    rows: dict[str, tuple[Gpu, _Row]] = {}
    for row in _NVIDIA:
        major, minor = map(int, row.compute.split("."))
        compute = (major, minor)
        gpu = Gpu(
            name=row.name,
            memory=(row.seen or (row.reported * 99 // 100 if row.reported > 90 * 1024 else row.reported * 39 // 40))
            * _MIB,
            reported=row.reported,
            compute=compute,
            nvlink=row.nvlink,
            measured=bool(row.seen),
            fp8=compute >= (8, 9),
        )
        rows[row.name] = gpu, row
    for name, vendor, need, size, fp8 in _OTHERS:
        gpu = Gpu(name=name, memory=size * _MIB, reported=size, vendor=vendor, fp8=fp8)
        rows[name] = gpu, _Row(name, need, "", "ai pro", size, size, "", None)
    return rows


def known() -> tuple[Gpu, ...]:
    """Every GPU of the table."""
    return tuple(gpu for gpu, _ in _table().values())


def _words(text: str) -> frozenset[str]:
    """The words of a name: `NVIDIA-GeForce-RTX-4090` -> nvidia, geforce, rtx, 4090."""
    text = text.lower().replace("max-q", "max_q").replace("(r)", "").replace("(tm)", "")
    words = [word.replace("max_q", "max-q") for word in re.findall(r"max_q|[a-z0-9]+", text)]
    out: set[str] = set()
    previous = ""
    for word in words:
        if re.fullmatch(r"\d+", previous) and word in ("gb", "g", "gib"):
            out.add(previous + "gb")  # `80 GB`
        if glued := re.fullmatch(r"(rtx|gtx|gaudi)(\d+)(d|ti|super)?|(\d{4})(d|ti|super)", word):
            out.update(part for part in glued.groups() if part)
        else:
            out.add(re.sub(r"^(\d+)gib$", r"\1gb", word))
        previous = word
    return frozenset(out)


def alike(text: str) -> list[str]:
    """Names that are spelt nearly so, for one that no GPU of the table has: `H10` -> H100."""
    import difflib

    names = {gpu.name.lower(): gpu.name for gpu in known()} | {
        short.lower(): short
        for gpu in known()
        for short in (gpu.name.removeprefix("GeForce "), *re.findall(r"\b[A-Z]+\d+\w*", gpu.name))
    }
    return [names[found] for found in difflib.get_close_matches(text.strip().lower(), names, n=3, cutoff=0.8)]


def candidates(text: str) -> tuple[Gpu, ...]:
    """The GPUs that a name may mean, one for each size of memory; models that differ only in their links are one.

    A size (`80gb`) and a form (`pcie`, `nvl`) rule out what has another; `H100` alone is one of 80 GB.
    """
    profile = _PROFILE.search(text.lower())
    if profile:
        slices = [mig(gpu, profile.group(0)) for gpu in candidates(text[: profile.start()])]
        return tuple(gpu for gpu in slices if gpu)
    cloud = _CLOUD.get(text.strip().lower())
    if cloud:
        return (_table()[cloud][0],)
    words = _words(text)
    telling = words & _TELLING | {word for word in words if re.fullmatch(r"\d+gb", word)}
    found: list[Gpu] = []
    for gpu, row in _table().values():
        need, either = set(row.need.split()), set(row.either.split())
        if not need <= words or (either and not either & words):
            continue
        if telling <= need | either | set(row.may.split()):
            found.append(gpu)
    return _merged(found)


def _merged(found: list[Gpu]) -> tuple[Gpu, ...]:
    groups: dict[tuple[int, tuple[int, int] | None, Vendor], list[Gpu]] = {}
    for gpu in found:
        groups.setdefault((gpu.reported, gpu.compute, gpu.vendor), []).append(gpu)
    return tuple(_one(group) for group in groups.values())


def _one(group: list[Gpu]) -> Gpu:
    first = min(group, key=lambda gpu: gpu.memory)
    if len(group) == 1:
        return first
    links = {gpu.nvlink for gpu in group}
    stem = group[0].name.partition(" ")[0]
    name = f"{stem} {round(first.reported / 1024)}GB"
    return msgspec.structs.replace(first, name=name, nvlink=links.pop() if len(links) == 1 else None)


#: Of cards that are joined by bridges: the links that these have, where the chip has more. 600 GB/s of 50 each, by the data sheet.
BRIDGED_LINKS = {"H100 PCIe": 12, "H100 NVL": 12}


@cache
def by_product(label: str, reported: int | None = None) -> Gpu | None:
    """The GPU of a label or of a name as drivers print it; None where it is unknown or several fit.

    `reported` is the memory in MiB that stands beside the name, which tells `RTX 3080` of 10 and 12 GB apart. Labels of
    vGPUs (`NVIDIA-A40-24Q`, `GRID-T4-8C`) name no whole GPU.
    """
    text = re.sub(r"[-_ ](shared|simulated)$", "", label.strip(), flags=re.IGNORECASE)
    if re.search(r"^grid[-_ ]|[-_ ]\d+[qcab]$|vgpu", text, re.IGNORECASE):
        return None
    found = candidates(text)
    if reported and len(found) > 1:
        found = tuple(gpu for gpu in found if abs(gpu.reported - reported) < 0.06 * gpu.reported)
    return found[0] if len(found) == 1 else None


@cache
def by_instance(machine: str) -> Gpu | None:
    """The GPU of a cloud's machine type (`g6e.12xlarge`, `a3-highgpu-8g`, `Standard_NC40ads_H100_v5`)."""
    name = machine.strip().lower()
    return next((_table()[model][0] for pattern, model in _INSTANCES if re.fullmatch(pattern, name)), None)


def count_on(machine: str) -> int | None:
    """How many GPUs a cloud's machine type has; None where it is not known."""
    name = machine.strip().lower()
    stated = re.fullmatch(r"a[234]x?-(?:high|mega|ultra)gpu-(\d{1,2})g(?:-\w{1,20})?", name)
    if stated:
        return int(stated[1])
    return next((count for pattern, count in _COUNTS if re.fullmatch(pattern, name)), None)


def profile_of(text: str) -> str:
    """The MIG profile in a name, `1g.10gb`; empty where there is none."""
    found = _PROFILE.search(text.lower())
    return f"{found.group(1)}g.{found.group(2)}gb" if found else ""


def mig(gpu: Gpu, profile: str) -> Gpu | None:
    """A MIG slice of a GPU by its profile (`1g.10gb`, `mig-3g.40gb`); None where its memory is not known."""
    found = _PROFILE.search(profile.lower())
    if not found or gpu.profile:
        return None
    name = f"{found.group(1)}g.{found.group(2)}gb"
    size = _SLICES.get(_SLICED.get(gpu.name, gpu.name), {}).get(name)
    if found.group(1) == "7":  # the whole GPU as one slice
        size = gpu.memory // _MIB * 99 // 100
    if size is None:
        return None
    return msgspec.structs.replace(
        gpu, name=f"{gpu.name} MIG {name}", memory=size * _MIB, reported=size, nvlink=False, profile=name
    )
