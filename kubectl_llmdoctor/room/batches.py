"""What an engine computes at once: shorter contexts and smaller batches than those that are set."""

from __future__ import annotations

from kubectl_llmdoctor.catalog.models import native_context
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.lengths import number_of
from kubectl_llmdoctor.room.amounts import amount
from kubectl_llmdoctor.room.case import SHORTEST, Case
from kubectl_llmdoctor.template_values import template_value

#: Between these builds of llama.cpp a context that nobody named was one of 4096 tokens; else it is as long as the model was made for.
_SHORT_SINCE, _WHOLE_SINCE = "b4014", "b7405"

#: A batch that fits beside the weights of nearly every model, in tokens and in requests.
_TOKENS, _REQUESTS, _AT_ONCE = 2048, 64, 128

_IMAGES = 16

#: What is left of a batch that needs far less memory, and a length to which prompts may be cut.
_FAR_FEWER, _A_PROMPT = 0.75, 4096

#: What Text Embeddings Inference computes at once unless it is told (--max-batch-tokens).
_EMBEDDED = 16384

#: The longest input that its models take for the most part.
_USUAL_INPUT = 8192

#: Of these it computes some in four bytes only ("Gemma3 is only supported in fp32 precision").
_FOUR_BYTES = expression(r"(?i)gemma|pplx")

#: The physical batch of llama.cpp unless it is told, for which its kernels are tried most.
_UBATCH = 512


def _cuts_inputs(engine: Engine) -> bool:
    """Whether Text Embeddings Inference cuts an input that is longer than a batch: as it is told, and since 1.9 by itself."""
    variable = engine.container.env.get("AUTO_TRUNCATE")
    words = [*engine.found.argv, ""]
    at = next((n for n, word in enumerate(words) if word.partition("=")[0] == "--auto-truncate"), None)
    if at is not None:
        return "false" not in (words[at].partition("=")[2].lower(), words[at + 1].lower())
    if variable is not None:
        return str(variable.value).lower() != "false"
    return engine.at_least("1.9.0") is True


