"""What an engine's log says about itself: its name, its version, and the configuration that it printed.

Only banners count, and only in the head of the log. What was set explicitly (vLLM's `non-default args`, TGI's
`Some(…)`) becomes a setting. What is merely in force (`Initializing a V1 LLM engine … with config: …`) takes the place
of a default, so that nobody takes a derived context length for a cap that someone has set.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from re import Pattern
from typing import Any

import msgspec
from msgspec.structs import replace

from .common import defaults
from .config import Engine, Setting
from .modules import module
from .names import TITLES
from .version import parse

HEAD = 400_000  # characters of a log that are looked at, and after a banner that stands further down
_BLOCK = 40_000  # characters of one printed configuration


class _Found(msgspec.Struct, frozen=True):
    """What the banners of one engine gave."""

    version: str | None = None
    version_text: str = ""
    settings: dict[str, Setting] = {}
    in_force: dict[str, Setting] = {}


@functools.cache
def _pattern(name: str) -> Pattern[str]:
    import re

    return re.compile(_PATTERNS[name], re.ASCII)


_PATTERNS = {
    "vllm-version": r"vLLM API server version (\d[\w.+-]{0,40})"
    r"|Initializing an? (?:V[01] )?LLM engine \(v(\d[\w.+-]{0,40})\)"
    r"|\u2588[^\n]{0,80}  version (\d[\w.+-]{0,40})",
    "ollama-version": r"Listening on (\S{1,80}) \(version (\d[\w.+-]{0,40})\)",
    "llamacpp-build": r"build: (\d{3,7}) \(",
    "trtllm-version": r"\[TensorRT-LLM\] TensorRT[- ]LLM version: (\d[\w.+-]{0,40})",
    "nim-version": r"NIM Version:? (\d[\w.+-]{0,40})",
    "llamacpp-model": r"loading model '([^'\n]{1,300})'",
    "lmdeploy-line": r"\d - lmdeploy - (?:INFO|WARNING|ERROR|DEBUG) - ",
    # a logger's marks and no quotation, or a record whose message begins here
    "before-banner": r"[^\n\"'{}]{0,160}(?:msg=\"|\] \")?|\{[^\n{}]{0,300}\"(?:message|msg)\": ?\"",
    # Ray prints what other processes say behind marks of its own
    # so do tools that show the logs of other containers (kubectl, stern, docker compose); and a sentence quotes
    "of-another": r"\((?!(?:API|Api)Server|EngineCore)\w[^)\n]{0,100} pid="
    r"|^\[pod/|^\s{0,9}>|^\S{1,100} {1,20}\| |^[a-z0-9.-]{1,80} [a-z0-9.-]{1,80} (?:DEBUG|INFO|WARN|ERROR)"
    r"|(?<!\S)[a-z]{2,30} [a-z]{2,30} [a-z]{2,30}\b",
    "tgi-version": r'"?(?:docker_label|version)"?: "(?:sha-[0-9a-f]+-)?v?(\d+\.\d+\.\d+)"',
}

# Texts that only this engine's own log has; the first one whose mark occurs is taken. NIM, Ollama and KServe wrap
# other engines and print their lines, so they come first.
_MARKS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("nim", ("NVIDIA Inference Microservice", "NIM Version", "/opt/nim/")),
    ("ollama", ("source=routes.go:", "OLLAMA_HOST:", "ollama runner", "msg=\"Ollama ", "/.ollama/id_ed25519")),
    ("tgi", ("text_generation_launcher", "text_generation_router", "Usage: text-generation-launcher")),
    ("tei", ("text_embeddings_router", "Usage: text-embeddings-router")),
    ("sglang", (
        "server_args=ServerArgs(", "sglang/launch_server.py", "sglang serve: error:", "launch_server.py: error:", "/sglang/srt/",
        "Decode batch. #running-req: ", "Prefill batch. #new-seq: ",
    )),
    ("triton", ("TRITONSERVER", "tritonserver", "server.cc:", "Started GRPCInferenceService", "model_lifecycle.cc:")),
    ("tensorrt-llm", ("[TensorRT-LLM]", "[TRT-LLM]", "/tensorrt_llm/", "Usage: trtllm-serve")),
    ("huggingfaceserver", ("huggingfaceserver",)),
    ("vllm", (
        "vLLM API server version", "LLM engine (v", "non-default args: {", "vllm serve: error:", "vllm: error:",
        "/site-packages/vllm/", "/dist-packages/vllm/", "/vllm-workspace/vllm/", "(EngineCore", "(APIServer pid=",
        "vllm.entrypoints.", "api_server.py: error:", "Initializing an LLM engine with config: ",
        "tokens/s, Avg generation throughput: ",
    )),
    ("lmdeploy", ("/lmdeploy/", "[TM][INFO]", "lmdeploy.", "lmdeploy serve api_server: error:")),
    ("llama.cpp", (
        "llama_model_loader:", "srv  ", "srv    load_model", "llama_server:", "main: server is listening",
        "error: invalid argument: -", "error while handling argument \"-",
    )),
)  # fmt: skip


#: What an engine prints once, when it starts, beside its version or its configuration.
_BANNERS = (
    *("vLLM API server version ", "LLM engine (v", "server_args=ServerArgs(", "text_generation_launcher: Args {"),
    *("[TensorRT-LLM] TensorRT", "NIM Version", " (version "),
)


#: So far from the start of its line a banner stands at most, behind the marks of a logger and of a log store.
_MARGIN = 400


def _head(text: str) -> str:
    """The part of a log that may say what wrote it: before a banner there may be much of what came before."""
    head = text[:HEAD]
    if len(text) <= HEAD or any(banner in head for banner in _BANNERS):
        return head
    found = [
        at
        for banner in _BANNERS
        # what a long line quotes is somebody's text
        if (at := text.find(banner, HEAD)) >= 0 and at - text.rfind("\n", 0, at) < _MARGIN
    ]
    if not found:
        return head
    # what stands between is left out but for its line ends, by which lines are counted: of a long log all the marks cost seconds
    at = min(found)
    start = max(HEAD, at - HEAD)
    return head + "\n" * text.count("\n", HEAD, start) + text[start : at + HEAD]


#: What an engine prints of itself when it starts: what its line has before that, and what follows.
_ANNOUNCED: tuple[tuple[str, str, str], ...] = (
    ("nim", "", "== NVIDIA Inference Microservice"),
    ("nim", "", "NVIDIA Inference Microservice LLM NIM Version "),
    ("ollama", "source=routes.go:", 'msg="Listening on '),
    ("tgi", "", "text_generation_launcher: Args {"),
    ("tei", "", "text_embeddings_router: router/src/main.rs:"),
    ("sglang", "", "server_args=ServerArgs("),
    ("triton", "grpc_server.cc:", "Started GRPCInferenceService at "),
    ("triton", "", "| server_id  "),
    ("vllm", "", "vLLM API server version "),
    ("vllm", "", "\u2588  version "),
    ("vllm", "", "Initializing a V1 LLM engine (v"),
    ("vllm", "", "Initializing a V0 LLM engine (v"),
    ("vllm", "", "Initializing an LLM engine (v"),
    ("tensorrt-llm", "", "[TensorRT-LLM] TensorRT"),
    ("lmdeploy", "lmdeploy - INFO - ", "input backend="),
    ("llama.cpp", "srv ", "load_model: loading model '"),
    ("llama.cpp", "main: ", "server is listening on http"),
)
#: What a log with a banner that other programs print, too, has besides.
_BESIDES = {"server is listening on http": "starting the main loop"}
#: The engines that start others inside, and print what those say.
_INSIDE: dict[str, frozenset[str]] = {
    "nim": frozenset({"vllm", "sglang", "tensorrt-llm", "triton", "llama.cpp"}),
    "ollama": frozenset({"llama.cpp"}),
    "triton": frozenset({"vllm", "tensorrt-llm"}),
}
#: Programs that start engines of several kinds, print what those say, and are asked in another way.
_HOSTS = ("(ServeReplica", "xinference", "gpustack", "llama-swap", "llama_swap", "LocalAI")


def announced(text: str) -> str | None:
    """The engine that wrote a log, by the banner that it printed when it started.

    A path in a traceback, or a line that quotes another program's, says nothing here; nor do the banners of several
    engines, of which nobody knows whose the lines are.
    """
    head = text[:HEAD]
    said = ((name, banner) for name, before, banner in _ANNOUNCED if _says(head, before, banner))
    found = dict.fromkeys(name for name, banner in said if _BESIDES.get(banner, "") in head)
    # of an engine inside another one the outer one is meant
    outer = next(iter(found), None)
    if outer is None or found.keys() - {outer} - _INSIDE.get(outer, frozenset()):
        return None
    return outer if _name(head) == outer and not any(host in head for host in _HOSTS) else None


def _says(head: str, before: str, banner: str) -> bool:
    """Whether a line of a log is this banner, and its first words are a logger's."""
    at = head.find(banner)
    if at < 0:
        return False
    margin = head[head.rfind("\n", 0, at) + 1 : at]
    plain = _pattern("before-banner").fullmatch(margin) and not _pattern("of-another").search(margin)
    return before in margin and bool(plain)


