"""One Prometheus: queries to it, its answers in the snapshot's form.

The library knows the API; its requests are carried by the same connections as those to the API server, because they
know kubectl's credentials and proxies, stop at a size and a time, and because the library itself drops the warnings.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

from kubectl_llmdoctor.facts.units import rfc3339
from kubectl_llmdoctor.gather.failure import RequestError, Why, one_line, web_page
from kubectl_llmdoctor.gather.transport import Client
from kubectl_llmdoctor.redact import mask_object, mask_text
from kubectl_llmdoctor.snapshot import Json

if TYPE_CHECKING:
    from prometheus_api_client import PrometheusConnect

#: What is asked, in messages.
EXPECTED = "Prometheus"

#: The largest answer that is read.
MOST_BYTES = 32 * 2**20


def load() -> None:
    """Imports the library; it takes a sixth of a second, so it is done while others wait for the network."""
    from kubectl_llmdoctor.gather.prometheus import carrier  # noqa: F401


class Source:
    """One Prometheus; may be asked by several threads. `name` says where it is, without credentials."""

    def __init__(self, name: str, client: Client) -> None:
        self.name = name
        self.client = client

    def instant(self, query: str) -> Json:
        """The answer to an instant query, at the server's own time. Raises RequestError."""
        said: Json = {}
        result = self._connect(said).custom_query(query, params=self._params())
        rows = [(row.get("metric"), [row.get("value")]) for row in _rows(result)]
        moments = [float(points[0][0]) for _, points in rows if points[0]]
        at = datetime.fromtimestamp(round(max(moments, default=0.0)), UTC)
        return self._answer(query, at, at, None, rows, said)

    def range(self, query: str, end: datetime, seconds: int, step: int, limit: int) -> Json:
        """The answer to a range query over the `seconds` before `end`, a point each `step` seconds. Raises RequestError."""
        said: Json = {}
        start = end - timedelta(seconds=seconds)
        params = {**self._params(), "limit": limit}
        result = self._connect(said).custom_query_range(query, start, end, str(step), params=params)
        rows = [(row.get("metric"), row.get("values")) for row in _rows(result)]
        return self._answer(query, start, end, step, rows, said)

    def _params(self) -> Json:
        # The server gives up, too, when nobody waits any more.
        return {"timeout": f"{self.client.timeout:g}s"}

    def _connect(self, said: Json) -> PrometheusConnect:
        from kubectl_llmdoctor.gather.prometheus.carrier import connect

        return connect(self.client, _decode, said)

    def _answer(
        self, query: str, start: datetime, end: datetime, step: int | None, rows: list[tuple[Any, Any]], said: Json
    ) -> Json:
        began = start.timestamp()
        series: list[Json] = []
        for labels, points in rows:
            values = [[round(float(at) - began), _number(value)] for at, value in filter(None, tuple(points or ()))]
            if isinstance(labels, dict) and values:
                series.append({"labels": dict(_masked(str(k), str(v)) for k, v in labels.items()), "values": values})
        series.sort(key=lambda row: sorted(row["labels"].items()))
        answer: Json = {"source": self.name, "query": query, "start": rfc3339(start), "end": rfc3339(end)}
        if step is not None:
            answer["step"] = step
        answer |= {"series": series, "warnings": _warnings(said)}
        return answer


def _decode(body: bytes) -> Json:
    """The answer as a tree. Raises RequestError for what is none of Prometheus."""
    if body.lstrip()[:1] == b"<":
        raise RequestError(Why.OTHER, web_page(EXPECTED))
    tree = msgspec.json.decode(body)
    if not isinstance(tree, dict) or tree.get("status") != "success" or not isinstance(tree.get("data"), dict):
        raise RequestError(Why.OTHER, f"the answer is none of {EXPECTED}")
    return tree


def _rows(result: Any) -> list[Json]:
    """The rows of a vector or matrix. Raises RequestError for another shape."""
    if isinstance(result, list) and all(isinstance(row, dict) for row in result):
        return result
    raise RequestError(Why.OTHER, "the answer is neither a vector nor a matrix")


def _number(text: Any) -> float | int | None:
    """A value; null for NaN and the infinities, which JSON has not."""
    value = float(text)
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < 2**53 else value


@lru_cache(maxsize=8192)
def _masked(name: str, value: str) -> tuple[str, str]:
    """One label without a secret; the series of an answer share most of theirs."""
    (pair,) = mask_object({name: value}).items()
    return str(pair[0]), str(pair[1])


def _warnings(said: Json) -> list[str]:
    """What the server says about an answer that is not whole, in its own words."""
    found = [mask_text(one_line(str(text))) for text in said.get("warnings") or ()]
    if said.get("isPartial") and not found:  # VictoriaMetrics
        found.append("partial response: some storage nodes did not answer")
    return found
