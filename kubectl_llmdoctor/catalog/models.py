"""What is known of open-weights models by their Hugging Face id.

The table `models.json` holds, for each model, the fields of its own config.json that decide memory, with the place where
they were seen; everything else is derived from them. Gating: the Hub asks for a licence to be accepted before files can
be read; it can change at any time, so it only ever supports a risk, never a cause.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from kubectl_llmdoctor.catalog.architecture import Architecture

#: Endings by which derived checkpoints name their quantization: method, bits per weight, and how many more they may
#: be with scales; None where the name does not say enough. What is before the ending is the model that was quantized.
_ENDINGS: tuple[tuple[str, tuple[str, float, float] | None], ...] = (
    ("-fp8-dynamic", ("fp8", 8, 0.2)),
    ("-fp8-kv", ("fp8", 8, 0.2)),
    ("-fp8", ("fp8", 8, 0.2)),
    ("-quantized.w8a8", ("compressed-tensors", 8, 0.2)),
    ("-quantized.w8a16", ("compressed-tensors", 8, 0.2)),
    ("-quantized.w4a16", ("compressed-tensors", 4, 0.6)),
    ("-w8a8", ("compressed-tensors", 8, 0.2)),
    ("-w8a16", ("compressed-tensors", 8, 0.2)),
    ("-w4a16", ("compressed-tensors", 4, 0.6)),
    ("-awq-int4", ("awq", 4, 0.6)),
    ("-awq", ("awq", 4, 0.6)),
    ("-gptq-int4", ("gptq", 4, 0.6)),
    ("-gptq-int8", ("gptq", 8, 0.6)),
    *((ending, None) for ending in ("-nvfp4", "-fp4", "-mxfp4", "-gptq", "-int8", "-int4", "-gguf", "-bnb-4bit")),
)

#: Id prefixes (lower case) that the Hub gates, beyond what the table says of single models. Of Google's those under the terms
#: of Gemma 1 to 3 (vllm-project/semantic-router, issue 817, for embeddinggemma); Gemma 4 is open.
_GATED = (
    "meta-llama/",
    *(f"google/gemma-{release}" for release in ("1.1", "2", "3", "7b", "2b")),
    *(f"google/{kind}gemma" for kind in ("code", "embedding", "med", "pali", "recurrent", "shield")),
    "tiiuae/falcon-180b",
    "databricks/dbrx-",
    "coherelabs/",
    "cohereforai/",
)

#: Who makes models, of those whose names several may have: others publish them again.
_MAKERS = frozenset(
    (
        *(
            "qwen",
            "meta-llama",
            "mistralai",
            "google",
            "microsoft",
            "deepseek-ai",
            "zai-org",
            "moonshotai",
            "allenai",
            "ibm-granite",
        ),
        *(
            "huggingfacetb",
            "baai",
            "tiiuae",
            "01-ai",
            "codellama",
            "facebook",
            "minimaxai",
            "bigcode",
            "intfloat",
            "openai",
        ),
        *(
            "openai-community",
            "tinyllama",
            "baidu",
            "internlm",
            "lgai-exaone",
            "salesforce",
            "stabilityai",
            "swiss-ai",
            "nvidia",
        ),
        *("coherelabs", "arcee-ai", "xiaomimimo", "bytedance-seed", "utter-project", "jinaai", "lmsys"),
    )
)


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: repositories whose config.json has these fields, the fields, and where they were seen.

    `parameters` is the count that the Hub states, `gated_ids` are those that alone are gated where the rest is not.
    `usual` marks a quantized checkpoint whose recipe was not read: the usual one of its method is assumed, as a range.
    """

    ids: tuple[str, ...]
    fields: msgspec.Raw = msgspec.field(name="config")
    source: str
    gated: bool | None = None
    gated_ids: tuple[str, ...] = ()
    parameters: int | None = None
    usual: bool = False

    @property
    def config(self) -> dict[str, Any]:
        """The fields of config.json that decide memory; read when asked for, as one run asks for one model's."""
        return msgspec.json.decode(self.fields, type=dict[str, Any])

    @property
    def architecture(self) -> Architecture:
        """What the fields say; an assumed quantization as a range."""
        from kubectl_llmdoctor.catalog.architecture import of_config  # dear, and few runs need it

        shape = of_config(self.config, self.parameters)
        quantization = shape.quantization
        if not self.usual or quantization is None or quantization.bits is None:
            return shape
        spread = 0.6 if quantization.bits < 8 else 0.2
        low = min(quantization.bits, round(quantization.bits))
        return msgspec.structs.replace(
            shape, quantization=msgspec.structs.replace(quantization, bits=low, spread=spread)
        )


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A model of the table and how it was found: by its `id`, or by a name that says as much (`exact` is False)."""

    id: str
    architecture: Architecture
    exact: bool


@cache
def table() -> tuple[Model, ...]:
    """All rows."""
    data = Path(__file__).with_name("models.json").read_bytes()  # importlib.resources costs 5 ms at start-up
    return msgspec.json.decode(data, type=dict[str, tuple[Model, ...]])["models"]


@cache
def _by_id() -> Mapping[str, Model]:
    return {name.lower(): model for model in table() for name in model.ids}


@cache
def _owners() -> Mapping[str, frozenset[str]]:
    found: dict[str, set[str]] = {}
    for model in table():
        for name in model.ids:
            found.setdefault(name.lower().rpartition("/")[2], set()).add(name)
    return {key: frozenset(names) for key, names in found.items()}


def with_owner(name: str) -> str:
    """The repository of the table that is called so, by who makes it: `Qwen/Qwen3-8B` for `Qwen3-8B`; empty where none is, or several."""
    names = _owners().get(name.strip().lower(), frozenset())
    made = [one for one in names if one.lower().partition("/")[0] in _MAKERS]
    return made[0] if len(made) == 1 else ""


#: What makers put behind the name of a model for chats.
_FOR_CHATS = ("-instruct", "-it", "-chat", "")
#: Names longer than that are no models'; so much alike are two of which one is a slip of the pen, two names of one maker, two words.
_LONGEST, _A_SLIP, _A_MAKER, _A_WORD = 120, 0.93, 0.8, 0.7


def misspelt(name: str) -> str:
    """The repository of the table that somebody meant who wrote OWNER/NAME otherwise; empty where none is, or several."""
    lower = name.strip().lower()
    owner, slash, own = lower.partition("/")
    if not slash or lower in _by_id() or len(lower) > _LONGEST:
        return ""
    made = with_owner(own)
    import difflib  # 1 ms, and few names are wrong

    maker = made.lower().partition("/")[0]
    # a maker's name with more behind it is somebody else's
    if made and not owner.startswith(f"{maker}-") and difflib.SequenceMatcher(None, owner, maker).ratio() >= _A_MAKER:
        return made
    if suffix := next((one for one in _FOR_CHATS if one and own.endswith(one)), ""):
        others = (f"{lower.removesuffix(suffix)}{one}" for one in _FOR_CHATS)
        if found := next((other for other in others if other in _by_id()), ""):
            return _spelled(_by_id()[found], found)
    words, numbers = re.split("[-_/]", lower), re.findall(r"\d+", lower)  # another number, or word, is another model
    alike = [
        one for one in _by_id() if re.findall(r"\d+", one) == numbers and _word_by_word(re.split("[-_/]", one), words)
    ]
    near = difflib.get_close_matches(lower, alike, n=2, cutoff=_A_SLIP)
    return _spelled(_by_id()[near[0]], near[0]) if len(near) == 1 else ""


def _word_by_word(ours: list[str], theirs: list[str]) -> bool:
    """Whether each word of one is that of the other, but for a slip of the pen."""
    import difflib

    pairs = zip(ours, theirs, strict=False)
    return len(ours) == len(theirs) and all(
        one == other or (len(one) > 3 and difflib.SequenceMatcher(None, one, other).ratio() >= _A_WORD)
        for one, other in pairs
    )


@cache
def _by_name() -> Mapping[str, tuple[str, Model]]:
    """Rows by the last part of their ids; a name that several rows have is left out."""
    found: dict[str, set[int]] = {}
    rows: dict[str, tuple[str, Model]] = {}
    for model in table():
        for name in model.ids:
            key = name.lower().rpartition("/")[2]
            found.setdefault(key, set()).add(id(model))
            rows.setdefault(key, (name, model))
    return {key: rows[key] for key, models in found.items() if len(models) == 1}


@cache
def find(model: str) -> Found | None:
    """The model that an id, a mirror's id or a path names; None when the table does not know it.

    `RedHatAI/Qwen3-8B-quantized.w8a8` without a row of its own has the shape of Qwen3-8B, and weights of as many bits as
    its name says. Paths (`/models/Qwen3-8B/`) are read by their last part.
    """
    name = model.strip().rstrip("/").lower()
    row = _by_id().get(name)
    if row is not None:
        return Found(id=_spelled(row, name), architecture=row.architecture, exact=True)
    last = name.rpartition("/")[2].removeprefix("models--").rpartition("--")[2]
    if last in _by_name():
        listed, row = _by_name()[last]
        return Found(id=listed, architecture=row.architecture, exact=False)
    for ending, stated in _ENDINGS:
        base = last.removesuffix(ending)
        if base == last or base not in _by_name():
            continue
        listed, row = _by_name()[base]
        shape = row.architecture
        if shape.quantization is not None:
            return None
        if stated is None:
            gap = f"how {model.strip()} stores its weights"
            shape = msgspec.structs.replace(shape, weights=None, gaps=(*shape.gaps, gap))
        else:
            from kubectl_llmdoctor.catalog.architecture import LINEAR, Quantization

            method, bits, spread = stated
            quantization = Quantization(method=method, bits=bits, parts=LINEAR, spread=spread)
            shape = msgspec.structs.replace(shape, quantization=quantization)
        return Found(id=listed, architecture=shape, exact=False)
    return None


def _spelled(row: Model, lowered: str) -> str:
    return next(name for name in row.ids if name.lower() == lowered)


def native_context(model: str) -> int | None:
    """The context length a model was made for, in tokens; None when the table does not know the model."""
    found = find(model)
    return found.architecture.native_context if found else None


def gated(model: str) -> bool:
    """Whether the Hub is known to ask for a licence before the model's files can be read."""
    name = model.strip().lower()
    row = _by_id().get(name)
    if row is not None and row.gated_ids:
        return name in (gated.lower() for gated in row.gated_ids)
    if row is not None and row.gated is not None:
        return row.gated
    return name.startswith(_GATED)