def from_log(text: str) -> Engine | None:
    head = _head(text)
    name = _name(head)
    if name is None:
        return None
    found = _read(name, head)
    # only a printed configuration tells that what it lacks was left alone
    printed = bool(found.settings or found.in_force)
    stated = defaults(name, found.version, _default_rows(name), found.settings) if printed else {}
    return Engine(
        name=name,
        title=TITLES[name],
        version=found.version,
        version_text=found.version_text,
        settings=found.settings,
        defaults={**stated, **{key: value for key, value in found.in_force.items() if key not in found.settings}},
        argv_known=False,
    )


def enrich(engine: Engine | None, text: str) -> Engine | None:
    """Adds to an engine what only its log states; without an engine, what the log alone tells."""
    if engine is None:
        return from_log(text)
    head = _head(text)
    if _name(head) != engine.name:
        return engine
    found = _read(engine.name, head)
    if engine.version is None and found.version is not None:
        engine = with_version(engine, found.version, found.version_text)
    fresh = {name: setting for name, setting in found.settings.items() if name not in engine.settings}
    settings = {**engine.settings, **fresh}
    in_force = {name: setting for name, setting in found.in_force.items() if name not in settings}
    kept = {name: setting for name, setting in engine.defaults.items() if name not in settings}
    unresolved = tuple(name for name in engine.unresolved if name not in settings and name not in in_force)
    return replace(engine, settings=settings, defaults={**kept, **in_force}, unresolved=unresolved)


