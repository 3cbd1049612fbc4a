"""Which engine is it: from the program and its arguments first, then from the image, then from flags and environment.

What is started decides over what the image is called: an image named vllm may run Ollama, a router or a benchmark.
Sources: the engines' console scripts and modules, the entrypoints of their images, and the names under which charts and
mirrors publish them.
"""

from __future__ import annotations

import itertools
from collections.abc import Container, Iterator, Sequence

import msgspec

from .argv import WRAPPERS, Command, Word, basename
from .launch import Launch
from .version import split_image

# Wrappers whose options name an environment, which may be called like an engine.
_ENVIRONMENTS = ("conda", "mamba", "micromamba")

# What `python -m MODULE` runs: engine and form, or "" for what is no engine.
_MODULES = {
    "vllm.entrypoints.openai.api_server": ("vllm", "api_server"),
    "vllm.entrypoints.launchers.api_server": ("vllm", "api_server"),
    "vllm.entrypoints.api_server": ("vllm", "demo"),
    "vllm.entrypoints.grpc_server": ("vllm", "grpc"),
    "ipex_llm.vllm.xpu.entrypoints.openai.api_server": ("vllm", "api_server"),
    "ipex_llm.vllm.cpu.entrypoints.openai.api_server": ("vllm", "api_server"),
    "dynamo.vllm": ("vllm", "dynamo"),
    "sglang.launch_server": ("sglang", "server"),
    "dynamo.sglang": ("sglang", "dynamo"),
    "dynamo.sglang.worker": ("sglang", "dynamo"),
    "tensorrt_llm.commands.serve": ("tensorrt-llm", "serve"),
    "dynamo.trtllm": ("tensorrt-llm", "dynamo"),
    "huggingfaceserver": ("huggingfaceserver", "server"),
    "llama_cpp.server": ("llama.cpp", "python"),
    "lmdeploy.serve.openai.api_server": ("lmdeploy", "server"),
    "lmdeploy.serve.turbomind.server": ("lmdeploy", "server"),
}

# Programs that are an engine by themselves.
_PROGRAMS = {
    "text-generation-launcher": ("tgi", "launcher"),
    "tgi-entrypoint.sh": ("tgi", "launcher"),
    "text-embeddings-router": ("tei", "router"),
    "tritonserver": ("triton", "server"),
    "launch_triton_server.py": ("triton", "launch"),
    "llama-server": ("llama.cpp", "server"),
    "llama-server.exe": ("llama.cpp", "server"),
    "start_server.sh": ("nim", "server"),
    "start-server.sh": ("nim", "server"),
    "nim-serve": ("nim", "server"),
}

# Script files that a Python interpreter gets by path: the end of the path, a word that must occur in it.
_FILES = (
    ("openai/api_server.py", "vllm", ("vllm", "api_server")),
    ("entrypoints/api_server.py", "vllm", ("vllm", "demo")),
    ("vllm/inference_api.py", "", ("vllm", "kaito")),
    ("launch_server.py", "sglang", ("sglang", "server")),
    ("launch_triton_server.py", "", ("triton", "launch")),
    ("huggingfaceserver/__main__.py", "", ("huggingfaceserver", "server")),
)

# Words of an image's name that say it is not the engine itself but something beside it.
_BESIDE = frozenset([
    "router", "routing", "proxy", "sidecar", "sim", "simulator", "mock", "mocker", "bench", "benchmark", "benchmarks",
    "guidellm", "operator", "controller", "scheduler", "optimizer", "exporter", "ui", "webui", "aphrodite", "lorax",
    "gradio", "fastapi", "flask", "django", "streamlit", "chainlit", "chatbot", "rag", "guardrails", "gateway", "epp",
    "adapter", "agent", "downloader", "requester", "test", "tests", "client", "dashboard", "plugin", "initializer",
    "loader", "launcher-populator", "storage", "queue", "activator", "endpoint", "picker", "envoy", "litellm", "ray",
    "metrics", "monitor", "manager", "webhook", "autoscaler", "frontend", "builder", "devcontainer", "docs",
    "cache-server", "scripts",
])  # fmt: skip

# Those of them that say it is one that computes nothing, beside a word for what it stands for: other simulators need their GPU.
_SIMULATORS = frozenset(["sim", "simulator", "mock", "mocker"])
_SIMULATED = frozenset(["llm", "vllm", "sglang", "trtllm", "inference", "openai", "dynamo"])

