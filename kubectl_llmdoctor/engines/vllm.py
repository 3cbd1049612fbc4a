"""vLLM: its command line as its own parser takes it, its configuration file, its variables and its defaults.

The parser is `FlexibleArgumentParser` (vllm/utils/__init__.py, later vllm/utils/argparse_utils.py) on top of Python's
argparse: `_` for `-`, unique abbreviations, dotted JSON, `--config FILE` put before the command line. The two entry
points differ: `vllm serve MODEL` (the image's since 0.12.0) and `python -m vllm.entrypoints.openai.api_server --model
MODEL` (the image's up to 0.11.0), which takes a positional model since 0.10.0 and ignores it.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from kubectl_llmdoctor.yamltext import load_yaml, obscure

from .argv import Word
from .common import CommandLine, Start, about, build, defaults, from_variable, shell_words, version_of
from .config import Engine, Problem, Setting, Source
from .dialect import Dialect, Flag, Option, Table
from .values import BadValueError, as_json, boolean, human, integer, number, parse_json
from .version import at_least, parse, split_image
from .vllm_flags import CHOICES, FLAGS, SAMPLES, TOOL_PARSERS

# Options whose common name is not simply their own with underscores.
_NAMES = {"--enable-expert-parallel": "expert_parallel"}

# Entry points with exactly the options of the table. The others (Dynamo's worker, KServe's server, the demo server, a
# script that cannot be seen) have some of their own or lack some.
_PLAIN_FORMS = ("serve", "api_server", "image", "")

# What KAITO's server (presets/workspace/inference/vllm/inference_api.py) starts vLLM with unless it is told otherwise; the
# share of the GPU's memory it measures.
_KAITO_DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("model", "/workspace/vllm/weights", "", ""),
    ("port", 5000, "", ""),
)

# Secrets: only whether they are set.
_SET_ONLY = frozenset({"--api-key", "--hf-token"})

# Name, value, first and last version. Sources: EngineArgs and the config dataclasses of the sampled releases; the
# collective timeout is PyTorch's (kProcessGroupNCCLDefaultTimeout). What depends on the GPU (max_num_seqs,
# max_num_batched_tokens) or on the model (max_model_len) has no default here.
DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("model", "facebook/opt-125m", "0.5.0", "0.9.2"),
    ("model", "Qwen/Qwen3-0.6B", "0.10.0", ""),
    ("port", 8000, "", ""),
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("tensor_parallel_size", 1, "", ""),
    ("pipeline_parallel_size", 1, "", ""),
    ("data_parallel_size", 1, "", ""),
    ("expert_parallel", False, "", ""),
    ("nnodes", 1, "", ""),
    ("node_rank", 0, "", ""),
    ("headless", False, "", ""),
    ("gpu_memory_utilization", 0.9, "", "0.19.1"),
    ("gpu_memory_utilization", 0.92, "0.20.0", ""),
    ("dtype", "auto", "", ""),
    ("kv_cache_dtype", "auto", "", ""),
    ("load_format", "auto", "", ""),
    ("max_num_seqs", 256, "", "0.7.3"),
    ("swap_space", 4.0, "", "0.17.1"),
    ("cpu_offload_gb", 0.0, "", ""),
    ("distributed_timeout_seconds", 600, "", ""),
    ("enforce_eager", False, "", ""),
    ("trust_remote_code", False, "", ""),
    ("enable_lora", False, "", ""),
    ("enable_auto_tool_choice", False, "", ""),
    ("enable_metrics", True, "", ""),
    ("disable_log_stats", False, "", ""),
    ("api_key", False, "", ""),
    ("health_path", "/health", "", ""),
    ("shutdown_timeout", 0, "0.18.1", ""),
)

# Variables that carry configuration (vllm/envs.py): setting, kind, first and last sample that reads it.
_VARIABLES: dict[str, tuple[str, str, str, str]] = {
    "VLLM_API_KEY": ("api_key", "set", "", ""),
    "VLLM_PORT": ("internal_port", "int", "", ""),
    "VLLM_HOST_IP": ("host_ip", "str", "", ""),
    "VLLM_USE_V1": ("use_v1", "bool", "0.6.6", "0.11.0"),
    "VLLM_ATTENTION_BACKEND": ("attention_backend", "str", "", "0.14.1"),
    "VLLM_WORKER_MULTIPROC_METHOD": ("worker_multiproc_method", "str", "", ""),
    "VLLM_ALLOW_LONG_MAX_MODEL_LEN": ("allow_long_max_model_len", "bool", "0.5.5", ""),
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": ("allow_runtime_lora_updating", "bool", "0.6.3", ""),
    "VLLM_ALLOW_INSECURE_SERIALIZATION": ("allow_insecure_serialization", "bool", "0.9.0", ""),
    "VLLM_SERVER_DEV_MODE": ("server_dev_mode", "bool", "", ""),
    "VLLM_USE_MODELSCOPE": ("use_modelscope", "bool", "", ""),
    "VLLM_LOGGING_LEVEL": ("logging_level", "str", "", ""),
    "VLLM_CONFIGURE_LOGGING": ("configure_logging", "bool", "", ""),
    "VLLM_ENGINE_READY_TIMEOUT_S": ("engine_ready_timeout_seconds", "int", "0.14.0", ""),
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": ("execute_model_timeout_seconds", "int", "0.9.0", ""),
    "VLLM_ENGINE_ITERATION_TIMEOUT_S": ("engine_iteration_timeout_seconds", "int", "", "0.31.0"),
    "VLLM_RPC_TIMEOUT": ("rpc_timeout_ms", "int", "0.6.0", "0.22.1"),
    "VLLM_NIXL_SIDE_CHANNEL_HOST": ("nixl_side_channel_host", "str", "", ""),
    "VLLM_NIXL_SIDE_CHANNEL_PORT": ("nixl_side_channel_port", "int", "", ""),
    "VLLM_CPU_KVCACHE_SPACE": ("cpu_kvcache_space_gb", "int", "", ""),
    "VLLM_CPU_OMP_THREADS_BIND": ("cpu_omp_threads_bind", "str", "", ""),
    "VLLM_CACHE_ROOT": ("cache_root", "str", "", ""),
    "VLLM_SKIP_P2P_CHECK": ("skip_p2p_check", "bool", "", ""),
    "VLLM_RAY_PER_WORKER_GPUS": ("ray_per_worker_gpus", "float", "", ""),
}

# Images whose own start script turns variables into options: variable -> option; `*` is appended as it is. Where nothing
# says it, the script sets the tensor parallel size by the GPUs that it finds (entrypoint.sh of substratusai/vllm-docker),
# so that it is not known here.
_IMAGE_VARIABLES: dict[str, dict[str, str]] = {
    "substratusai/vllm": {
        "MODEL": "--model",
        "SERVED_MODEL_NAME": "--served-model-name",
        "PORT": "--port",
        "MAX_MODEL_LEN": "--max-model-len",
        "QUANTIZATION": "--quantization",
        "DTYPE": "--dtype",
        "GPU_MEMORY_UTILIZATION": "--gpu-memory-utilization",
        "EXTRA_ARGS": "*",
    },
    "runpod/worker-v1-vllm": {
        "MODEL_NAME": "--model",
        "OPENAI_SERVED_MODEL_NAME_OVERRIDE": "--served-model-name",
        "MAX_MODEL_LEN": "--max-model-len",
        "QUANTIZATION": "--quantization",
        "DTYPE": "--dtype",
        "GPU_MEMORY_UTILIZATION": "--gpu-memory-utilization",
        "TENSOR_PARALLEL_SIZE": "--tensor-parallel-size",
        "MAX_NUM_SEQS": "--max-num-seqs",
    },
}


# -- the options of one version ---------------------------------------------------------------------------------------


@functools.cache
def _table() -> Table:
    return Table("vllm", "vLLM", SAMPLES, FLAGS, CHOICES, _SUCCESSORS, alike=True)


def _looks_glued(text: str) -> bool:
    """Whether argparse takes a word for a value although an option was meant: it has a blank in it."""
    return text.startswith("-") and " " in text


class _Dialect(Dialect):
    """What one release of vLLM understands."""

    def _add(self, flag: Flag) -> None:
        super()._add(flag)
        # EnableDisableAction, in 0.33.0 and not in 0.31.0
        if self.kind(flag) == "bool" and flag.name.startswith("--enable-") and self.since("0.33.0"):
            self.options.setdefault(f"--disable-{flag.name[9:]}", Option(flag, "bool", True))

    def positional(self, form: str) -> bool | None:
        """Whether a positional model is accepted at all (api_server: since 0.10.0, and not in 0.9.2)."""
        if form not in ("api_server", "image"):
            return True
        if form == "image" or not self.known:
            return None
        if self.since("0.10.0"):
            return True
        return False if self.until("0.9.2") else None


@functools.cache
def dialect(version: str | None) -> _Dialect:
    """The options of a version."""
    return _Dialect(_table(), version)


# -- the command line -------------------------------------------------------------------------------------------------


class _Item(msgspec.Struct, frozen=True):
    """A word as the parser sees it: `key` is the option's name (with dashes), `value` what stands after `=`."""

    text: str
    key: str
    value: str | None
    word: Word