def with_version(engine: Engine, version: str, text: str) -> Engine:
    """An engine whose version has become known, and where from: its options are judged again."""
    rejudge: Callable[[Engine, str, str], Engine] | None = getattr(module(engine.name), "rejudge", None)
    return rejudge(engine, version, text) if rejudge else replace(engine, version=version, version_text=text)


def _default_rows(name: str) -> list[tuple[str, Any, str, str]]:
    """The default table of an engine's reader."""
    rows: tuple[tuple[str, Any, str, str], ...] = module(name).DEFAULTS
    # what decides the model is on the command line, which a log does not show
    return [row for row in rows if row[0] not in ("model", "port", "host", "api_key")]


def _name(head: str) -> str | None:
    for name, marks in _MARKS:
        if any(mark in head for mark in marks):
            return name
    if _pattern("lmdeploy-line").search(head):
        return "lmdeploy"
    return None


def _read(name: str, head: str) -> _Found:
    reader = _READERS.get(name)
    return reader(head) if reader is not None else _Found()


def _place(head: str, at: int) -> str:
    return f"log line {head.count(chr(10), 0, at) + 1}"


def _setting(name: str, value: Any, text: str, path: str, flag: str) -> Setting:
    return Setting(name=name, value=value, source="log", text=text[:300], path=path, flag=flag)