# What `local-ai` does instead of serving; without any of them it serves.
LOCALAI_ERRANDS = frozenset(
    ["federated", "models", "backends", "tts", "sound-generation", "transcript", "worker", "p2p-worker", "util", "agent",
     "explorer", "completion"]
)  # fmt: skip

# Hints in a program's name that it starts a server, and that it does something else.
_STARTS = ("entrypoint", "start", "launch", "serve", "run", "boot", "init.sh", "main", "app", "vllm", "sglang", "llm")
_NO_SERVER = (
    "bench", "download", "convert", "test", "client", "router", "proxy", "eval", "health", "probe", "wait", "warm",
    "init_", "init-", "cache_server", "lmcache", "worker-v", "copy", "sync", "upload", "export", "monitor", "quantiz",
    "finetune", "train", "requester", "check", "install", "trtllm-build",
)  # fmt: skip

_PYTHONS = ("python", "pypy")


class Match(msgspec.Struct, frozen=True):
    """An engine that a command starts: its name, the form of its command line, where its arguments begin."""

    engine: str
    form: str
    program: tuple[Word, ...]
    args: tuple[Word, ...]
    hidden: bool = False


class Verdict(msgspec.Struct, frozen=True):
    """What a command is: an engine (`match`), or something that cannot be seen into (`hidden`), or neither."""

    match: Match | None
    hidden: bool = False


def judge(words: Sequence[Word], image: str) -> Verdict:
    """What this command starts."""
    words = tuple(words)
    if not words:
        return Verdict(None)
    limit = 1
    first = basename(words[0].text)
    wrapped = first in WRAPPERS or first.endswith(".sh") or is_python(first)
    if wrapped:
        limit = min(len(words), 40)
    for start in range(limit):
        if start and words[start].text.startswith("-"):
            continue
        if start and first in _ENVIRONMENTS and words[start - 1].text in ("-n", "--name", "-p", "--prefix"):
            continue
        found = _head(words, start, image)
        if found is None:
            if start and not wrapped:
                break
            continue
        if not found.engine:
            return Verdict(None)
        hidden = start > 0 and (first == "xargs" or (first.endswith(".sh") and first not in WRAPPERS))
        return Verdict(msgspec.structs.replace(found, hidden=hidden))
    return Verdict(None, _hides(words))


def is_python(name: str) -> bool:
    """Whether a program of this name is a Python interpreter."""
    return name.startswith(_PYTHONS) and not name.endswith(".py")


_NONE = Match("", "", (), ())


#: Programs with subcommands: those that serve, as which engine in which form.
_COMMANDS: dict[str, dict[tuple[str, ...], tuple[str, str]]] = {
    "vllm": {("serve",): ("vllm", "serve")},
    "vllm-omni": {("serve",): ("vllm", "serve")},
    "sglang": {("serve",): ("sglang", "serve")},
    "ollama": {("serve",): ("ollama", "serve"), ("start",): ("ollama", "serve")},
    "lmdeploy": {("serve", "api_server"): ("lmdeploy", "server")},
}
#: Programs that serve with or without a subcommand: engine, form, the subcommand, and those that do something else.
_SERVERS: dict[str, tuple[str, str, str, Container[str]]] = {
    "local-ai": ("localai", "server", "run", LOCALAI_ERRANDS),
    "trtllm-serve": (
        "tensorrt-llm",
        "serve",
        "serve",
        ("disaggregated", "disaggregated_mpi_worker", "mm_embedding_serve"),
    ),
}
#: vLLM's examples: they start Ray, not the server.
_STARTS_RAY = ("multi-node-serving.sh", "run_cluster.sh")


def _head(words: tuple[Word, ...], at: int, image: str) -> Match | None:
    """The engine whose program is `words[at]`; a Match without engine for a program that is known to be none."""
    name = basename(words[at].text)
    if is_python(name) or name in ("torchrun", "accelerate"):
        return _python(words, at)
    if name in _COMMANDS:
        for command, (engine, form) in _COMMANDS[name].items():
            if tuple(word.text for word in words[at + 1 : at + 1 + len(command)]) == command:
                return _from(words, at, at + 1 + len(command), engine, form)
        return _NONE
    following = words[at + 1].text if at + 1 < len(words) else ""
    if name in _SERVERS:
        engine, form, serve, errands = _SERVERS[name]
        return _NONE if following in errands else _from(words, at, at + 1 + (following == serve), engine, form)
    if name in _STARTS_RAY:
        return _NONE
    if name == "server" and of_image(image) == "llama.cpp":
        return _from(words, at, at + 1, "llama.cpp", "server")
    if name in _PROGRAMS and (name not in ("start_server.sh", "start-server.sh") or of_image(image) == "nim"):
        return _from(words, at, at + 1, *_PROGRAMS[name])
    return None


