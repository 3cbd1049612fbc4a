"""How long a context has to be for a request that was too long, and whether it may become so long."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.logs import Log

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.sizing import Sizing

#: Tokens that are left for what the next request has more, to a multiple of which a context is rounded up, and that no answer fits in.
_SPARE, _STEP, _SHORT, _USELESS = 512, 4096, 1024, 256

#: Engines that take as much as the model does where nothing is set.
_TAKE_ALL = ("vllm", "sglang")

#: What vLLM and SGLang print of the tokens that their caches hold.
_POOL = (
    ("KV cache size:", r"KV cache size: (\d[\d,]{0,15}) tokens"),
    ("max_total_num_tokens=", r"max_total_num_tokens=(\d{1,15})"),
)

_TRAINED = r"\bn_ctx_train(?: {0,8}= {0,2}| \()(\d{1,9})\b"


class Length(msgspec.Struct, frozen=True):
    """The context of a server beside a request that it refused, in tokens."""

    #: what it is; 0 where nobody says it
    now: int
    #: what prompt and answer need together, where that was said
    wanted: int | None
    #: what it may be raised to; 0 where that is not enough for the request
    longer: int
    #: `; Qwen/Qwen3-8B takes 40960`: what says how long it may become
    bound: str


def length_of(engine: Engine | None, log: Log | None, captured: dict[str, str], sizing: Sizing | None = None) -> Length:
    """By the numbers of a message: `have` tokens of a prompt (less than none are left), `new` to generate, `max` that fit.

    Where no log says how many tokens the cache holds, the GPU may surely hold no more than a computed number.
    """
    own = engine.value("max_model_len") if engine else None
    now = number_of(captured.get("max")) or (own if isinstance(own, int) else 0)
    have, new = number_of(captured.get("have")), number_of(captured.get("new"))
    wanted = (now - have if have < 0 else have + new) if have and (now or have > 0) else None
    # who set less than any answer needs may mean another number: what is raised then is raised to something of use
    step = _STEP if (wanted or now) > _STEP or 0 < now < _USELESS else _SHORT
    longer = -(-(wanted + _SPARE) // step) * step if wanted else 2 * now
    native, bound = _native(engine, now, log, whole="max" not in captured)
    pool = pool_of(log) or (_computed(sizing) if sizing is not None and longer > now > 0 else 0)
    most = min((limit for limit in (native, pool) if limit), default=0)
    if most and longer > most:
        longer = most if most > now and most >= (wanted or 0) else 0
    if pool and pool == most and pool != native:
        bound = f"; the KV cache has room for {pool} tokens{'' if pool_of(log) else ' at most'}"
    return Length(now=now, wanted=wanted, longer=longer, bound=bound)


def number_of(text: str | None) -> int:
    """A number of a message; 0 for none, and for one that counts no tokens or bytes."""
    return int(text) if text and re.fullmatch(r"-?[0-9]{1,15}", text) else 0


def trained(log: Log | None) -> int:
    """The context with which the model of llama.cpp was trained, by its log; 0 where that says none, or speaks of several models."""
    lines = log.find("n_ctx_train") if log is not None else ()
    found = {int(said[1]) for line in lines if (said := re.search(_TRAINED, line.text[:2000])) is not None}
    return found.pop() if len(found) == 1 else 0


def _native(engine: Engine | None, now: int, log: Log | None, *, whole: bool) -> tuple[int, str]:
    """The context that the model was made for, and what says so; of llama.cpp that of a slot, or of the `whole` for all of them."""
    from kubectl_llmdoctor.catalog.models import native_context

    if engine is not None and engine.name == "llama.cpp":  # its slots have as much each, and share the context
        each, slots = trained(log), engine.value("max_num_seqs") if whole else 1
        if each and isinstance(slots, int) and slots > 0:
            return each * slots, f"; the model takes {each}" + (f" in each of {slots} slots" if slots > 1 else "")
        return 0, f", if the model was made for so many in a slot (n_ctx_train in its log{f': {each}' if each else ''})"
    model = engine.value("model") if engine else None
    native = native_context(model) if isinstance(model, str) else None
    if native:
        return native, f"; {model} takes {native}"
    unset = engine is not None and engine.found.argv_known and engine.explicit("max_model_len") is None
    if engine is not None and unset and engine.name in _TAKE_ALL and now:
        return now, ""
    return 0, ", if max_position_embeddings in the model's config.json is no less"


def _computed(sizing: Sizing) -> int:
    """The longest request for which the GPU may have room beside the weights; 0 where that is not known."""
    longest = sizing.budget.longest if sizing.budget is not None else None
    return longest[1] if longest else 0


def pool_of(log: Log | None) -> int:
    """How many tokens its cache holds, by its log; of several ranks the smallest."""
    found = [
        int(said[1].replace(",", ""))
        for literal, pattern in _POOL
        for line in (log.find(literal) if log is not None else ())
        if (said := re.search(pattern, line.text[:2000])) is not None
    ]
    return min(found, default=0)