class Parser(CommandLine):
    """Takes a vLLM command line apart as vLLM does."""

    dialect: _Dialect

    def __init__(self, version: str | None, form: str, files: Mapping[str, str]) -> None:
        super().__init__(dialect(version), usual=form in _PLAIN_FORMS)
        self.version = version
        self.form = form
        self.files = files
        self.positionals: list[tuple[Word, tuple[Flag, Word] | None]] = []
        self.dotted: dict[str, list[tuple[list[str], str, Word]]] = {}
        self.from_file = ""
        #: read by vLLM-Omni, whose parser has options of its own
        self.omni = False

    # -- the words

    def run(self, words: Iterable[Word]) -> None:
        """Parses the whole command line."""
        items = [self._item(word) for word in words]
        self.omni = any(item.key == "--omni" for item in items)
        items = self._config(items)
        items = self._collect_dotted(items)
        self._options(items)
        self._finish_dotted()
        self._finish_positionals()

    def _item(self, word: Word) -> _Item:
        text = word.text
        if text.startswith("--") and len(text) > 2:
            name, equals, value = text.partition("=")
            key = name
            if self.dialect.high != 0:  # 0.5.0 had a plain ArgumentParser
                head, dot, tail = name.partition(".")
                key = "--" + head[2:].replace("_", "-") + dot + tail
            return _Item(key + equals + value, key, value if equals else None, word)
        if text.startswith("-O") and len(text) > 2 and "\0" not in text:
            name = "--optimization-level" if self._optimization() else "-O"
            if text[2] != ".":
                return _Item(text, name, text[2:].removeprefix("="), word)
        name, equals, value = text.partition("=")
        if text.startswith("-") and equals and name.partition(".")[0] in self.dialect.options:
            return _Item(text, name, value, word)
        if text.startswith("-q") and len(text) > 2 and not text.startswith("--"):
            return _Item(text, "-q", text[2:].removeprefix("="), word)
        return _Item(text, text if text.startswith("-") and len(text) > 1 else "", None, word)

    def _optimization(self) -> bool:
        """Since 0.12.0 `-O` is the optimization level; before, it was the compilation config."""
        return not self.dialect.known or self.dialect.since("0.12.0")

    def _is_value(self, item: _Item) -> bool:
        """Whether argparse takes the word for a value (ArgumentParser._parse_optional)."""
        text = item.text
        if not text.startswith("-") or text == "-":
            return True
        if item.key and self.dialect.find(item.key) is not None:
            return False
        digits = text[1:].replace(".", "", 1)
        return digits.isdecimal() or " " in text

    def _config(self, items: list[_Item]) -> list[_Item]:
        """`--config FILE`: the file's options stand before the command line, so that the latter wins."""
        for index, item in enumerate(items):
            if item.key != "--config":
                continue
            if item.value is not None:
                # only the two words `--config FILE` are looked for; `--config=FILE` is stored and never read
                self.problem(
                    "no-effect",
                    "--config",
                    [item.word],
                    f"{self.dialect.named} reads a configuration file only as two arguments, `--config FILE`; "
                    f"`{item.word.shown}` is accepted and ignored",
                    True,
                )
                return items[:index] + items[index + 1 :]
            if index + 1 >= len(items):
                self.problem("missing-value", "--config", [item.word], "--config needs a file", True)
                return items[:index]
            file = items[index + 1].word
            rest = items[:index] + items[index + 2 :]
            # a model in front stays in front, so that no list of the file takes it
            front = rest[:1] if index and self.form != "api_server" and self._is_value(rest[0]) else []
            return front + self._file_items(file, item.word) + rest[len(front) :]
        return items

    def _file_items(self, file: Word, flag: Word) -> list[_Item]:
        name = file.text
        if "\0" not in name and not name.endswith((".yaml", ".yml")):
            detail = f"the configuration file must end in .yaml or .yml, not {name!r}"
            self.problem("bad-value", "--config", [flag, file], detail, True)
            return []
        text = self.files.get(name)
        if text is None:
            self.known = False
            detail = f"the configuration file {file.shown} is not visible here"
            self.problem("unresolved", "--config", [flag, file], detail, False)
            return []
        content = load_yaml(text)
        if not isinstance(content, dict):
            self.problem("bad-value", "--config", [flag, file], f"{name} is not a YAML mapping", False)
            return []
        self.from_file = name
        return [item for key, value in content.items() for item in self._file_item(str(key), value, name)]

    def _file_item(self, key: str, value: Any, file: str) -> list[_Item]:
        """One key as command-line words (FlexibleArgumentParser.load_config_file)."""

        def word(text: str, raw: str) -> _Item:
            return self._item(Word(obscure(text.replace("\0", "")), obscure(raw).replace("\0", ""), file))

        shown = value if isinstance(value, str) else as_json(value)
        raw = f"{key}: {shown}"
        option = self.dialect.find("--" + key.replace("_", "-"))
        kind = option.kind if isinstance(option, Option) else ""
        if isinstance(value, bool) and kind != "optbool":
            if value:
                return [word(f"--{key}", raw)]
            # `--no-KEY` is passed from 0.29.0 on; before, false was dropped
            if self.dialect.until("0.26.0"):
                detail = f"{self.dialect.named} drops `{key}: false` from a configuration file; the default stays"
                self.problem("no-effect", f"--{key}", [Word("", raw, file)], detail, kind == "bool")
                return []
            return [word(f"--no-{key}", raw)] if kind == "bool" else []
        if isinstance(value, list):
            if kind in ("list", "append", ""):
                texts = [item if isinstance(item, str) else as_json(item) for item in value]
                return [word(f"--{key}", raw), *(word(text, "") for text in texts)] if value else []
            value = as_json(value)
        elif isinstance(value, dict):
            value = as_json(value)
        elif value is None:
            value = "None"
        return [word(f"--{key}={value}", raw)]

    def _collect_dotted(self, items: list[_Item]) -> list[_Item]:
        """`--hf-overrides.rope_scaling.factor 4`: parts of a JSON value."""
        out: list[_Item] = []
        skip = False
        for index, item in enumerate(items):
            if skip:
                skip = False
                continue
            head, dot, tail = item.key.partition(".")
            single = item.key.startswith("-") and head in self.dialect.options
            if not dot or not (single or item.key.startswith("--")) or not tail or "\0" in item.key:
                if item.text.startswith("-O.") and item.value is None and index + 1 < len(items):
                    head, tail = ("-O" if not self._optimization() else "--compilation-config"), item.text[3:]
                else:
                    out.append(item)
                    continue
            value, words = item.value, [item.word]
            if value is None:
                if index + 1 >= len(items):
                    self.problem("missing-value", item.key, [item.word], f"{item.key} needs a value", True)
                    continue
                value, skip = items[index + 1].word.text, True
                words.append(items[index + 1].word)
            raw = " ".join(word.raw for word in words)
            self.dotted.setdefault(head, []).append((tail.split("."), value, replace(words[0], raw=raw)))
        return out

    def _finish_dotted(self) -> None:
        for head, parts in self.dotted.items():
            option = self.dialect.find(head)
            if not isinstance(option, Option):
                self._unknown(head, [word for _, _, word in parts])
                continue
            if "\0" in "".join(value for _, value, _ in parts):
                self._unresolved(option.flag.name, [word for _, _, word in parts])
                continue
            merged: dict[str, Any] = {}
            for keys, value, _ in parts[:200]:
                _put(merged, keys[:20], value)
            words = [word for _, _, word in parts]
            self._set(option.flag, merged, Word("", " ".join(word.raw for word in words), words[0].path))

    def _options(self, items: list[_Item]) -> None:
        index, size = 0, len(items)
        previous: tuple[Flag, Word] | None = None
        while index < size:
            item = items[index]
            index += 1
            if item.text == "--":
                self.positionals += [(rest.word, None) for rest in items[index:]]
                return
            if self._is_value(item):
                self.positionals.append((item.word, previous))
                previous = None
                continue
            previous = None
            if "\0" in item.key:
                self.known = False
                self.problem("unresolved", item.word.shown, [item.word], "this option is not known here", False)
                continue
            found = self.dialect.find(item.key)
            if not isinstance(found, Option):
                end = index
                if item.value is None and end < size and self._is_value(items[end]):
                    end += 1
                words = [other.word for other in items[index - 1 : end]]
                index = end
                self._unknown(item.key, words, found)
                continue
            values: list[_Item] = []
            if item.value is None and found.kind not in ("flag", "bool"):
                most = size if found.kind == "list" else 1
                while index < size and len(values) < most and self._is_value(items[index]):
                    values.append(items[index])
                    index += 1
            swallowed = [value for value in values if found.kind == "list" and _looks_glued(value.word.text)]
            self._option(item, found, [value for value in values if value not in swallowed])
            for value in swallowed:
                self._glued(value.word, f"it is taken as one more value of {found.flag.name}", True)
            if found.kind in ("flag", "bool"):
                previous = found.flag, item.word

    def _option(self, item: _Item, option: Option, values: list[_Item]) -> None:
        flag, kind = option.flag, option.kind
        words = [item.word, *(value.word for value in values)]
        texts = [item.value] if item.value is not None else [value.word.text for value in values]
        if kind in ("flag", "bool", "optbool") and not texts:
            self._set(flag, not option.negative, item.word)
            return
        if not texts:
            self.problem("missing-value", flag.name, words, f"{flag.name} needs a value", True)
            return
        if any("\0" in text for text in texts) and flag.name not in _SET_ONLY:
            self._unresolved(flag.name, words)
            return
        raw = Word("", " ".join(word.raw for word in words if word.raw), item.word.path)
        if kind in ("flag", "bool"):
            detail = f"{item.key} takes no value; {self.dialect.named} refuses `{item.word.shown}`"
            self.problem("bad-value", flag.name, words, detail, self.dialect.sure(flag))
            if texts[0].lower() in ("true", "false"):
                self._set(flag, boolean(texts[0]) != option.negative, raw)
            return
        try:
            value = self._value(flag, kind, texts)
        except BadValueError as error:
            detail = f"{flag.name} is {' '.join(texts)!r}: {error}"
            self.problem("bad-value", flag.name, words, detail, self.dialect.sure(flag))
            self.unresolved.add(_name(flag))
            return
        if value is not None:
            self._set(flag, value, raw)

    def _value(self, flag: Flag, kind: str, texts: list[str]) -> Any:
        text = texts[0]
        if flag.name in _SET_ONLY:
            return bool(text)
        if kind in ("list", "append"):
            old = self.settings.get(_name(flag))
            if kind == "append" and old is not None and isinstance(old.value, tuple):
                return (*old.value, *texts)
            return tuple(texts)
        if text in ("", "None") and flag.name != "--port":  # optional_type: no value at all
            return None
        if flag.name == "--max-model-len" and text.strip().lower() in ("auto", "-1"):
            if self.dialect.known and self.dialect.high < SAMPLES.index("0.14.1"):
                raise BadValueError("`auto` and -1 are understood from vLLM 0.14 on")
            return "auto"
        allowed = self.dialect.choices(flag.name)
        if allowed is not None and text not in allowed:
            raise BadValueError(f"not one of {', '.join(allowed)}")
        if kind == "int":
            return integer(text)
        if kind == "human":
            return human(text)
        if kind == "float":
            value = number(text)
            if flag.name == "--gpu-memory-utilization" and not 0 < value <= 1:
                raise BadValueError("it must be above 0 and at most 1")
            return value
        if kind == "pairs" or (kind == "json" and self._old_pairs(text)):
            return {key: integer(amount) for key, _, amount in (pair.partition("=") for pair in text.split(","))}
        if kind == "json":
            return parse_json(text)
        if kind == "optbool" and flag.name != "--hf-token":
            return boolean(text)
        return text

    def _old_pairs(self, text: str) -> bool:
        """Whether `a=1,b=2` stands for a JSON object: deprecated with JSON in 0.8.5, gone in 0.10.0."""
        return "=" in text and "{" not in text and not self.dialect.since("0.10.0")

    def _set(self, flag: Flag, value: Any, word: Word) -> None:
        name = _name(flag)
        source: Source = "file" if self.from_file and word.path == self.from_file else "flag"
        self.set(Setting(name=name, value=value, source=source, text=word.raw, path=word.path, flag=flag.name))

    def _unresolved(self, flag: str, words: list[Word]) -> None:
        self.unreadable(_name(_table().flags[flag]) if flag in _table().flags else flag, flag, words)

    def _unknown(self, key: str, words: list[Word], candidates: object = None) -> None:
        if self.form in _PLAIN_FORMS and not self.omni:
            self.unknown(key, words, candidates)

    # -- positional arguments

    def _finish_positionals(self) -> None:
        """The model, and what is left over: glued options, values of options that take none, words too many."""
        words = list(self.positionals)
        if self.form in ("hidden", "dynamo", "kaito", "grpc"):
            return
        if words and words[0][0].text == "serve":
            first = words.pop(0)[0]
            taken = "as the model" if self.dialect.positional(self.form) else "as an argument too many"
            shown = words[0][0].shown if words else "the rest"
            detail = (
                "the image's entrypoint already starts the server, so `serve` arrives there "
                f"{taken} and {shown} is refused"
            )
            self.problem("duplicate-serve", "serve", [first], detail, True)
        implied_model = "model" in self.settings and self.form in ("serve", "")
        free = self.dialect.positional(self.form)
        slots = 0 if implied_model else 1 if free else 0
        for word, before in words:
            text = word.text
            glued = _looks_glued(text)
            loose = before is not None and text.lower() in ("true", "false", "1", "0", "yes", "no")
            takes = slots > 0
            if glued or loose:
                self._left_over(word, before if loose else None, takes)
                slots -= takes
                continue
            if not word.known and takes and self.form != "api_server":
                self._unresolved("--model", [word])
                self.known = self.known and len(word.shown) < len(text) - 1
                slots -= 1
                continue
            if not word.known:
                self.known = False
                continue
            if takes or (free is None and self.form != "api_server" and "model" not in self.settings):
                self._model(word)
                slots -= 1
                continue
            self._too_many(word)

    def _left_over(self, word: Word, before: tuple[Flag, Word] | None, takes: bool) -> None:
        text = word.shown
        if takes and self.form == "api_server":
            effect = "it is taken for the positional model, which this entry point ignores, so it has no effect"
        elif takes:
            effect = "it is taken for the model"
        else:
            effect = f"{self.dialect.named} refuses it"
        certain = not takes and self.dialect.positional(self.form) is not None
        if before is not None:
            name = before[0].name
            detail = f"{name} takes no value, so `{text}` is an argument by itself: {effect}"
            self.problem("bad-value", name, [before[1], word], detail, certain)
            return
        self._glued(word, effect, certain)

    def _glued(self, word: Word, effect: str, certain: bool) -> None:
        """An option and its value in one word; nothing runs as it is written, so all else is judged by what was meant."""
        from .options import glued_words, meant

        text, before = word.shown, dict(self.settings)
        self._options([self._item(Word(part, text, word.path)) for part in shell_words(text)])
        self.settings.update(meant(before, self.settings))
        self.problem(
            "glued", text.partition(" ")[0].replace("_", "-"), [word], f"{glued_words(text)}: {effect}", certain
        )

    def _model(self, word: Word) -> None:
        if self.form == "api_server":
            default = next(row for row in DEFAULTS if row[0] == "model" and row[3] == "")[1]
            serves = "" if "model" in self.settings else f" and serves its default model {default}"
            detail = (
                f"`python -m vllm.entrypoints.openai.api_server` ignores a positional model{serves}; it reads --model"
            )
            self.problem("no-effect", "model", [word], detail, True)
            return
        self._set(_table().flags["--model"], word.text, word)

    def _too_many(self, word: Word) -> None:
        if not word.text.strip():
            detail = "a backslash with a blank behind it does not continue the line: the command ends there"
            self.problem("script", "\\", [word], detail, self.dialect.positional(self.form) is not None)
            return
        if "model" in self.settings and self.settings["model"].flag == "--model" and self.form in ("serve", ""):
            other = self.settings["model"]
            if other.text.startswith(("--model", "-")):
                detail = f"the model is given twice, as `{word.shown}` and as `{other.text}`: {self.dialect.named} refuses it"
                # the entry point of older images ignores the second one from 0.10.0 on
                self.problem("conflict", "--model", [word], detail, self.form == "serve")
                return
        if self.form == "api_server" and "model" not in self.settings:
            detail = "this entry point takes no positional model, only --model"
            self.problem("unknown-flag", word.shown, [word], detail, self.dialect.positional("api_server") is False)
            return
        detail = f"{self.dialect.named} refuses the stray argument `{word.shown}`"
        self.problem("unknown-flag", word.shown, [word], detail, self.dialect.positional(self.form) is not None)


