"""What an engine says of itself on its own port: how it is, its version, the models that it serves."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import msgspec

from kubectl_llmdoctor.engines.version import parse
from kubectl_llmdoctor.report.document import Evidence
from kubectl_llmdoctor.snapshot import PortAnswer, Snapshot
from kubectl_llmdoctor.tree import rows, table

#: Where an engine states its version: the paths, and the key in the answer. Sources: the HTTP servers of the engines.
_VERSIONS = {
    "vllm": (("/version",), "version"),
    "tensorrt-llm": (("/version",), "version"),
    "sglang": (("/server_info", "/get_server_info"), "version"),
    "tgi": (("/info",), "version"),
    "nim": (("/v1/version",), "release"),
    "ollama": (("/api/version",), "version"),
}

#: Where the models stand: in `data` with an `id` (OpenAI's form), or in `models` with a `name` (Ollama's).
_MODELS = ("/v1/models", "/api/tags")

#: No name of a model is longer.
_LONGEST_NAME = 256


class Answers:
    """What the port of a container said: of each path the last answer."""

    def __init__(self, snapshot: Snapshot, namespace: str, pod: str, container: str) -> None:
        mine = (namespace, pod, container)
        self._where = f"{namespace}/{pod}"
        found = [one for one in snapshot.answers if (one.namespace or "default", one.pod, one.container) == mine]
        #: whether its metrics were read from its own port
        self.measured = any((o.namespace or "default", o.pod, o.container) == mine for o in snapshot.metrics)
        self._by_path = {one.path: one for one in found if one.method == "GET"}
        #: the answer to a request for one token, where somebody wanted that
        self.smoke = next((one for one in reversed(found) if one.method == "POST"), None)

    def at(self, *paths: str) -> PortAnswer | None:
        """The answer of the first of these paths that was asked; None where none was."""
        return next((self._by_path[path] for path in paths if path in self._by_path), None)

    def reached(self, port: int) -> PortAnswer | None:
        """An answer with a status that came from this port: whoever asked can reach it."""
        every = (*self._by_path.values(), *((self.smoke,) if self.smoke else ()))
        return next((one for one in every if one.port == port and one.status is not None), None)

    def version(self, engine: str) -> tuple[str, str]:
        """The version that the engine states, and where; both empty where it states none that can be compared."""
        paths, key = _VERSIONS.get(engine, ((), ""))
        answer = self.at(*paths)
        stated = _tree(answer).get(key) if answer else None
        return (stated, f"GET {answer.path}") if answer and isinstance(stated, str) and parse(stated) else ("", "")

    @cached_property
    def models(self) -> tuple[tuple[str, ...], PortAnswer] | None:
        """The names of the models that it serves, and the answer that lists them; None where it lists none in a known form."""
        answer = self.at(*_MODELS)
        tree = _tree(answer) if answer else {}
        listed = [row.get("id") or row.get("name") for row in rows(tree.get("data", tree.get("models")))]
        names = dict.fromkeys(name for name in listed if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME)
        return (tuple(names), answer) if answer and names else None

    def evidence(self, answer: PortAnswer, text: str = "") -> Evidence:
        """An answer as a quotation; `text` in the place of the whole one."""
        said = answer.error or f"{answer.status} {text or answer.text}".strip()
        return Evidence(
            source="metric", ref=f"{self._where} {answer.method} :{answer.port}{answer.path}", text=said[:300]
        )


def _tree(answer: PortAnswer) -> dict[str, Any]:
    """The object that a port answered with; empty for anything else."""
    try:
        tree = msgspec.json.decode(answer.text) if answer.status == 200 else None
    except (msgspec.DecodeError, RecursionError):
        return {}
    return table(tree)