def _version(head: str, pattern: str) -> tuple[str | None, str]:
    match = _pattern(pattern).search(head)
    if match is None:
        return None, ""
    version = next(group for group in match.groups() if group).rstrip(".,")
    return (version, "log banner") if parse(version) is not None else (None, "")


# -- printed configurations -------------------------------------------------------------------------------------------


def _block(text: str, at: int) -> str:
    """The text inside the bracket that opens at `at`, to the one that closes it."""
    pairs = {"(": ")", "{": "}", "[": "]"}
    stack: list[str] = []
    quote = ""
    index = at
    end = min(len(text), at + _BLOCK)
    while index < end:
        char = text[index]
        if quote:
            if char == "\\":
                index += 1
            elif char == quote:
                quote = ""
        elif char in "'\"":
            quote = char
        elif char in pairs:
            stack.append(pairs[char])
        elif stack and char == stack[-1]:
            stack.pop()
            if not stack:
                return text[at + 1 : index]
        index += 1
    return text[at + 1 : end]


def _pairs(text: str, separator: str) -> Iterator[tuple[str, str]]:
    """`key=value, key=value` at the outer level."""
    depth, quote, start, index = 0, "", 0, 0
    size = len(text)
    while index <= size:
        char = text[index] if index < size else ","
        if index < size and quote:
            if char == "\\":
                index += 1
            elif char == quote:
                quote = ""
        elif char in "'\"" and index < size:
            quote = char
        elif char in "([{" and index < size:
            depth += 1
        elif char in ")]}" and index < size:
            depth -= 1
        elif char == "," and (depth <= 0 or index == size):
            key, found, value = text[start:index].partition(separator)
            if found:
                yield key.strip().strip("'\""), value.strip()
            start = index + 1
        index += 1


def _literal(text: str) -> Any:
    """A Python literal; what is none stays text."""
    if text.startswith("torch."):
        return text[6:]
    import ast

    try:
        value = ast.literal_eval(text[:_BLOCK])
    except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
        return text
    if isinstance(value, (set, frozenset, bytes, complex)) or value is Ellipsis:
        return text
    if isinstance(value, float) and (value != value or abs(value) == float("inf")):
        return text
    return tuple(value) if isinstance(value, list) and all(isinstance(item, str) for item in value) else value


def _plain(value: Any) -> bool:
    """Whether a value is one that a report can show as it is."""
    return value is None or isinstance(value, (bool, int, float, str, tuple)) or _json(value)


def _json(value: Any) -> bool:
    import json

    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return False
    return True


# -- the engines ------------------------------------------------------------------------------------------------------

_VLLM_NAMES = {"enable_expert_parallel": "expert_parallel", "max_seq_len": "max_model_len"}
_SECRETS = frozenset({"api_key", "hf_token", "api_keys", "admin_api_key"})

# Keys of vLLM's engine banner that say what is in force.
_VLLM_IN_FORCE = frozenset(
    {
        "model", "tokenizer", "revision", "dtype", "max_seq_len", "load_format", "tensor_parallel_size",
        "pipeline_parallel_size", "data_parallel_size", "quantization", "enforce_eager", "kv_cache_dtype", "seed",
        "served_model_name", "enable_prefix_caching", "enable_chunked_prefill", "trust_remote_code", "download_dir",
        "disable_custom_all_reduce",
    }
)  # fmt: skip


def _common(name: str, value: Any) -> Any:
    if name in _SECRETS:
        return bool(value)
    if name == "served_model_name" and isinstance(value, str):
        return (value,)
    return value