def _name(flag: Flag) -> str:
    return _NAMES.get(flag.name) or flag.name[2:].replace("-", "_")


def _put(target: dict[str, Any], keys: list[str], text: str) -> None:
    """Puts a dotted value into its place; `key+` adds to a list."""
    if keys[-1].endswith("+"):
        keys = [*keys[:-1], keys[-1][:-1]]
        value: Any = text.split(",")
    else:
        try:
            value = parse_json(text)
        except BadValueError:
            value = text
    for key in keys[:-1]:
        inner = target.get(key)
        if not isinstance(inner, dict):
            inner = target[key] = {}
        target = inner
    old = target.get(keys[-1])
    target[keys[-1]] = [*old, *value] if isinstance(old, list) and isinstance(value, list) else value


# What took a removed option's place (release notes and deprecation messages of vLLM).
_SUCCESSORS = {
    "--disable-log-requests": "it is off by default now; --enable-log-requests turns it on",
    "--task": "use --runner and --convert",
    "--guided-decoding-backend": "use --structured-outputs-config.backend",
    "--rope-scaling": "use --hf-overrides",
    "--rope-theta": "use --hf-overrides",
    "--speculative-model": "use --speculative-config",
    "--num-speculative-tokens": "use --speculative-config",
    "--cuda-graph-sizes": "use --cudagraph-capture-sizes",
    "--max-seq-len-to-capture": "use --max-cudagraph-capture-size",
    "--override-pooler-config": "use --pooler-config",
    "--worker-use-ray": "use --distributed-executor-backend ray",
    "--enable-reasoning": "--reasoning-parser alone is enough",
    "--device": "the build decides",
    "--disable-mm-preprocessor-cache": "use --mm-processor-cache-gb 0",
}


