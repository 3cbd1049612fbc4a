"""A stand-in for the one thing that the tests need of a kubelet: container logs, over HTTPS, for ``kubectl logs``."""

import datetime
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import parse_qs, urlsplit

from . import printed
from .pki import Pair
from .tlsserver import QuietHandler, TlsServer

PORT = 10250
PATH = re.compile(r"/containerLogs/([^/]+)/([^/]+)/([^/]+)")
STAMP = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d) ", re.MULTILINE)


@dataclass(frozen=True)
class Instance:
    """One instance of a container: running now, or the previous one."""

    namespace: str
    pod: str
    container: str
    previous: bool


@dataclass(frozen=True)
class Log:
    """What an instance printed. ``stamped``: its lines begin with the time that the kubelet adds on request.

    Where no times were recorded the first line comes ``at`` the start, and each when it says itself, but a millisecond
    after the one before at least.
    """

    text: str
    stamped: bool = False
    at: str = "1970-01-01T00:00:00Z"

    def given(self, timestamps: bool) -> str:
        """The text with or without the kubelet's times."""
        if timestamps and not self.stamped:
            return "".join(f"{_stamp(moment)} {line}\n" for moment, line in self._timed())
        return self.text if timestamps or not self.stamped else STAMP.sub("", self.text)

    def _timed(self) -> Iterator[tuple[datetime.datetime, str]]:
        moment, now = datetime.datetime.fromisoformat(self.at), datetime.datetime.now(datetime.UTC)
        for line in self.text.removesuffix("\n").split("\n") if self.text else ():
            said = printed.first(line, now.year)
            if said is not None and moment < said < now:
                moment = said
            yield moment, line
            moment += datetime.timedelta(milliseconds=1)


def _stamp(moment: datetime.datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond:06}000Z"


class Kubelet:
    """Answers for every node: all of them name this address and port."""

    def __init__(self, certificate: Pair) -> None:
        self.logs: dict[Instance, Log] = {}
        # Why there is no log, in the kubelet's words.
        self.refusals: dict[Instance, str] = {}
        self.requests: Counter[Instance] = Counter()
        self._server = TlsServer(PORT, certificate, self._handler())
        self.start, self.stop = self._server.start, self._server.stop

    def answer(self, instance: Instance, query: dict[str, str]) -> tuple[int, str]:
        """Status and body for one request, as a kubelet words them."""
        self.requests[instance] += 1
        log = self.logs.get(instance)
        if log is None:
            what = "previous terminated container" if instance.previous else "container"
            missing = f'{what} "{instance.container}" in pod "{instance.pod}" not found'
            return 400, self.refusals.get(instance, missing)
        text = log.given(timestamps=query.get("timestamps") == "true")
        if "tailLines" in query:
            lines = text.splitlines(keepends=True)
            text = "".join(lines[max(0, len(lines) - int(query["tailLines"])) :])
        if "limitBytes" in query:
            text = text.encode()[: int(query["limitBytes"])].decode(errors="ignore")
        return 200, text

    def _handler(self) -> type[QuietHandler]:
        kubelet = self

        class Handler(QuietHandler):
            def do_GET(self) -> None:  # noqa: N802 (http.server looks for this name)
                url = urlsplit(self.path)
                query = {key: values[-1] for key, values in parse_qs(url.query).items()}
                if match := PATH.fullmatch(url.path):
                    instance = Instance(match[1], match[2], match[3], query.get("previous") == "true")
                    status, text = kubelet.answer(instance, query)
                else:
                    status, text = 404, "404 page not found"
                body = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        return Handler