def _from(words: tuple[Word, ...], at: int, end: int, engine: str, form: str) -> Match:
    """The engine, the words of its program, and what follows them."""
    return Match(engine, form, words[at:end], words[end:])


def _python(words: tuple[Word, ...], at: int) -> Match | None:
    """`python -m MODULE …` or `python FILE.py …`."""
    index = at + 1
    while index < len(words):
        text = words[index].text
        if text == "-m" or (text == "--module" and basename(words[at].text) == "torchrun"):
            module = words[index + 1].text if index + 1 < len(words) else ""
            if (
                module.startswith("vllm.entrypoints.cli")
                and index + 2 < len(words)
                and words[index + 2].text == "serve"
            ):
                return _from(words, at, index + 3, "vllm", "serve")
            if module in _MODULES:
                return _from(words, at, index + 2, *_MODULES[module])
            if module == "lmdeploy" and [word.text for word in words[index + 2 : index + 4]] == ["serve", "api_server"]:
                return _from(words, at, index + 4, "lmdeploy", "server")
            return _NONE
        if text == "-c":
            return None
        if not text.startswith("-"):
            break
        index += 2 if text in ("-X", "-W") else 1
    if index >= len(words):
        return None
    path = words[index].text
    if basename(words[at].text) == "torchrun" or not path.endswith(".py"):
        return _wrapped_module(words, at)
    for end, part, engine in _FILES:
        if path.endswith(end) and part in path:
            return _from(words, at, index + 1, *engine)
    return None


def _wrapped_module(words: tuple[Word, ...], at: int) -> Match | None:
    """`torchrun --nproc-per-node 2 -m MODULE …`: the options before it take values."""
    for index in range(at + 1, min(len(words) - 1, at + 24)):
        if words[index].text == "-m" and words[index + 1].text in _MODULES:
            return _from(words, at, index + 2, *_MODULES[words[index + 1].text])
    return None


def _hides(words: tuple[Word, ...]) -> bool:
    """Whether a command that is no known program may start an engine in the end (a script that is not visible)."""
    wrapper = False
    for word in words[:6]:
        text = word.text
        name = basename(text).lower()
        if text.startswith("-"):
            continue
        if "\n" in text or ";" in text or "import " in text:  # `python -c CODE`
            return any(hint in text for hint in ("vllm", "sglang", "api_server", "uvicorn", "serve"))
        if is_python(name) or name in WRAPPERS or name in ("sh", "bash", "make", "supervisord", "node"):
            wrapper = wrapper or name.endswith(".sh")
            continue
        if any(hint in name for hint in _NO_SERVER):
            return False
        if "\0" in text:
            return "RAY_START_CMD" not in text  # KubeRay's own command
        script = name.endswith((".sh", ".py")) or "." not in name
        return script and any(hint in name for hint in _STARTS)
    return wrapper  # `entrypoint.sh` with nothing behind it


#: Commands that end, or wait for nothing, behind the one that a script is for.
_IDLE = frozenset(["wait", "sleep", "tail", "echo", "exit", "true", "cat", "trap"])
#: Programs whose processes on several hosts are engines, and tools that look at a server or fetch for one.
_NO_ENGINES = frozenset(
    ["ray", "serve", "xinference", "xinference-local", "gpustack", "curl", "wget", "nc", "kubectl", "tritonclient"]
)
#: Hints in a program's name that it asks, measures or makes models.
_ASKS = (
    "bench", "client", "router", "proxy", "eval", "lmcache", "cache_server", "quantiz", "finetune", "train",
    "requester",
)  # fmt: skip


def starts_other(commands: Sequence[Command], image: str) -> bool:
    """Whether what a container starts is known to be no server of an engine: a node of Ray, a router, a client, a benchmark."""
    programs = [list(_programs(command.words)) for command in commands]
    if any("ray" in names[:1] for names in programs):
        return True
    last = next((n for n in reversed(range(len(programs))) if not _IDLE.intersection(programs[n][:1])), None)
    if last is None or not programs[last]:
        return False
    name = programs[last][0]
    known = None if is_python(name) else _head(tuple(commands[last].words), 0, image)
    return known is not None or name in _NO_ENGINES or any(hint in n for n in programs[last] for hint in _ASKS)


def _programs(words: Sequence[Word]) -> Iterator[str]:
    """What a command starts through its wrappers, by name: an interpreter and behind it the module or file."""
    for word in words[:12]:
        name = basename(word.text).lower()
        if word.text.startswith("-") or name in WRAPPERS:
            continue
        yield name
        if not is_python(name):
            return