# -- the engine -------------------------------------------------------------------------------------------------------


def read(start: Start) -> Engine:
    """The configuration of one vLLM process."""
    version, _ = version_of(start)
    form = start.form or _implied_form(start.launch.image, version)
    parser = Parser(version, form, start.files)
    args = list(start.args)
    if start.implied:
        args += _image_arguments(start)
    if (extra := start.env.get("VLLM_ADDITIONAL_ARGS")) and start.implied and extra.value:
        args += [Word(text, extra.value, extra.path) for text in shell_words(extra.value)]
    parser.run(args)
    if form == "kaito" and any(word.text.startswith("--kaito-config-file") for word in args):
        parser.known = False  # what that file says comes last, and counts
    # vLLM-Omni puts each stage of a model on the devices that its stage configuration names (vllm_omni/entrypoints/cli)
    if (parser.omni or (start.implied and _image_variables(start))) and "tensor_parallel_size" not in parser.settings:
        parser.unresolved.add("tensor_parallel_size")
    if start.repeated:
        detail = "the image's entrypoint already starts the server, and gets the whole command as arguments: refused"
        parser.problem("duplicate-serve", start.repeated[0].text, start.repeated, detail, True)
    # a plugin of vLLM's may bring a parser, and so may a build of somebody's own
    plain = "VLLM_PLUGINS" not in start.env and "vllm-openai" in split_image(start.launch.image)[0]
    built = not re.fullmatch(_RELEASE, split_image(start.launch.image)[1])
    _rules(parser, form, plain, built, "VLLM_USE_V1" in start.env)
    settings = dict(parser.settings)
    problems = [*parser.problems, *_variables(start, settings, version)]
    if parser.known and "model" not in settings and "model" not in parser.unresolved:
        problems += _unread_model(start)
    program = start.program
    if start.implied and not program:
        program = tuple(Word(text, text, "") for text in _entrypoint(form))
    start = msgspec.structs.replace(start, program=program, form=form)
    headless = settings.get("headless")
    rows = _defaults_for("headless" if headless is not None and headless.value is True else form, version)
    return build(start, settings, problems, rows, parser.known, parser.unresolved)


