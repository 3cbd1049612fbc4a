"""Text Generation Inference: every option of its launcher is a variable as well (launcher/src/main.rs, 0.9 to 3.3).

A clap program: a variable is read as strictly as the option of its name, and an empty one is a value too. The image
sets PORT=80 and HUGGINGFACE_HUB_CACHE=/data, whatever command it runs. Text Embeddings Inference is of the same making
(router/src/main.rs, 0.6 to 1.9).
"""

from __future__ import annotations

import functools
import re
from typing import Any

from msgspec.structs import replace

from .argv import Word, basename
from .common import Start, about, build, defaults, from_variable, version_of
from .config import Engine
from .dialect import ALONE, Dialect, Flag, Table, dialect
from .options import CLAP, Options, Row, judge
from .version import at_least, split_image

#: IBM's fork, with which Caikit serves (TGIS).
_FORK = r"(?:^|/)(?:modh|opendatahub|wxpe|ibm)/(?:[\w.-]+/){0,9}(?:text-generation-inference|text-gen-server)\b"
#: Tags of images whose program is that of another backend (Dockerfile_llamacpp, Dockerfile_trtllm).
_OTHER_BACKENDS = r":[\w.-]*-(?:llamacpp|trtllm)\b"

# Options whose common name is another one than their own. The variable is the option's name in capitals.
_ROWS: tuple[Row, ...] = (
    ("model", "str", "--model-id", ""),
    ("tokenizer", "str", "--tokenizer-config-path", ""),
    ("tensor_parallel_size", "int", "--num-shard", ""),
    ("quantization", "str", "--quantize", ""),
    ("max_model_len", "int", "--max-total-tokens", ""),
    ("max_input_tokens", "int", "--max-input-length", ""),
    ("max_num_batched_tokens", "int", "--max-batch-prefill-tokens", ""),
    ("max_num_seqs", "int", "--max-batch-size", ""),
    ("gpu_memory_utilization", "float", "--cuda-memory-fraction", ""),
    ("cuda_graphs", "csv", "--cuda-graphs", ""),
    ("host", "str", "--hostname", ""),
    ("metrics_port", "int", "--prometheus-port", ""),
    ("download_dir", "str", "--huggingface-hub-cache", ""),
    ("lora_modules", "csv", "--lora-adapters", ""),
    # read by the server and the launcher, without an option
    ("attention_backend", "str", "", "ATTENTION"),
    ("enable_prefix_caching", "bool", "", "PREFIX_CACHING"),
)

_EMBEDDINGS: tuple[Row, ...] = (
    ("model", "str", "--model-id", ""),
    ("host", "str", "--hostname", ""),
    ("served_model_name", "one", "--served-model-name", ""),
    ("max_num_batched_tokens", "int", "--max-batch-tokens", ""),
    ("max_num_seqs", "int", "--max-batch-requests", ""),
    ("metrics_port", "int", "--prometheus-port", ""),
    ("download_dir", "str", "--huggingface-hub-cache", ""),
)

# What took a removed option's place.
_SUCCESSORS = {
    "--enable-cuda-graphs": "use --cuda-graphs",
    "--disable-usage-stats": "use --usage-stats off",
    "--disable-crash-reports": "use --usage-stats no-stack",
}

# The old and the new name of one limit.
_ONE_LIMIT = ("--max-input-length", "--max-input-tokens")

# A pod's HOSTNAME is its name: the launcher falls back to all interfaces. `--env` has no variable.
_NO_VARIABLE = frozenset({"--hostname", "--env"})

DEFAULTS: tuple[tuple[str, Any, str, str], ...] = (
    ("model", "bigscience/bloom-560m", "", ""),
    ("host", "0.0.0.0", "", ""),  # noqa: S104 - a statement about the engine
    ("max_concurrent_requests", 128, "", ""),
    ("gpu_memory_utilization", 1.0, "", ""),
    ("metrics_port", 9000, "", ""),
    ("trust_remote_code", False, "", ""),
    ("enable_metrics", True, "", ""),
    ("distributed_timeout_seconds", 120, "", ""),
    ("max_input_tokens", 1024, "", "1.4.5"),
    ("max_model_len", 2048, "", "1.4.5"),
    ("max_num_batched_tokens", 4096, "", "1.4.5"),
    ("api_key", False, "", ""),
    ("health_path", "/health", "", ""),
)


@functools.cache
def table(engine: str) -> Table:
    """The options by release."""
    if engine == "tei":
        from . import tei_flags

        return Table("tei", "Text Embeddings Inference", tei_flags.SAMPLES, tei_flags.FLAGS, {}, {})
    from .tgi_flags import CHOICES, FLAGS, SAMPLES

    return Table("tgi", "Text Generation Inference", SAMPLES, FLAGS, CHOICES, _SUCCESSORS)