def tokens_of(image: str) -> tuple[str, list[str]]:
    """An image's repository in lower case and the words of its last component."""
    repository = split_image(image)[0].lower()
    last = repository.rpartition("/")[2]
    # `${VLLM_IMAGE}`: a name that something else fills in says as much as one that is written
    last = last.strip("${}()")
    return repository, [part for part in last.replace("_", "-").replace(".", "-").split("-") if part]


def beside(image: str) -> bool:
    """Whether the image's name says that it runs beside an engine: a router, a sidecar, a simulator."""
    repository, parts = tokens_of(image)
    if "opea/" in repository and parts[:1] in (["llm"], ["lvm"], ["embedding"], ["reranking"]):
        return True  # OPEA's microservices in front of an engine, which their names end in
    if "llamastack/" in repository or parts[:1] in (["distribution"], ["llamastack"]):
        return True  # Llama Stack's servers, which ask the engine that their names end in
    if parts[:2] == ["vllm", "rs"]:
        return True  # an engine of its own in Rust (vllm.rs), which calls its options as vLLM does
    ray = any(part.startswith("ray") and part[3:].isdecimal() for part in parts)
    if parts == ["runtime"]:
        return True  # AIBrix's and Kthena's, which watch over the engine beside them
    return any(part in _BESIDE for part in parts) or ray or "rayproject/" in repository


def simulates(image: str) -> bool:
    """Whether an image's name says that it answers in an engine's place and computes nothing (llm-d-inference-sim, a mock)."""
    parts = tokens_of(image)[1]
    return not _SIMULATORS.isdisjoint(parts) and not _SIMULATED.isdisjoint(parts)


# What stands behind `vllm` without a hyphen in names of images.
_VLLM_TAILS = ("openai", "server", "serving", "runtime", "api", "cpu", "gpu", "rocm", "cuda")


def of_image(image: str) -> str | None:
    """The engine that an image is made for, by its name; None for others and for what runs beside an engine."""
    repository, parts = tokens_of(image)
    if not parts or beside(image):
        return None
    last = repository.rpartition("/")[2]
    if "huggingfaceserver" in last:
        return "huggingfaceserver"
    if "text-generation-inference" in last or "tgi" in parts:
        return "tgi"
    if "text-embeddings-inference" in last or last in ("tei", "tei-gaudi"):
        return "tei"
    if "/nim/" in f"/{repository}" or "nim" in parts:
        return "nim"
    if "tritonserver" in last or "triton" in parts:
        return "triton"
    if "tensorrt-llm" in repository or "tensorrtllm" in last or "trtllm" in parts:
        return "tensorrt-llm"
    if "llama.cpp" in last or "llama-cpp" in last or "llamacpp" in last or "llama-server" in last:
        return None if {"rpc", "worker"}.intersection(parts) else "llama.cpp"  # `rpc-server` lends its memory
    if last in ("localai", "local-ai"):
        return "localai"
    for engine in ("sglang", "ollama", "lmdeploy"):
        if engine in parts:
            return engine
    if last == "sgl-dev":  # AMD's builds
        return "sglang"
    if any(_called_vllm(part) for part in parts) or repository.endswith(("llm-d/llm-d",)):
        return "vllm"
    if parts[:2] == ["llm", "d"] and (
        len(parts) == 2 or parts[2] in ("cuda", "rocm", "xpu", "cpu", "aws", "hpu", "gke")
    ):
        return "vllm"
    return None


def _called_vllm(part: str) -> bool:
    """`vllm`, `vllm0` of `vllm0.9.1`, `vllmcpu`; a name of its own such as `vllme`, a simulator, is another program."""
    tail = part.removeprefix("vllm")
    return part.startswith("vllm") and (not tail or tail[0].isdecimal() or tail in _VLLM_TAILS)


# Flags that only one engine has, enough to tell an image with a name of its own.
_FLAGS = {
    "--max-model-len": "vllm",
    "--gpu-memory-utilization": "vllm",
    "--max-num-seqs": "vllm",
    "--max-num-batched-tokens": "vllm",
    "--mem-fraction-static": "sglang",
    "--context-length": "sglang",
    "--max-total-tokens": "",  # SGLang's and TGI's
    "--num-shard": "tgi",
    "--max-input-tokens": "tgi",
    "--max-batch-prefill-tokens": "tgi",
    "--n-gpu-layers": "llama.cpp",
    "-ngl": "llama.cpp",
    "--ctx-size": "llama.cpp",
    "--model-repository": "triton",
    "--cache-max-entry-count": "lmdeploy",
    "--session-len": "lmdeploy",
    "--free-gpu-memory-fraction": "tensorrt-llm",
    "--extra-llm-api-options": "tensorrt-llm",
}