def _implied_form(image: str, version: str | None) -> str:
    """The official image's entrypoint: api_server up to 0.11.0, `vllm serve` from 0.12.0, in between not known.

    LMCache's image bears the same name and starts `vllm serve` (docker/Dockerfile of LMCache).
    """
    if at_least(version, "0.12.0") or f"/{split_image(image)[0].lower()}".endswith("/lmcache/vllm-openai"):
        return "serve"
    return "api_server" if version and at_least("0.11.0", version) else ""


def _entrypoint(form: str) -> tuple[str, ...]:
    if form == "api_server":
        return ("python3", "-m", "vllm.entrypoints.openai.api_server")
    return ("vllm", "serve") if form == "serve" else ()


def _image_variables(start: Start) -> dict[str, str]:
    """The variables that the image's own start script reads; empty for an image that has none."""
    repository = split_image(start.launch.image)[0].lower()
    return next((rows for name, rows in _IMAGE_VARIABLES.items() if repository.endswith(name)), {})


def _image_arguments(start: Start) -> list[Word]:
    """Options that the image's own start script makes of variables."""
    out = []
    for variable, option in _image_variables(start).items():
        found = start.env.get(variable)
        if found is None or not found.value:
            continue
        raw = f"{variable}={found.value}"
        if option == "*":
            out += [Word(text, text, found.path) for text in shell_words(found.value)]
        else:
            out.append(Word(f"{option}={found.value}", raw, found.path))
    return out


