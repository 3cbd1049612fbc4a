"""Which quantization an engine's version knows, and the least compute capability that each needs.

Sources: vLLM, `get_min_capability` and `get_supported_act_dtypes` of each method under
`vllm/model_executor/layers/quantization` and the list of methods in its `__init__`, read at the releases named here;
SGLang the same under `srt/layers/quantization` at 0.5.23; Text Generation Inference,
`server/text_generation_server/layers/marlin`. Between two releases that were read the lower demand counts, and a method
counts as known that one of the two knows. Of a release newer than the newest nothing is said.
"""

from __future__ import annotations

import re
from functools import cache

from kubectl_llmdoctor.expressions import expression

Version = tuple[int, ...]

#: vLLM's methods by release: which came and which went since the one before.
_VLLM_METHODS: tuple[tuple[str, str, str], ...] = (
    (
        "0.5.0",
        "aqlm awq deepspeedfp fp8 marlin gptq_marlin_24 gptq_marlin gptq squeezellm compressed-tensors bitsandbytes",
        "",
    ),
    ("0.6.6", "tpu_int8 fbgemm_fp8 modelopt gguf awq_marlin qqq hqq experts_int8 neuron_quant ipex", "squeezellm"),
    ("0.8.5", "ptpc_fp8 nvfp4 bitblas gptq_bitblas quark moe_wna16 torchao", ""),
    ("0.10.2", "modelopt_fp4 auto-round rtn inc mxfp4 petit_nvfp4", "aqlm marlin qqq neuron_quant nvfp4"),
    ("0.12.0", "fp_quant cpu_gptq cpu_awq", ""),
    ("0.16.0", "modelopt_mxfp8", "deepspeedfp bitblas gptq_marlin_24 gptq_bitblas hqq ipex rtn cpu_gptq"),
    (
        "0.20.2",
        "modelopt_mixed humming gpt_oss_mxfp4 deepseek_v4_fp8 online fp8_per_tensor fp8_per_block "
        "int8_per_channel_weight_only mxfp8",
        "ptpc_fp8 petit_nvfp4",
    ),
    ("0.23.0", "auto_gptq", ""),
    ("0.26.0", "auto_awq fp8_per_channel nvfp4_per_token", "gguf"),
    ("0.29.0", "", "bitsandbytes"),
    ("0.33.0", "", ""),
)

#: Methods that a plugin brings back once they have left vLLM.
PLUGINS = {"gguf": "vllm-gguf-plugin", "bitsandbytes": "vllm-bnb-plugin"}

#: The least compute capability (75 is 7.5) of vLLM's methods at 0.8.5, 0.16 and 0.33; 0 where there is no such method.
_VLLM_SAMPLES = ("0.8.5", "0.16.0", "0.33.0")
_VLLM_MINIMUM: dict[str, tuple[int, int, int]] = {
    "awq": (75, 75, 75),
    "awq_marlin": (80, 75, 75),
    "auto_awq": (0, 0, 75),
    "gptq": (60, 60, 60),
    "gptq_marlin": (80, 75, 75),
    "auto_gptq": (0, 0, 60),
    "marlin": (80, 0, 0),
    "fp8": (80, 75, 75),
    "modelopt": (89, 89, 80),
    "modelopt_fp4": (100, 75, 75),
    "nvfp4": (100, 75, 75),
    "mxfp4": (80, 80, 80),
    "gpt_oss_mxfp4": (80, 80, 80),
    "experts_int8": (80, 80, 80),
    "moe_wna16": (70, 70, 70),
    "bitsandbytes": (70, 70, 0),
    "gguf": (60, 60, 0),
    "torchao": (75, 75, 75),
    "quark": (70, 70, 70),
}

#: SGLang's at 0.5.23; those that were stricter before are left out.
_SGLANG_MINIMUM = {
    "fp8": 80,
    "blockwise_int8": 80,
    "w8a8_int8": 75,
    "w8a8_fp8": 89,
    "awq": 75,
    "awq_marlin": 80,
    "gptq": 60,
    "gptq_marlin": 80,
    "bitsandbytes": 70,
    "gguf": 60,
    "modelopt_fp8": 89,
    "mxfp4": 80,
    "moe_wna16": 70,
    "w4afp8": 90,
}

#: What Text Generation Inference's layers demand.
_TGI_MINIMUM = {"marlin": 80}

#: Up to which release vLLM's plain AWQ and GPTQ kernels, asked for by name, take float16 alone.
HALF_ONLY_UNTIL = "0.16.0"
HALF_ONLY = frozenset(["awq", "gptq"])

