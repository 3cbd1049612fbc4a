"""Ollama: configured by variables (envconfig/config.go, 0.1 to 0.33); models are pulled through its API.

The image sets OLLAMA_HOST=0.0.0.0:11434; without it the server listens on the loopback only. A Modelfile that the start
script makes a model of (`ollama create NAME -f FILE`) decides over the context of that model.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from msgspec.structs import replace

from .argv import basename
from .common import Start, about, build, version_of
from .config import Engine, Problem, Setting
from .options import Row, read_options
from .recognise import of_image
from .values import BadValueError, integer
from .version import at_least, split_image

_TABLE: tuple[Row, ...] = (
    ("listen", "str", "", "OLLAMA_HOST"),
    ("download_dir", "str", "", "OLLAMA_MODELS"),
    ("keep_alive", "str", "", "OLLAMA_KEEP_ALIVE"),
    ("load_timeout", "str", "", "OLLAMA_LOAD_TIMEOUT"),
    ("max_loaded_models", "int", "", "OLLAMA_MAX_LOADED_MODELS"),
    ("max_queue", "int", "", "OLLAMA_MAX_QUEUE"),
    ("max_num_seqs", "int", "", "OLLAMA_NUM_PARALLEL"),
    ("max_model_len", "int", "", "OLLAMA_CONTEXT_LENGTH"),
    ("flash_attention", "bool", "", "OLLAMA_FLASH_ATTENTION"),
    ("kv_cache_dtype", "str", "", "OLLAMA_KV_CACHE_TYPE"),
    ("gpu_overhead_bytes", "int", "", "OLLAMA_GPU_OVERHEAD"),
    ("sched_spread", "bool", "", "OLLAMA_SCHED_SPREAD"),
    ("llm_library", "str", "", "OLLAMA_LLM_LIBRARY"),
    ("origins", "csv", "", "OLLAMA_ORIGINS"),
    ("debug", "str", "", "OLLAMA_DEBUG"),
    ("no_cloud", "bool", "", "OLLAMA_NO_CLOUD"),
    ("vulkan", "bool", "", "OLLAMA_VULKAN"),
)

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("port", 11434, "", ""),
    ("keep_alive", "5m", "", ""),
    ("load_timeout", "5m", "", ""),
    ("max_queue", 512, "", ""),
    ("max_model_len", 2048, "", "0.6.6"),
    ("max_model_len", 4096, "0.6.7", "0.15.4"),  # later it follows the GPU's memory
    ("max_num_seqs", 1, "0.10.0", ""),  # before, four or one by memory
    ("kv_cache_dtype", "f16", "", ""),
    ("enable_metrics", False, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/", "", ""),
)

# Variables that a release reads: first and last of the releases looked at (0.1.29 to 0.33.0-rc2) that has the name in
# its sources, empty for all of them on that side.
_VARIABLES: dict[str, tuple[str, str]] = {
    "OLLAMA_AGENT_DISABLE_BASH": ("0.14.0", "0.30.0"),
    "OLLAMA_AGENT_DISABLE_SHELL": ("0.32.0", ""),
    "OLLAMA_AGENT_DISABLE_WEBSEARCH": ("0.14.0", ""),
    "OLLAMA_API_KEY": ("0.24.0", ""),
    "OLLAMA_AUTH": ("0.8.0", ""),
    "OLLAMA_CLOUD_BASE_URL": ("0.20.0", ""),
    "OLLAMA_CONTEXT_LENGTH": ("0.5.13", ""),
    "OLLAMA_DEBUG": ("", ""),
    "OLLAMA_DEBUG_LOG_REQUESTS": ("0.20.0", ""),
    "OLLAMA_EDITOR": ("0.17.0", ""),
    "OLLAMA_EXPERIMENT": ("0.6.0", ""),
    "OLLAMA_FLASH_ATTENTION": ("0.1.48", ""),
    "OLLAMA_GO_TEMPLATE": ("0.30.0", ""),
    "OLLAMA_GPU_OVERHEAD": ("0.3.14", ""),
    "OLLAMA_HOST": ("", ""),
    "OLLAMA_IGPU_ENABLE": ("0.30.0", ""),
    "OLLAMA_INTEL_GPU": ("0.1.48", "0.12.0"),
    "OLLAMA_KEEP_ALIVE": ("", ""),
    "OLLAMA_KV_CACHE_TYPE": ("0.5.0", ""),
    "OLLAMA_LIBRARY_PATH": ("0.6.7", ""),
    "OLLAMA_LLM_LIBRARY": ("", ""),
    "OLLAMA_LOAD_TIMEOUT": ("0.3.14", ""),
    "OLLAMA_MAX_LOADED_MODELS": ("0.1.34", ""),
    "OLLAMA_MAX_QUEUE": ("0.1.34", ""),
    "OLLAMA_MAX_TRANSFER_STREAMS": ("0.24.0", ""),
    "OLLAMA_MAX_VRAM": ("", ""),
    "OLLAMA_MODELS": ("", ""),
    "OLLAMA_MULTIUSER_CACHE": ("0.3.14", "0.24.0"),
    "OLLAMA_NEW_ENGINE": ("0.5.12", "0.24.0"),
    "OLLAMA_NOHISTORY": ("0.1.48", ""),
    "OLLAMA_NOPRUNE": ("", ""),
    "OLLAMA_NO_CLOUD": ("0.17.0", ""),
    "OLLAMA_NUM_PARALLEL": ("0.1.34", ""),
    "OLLAMA_ORIGINS": ("", ""),
    "OLLAMA_REGISTRY_MAXSTREAMS": ("0.5.13", "0.30.0"),
    "OLLAMA_REMOTES": ("0.12.0", ""),
    "OLLAMA_RUNNERS_DIR": ("0.1.34", "0.3.0"),
    "OLLAMA_SCHED_SPREAD": ("0.1.48", ""),
    "OLLAMA_TMPDIR": ("0.1.34", "0.6.5"),
    "OLLAMA_VULKAN": ("0.12.11", ""),
}

#: The newest release whose sources were searched.
_NEWEST = "0.33.0"


def read(start: Start) -> Engine:
    """The configuration of one `ollama serve`."""
    reading = read_options(start, _TABLE)
    settings = reading.settings
    version, _ = version_of(start)
    problems = [*reading.problems, *_unread(start, version)]
    for problem in problems:
        if problem.kind == "no-effect":
            settings.pop(next((row[0] for row in _TABLE if row[3] == problem.flag), ""), None)
    for setting in _modelfile(start):
        settings[setting.name] = setting
    listen = settings.pop("listen", None)
    rows = list(DEFAULTS)
    if listen is not None:
        for name, value in _address(str(listen.value)):
            settings[name] = replace(listen, name=name, value=value)
        rows.append(("host", "127.0.0.1", "", ""))
    else:
        own = of_image(start.launch.image) == "ollama"
        rows.append(("host", "0.0.0.0" if own else "127.0.0.1", "", ""))  # noqa: S104 - what the image sets
    return build(start, settings, problems, rows, reading.known, reading.unresolved)


def _unread(start: Start, version: str | None) -> Iterator[Problem]:
    """Variables of Ollama's kind that this release does not read, or that none ever did."""
    if not start.known or not (start.program or split_image(start.launch.image)[0].endswith("/ollama")):
        return  # a start script of the image's own may read what it likes
    new = version is not None and at_least(_NEWEST, version) is False
    used = "\n".join((*start.launch.command, *start.launch.args, *start.files.values()))
    for name, variable in start.env.items():
        if not name.startswith("OLLAMA_") or name in used or variable.origin == "script":
            continue
        known = _VARIABLES.get(name)
        if known is None:
            near = _nearest(name)
            detail = f"Ollama has no variable {name}" + (f"; the nearest is {near}" if near else "")
            yield about(variable, "no-effect", detail, certain=not new)
        elif known[0] and at_least(version, known[0]) is False:
            yield about(
                variable, "no-effect", f"Ollama {version} does not read {name}: {known[0]} is the first found to"
            )
        elif known[1] and version and at_least(known[1], version) is False:
            yield about(
                variable, "no-effect", f"Ollama {version} does not read {name}: {known[1]} is the last found to"
            )