#: The tag of a release, for whatever processor, system and CUDA; others are builds of somebody's own, who may have changed it.
_RELEASE = r"v?\d+(?:\.\d+){2,3}(?:\.?(?:post|rc)\d+)*(?:-(?:x86_64|aarch64|arm64|amd64|cu\d+|ubuntu[\d.]+))*|"


def _rules(parser: Parser, form: str, plain: bool, built: bool, v1: bool) -> None:
    """What the parser's own checks refuse beyond single options; `plain` where nothing but vLLM's own code is in the image.

    It may be `built` by somebody of a state between releases, and told whether to take its V1 engine.
    """
    if form == "serve":
        _model_as_flag(parser, built)
    _tool_calls(parser, plain)
    _batches(parser, v1)


def _model_as_flag(parser: Parser, built: bool) -> None:
    """`--model` of `vllm serve`: up to 0.8.0 the positional was required; up to 0.11.0 `--model X` (not `--model=X`) raised ValueError."""
    model, known = parser.settings.get("model"), parser.dialect
    if model is None or model.source != "flag" or not model.text.startswith("--model") or not known.known:
        return
    separate = not model.text.startswith("--model=")
    if known.high <= SAMPLES.index("0.8.0") or (separate and known.high <= SAMPLES.index("0.11.0")):
        detail = f"`vllm serve` of {known.named} takes the model as its first argument and refuses --model"
        parser.problem("conflict", "--model", [Word("", model.text, model.path)], detail, not built)