#: How a checkpoint's name says its quantization: a word of it, the family of methods that can load it.
_HINTS: tuple[tuple[str, str], ...] = (
    (r"awq", "awq"),
    (r"gptq", "gptq"),
    (r"bnb|bitsandbytes", "bitsandbytes"),
    (r"nvfp4|fp4", "nvfp4"),
    (r"mxfp4", "mxfp4"),
    (r"gguf", "gguf"),
    (r"fp8", "fp8"),
    (r"w4a16|w8a16|w8a8|quantized\.w\d+a\d+", "compressed-tensors"),
    (r"aqlm", "aqlm"),
    (r"exl2", "exl2"),
    (r"hqq", "hqq"),
)

#: What is one family: a checkpoint of it can be run by any of these.
_FAMILIES = {
    "awq": "awq awq_marlin auto_awq moe_wna16 cpu_awq ipex inc",
    "gptq": "gptq gptq_marlin auto_gptq gptq_bitblas gptq_marlin_24 marlin moe_wna16 cpu_gptq ipex inc",
    "bitsandbytes": "bitsandbytes bitsandbytes-nf4 bitsandbytes-fp4",
}


def _key(version: str) -> Version:
    """`0.10.1.1` -> (0, 10, 1, 1); a release candidate counts as its release, a post release as that."""
    numbers = re.match(r"v?(\d+(?:\.\d+)*)", version.strip().lower())
    return tuple(int(part) for part in numbers[1].split(".")) if numbers else ()


@cache
def _vllm_sets() -> tuple[tuple[Version, frozenset[str]], ...]:
    known: frozenset[str] = frozenset()
    sets = []
    for release, came, went in _VLLM_METHODS:
        known = (known | set(came.split())) - set(went.split())
        sets.append((_key(release), known))
    return tuple(sets)


def knows(engine: str, method: str, version: str) -> bool | None:
    """Whether an engine's release has a quantization method; None where that was not read."""
    key = _key(version)
    sets = _vllm_sets()
    if engine != "vllm" or not key or key > sets[-1][0] or key < sets[0][0]:
        return None
    before = [known for release, known in sets if release <= key]
    after = [known for release, known in sets if release >= key]
    return method in before[-1] | after[0]


def last_with(method: str) -> str:
    """The last release of vLLM that was read and has the method; empty when none has."""
    return next(
        (row[0] for row, one in zip(_VLLM_METHODS[::-1], _vllm_sets()[::-1], strict=True) if method in one[1]), ""
    )


def minimum(engine: str, method: str, version: str | None) -> tuple[int, int] | None:
    """The least compute capability that a method needs in this release; None where it is not known."""
    if engine == "sglang":
        least = _SGLANG_MINIMUM.get(method, 0)
    elif engine == "tgi":
        least = _TGI_MINIMUM.get(method, 0)
    else:
        least = _vllm_minimum(method, version) if engine == "vllm" else 0
    return divmod(least, 10) if least else None


def _vllm_minimum(method: str, version: str | None) -> int:
    row = _VLLM_MINIMUM.get(method)
    if row is None:
        return 0
    samples = [_key(sample) for sample in _VLLM_SAMPLES]
    key = _key(version) if version else ()
    if not key:
        return min(row)  # 0 where one of the releases lacks it
    if key > samples[-1]:
        return 0
    after = next(i for i, sample in enumerate(samples) if sample >= key)
    before = after if samples[after] == key or after == 0 else after - 1
    return min(row[before], row[after])


#: Classes of models whose numbers leave the range of float16, for which vLLM refuses it (`_FLOAT16_NOT_SUPPORTED_MODELS` of its config).
_NOT_IN_HALF = expression(r"(?:Gemma[23]|Plamo2|Glm4)For")


def half_only(method: str, version: str | None) -> bool:
    """Whether vLLM's method, asked for by this very name, takes float16 alone in this release."""
    key = _key(version) if version else ()
    return method in HALF_ONLY and bool(key) and key <= _key(HALF_ONLY_UNTIL)


def not_in_half(architecture: str) -> bool:
    """Whether it is the class of a model that vLLM does not compute in float16."""
    return _NOT_IN_HALF.match(architecture) is not None


def of_name(model: str) -> str | None:
    """The family of quantization that a checkpoint's name states; None where it states none, or several."""
    name = model.strip().rstrip("/").rpartition("/")[2].lower()
    found: list[str] = []
    for pattern, family in _HINTS:
        if re.search(rf"(?:^|[-_.])(?:{pattern})(?=$|[-_.])", name) and family not in found:
            found.append(family)
    return found[0] if len(found) == 1 else None


def runs(method: str, family: str) -> bool | None:
    """Whether a method can load a checkpoint of that family; None where a name alone does not tell."""
    if family in _FAMILIES:
        return method in _FAMILIES[family].split()
    if method in _FAMILIES["awq"].split() or method in _FAMILIES["gptq"].split():
        return False if family in ("fp8", "nvfp4", "mxfp4", "gguf", "compressed-tensors", "exl2", "aqlm") else None
    return None