# What people write for a variable that has another name.
_MEANT = {
    "OLLAMA_NUM_CTX": "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_CTX_SIZE": "OLLAMA_CONTEXT_LENGTH",
    "OLLAMA_PORT": "OLLAMA_HOST",
}


def _nearest(name: str) -> str | None:
    from difflib import get_close_matches

    found = get_close_matches(name[:80], list(_VARIABLES), n=1, cutoff=0.8)
    return _MEANT.get(name) or (found[0] if found else None)


def _modelfile(start: Start) -> Iterator[Setting]:
    """The model and the context length of the one Modelfile that the start script makes a model of."""
    files = {}
    for command in start.commands:
        words = [word.text for word in command.words]
        if len(words) < 4 or basename(words[0]) != "ollama" or words[1] != "create":
            continue
        name = next((words[i + 1] for i in range(2, len(words) - 1) if words[i] in ("-f", "--file")), "")
        if name in start.files:
            files[name] = words[2]
    if len(files) != 1:  # several models have several contexts
        return
    file, model = next(iter(files.items()))
    if not model.startswith("-") and "\0" not in model:
        yield Setting(name="model", value=model, source="file", text=f"ollama create {model}", path=file, flag="create")
    for line in start.files[file][:200_000].splitlines():
        words = line.split()
        if len(words) == 3 and words[0].upper() == "PARAMETER" and words[1].lower() == "num_ctx":
            try:
                length = integer(words[2])
            except BadValueError:
                continue
            yield Setting(
                name="max_model_len", value=length, source="file", text=line.strip(), path=file, flag="num_ctx"
            )


def _address(text: str) -> list[tuple[str, Any]]:
    """Host and port of OLLAMA_HOST: `0.0.0.0:8080`, `http://0.0.0.0`, `[::]:11434`, `::1`; `:8080` is every address."""
    rest = text.strip().strip("\"'")
    scheme, found, after = rest.partition("://")
    port_of_scheme = {"http": 80, "https": 443}.get(scheme.lower()) if found else None
    rest = (after if found else rest).partition("/")[0]
    host, colon, port = rest.rpartition(":")
    bare = host.count(":") > 0 and "[" not in host  # an IPv6 address without a port
    if not colon or bare or rest.endswith("]"):
        host, port = rest, ""
    out: list[tuple[str, Any]] = []
    if host or colon:
        out.append(("host", host.strip("[]") or "::"))
    if port.isascii() and port.isdecimal() and len(port) < 6 and int(port) < 65536:
        out.append(("port", int(port)))
    elif port_of_scheme and "$(" not in port:
        out.append(("port", port_of_scheme))
    return out