def read(start: Start) -> Engine:
    """The configuration of one launcher."""
    embeddings = start.engine == "tei"
    options = Options(start, _EMBEDDINGS if embeddings else _ROWS, table(start.engine), CLAP)
    options.run(start.args if embeddings else _split_again(start))
    options.take_positionals("model", "--model-id", slots=0)
    options.take_variables()
    _variables(options, table(start.engine))
    if not embeddings:
        _rules(options)
    rows = [
        row for row in DEFAULTS if not embeddings or row[0] in ("host", "trust_remote_code", "api_key", "health_path")
    ]
    last = split_image(start.launch.image)[0].rpartition("/")[2].lower()
    if last in ("text-generation-inference", "text-embeddings-inference"):
        rows.append(("port", 80, "", ""))
    elif start.program and start.launch.command:
        rows.append(("port", 3000, "", ""))
    # the options of IBM's fork are others (IBM/text-generation-inference, launcher/src/main.rs), as are those of other backends
    others = re.search(rf"{_FORK}|{_OTHER_BACKENDS}", start.launch.image)
    problems = [] if others else options.problems
    return build(start, options.settings, problems, rows, options.known, options.unresolved)


def _split_again(start: Start) -> tuple[Word, ...]:
    """The words as the launcher gets them: the image's `tgi-entrypoint.sh` (2.0) passes `$@` on without quotes."""
    through = start.implied or any(basename(word.text) == "tgi-entrypoint.sh" for word in start.program)
    if not through or at_least(version_of(start)[0], "2.0") is False:
        return start.args
    return tuple(
        replace(word, text=text, raw=word.raw if text == word.text else text)
        for word in start.args
        for text in (word.text.split() if word.known else (word.text,))
    )


def _variables(options: Options, known: Table) -> None:
    """What variables set: each option's name in capitals, unless the command line has the option."""
    speech, env = options.dialect, options.start.env
    for flag in known.flags.values():
        variable = env.get(flag.name[2:].replace("-", "_").upper())
        if variable is None or flag.name in _NO_VARIABLE or speech is None:
            continue
        if speech.has(flag) is False:
            newer = flag.first > speech.high
            since = f"came with {known.title} {known.samples[flag.first]}" if newer else "was removed"
            detail = f"{speech.named} does not read {variable.name}: it {since}"
            options.problems.append(about(variable, "no-effect", detail, certain=True))
            continue
        name, kind = _meaning(options, flag, speech)
        if name in options.settings or name in options.unresolved:
            continue
        allowed = speech.choices(flag.name)
        setting, problem = from_variable(name, kind, variable)
        if variable.value == "" and kind in ("int", "float"):
            problem = about(variable, "bad-value", f"an empty {variable.name} is no number for {speech.named}")
        elif setting is not None and allowed is not None and setting.value not in allowed:
            detail = f"{variable.name} is {variable.value!r}: not one of {', '.join(allowed)}"
            problem = about(variable, "bad-value", detail)
        if problem is not None:
            sure = problem.kind == "bad-value" and speech.sure(flag) and kind != "bool" and variable.value != ""
            options.problems.append(replace(problem, certain=sure))
            options.unresolved.add(name)
        elif setting is not None:
            options.settings[name] = setting


def _meaning(options: Options, flag: Flag, speech: Dialect) -> tuple[str, str]:
    row = options.by_flag.get(flag.name)
    kind = row[1] if row is not None else speech.kind(flag)
    if row is None and flag.name.endswith(("-key", "-token", "-authtoken")):
        kind = "set"
    kind = {"optbool": "bool", "truth": "bool", "append": "csv"}.get(kind, "bool" if kind in ALONE else kind)
    return (row[0] if row is not None else flag.name[2:].replace("-", "_")), kind


def _rules(options: Options) -> None:
    """What the launcher refuses beyond single options (`LauncherError::ArgumentValidation`)."""
    settings = options.settings

    def number(name: str) -> Any:
        setting = settings.get(name)
        return setting.value if setting is not None and isinstance(setting.value, int) else None

    def refuse(name: str, detail: str) -> None:
        options.refuse(settings[name], detail)

    given = [word.text.partition("=")[0] for word in options.start.args]
    both = all(name in given or name[2:].replace("-", "_").upper() in options.start.env for name in _ONE_LIMIT)
    if both and options.dialect is not None and options.dialect.since("2.0.4") and "max_input_tokens" in settings:
        refuse("max_input_tokens", "max_input_tokens and max_input_length are one limit: both are refused")
    prompt, total, batch = number("max_input_tokens"), number("max_model_len"), number("max_batch_total_tokens")
    if prompt is not None and total is not None and prompt >= total:
        refuse("max_input_tokens", f"max_input_tokens ({prompt}) must be less than max_total_tokens ({total})")
    if batch is not None and total is not None and total > batch:
        refuse("max_batch_total_tokens", f"max_total_tokens ({total}) must not exceed max_batch_total_tokens ({batch})")
    shards, sharded = number("tensor_parallel_size"), settings.get("sharded")
    if shards == 1 and sharded is not None and sharded.value is True:
        refuse("tensor_parallel_size", "a sharded model needs more than one shard")


def rejudge(engine: Engine, version: str, version_text: str) -> Engine:
    """The same engine once its version is known."""
    speech = dialect(table(engine.name), version)
    stated = (
        defaults(engine.name, version, DEFAULTS, engine.settings) if engine.argv_known and engine.name == "tgi" else {}
    )
    fresh = {name: setting for name, setting in stated.items() if name not in engine.unresolved}
    return replace(
        engine,
        version=version,
        version_text=version_text,
        defaults={**engine.defaults, **fresh},
        problems=tuple(judge(engine, speech)),
    )
