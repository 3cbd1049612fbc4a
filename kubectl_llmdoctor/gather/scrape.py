"""The engines' own ports, through the API server's pod proxy: metrics, health, and what they say of themselves."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.serving import Served
from kubectl_llmdoctor.gather.transport import ONCE, STALE, Client
from kubectl_llmdoctor.gather.wanted import WantedPorts
from kubectl_llmdoctor.redact import mask_object, mask_text
from kubectl_llmdoctor.snapshot import MetricsText, PortAnswer
from kubectl_llmdoctor.tree import rows

#: Seconds that one answer may take: an engine that is ready says how it is at once, or it is not well.
_TIMEOUT = 2.0

_EXPECTED = "an inference server"

_MOST_BYTES = 8 * 2**20

#: Of what an engine says of itself so much is kept.
_MOST_CHARS = 64 * 1024

#: Pods whose ports are asked.
PODS = 8

#: The seconds that a generation of one token may take when somebody asks for it.
_SMOKE_SECONDS = 30.0

#: Where an engine completes a text; of the others this is not known, or it would load a model.
_COMPLETIONS = {
    "vllm": "/v1/completions",
    "sglang": "/v1/completions",
    "tensorrt-llm": "/v1/completions",
    "nim": "/v1/completions",
    "llama.cpp": "/v1/completions",
    "lmdeploy": "/v1/completions",
    "huggingfaceserver": "/openai/v1/completions",
}


class Ports:
    """One gathering's way to the ports."""

    def __init__(self, pot: Collector, wanted: WantedPorts) -> None:
        self._pot = pot
        self._wanted = wanted
        endpoint = pot.client.endpoint
        limits: Any = {"expected": _EXPECTED, "most_bytes": _MOST_BYTES, "deadline": pot.client.deadline}
        self._client = Client(endpoint, min(_TIMEOUT, pot.client.timeout), retries=STALE, **limits)
        self._slow = Client(endpoint, _SMOKE_SECONDS, retries=ONCE, **limits)
        self._scraped: list[tuple[Served, str]] = []

    def ask(self, engines: list[Served]) -> None:
        """Health and what they say of themselves, of the first pods; one token each where that is wanted."""
        for one in self._first(engines):
            self._pot.task("port", f"{one.namespace}/{one.pod}:{one.port}", partial(self._about, one), leads=False)
            if self._wanted.smoke:
                self._pot.task("smoke", f"{one.namespace}/{one.pod}:{one.port}", partial(self._smoke, one), leads=False)

    def scrape(self, engines: list[Served], lacking: set[tuple[str, str]]) -> None:
        """A first sample of the metrics that Prometheus lacks, or of all where two samples are wanted."""
        for one in self._first(engines):
            if (one.namespace, one.pod) in lacking or self._wanted.sample:
                ref = f"{one.namespace}/{one.pod}:{one.metrics_port}"
                self._pot.task("metrics", ref, partial(self._sample, one, one.paths.metrics), leads=False)

    def again(self) -> None:
        """The second sample, some seconds after the first; call it when the first is there."""
        left = min(self._wanted.sample, self._client.deadline - time.monotonic()) if self._scraped else 0.0
        while left > 0:
            self._pot.say(f"second sample of the metrics in {left:.0f} s")
            time.sleep(min(left, 1.0))
            left -= 1.0
        if self._wanted.sample:
            for one, path in list(self._scraped):
                ref = f"{one.namespace}/{one.pod}:{one.metrics_port}"
                self._pot.task("metrics", ref, partial(self._sample, one, (path,)), leads=False)

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()
        self._slow.close()

    def _first(self, engines: list[Served]) -> list[Served]:
        names = list(dict.fromkeys((one.namespace, one.pod) for one in engines))
        return [one for one in engines if (one.namespace, one.pod) in names[:PODS]]

    def _sample(self, one: Served, paths: tuple[str, ...]) -> None:
        self._pot.say(f"reading the metrics of {one.pod}")
        for path in paths:
            try:
                text = self._client.get(_path(one, one.metrics_port, path), accept="*/*", decode=_text)
            except RequestError as error:
                if error.status == 404 and path != paths[-1]:
                    continue
                self._refused(one, error)
                return
            if text.lstrip()[:1] == "<":
                raise RequestError(Why.OTHER, f"{path} answers a web page, no metrics")
            self._pot.metrics.append(
                MetricsText(
                    namespace=one.namespace, pod=one.pod, container=one.container, text=mask_text(text), taken_at=_now()
                )
            )
            self._scraped.append((one, path))
            return

    def _about(self, one: Served) -> None:
        for path in dict.fromkeys((one.paths.health, *one.paths.about)):
            answer, failed = self._ask(one, path, lambda at: self._client.get(at, accept="*/*", decode=_text))
            if failed and failed.why == Why.FORBIDDEN and failed.status is None:
                self._refused(one, failed)
                return
            self._pot.answers.append(answer)
            if failed and failed.status is None:  # the next path would fail alike
                return

    def _smoke(self, one: Served) -> None:
        path = _COMPLETIONS.get(one.engine)
        if path is None:
            raise RequestError(Why.OTHER, f"no request is known that makes {one.engine} generate a token")
        listed = path.removesuffix("/completions") + "/models"
        models = self._client.get(_path(one, one.port, listed), decode=msgspec.json.decode)
        model = _first_model(models)
        body = {"model": model, "prompt": "ping", "max_tokens": 1}
        answer, failed = self._ask(one, path, lambda at: self._slow.post(at, body, decode=_text))
        if failed and failed.why == Why.FORBIDDEN and failed.status is None:
            raise failed
        # What it generated is nobody's business; that it did is.
        self._pot.answers.append(msgspec.structs.replace(answer, method="POST", text=""))

    def _ask(self, one: Served, path: str, get: Callable[[str], str]) -> tuple[PortAnswer, RequestError | None]:
        """What the port says to one question; and, where it is no success, why."""
        began = time.monotonic()
        blank = PortAnswer(
            namespace=one.namespace, pod=one.pod, container=one.container, port=one.port, path=path, taken_at=_now()
        )
        failed: RequestError | None = None
        text = ""
        try:
            text = get(_path(one, one.port, path))
        except RequestError as error:
            failed = error
        return msgspec.structs.replace(
            blank,
            seconds=round(time.monotonic() - began, 3),
            status=failed.status if failed else 200,
            text=_masked(text),
            error=mask_text(failed.reason) if failed else "",
        ), failed

    def _refused(self, one: Served, error: RequestError) -> None:
        """Says why a port cannot be read; what the API server forbids it forbids for all pods of a namespace."""
        if error.why != Why.FORBIDDEN or error.status is not None:
            raise error
        if self._pot.once("ports are forbidden", one.namespace):
            self._pot.miss("metrics", one.namespace, error.reason)


def _path(one: Served, port: int, path: str) -> str:
    scheme = f"{one.scheme}:" if one.scheme == "https" else ""
    return f"/api/v1/namespaces/{one.namespace}/pods/{scheme}{one.pod}:{port}/proxy{path}"


def _text(body: bytes) -> str:
    return body.decode(errors="replace")


def _masked(text: str) -> str:
    """What an engine says of itself without secrets: servers list their arguments, keys among them."""
    try:
        tree = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return mask_text(text[:_MOST_CHARS])
    return msgspec.json.encode(mask_object(tree)).decode()[:_MOST_CHARS]


def _first_model(models: Any) -> str:
    """The first id of an OpenAI list of models. Raises RequestError for anything else."""
    first = next(iter(rows(models, "data")), {})
    if not first.get("id"):
        raise RequestError(Why.OTHER, "it lists no model to send a request to")
    return str(first["id"])


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