def _tool_calls(parser: Parser, plain: bool) -> None:
    """Tools that are to be chosen by a parser which is not named, or which no release has."""
    settings, known = parser.settings, parser.dialect
    choice, named = settings.get("enable_auto_tool_choice"), settings.get("tool_call_parser")
    if choice is None or choice.value is not True:
        return
    if named is None:
        detail = "--enable-auto-tool-choice requires --tool-call-parser"
        sure = parser.known and known.known and known.since("0.9.0")
        parser.refuse(choice, detail, sure and all(problem.flag != "--tool-call-parser" for problem in parser.problems))
        return
    name = str(named.value)
    if name in TOOL_PARSERS or "tool_parser_plugin" in settings:
        return
    from difflib import get_close_matches

    near = [other for other in TOOL_PARSERS if other.startswith(name)]
    # deepseek_r1 is not deepseek_v3
    near = near or get_close_matches(name[:80], TOOL_PARSERS, n=1, cutoff=0.9)
    detail = f"--tool-call-parser is {name!r}, which no release of vLLM has"
    detail += f" (it has {', '.join(near)})" if near else ""
    parser.refuse(named, detail, known.known and plain, "bad-value")


def _batches(parser: Parser, v1: bool) -> None:
    """Batches that hold fewer tokens than there may be requests, or than a prompt that is not cut may have."""
    settings, known = parser.settings, parser.dialect
    tokens, sequences = settings.get("max_num_batched_tokens"), settings.get("max_num_seqs")
    if tokens and sequences and tokens.value < sequences.value:
        detail = (
            f"max_num_batched_tokens ({tokens.value}) must be greater than or equal to max_num_seqs ({sequences.value})"
        )
        parser.refuse(tokens, detail)
    length, chunked = settings.get("max_model_len"), settings.get("enable_chunked_prefill")
    if not tokens or not length or not isinstance(length.value, int) or tokens.value >= length.value:
        return
    # the V1 engine of 0.8 to 0.11 chunks prompts all the same
    before, since = known.until("0.7.3"), known.since("0.12.0")
    if known.known and not before and not since:
        return
    # of V0 it is the default but for contexts of more than 32768 tokens (EngineArgs.create_engine_config)
    if chunked.value is False if chunked else before and not v1 and length.value <= 1 << 15:
        detail = (
            f"without chunked prefill max_num_batched_tokens ({tokens.value}) must not be smaller than max_model_len "
            f"({length.value})"
        )
        parser.refuse(tokens, detail, before or since)


