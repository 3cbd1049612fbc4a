"""SGLang: `python -m sglang.launch_server`, `sglang serve` and Dynamo's worker.

Options from srt/server_args.py (0.3.6 to 0.5.14) and srt/arg_groups/fields (0.5.19, 0.5.23): a plain argparse parser, so
`--tp_size` is refused. `sglang serve` (0.5.5) takes the model as its first word since 0.5.16.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any

from msgspec.structs import replace

from kubectl_llmdoctor.expressions import expression

from .argv import Word
from .common import Start, build
from .config import Engine
from .dialect import Table
from .options import ARGPARSE, LENIENT, Options, Row, read_yaml
from .sglang_flags import CHOICES, FLAGS, SAMPLES

# Options whose common name is another one than their own, and what variables give (srt/environ.py).
_ROWS: tuple[Row, ...] = (
    ("model", "str", "--model-path --model", ""),
    ("tokenizer", "str", "--tokenizer-path", ""),
    ("served_model_name", "one", "--served-model-name", ""),
    ("max_model_len", "human", "--context-length", ""),
    ("max_num_seqs", "int", "--max-running-requests", ""),
    ("gpu_memory_utilization", "float", "--mem-fraction-static", ""),
    ("tensor_parallel_size", "int", "--tensor-parallel-size --tp-size --tp", ""),
    ("pipeline_parallel_size", "int", "--pipeline-parallel-size --pp-size --pp", ""),
    ("data_parallel_size", "int", "--data-parallel-size --dp-size --dp", ""),
    ("expert_parallel_size", "int", "--expert-parallel-size --ep-size --ep", ""),
    ("attention_data_parallel_size", "int", "--attn-dp-size", ""),
    ("distributed_timeout_seconds", "int", "--dist-timeout", ""),
    ("watchdog_timeout_seconds", "float", "--watchdog-timeout", ""),
    ("soft_watchdog_timeout_seconds", "float", "--soft-watchdog-timeout", ""),
    ("enforce_eager", "flag", "--disable-cuda-graph", ""),
    ("cuda_graph_max_bs", "int", "--cuda-graph-max-bs --cuda-graph-max-bs-decode", ""),
    ("enable_prefix_caching", "notflag", "--disable-radix-cache", ""),
    ("hicache_size_gb", "float", "--hicache-size", ""),
    ("lora_modules", "list", "--lora-paths", ""),
    ("max_loras", "int", "--max-loras-per-batch", ""),
    ("speculative_model", "str", "--speculative-draft-model-path", ""),
    ("config_file", "str", "--config", ""),
    ("allow_long_max_model_len", "bool", "", "SGLANG_ALLOW_OVERWRITE_LONGER_CONTEXT_LEN"),
    ("use_modelscope", "bool", "", "SGLANG_USE_MODELSCOPE"),
)

# What took a removed or refused option's place (help texts of the deprecated options).
_SUCCESSORS = {
    "--disable-flashinfer": "use --attention-backend triton",
    "--disable-flashinfer-sampling": "use --sampling-backend pytorch",
    "--enable-flashinfer-mla": "use --attention-backend flashinfer",
    "--enable-flashmla": "use --attention-backend flashmla",
    "--enable-ep-moe": "use --ep-size",
    "--enable-deepep-moe": "use --moe-a2a-backend deepep",
    "--enable-flashinfer-cutlass-moe": "use --moe-runner-backend flashinfer_cutlass",
    "--enable-flashinfer-cutedsl-moe": "use --moe-runner-backend flashinfer_cutedsl",
    "--enable-flashinfer-trtllm-moe": "use --moe-runner-backend flashinfer_trtllm",
    "--enable-triton-kernel-moe": "use --moe-runner-backend triton_kernel",
    "--enable-flashinfer-mxfp4-moe": "use --moe-runner-backend flashinfer_mxfp4",
    "--hybrid-kvcache-ratio": "use --swa-full-tokens-ratio",
    "--stream-output": "use --incremental-streaming-output",
    "--cuda-graph-max-bs": "use --cuda-graph-max-bs-decode",
    "--cuda-graph-bs": "use --cuda-graph-bs-decode",
    "--disable-cuda-graph": "use --cuda-graph-backend-decode=disabled and --cuda-graph-backend-prefill=disabled",
    "--enable-dp-attention": "use --attn-dp-size",
    "--enable-expert-distribution-metrics": "use --expert-balancedness-report-mode",
    "--nsa-prefill-backend": "use --dsa-prefill-backend",
    "--nsa-decode-backend": "use --dsa-decode-backend",
    "--mamba-scheduler-strategy": "use --mamba-radix-cache-strategy",
    "--disable-piecewise-cuda-graph": "use --cuda-graph-backend-prefill=disabled",
    "--enforce-piecewise-cuda-graph": "use --cuda-graph-backend-prefill=tc_piecewise",
    "--piecewise-cuda-graph-max-tokens": "use --cuda-graph-max-bs-prefill",
    "--enable-nsa-prefill-context-parallel": "use --enable-prefill-cp",
    "--enable-overlap-schedule": "it is on by default",
    "--collect-tokens-histogram": "--enable-metrics collects them",
}

# Options that only the server of diffusion models has (multimodal_gen/runtime/server_args, 0.5.5 to 0.5.23), which `sglang serve`
# starts for such a model; its parser takes underscores as well.
_DIFFUSION = expression(
    r"--(?:num[-_]gpus|(?:sp|ulysses|ring)[-_]degree|enable[-_]cfg[-_]parallel|use[-_]fsdp[-_]inference|pipeline[-_]class[-_]name"
    r"|(?:dit|vae|text[-_]encoder|image[-_]encoder|component)[-_][\w-]{1,60}|model[-_]type=diffusion)(?:=|$)"
)
_DIFFUSION_ROWS: tuple[Row, ...] = (
    ("model", "str", "--model-path --model", ""),
    ("host", "str", "--host", ""),
    ("port", "int", "--port", ""),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("host", "127.0.0.1", "", ""),
    ("port", 30000, "", ""),
    ("tensor_parallel_size", 1, "", ""),
    ("pipeline_parallel_size", 1, "", ""),
    ("data_parallel_size", 1, "", ""),
    ("nnodes", 1, "", ""),
    ("node_rank", 0, "", ""),
    ("dtype", "auto", "", ""),
    ("kv_cache_dtype", "auto", "", ""),
    ("load_format", "auto", "", ""),
    ("max_prefill_tokens", 16384, "", ""),
    ("watchdog_timeout_seconds", 300.0, "", ""),
    ("distributed_timeout_seconds", 600, "", ""),
    ("enable_metrics", False, "", ""),
    ("schedule_policy", "fcfs", "0.4.3.post4", ""),
    ("trust_remote_code", False, "", ""),
    ("enforce_eager", False, "", ""),
    ("enable_prefix_caching", True, "", ""),
    ("enable_lora", False, "", ""),
    ("cpu_offload_gb", 0.0, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/health", "", ""),
)


@functools.cache
def table() -> Table:
    """The options by release."""
    return Table("sglang", "SGLang", SAMPLES, FLAGS, CHOICES, _SUCCESSORS)


def read(start: Start) -> Engine:
    """The configuration of one SGLang server."""
    if start.form == "serve" and _of_diffusion(start.args):
        # nothing is held against options of which no table is there, nor are the defaults those of the other server
        options = Options(start, _DIFFUSION_ROWS, strict=False)
        options.run(start.args)
        return build(start, options.settings, options.problems, (), False, options.unresolved)
    own = start.form == "dynamo"
    options = Options(start, _ROWS, table(), LENIENT if own else ARGPARSE, strict=not own)
    options.run(_serve_model(start, options) if start.form == "serve" else start.args)
    options.take_positionals("model", "--model-path", slots=0 if start.form == "server" else 1)
    options.take_variables()
    settings, known = options.settings, options.known
    file = settings.pop("config_file", None)
    if file is not None:  # the command line wins
        known = read_yaml(start, str(file.value), _file_rows(), settings, options.unresolved, overrides=False) and known
    _rules(options)
    attention, parallel = settings.get("enable_dp_attention"), settings.get("data_parallel_size")
    if attention is not None and attention.value is True and parallel is not None:
        # the ranks are those of the tensor parallel group; since 0.5.23 `--attn-dp-size` says so
        settings["attention_data_parallel_size"] = replace(
            settings.pop("data_parallel_size"), name="attention_data_parallel_size"
        )
    rows = [row for row in DEFAULTS if not own or row[0] not in ("host", "port", "api_key", "health_path")]
    return build(start, settings, options.problems, rows, known, options.unresolved)


def _of_diffusion(args: tuple[Word, ...]) -> bool:
    words = [word.text for word in args]
    return any(_DIFFUSION.match(word) for word in words) or ("--model-type", "diffusion") in pairwise(words)


def _serve_model(start: Start, options: Options) -> tuple[Word, ...]:
    """`sglang serve MODEL …`: only the first word is taken for the model, and only since 0.5.16."""
    first = start.args[0] if start.args else None
    speech = options.dialect
    if first is None or first.text.startswith("-") or speech is None or not speech.known or speech.since("0.5.16"):
        return start.args
    detail = f"`sglang serve` of {speech.named} takes no positional model, only --model-path"
    options.problem("unknown-flag", first.shown, [first], detail, speech.until("0.5.14"))
    return start.args[1:]


@functools.cache
def _file_rows() -> dict[str, tuple[str, str]]:
    """The keys of a configuration file: the options' names, with dashes or underscores."""
    rows = {name: (row[0], row[1]) for row in _ROWS for flag in row[2].split() for name in _spellings(flag)}
    for flag in FLAGS:
        kind = flag[3].split()[-1].rpartition(":")[2]
        for name in _spellings(flag[0]):
            rows.setdefault(name, (flag[0][2:].replace("-", "_"), kind))
    return rows


def _spellings(flag: str) -> tuple[str, str]:
    return flag[2:], flag[2:].replace("-", "_")


def _rules(options: Options) -> None:
    """What `check_server_args` refuses beyond single options, in all sampled releases."""
    sizes = [options.settings.get(name) for name in ("tensor_parallel_size", "pipeline_parallel_size")]
    nodes = options.settings.get("nnodes")
    if (
        nodes is None
        or not isinstance(nodes.value, int)
        or nodes.value < 1
        or "pipeline_parallel_size" in options.unresolved
    ):
        return
    tensor = sizes[0]
    product = math.prod(size.value for size in sizes if size is not None and isinstance(size.value, int))
    if tensor is not None and product % nodes.value:
        detail = f"tensor times pipeline parallel size is {product}, which {nodes.value} nodes do not divide"
        options.refuse(tensor, detail)