# What llama.cpp's other programs are given to answer or to measure with.
_PROMPTS = frozenset(["-p", "--prompt", "-f", "--file", "-pg"])

# Options of several engines: they tell one together with a variable of its own.
_COMMON_FLAGS = ("--model", "--served-model-name", "--tensor-parallel-size", "--trust-remote-code")

# Variables that only the engine itself reads; two of a kind, or one with its usual port, tell it.
_VARIABLES = {
    "vllm": ("VLLM_USE_V1", "VLLM_ATTENTION_BACKEND", "VLLM_WORKER_MULTIPROC_METHOD",
             "VLLM_ALLOW_LONG_MAX_MODEL_LEN", "VLLM_ALLOW_RUNTIME_LORA_UPDATING", "VLLM_NIXL_SIDE_CHANNEL_HOST",
             "VLLM_LOGGING_LEVEL", "VLLM_CPU_KVCACHE_SPACE"),
    "ollama": ("OLLAMA_HOST", "OLLAMA_KEEP_ALIVE", "OLLAMA_MODELS", "OLLAMA_NUM_PARALLEL",
               "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_CONTEXT_LENGTH", "OLLAMA_FLASH_ATTENTION",
               "OLLAMA_LOAD_TIMEOUT"),
    "tgi": ("MODEL_ID", "NUM_SHARD", "MAX_TOTAL_TOKENS", "MAX_INPUT_TOKENS", "MAX_INPUT_LENGTH",
            "MAX_BATCH_PREFILL_TOKENS"),
    "nim": ("NIM_MODEL_NAME", "NIM_MODEL_PROFILE", "NIM_CACHE_PATH", "NIM_SERVED_MODEL_NAME", "NGC_API_KEY",
            "NIM_SERVER_PORT"),
    "llama.cpp": ("LLAMA_ARG_MODEL", "LLAMA_ARG_HF_REPO", "LLAMA_ARG_CTX_SIZE", "LLAMA_ARG_N_GPU_LAYERS",
                  "LLAMA_ARG_HOST"),
}  # fmt: skip
_PORTS = {"vllm": 8000, "ollama": 11434, "tgi": 80, "nim": 8000, "llama.cpp": 8080}


def of_flags(words: Sequence[Word]) -> str | None:
    """The engine whose own flags stand among the arguments of an image with a name of its own."""
    flags = [w.text.partition("=")[0].replace("_", "-") if w.text.startswith("--") else w.text for w in words]
    found = next((engine for flag in flags if (engine := _FLAGS.get(flag))), None)
    if "--model-name" in flags and "--model" not in flags and (found == "vllm" or "--model-id" in flags):
        return "huggingfaceserver"  # KServe's, which hands the flags of vLLM on and has words of its own for the model
    return found or ("llama.cpp" if _of_gguf([word.text for word in words]) else None)


def _of_gguf(texts: list[str]) -> bool:
    """Whether a model is named as llama.cpp's programs alone name theirs; one that is given a prompt answers it and ends.

    Other programs have an `-hf`, and `--hf-repo` for repositories of other formats.
    """
    named = itertools.pairwise(part for text in texts for part in (text.split("=", 1) if text[:2] == "--" else (text,)))
    file = any(
        (flag == "-m" and value.endswith(".gguf")) or (flag in ("-hf", "--hf-repo") and "gguf" in value.lower())
        for flag, value in named
    )
    return file and not _PROMPTS.intersection(texts)


def of_environment(launch: Launch) -> str | None:
    """The engine whose variables the container has, where neither the image nor a command tells."""
    if any(word.startswith(_COMMON_FLAGS) for word in launch.args):
        for prefix, engine in (("VLLM_", "vllm"), ("SGLANG_", "sglang")):
            if any(name.startswith(prefix) for name in launch.env):
                return engine
    best: tuple[int, str] | None = None
    for engine, names in _VARIABLES.items():
        count = sum(name in launch.env for name in names) + (_PORTS[engine] in launch.ports)
        if engine == "nim" and not any(name.startswith("NIM_") for name in launch.env):
            continue
        if count >= 2 and (best is None or count > best[0]) and any(name in launch.env for name in names):
            best = (count, engine)
    return best[1] if best else None