def _variables(start: Start, settings: dict[str, Setting], version: str | None) -> list[Problem]:
    """Settings that variables give, unless an option does; and variables that this version does not read."""
    problems = []
    known = dialect(version).known
    for variable, (name, kind, first, last) in _VARIABLES.items():
        found = start.env.get(variable)
        if found is None:
            continue
        newer = bool(last and version and at_least(last, version) is False)
        if known and version and (newer or (first and at_least(version, first) is False)):
            when = f"after {last}" if newer else f"before {first}"
            problems.append(
                Problem(
                    kind="no-effect",
                    flag=variable,
                    text=f"{variable}={found.value}",
                    path=found.path,
                    detail=f"vLLM {version} does not read {variable} (none {when} does)",
                    # between two samples nobody has looked
                    certain=not (last and version and _in_gap(version, last)),
                )
            )
            continue
        setting, problem = from_variable(name, kind, found)
        if setting is not None:
            settings.setdefault(name, setting)
        if problem is not None and problem.kind != "unresolved":  # a pod's own address and the like are no fault
            problems.append(problem)
    return problems


# Variables by which images with a start script of their own are told the model; no release of vLLM reads one.
_NAME_A_MODEL = (
    "MODEL", "MODEL_ID", "MODEL_NAME", "MODEL_PATH", "HF_MODEL", "HF_MODEL_ID", "HF_MODEL_NAME", "VLLM_MODEL", "VLLM_MODEL_ID",
    "VLLM_MODEL_NAME",
)  # fmt: skip

#: vLLM's own images, whose entrypoint is the server itself.
_OWN_IMAGE = r"(?:^|/)vllm/vllm-openai(?:-cpu|-rocm)?$"


def first_with(variable: str) -> str:
    """The release from which a variable is read; empty where each reads it, or nothing says it."""
    return _VARIABLES[variable][2] if variable in _VARIABLES else ""


def _unread_model(start: Start) -> list[Problem]:
    """The model that a variable alone names, where nothing but the server of vLLM's own image could read it."""
    launch = start.launch
    if not (start.implied and start.known) or launch.command or not re.search(_OWN_IMAGE, split_image(launch.image)[0]):
        return []
    used = " ".join(launch.args)
    named = [start.env[name] for name in _NAME_A_MODEL if name in start.env and name not in used]
    detail = "no argument names a model, so it serves its default model"
    return [about(found, "no-effect", detail, certain=True) for found in named if found.value]


def _in_gap(version: str, last: str) -> bool:
    """Whether a version lies between a sample and the next one."""
    samples, key, mine = _table().keys, parse(last), parse(version)
    following = next((sample for sample in samples if key is not None and sample > key), None)
    return mine is not None and following is not None and mine < following


def _defaults_for(form: str, version: str | None) -> list[tuple[str, Any, str, str]]:
    rows = list(DEFAULTS)
    if version is not None and parse(version) is not None and not dialect(version).known:
        # outside of what was read only what never changed is stated
        rows = [row for row in rows if not row[2] and not row[3]]
    if form == "kaito":
        own = {name for name, _, _, _ in _KAITO_DEFAULTS}
        rows = [*(row for row in rows if row[0] not in own and row[0] != "gpu_memory_utilization"), *_KAITO_DEFAULTS]
    if form == "grpc":  # vllm/entrypoints/grpc_server.py: neither health nor metrics over HTTP, and it asks for no key
        http = ("port", "api_key", "health_path", "enable_metrics")
        rows = [*(row for row in rows if row[0] not in http), ("port", 50051, "", "")]
    if form in ("dynamo", "headless"):  # a worker behind another's front end opens no port of this kind
        rows = [row for row in rows if row[0] not in ("port", "host", "api_key", "health_path")]
    return rows


def rejudge(engine: Engine, version: str, version_text: str) -> Engine:
    """The same engine once its version is known: which of its options that version does not have."""
    from .options import judge

    stated = {}
    if engine.argv_known:
        rows = _defaults_for("" if "host" in {**engine.defaults, **engine.settings} else "headless", version)
        stated = defaults("vllm", version, rows, engine.settings)
    return replace(
        engine,
        version=version,
        version_text=version_text,
        defaults={name: setting for name, setting in stated.items() if name not in engine.unresolved},
        problems=tuple(judge(engine, dialect(version))),
    )