def _vllm(head: str) -> _Found:
    version, version_text = _version(head, "vllm-version")
    settings: dict[str, Setting] = {}
    in_force: dict[str, Setting] = {}
    at = head.find("non-default args: {")
    if at >= 0:
        for key, text in _pairs(_block(head, at + 18), ":"):
            name = _VLLM_NAMES.get(key, key)
            value = _common(name, _literal(text))
            if key.isidentifier() and key != "model_tag" and value is not None and _plain(value):
                flag = f"--{key.replace('_', '-')}"
                shown = "…" if name in _SECRETS else text
                settings[name] = _setting(name, value, f"'{key}': {shown}", _place(head, at), flag)
    at = head.find("args: Namespace(")
    if at >= 0 and not settings:
        given = {key: _literal(text) for key, text in _pairs(_block(head, at + 15), "=")}
        _by_difference(given, _default_rows("vllm"), {}, settings, in_force, _place(head, at))
    at = head.find(") with config: ")
    if at >= 0:
        end = head.find("\n", at)
        line = head[at + 15 : min(end if end >= 0 else len(head), at + _BLOCK)]
        for key, text in _pairs(line, "="):
            if key in _VLLM_IN_FORCE and text not in ("None", ""):
                name = _VLLM_NAMES.get(key, key)
                value = _common(name, _literal(text))
                if value is not None and _plain(value):
                    in_force[name] = _setting(name, value, f"{key}={text}", _place(head, at), key)
    return _Found(version, version_text, settings, in_force)


def _by_difference(
    given: Mapping[str, Any],
    rows: list[tuple[str, Any, str, str]],
    names: Mapping[str, str],
    settings: dict[str, Setting],
    in_force: dict[str, Setting],
    path: str,
    computed: frozenset[str] = frozenset(),
) -> None:
    """Of a complete configuration: what differs from the engine's defaults was set, the rest is in force."""
    standard = {row[0]: row[1] for row in rows if not row[2] and not row[3]}
    for key, raw in list(given.items())[:600]:
        name = names.get(key, _VLLM_NAMES.get(key, key))
        value = _common(name, raw)
        if not key.isidentifier() or value is None or value is False or value in ((), "") or not _plain(value):
            continue
        shown = "…" if name in _SECRETS else raw
        if names and name not in names.values() and name not in standard:
            continue
        was_set = key not in computed and (standard[name] != value if name in standard else name in _TOLD)
        target = settings if was_set else in_force
        target[name] = _setting(name, value, f"{key}={shown!r}", path, f"--{key.replace('_', '-')}")


# Names without a fixed default: a value at all means that someone gave it.
_TOLD = frozenset(
    {
        "model", "revision", "served_model_name", "quantization", "max_model_len", "port", "host", "api_key",
        "max_num_seqs", "max_total_tokens", "download_dir", "gpu_memory_utilization", "chat_template",
        "tool_call_parser", "distributed_executor_backend", "distributed_timeout_seconds", "tokenizer",
        "enable_dp_attention",
    }
)  # fmt: skip

_SGLANG_NAMES = {
    "model_path": "model", "tokenizer_path": "tokenizer", "context_length": "max_model_len",
    "mem_fraction_static": "gpu_memory_utilization", "tp_size": "tensor_parallel_size",
    "pp_size": "pipeline_parallel_size", "dp_size": "data_parallel_size", "ep_size": "expert_parallel_size",
    "max_running_requests": "max_num_seqs", "max_total_tokens": "max_total_tokens", "quantization": "quantization",
    "dtype": "dtype", "kv_cache_dtype": "kv_cache_dtype", "host": "host", "port": "port", "api_key": "api_key",
    "served_model_name": "served_model_name", "revision": "revision", "trust_remote_code": "trust_remote_code",
    "dist_timeout": "distributed_timeout_seconds", "watchdog_timeout": "watchdog_timeout_seconds",
    "nnodes": "nnodes", "node_rank": "node_rank", "enable_metrics": "enable_metrics", "load_format": "load_format",
    "chunked_prefill_size": "chunked_prefill_size", "max_prefill_tokens": "max_prefill_tokens",
    "disable_cuda_graph": "enforce_eager", "cpu_offload_gb": "cpu_offload_gb", "download_dir": "download_dir",
    "tool_call_parser": "tool_call_parser", "enable_dp_attention": "enable_dp_attention",
}  # fmt: skip
# Fields that the server fills in itself, also where nobody set them.
_SGLANG_COMPUTED = frozenset(
    {"mem_fraction_static", "chunked_prefill_size", "tokenizer_path", "served_model_name", "max_prefill_tokens"}
)


