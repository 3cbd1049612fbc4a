"""How many tokens the server takes, by its context and its slots."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import get_args

import msgspec

from kubectl_llmdoctor.advice.declared import Condition, OfContext
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.catalog.models import native_context
from kubectl_llmdoctor.facts.destinations import logs_of
from kubectl_llmdoctor.facts.lengths import Length, length_of, number_of, pool_of, trained
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.template_values import template_value

#: What a slot of llama-server has where nothing more is known, and how its context is raised.
_A_SHARE = "which is --ctx-size divided by the number of slots"

#: What is longer than a slot by an answer whose length nobody told, is so many times as long at most.
_LONGER_ANSWERS = 4

#: The tokens of its context that SGLang keeps from a prompt, at the most.
_KEPT = 16

#: What is left in a slot for the answer.
_SPARE = 1024

#: No model takes more.
_MOST_TOKENS = 1 << 31

#: To a multiple of this llama.cpp rounds a share of the context up.
_ROUNDED = 256

#: What vLLM takes as the largest rank of an adapter (config/lora.py).
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)


class _Slot(msgspec.Struct, frozen=True):
    """What a slot of llama-server is of its context, and what makes it larger."""

    text: str
    #: so few slots leave each enough; 0 where none does
    fewer: int = 0
    #: the context of which each of the slots then has enough, and how much that is
    whole: int = 0
    each: int = 0
    #: whether nobody knows how its context is divided
    unknown: bool = False


class Context(Topic):
    """The context of the server, and what a slot of it has."""

    decides = get_args(OfContext)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "context": lambda: str(self._length.now) if self._length.now else "what it is",
            "context_there": lambda: str(self._whole),
            "longer_context": lambda: str(self._length.longer),
            "context_bound": lambda: self._length.bound,
            "slot_is": lambda: self._slot.text,
            "fewer_slots": lambda: str(self._slot.fewer),
            "per_slot": lambda: str(self._slot.each),
            "larger_context": lambda: str(self._slot.whole),
            "lora_rank": lambda: str(next((r for r in _RANKS if r >= self._rank), self._rank)),
        }

    def _holds(self) -> Iterator[Condition]:
        if self._length.longer and (self.engine is not None or self.pod is None or self.log_only):
            yield "context can grow"
        yield self._limit
        if self._slot.fewer:
            yield "fewer slots"
        if self._slot.whole:
            yield "larger slots"
        if self._slot.unknown:
            yield "slots unknown"
        batch = self.engine.value("ubatch_size") if self.engine is not None else None
        if isinstance(batch, int) and 0 < self._whole <= batch:
            yield "batch is the context"
        else:
            yield "batch can grow"
        yield "input told" if self._have > 0 else "input not told"

    @cached_property
    def _length(self) -> Length:
        """The context of the server, what the request needs of it, and how long it may become."""
        sizing = self.subject.sizing(self.engine) if self.engine is not None else None
        return length_of(self.engine, self._log, self.captured, sizing)

    @cached_property
    def _log(self) -> Log | None:
        """What the container says now."""
        if self.pod is None or self.container is None or self.log_only:
            return None
        return logs_of(self.pod).current(self.container.name)

    @property
    def _whole(self) -> int:
        """The context that the engine is told, or takes of the model; 0 where neither is known."""
        own = self.engine.value("max_model_len") if self.engine else None
        if isinstance(own, int) and own:
            return own
        unset = self.engine is not None and self.engine.found.argv_known
        model = self.engine.value("model") if self.engine and unset else None
        return (native_context(model) or 0) if isinstance(model, str) else 0

    @property
    def _limit(self) -> Condition:
        """What the captured `max` is by: the context, of which SGLang keeps some tokens, or else the cache."""
        most = number_of(self.captured.get("max"))
        kept = self._whole - most
        # a copy of the model may state less than the model that it is called after: then the cache holds more than is taken
        if not self._whole or kept < 0 or (kept > _KEPT and pool_of(self._log) > most + _KEPT):
            return "limit not known"
        return "context is the limit" if kept <= _KEPT else "cache is the limit"

    @property
    def _have(self) -> int:
        """The number that was captured of a request; 0 for none."""
        return number_of(self.captured.get("have"))

    @template_value
    def ask_less(self) -> str:
        """What clients have to do where the context stays as it is."""
        length, new = self._length, number_of(self.captured.get("new"))
        if new and 0 < self._have < length.now:
            return f"Have clients ask for at most {length.now - self._have} tokens after such a prompt (max_tokens; {new} were asked for)"
        if length.wanted and length.now and length.wanted > length.now:
            over = f"{length.wanted - length.now} tokens less"
            return f"Have clients send, or ask for, {over}: prompt and answer (max_tokens) have {length.now} together"
        return "Have clients send less, or ask for fewer tokens: max_tokens counts together with the prompt"

    @cached_property
    def _slot(self) -> _Slot:
        """What a slot of llama-server of `max` tokens is of its context, and how it gets more.

        A slot has its share of the context, or all of it, and never more than the model was trained with
        (`server-context.cpp`).
        """
        told = self.engine.explicit("max_model_len") if self.engine and self.engine.name == "llama.cpp" else None
        whole, part = told.value if told else None, number_of(self.captured.get("max"))
        if self.engine is None or told is None or not isinstance(whole, int) or part < 1 or whole < 1:
            return _Slot(f"{_A_SHARE} unless they share it", unknown=True)
        have, most = self._have, trained(self._log)
        if most and (most <= part or most < have):
            return _Slot(f"and the model was trained with {most} by its log")
        need = have or _LONGER_ANSWERS * part
        each = min(-(-(need + _SPARE) // _ROUNDED) * _ROUNDED, most or _MOST_TOKENS)
        if part >= whole:
            return _Slot(f"all of {told.text}", whole=each, each=each)
        slots = self.engine.value("max_num_seqs", 1)
        if (
            not isinstance(slots, int)
            or "max_num_seqs" in self.engine.found.unresolved
            or not self.engine.found.argv_known
        ):
            return _Slot(f"{_A_SHARE} or what the model was trained with", unknown=True)
        if slots > 1 and 0 <= part - whole // slots < _ROUNDED:
            fewer = max(whole // need, 1)
            text = f"as {told.text} is divided among {slots} slots"
            if whole >= need and fewer < slots:
                return _Slot(text, fewer=fewer, each=min(whole // fewer, most or _MOST_TOKENS), whole=each * slots)
            return _Slot(text, whole=each * slots, each=each)
        return _Slot(f"which is usually what the model was trained with, as {told.text} is more")

    @property
    def _rank(self) -> int:
        """The rank of an adapter that was captured."""
        rank = self.captured.get("rank", "")
        return int(rank) if rank.isdecimal() else 0

    @template_value
    def enough(self) -> str:
        """The power of two above what is needed."""
        return str(1 << (self._have - 1).bit_length()) if self._have > 0 else ""
