"""What operators that build a container from fields have in common: its arguments, a probe, a token."""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.tree import say, table
from kubectl_llmdoctor.tree import words as words_of

from .pointer import Json


class Args:
    """Arguments as an operator puts them together, each with the field that it comes from."""

    def __init__(self) -> None:
        self.words: list[str] = []
        self.places: list[tuple[str, str]] = []

    def add(self, flag: str, value: Any, place: str) -> None:
        """`--flag value`, where the value is set."""
        if value is None or value == "" or (isinstance(value, int) and not isinstance(value, bool) and value == 0):
            return
        self.words += [flag, say(value)]
        self.places.append((f"/containers/0/args/{len(self.words) - 1}", place))

    def switch(self, flag: str, on: Any, off: str = "") -> None:
        """A flag without a value."""
        word = flag if on is True else off
        if word:
            self.words.append(word)

    def rest(self, listed: Any, place: str) -> None:
        """The arguments that the object has as such, last."""
        for index, word in enumerate(words_of(listed)):
            self.places.append((f"/containers/0/args/{len(self.words)}", f"{place}/{index}"))
            self.words.append(word)
        self.places.append(("/containers/0/args/-", f"{place}/-"))


def probe(path: str, port: Any, delay: int, period: int, failures: int) -> Json:
    """An HTTP probe."""
    return {
        "httpGet": {"path": path, "port": port},
        "initialDelaySeconds": delay,
        "periodSeconds": period,
        "failureThreshold": failures,
    }


def hf_token(secret: Any) -> list[Json]:
    """The variable by which the Hugging Face token of a Secret comes to the server."""
    name, key = table(secret).get("hfTokenSecretName"), table(secret).get("hfTokenKeyName") or "token"
    if not name:
        return []
    return [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": str(name), "key": str(key)}}}]