def _sglang(head: str) -> _Found:
    settings: dict[str, Setting] = {}
    in_force: dict[str, Setting] = {}
    at = head.find("server_args=ServerArgs(")
    if at >= 0:
        given = {key: _literal(text) for key, text in _pairs(_block(head, at + 22), "=")}
        if given.get("enable_dp_attention") is True:
            given.pop("dp_size", None)  # it divides the tensor parallel group, and makes no further ranks
        rows = [*_default_rows("sglang"), ("port", 30000, "", ""), ("host", "127.0.0.1", "", "")]
        _by_difference(given, rows, _SGLANG_NAMES, settings, in_force, _place(head, at), _SGLANG_COMPUTED)
    return _Found(None, "", settings, in_force)


_TGI_NAMES = {
    "model_id": "model", "revision": "revision", "num_shard": "tensor_parallel_size", "quantize": "quantization",
    "dtype": "dtype", "kv_cache_dtype": "kv_cache_dtype", "max_total_tokens": "max_model_len",
    "max_input_tokens": "max_input_tokens", "max_input_length": "max_input_tokens",
    "max_batch_prefill_tokens": "max_num_batched_tokens", "max_batch_total_tokens": "max_batch_total_tokens",
    "max_batch_size": "max_num_seqs", "port": "port", "cuda_memory_fraction": "gpu_memory_utilization",
    "trust_remote_code": "trust_remote_code", "max_concurrent_requests": "max_concurrent_requests",
}  # fmt: skip


def _tgi(head: str) -> _Found:
    settings: dict[str, Setting] = {}
    in_force: dict[str, Setting] = {}
    at = head.find("Args {")
    if at >= 0:
        for key, text in _pairs(_block(head, at + 5), ":"):
            name = _TGI_NAMES.get(key)
            if name is None or text == "None":
                continue
            inner = text
            if text.startswith("Some(") and text.endswith(")"):
                inner = text[5:-1].strip().rstrip(",").strip()
            value = {"true": True, "false": False}.get(inner, _literal(inner))
            if value is False or not _plain(value):
                continue
            target = settings if text.startswith("Some(") or name in ("model", "trust_remote_code") else in_force
            shown = " ".join(text.split())
            target[name] = _setting(name, value, f"{key}: {shown}", _place(head, at), f"--{key.replace('_', '-')}")
    version, version_text = _version(head, "tgi-version")
    return _Found(version, version_text, settings, in_force)


def _ollama(head: str) -> _Found:
    in_force: dict[str, Setting] = {}
    match = _pattern("ollama-version").search(head)
    version = match[2] if match and parse(match[2]) is not None else None
    if match:
        port = match[1].rpartition(":")[2].rstrip('"')
        if port.isascii() and port.isdecimal() and len(port) < 6:
            in_force["port"] = _setting("port", int(port), match[0], _place(head, match.start()), "OLLAMA_HOST")
    return _Found(version, "log banner" if version else "", {}, in_force)


def _llamacpp(head: str) -> _Found:
    settings: dict[str, Setting] = {}
    match = _pattern("llamacpp-model").search(head)
    if match:
        settings["model"] = _setting("model", match[1], match[0], _place(head, match.start()), "-m")
    build = _pattern("llamacpp-build").search(head)
    return _Found(f"b{build[1]}" if build else None, "log banner" if build else "", settings, {})


def _only_version(pattern: str) -> Callable[[str], _Found]:
    return lambda head: _Found(*_version(head, pattern))


_READERS: dict[str, Callable[[str], _Found]] = {
    "vllm": _vllm,
    "sglang": _sglang,
    "tgi": _tgi,
    "ollama": _ollama,
    "llama.cpp": _llamacpp,
    "tensorrt-llm": _only_version("trtllm-version"),
    "nim": _only_version("nim-version"),
}