class Batches(Case, frozen=True):
    """What an engine computes at once: shorter contexts and smaller batches than those that are set."""

    def values(self) -> dict[str, str]:
        return super().values() | {
            "fewer_tokens": self._fewer("max_num_batched_tokens", _TOKENS),
            "batched": str(self._batched or ""),
            "fewer_batched": self._fewer("max_num_batched_tokens", _TOKENS) if self._batched > _TOKENS else "",
            "fewer_at_once": self._fewer("ubatch_size", _AT_ONCE),
            "fewer_requests": self._fewer("max_num_seqs", _REQUESTS),
            "half_context": self._half("max_model_len"),
            "half_length": str(self._length // 2) if self._length else "",
            "fits_long": "yes" if number_of(self.captured.get("fits")) >= SHORTEST else "",
            "prefill": str(self._prefill or ""),
            "longer_prompt": str(self._longer_prompt or ""),
        }

    @template_value
    def shorter_prompt(self) -> str:
        """A longest prompt that leaves an eighth of what prompt and answer have together to the answer, where all of it is the prompt's."""
        told = self.engine.explicit("max_input_tokens") if self.engine else None
        total = number_of(self.captured.get("most")) or (self.engine.value("max_model_len") if self.engine else None)
        return str(total - total // 8) if told and isinstance(total, int) and total >= SHORTEST else ""

    @template_value
    def no_context(self) -> str:
        """`yes` where llama.cpp was told no context, so that it takes what the model was made for (some builds take 4096 tokens)."""
        engine = self.engine
        if engine is None or engine.name != "llama.cpp" or not engine.found.argv_known:
            return ""
        known = "max_model_len" in engine.found.unresolved or engine.value("max_model_len")
        short = engine.at_least(_SHORT_SINCE) and engine.at_least(_WHOLE_SINCE) is False
        return "" if known or short else "yes"

    @template_value
    def parallel_set(self) -> str:
        """How many requests Ollama is told to compute at once, each of which has a context of its own there."""
        told = self.engine.explicit("max_num_seqs") if self.engine and self.engine.name == "ollama" else None
        return str(told.value) if told and isinstance(told.value, int) and told.value > 1 else ""

    @template_value
    def batch_set(self) -> str:
        """The physical batch that llama.cpp is told, as it is written there, where it is larger than the usual one.

        What embeds or ranks needs room in it for a whole text, and gets no smaller one.
        """
        engine = self.engine
        if engine is None or engine.name != "llama.cpp" or engine.value("embeddings") or engine.value("reranking"):
            return ""
        told = engine.explicit("ubatch_size")
        return told.text if told and isinstance(told.value, int) and told.value > _UBATCH else ""

    @property
    def _length(self) -> int:
        """The longest request that the message speaks of."""
        return number_of(self.captured.get("length"))

    @template_value
    def fits_length(self) -> str:
        """As many tokens as the memory that is left holds of those that need so much, and a tenth less."""
        needed, left = amount(self.captured.get("needed")), amount(self.captured.get("available"))
        if not needed or not left or left >= needed:
            return ""
        fits = int(self._length * left / needed * 0.9) // 16 * 16
        return str(fits) if fits >= SHORTEST else ""

    def _half(self, name: str) -> str:
        """Half of what is set; only of what is set and can be halved."""
        setting = self.engine.explicit(name) if self.engine else None
        value = setting.value if setting else None
        return str(value // 2) if isinstance(value, int) and value >= 1024 else ""

    @template_value
    def fewer_embedded(self) -> str:
        """Half of the tokens that Text Embeddings Inference computes at once, or its default where it is told far more."""
        engine = self.engine
        if engine is None or engine.name != "tei" or not engine.found.argv_known:
            return ""
        told = engine.value("max_num_batched_tokens", _EMBEDDED)
        if not isinstance(told, int) or told < SHORTEST:
            return ""
        fewer = min(told // 2, _EMBEDDED)
        if _cuts_inputs(engine):
            return str(fewer)
        # where an input may be longer than a batch it refuses to start, and before 1.8.3 never answers such a one
        longest = self.sizing.longest_input if self.sizing else None
        fewer = max(fewer, longest) if longest else fewer
        return str(fewer) if fewer < told and (longest or fewer >= _USUAL_INPUT) else ""

    @template_value
    def wide_dtype(self) -> str:
        """The type of four bytes that Text Embeddings Inference is told to compute in, which takes float16 by itself on a GPU."""
        engine = self.engine
        if engine is None or engine.name != "tei" or _FOUR_BYTES.search(str(engine.value("model") or "")[:400]):
            return ""
        told = engine.explicit("dtype")
        return told.text if told and told.value == "float32" else ""

    @property
    def _batched(self) -> int:
        """The tokens that are computed at once, as they are set or known."""
        told = self.engine.value("max_num_batched_tokens") if self.engine else None
        return told if isinstance(told, int) else 0

    @property
    def _prefill(self) -> int:
        """The tokens of one prefill of Text Generation Inference, by the message or as they are set."""
        told = self.engine.value("max_num_batched_tokens") if self.engine else None
        return number_of(self.captured.get("prefill")) or (told if isinstance(told, int) else 0)

    @template_value
    def half_prefill(self) -> str:
        """Half of them, or as many as one prompt may have, which TGI demands at least; only where that is known, and is far fewer."""
        fewer = max(self._prefill // 2, self._prompt or self._prefill)
        return str(fewer) if 0 < fewer <= self._prefill * _FAR_FEWER else ""

    @template_value
    def half_prompt(self) -> str:
        """Half of them, where the prompt is told to be so long that they cannot be far fewer without it."""
        told = self.engine.explicit("max_input_tokens") if self.engine and not self.half_prefill else None
        half = self._prefill // 2
        return str(half) if told and self._prompt and self._prompt > half >= _A_PROMPT else ""

    @property
    def _longer_prompt(self) -> int:
        """A length of prompts with room for the one that was refused, where TGI is told another, and its batch takes one so long."""
        told = self.engine.explicit("max_input_tokens") if self.engine and self._prompt else None
        longer = -(-(number_of(self.captured.get("have")) + SHORTEST // 2) // SHORTEST) * SHORTEST
        batch = self.engine.explicit("max_num_batched_tokens") if self.engine and told else None
        fits = batch is None or (isinstance(batch.value, int) and batch.value >= longer)
        model = self.engine.value("model") if self.engine else None
        most = native_context(model) if isinstance(model, str) else None
        whole = longer + self._answer
        return longer if told and fits and self._prompt < longer and (not most or whole <= most) else 0

    @property
    def _answer(self) -> int:
        """What TGI is told to leave for the answer beside the longest prompt."""
        told = self.engine.explicit("max_model_len") if self.engine else None
        return max(told.value - self._prompt, 0) if told and isinstance(told.value, int) else 0

    @template_value
    def longer_total(self) -> str:
        """Prompt and answer, where the answer would have less than now with so long a prompt."""
        told = self.engine.explicit("max_model_len") if self.engine and self._longer_prompt else None
        return str(self._longer_prompt + self._answer) if told else ""

    @property
    def _prompt(self) -> int:
        """The tokens of the longest prompt that Text Generation Inference takes."""
        prompt = self.engine.value("max_input_tokens") if self.engine and self.engine.name == "tgi" else None
        return prompt if isinstance(prompt, int) else 0

    def _fewer(self, name: str, usual: int) -> str:
        """A batch that needs less than now: the usual small one, or half of what is set already."""
        engine = self.engine
        if engine is None or not self._settable(name) or not engine.found.argv_known:
            return ""
        chunked = engine.value("enable_chunked_prefill", fallback=engine.at_least("0.8") is not False)
        if chunked is False:  # then the longest prompt has to fit into a batch
            return ""
        now, at_once = engine.value(name), engine.value("max_num_seqs")
        if name == "max_num_batched_tokens" and isinstance(at_once, int) and at_once > usual:
            return ""  # vLLM wants a token for each request in a batch
        if not isinstance(now, int) or now > usual:
            return str(usual)
        return str(now // 2) if now >= 16 else ""

    @template_value
    def fewer_images(self) -> str:
        """So many requests at once, each with an image, as fit beside the weights of most models, or half of what is set."""
        now = self.engine.value("max_num_seqs") if self.engine else None
        if not isinstance(now, int) or now > _IMAGES:
            return str(_IMAGES)
        return str(now // 2) if now > 1 else ""
