"""What llama-server keeps in host memory: prompts, and weights that are not mapped from their file; Ollama runs one for each model."""

import re

import msgspec

from kubectl_llmdoctor.api import GIB, MIB, Engine, Evidence, Fix, Log, fixes, log_evidence, say_bytes, setting_evidence

#: What llama-server prints of its prompt cache: its size when it starts, each prompt that it keeps, and what it has then (0 is no limit).
#: From b9908 on one that is larger than the whole cache is not kept, as the next line says.
LITERALS = _SIZE, _USED, _STATE, _PASSED_OVER = (
    "prompt cache is enabled, size limit: ",
    "saving prompt with length ",
    " - cache state: ",
    "exceeds cache size limit",
)
_HOLDS = "b9908"

#: A machine whose memory is not known is taken to have this at least.
_SMALL = 4 * GIB

#: How large the state of a prompt is that it keeps.
_KEPT = r"saving prompt with length \d{1,9}, total state size = (\d{1,8}\.\d{1,6}) MiB"

#: How large it may become, by both.
_LIMIT = _SIZE + r"(?:(\d{1,7}) MiB|no limit)|" + _STATE + r"\d{1,6} prompts, .{0,60}\(limits: (\d{1,7})\.\d{1,6} MiB"

#: What it holds; with less than this share of the limit, also that of several runners, it is not what fills the container.
_HELD, _HARDLY = _STATE + r"\d{1,6} prompts, (\d{1,8})\.\d{1,6} MiB", 32

#: The prompt cache of llama-server (--cache-ram) where nobody sets it, in MiB; Ollama's runners inherit the variable.
_DEFAULT, _VARIABLE = 8192, "LLAMA_ARG_CACHE_RAM"


class Greed(msgspec.Struct, frozen=True):
    """What a setting takes of host memory: words, where it is said, and what makes it less.

    `wanted` is what somebody told it to take, where that is no default.
    """

    text: str
    evidence: Evidence
    fix: Fix
    wanted: int = 0


def _one_prompt(engine: Engine, limit: int | None, log: Log | None) -> Greed | None:
    """A prompt that llama-server keeps although it is larger than all of its cache: the last one stays there before b9908."""
    setting = engine.explicit("cache_ram_mib") if engine.name == "llama.cpp" else None
    if log is None or setting is None or not isinstance(setting.value, int) or setting.value <= 0:
        return None
    if engine.at_least(_HOLDS) or log.last(_PASSED_OVER) is not None:
        return None
    kept = [(float(said[1]), line) for line, said in log.matching(_KEPT, _USED)]
    size, line = max(kept, key=lambda one: one[0], default=(0.0, None))
    if line is None or size <= setting.value or size * MIB * 2 < (limit or _SMALL):
        return None
    return Greed(
        f" llama-server kept one prompt of {say_bytes(int(size) * MIB)}, although {setting.text} is less: before {_HOLDS} it keeps "
        "the last one whatever the limit is.",
        log_evidence(line, _USED),
        fixes.set_flag(
            engine,
            "cache_ram_mib",
            "--cache-ram",
            "0",
            f"Turn the prompt cache off, --cache-ram 0: before {_HOLDS}, which keeps the limit, none holds for a single prompt",
        ),
    )


def prompt_cache(engine: Engine | None, limit: int | None, log: Log | None) -> Greed | None:
    """A prompt cache in host memory that may take half of the limit or more; Ollama runs llama-server for each model."""
    if engine is None or engine.name not in ("llama.cpp", "ollama"):
        return None
    if (beyond := _one_prompt(engine, limit, log)) is not None or limit is None:
        return beyond
    setting = engine.explicit("cache_ram_mib")
    size, evidence = _DEFAULT, setting_evidence(engine.container, setting) if setting else None
    if setting and isinstance(setting.value, int):
        size = setting.value
    for literal in (_SIZE, _STATE, _USED) if log and not setting else ():
        line = next(log.find(literal), None) if log else None
        if line is None or evidence:
            continue
        said = re.search(_LIMIT, line.text[:2000])
        size, evidence = (int(said[1] or said[2] or 0) or -1 if said else size), log_evidence(line, literal)
    held = [int(said[1]) * MIB for _, said in log.matching(_HELD, _STATE)] if log is not None else []
    if evidence is None or not (size < 0 or size * MIB * 2 >= limit) or (held and max(held) * _HARDLY < limit):
        return None
    ollama = engine.name == "ollama"
    much = f"up to {say_bytes(size * MIB)}" if size >= 0 else "as much as there is"
    less = max(limit // 8 // MIB, 256)
    summary = f"Have the prompt cache keep {less} MiB at most{' in each runner' if ollama else ''}"
    return Greed(
        f" {'Each model that Ollama runs' if ollama else 'llama-server'} keeps the prompts of earlier requests in that memory, {much}.",
        evidence,
        fixes.set_env(engine.container, _VARIABLE, str(less), summary)
        if ollama
        else fixes.set_flag(engine, "cache_ram_mib", "--cache-ram", str(less), summary),
        wanted=size * MIB if setting and size > 0 else 0,
    )


#: By which the weights of experts, or of all that a pattern names, stay in host memory.
_SO_MANY_ON_CPU = ("--n-cpu-moe", "-ncmoe")
_ON_CPU = ("--cpu-moe", "-cmoe", *_SO_MANY_ON_CPU)
_BY_PATTERN = r"exps\S{0,40}=CPU\b"


def unmapped(engine: Engine) -> Greed | None:
    """Weights that llama-server keeps in host memory, and reads there instead of mapping their file: the kernel can take none back."""
    if engine.name != "llama.cpp" or engine.value("mmap", True):
        return None
    setting, words = engine.explicit("mmap"), [str(word) for word in engine.container.spec.argv]
    kept = next(
        (word for word in words if word.partition("=")[0] in _ON_CPU or re.search(_BY_PATTERN, word[:2000])), ""
    )
    layers = engine.explicit("gpu_layers")
    more = f"a smaller {kept}" if kept in _SO_MANY_ON_CPU else f"--n-cpu-moe N in place of {kept}"
    if layers is not None and str(layers.value) == "0":
        kept, more = layers.text, f"--n-gpu-layers N in place of {layers.text}"
    if setting is None or not kept:
        return None
    return Greed(
        f" llama-server keeps weights in host memory ({kept}), and reads them there instead of mapping their file ({setting.text}), so "
        "that nothing of them can be given back.",
        setting_evidence(engine.container, setting),
        fixes.remove_flag(
            engine,
            "mmap",
            f"Leave {setting.text} out (--load-mode mmap in later releases): these weights are then pages of their file, which the kernel "
            f"takes back before it kills. Where that is too slow keep more of them on the GPUs ({more}) or take "
            "a smaller quantization; a larger request or limit does not make the node larger",
        ),
    )
