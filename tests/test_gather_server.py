"""Requests to an API server that answers late, wrongly, in part or not at all.

`FakeApi` is also what the other tests of gathering talk to.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest
import yaml

from kubectl_llmdoctor.gather import kinds, transport
from kubectl_llmdoctor.gather.cluster import Cluster, Connection, connect
from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.transport import Client

Json = dict[str, Any]
Fault = Callable[["Handler"], None]


class _Server(ThreadingHTTPServer):
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """A client that hangs up is what many of the tests want."""


class FakeApi:
    """An API server of one process: objects and logs are what it has, faults are what happens instead, in order."""

    def __init__(self) -> None:
        self.objects: list[Json] = []
        self.logs: dict[tuple[str, str, str, bool], bytes] = {}
        #: by path; the last fault of a list stays
        self.faults: dict[str, list[Fault]] = {}
        #: who connected
        self.peers: set[Any] = set()
        self.requests: list[tuple[str, str, dict[str, str], dict[str, list[str]]]] = []
        self.page_size = 500
        self.done = threading.Event()
        self._lock = threading.Lock()
        self.server = _Server(("127.0.0.1", 0), type("Bound", (Handler,), {"api": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self.done.set()
        self.server.shutdown()
        self.server.server_close()

    def note(self, method: str, target: str, headers: Any) -> tuple[str, dict[str, str]]:
        parts = urlsplit(target)
        query = dict(parse_qsl(parts.query))
        with self._lock:
            self.requests.append((method, parts.path, query, {k.lower(): headers.get_all(k) for k in headers}))
        return parts.path, query

    def fault(self, path: str) -> Fault | None:
        with self._lock:
            waiting = self.faults.get(path)
            if not waiting:
                return None
            return waiting.pop(0) if len(waiting) > 1 else waiting[0]

    def asked(self, path: str) -> list[dict[str, str]]:
        return [query for _, one, query, _ in self.requests if one == path]


class Handler(BaseHTTPRequestHandler):
    """Answers as an API server does, as far as gathering asks."""

    api: FakeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.api.peers.add(self.client_address)
        path, query = self.api.note("GET", self.path, self.headers)
        fault = self.api.fault(path)
        if fault is not None:
            fault(self)
        elif path.endswith("/log"):
            self._log(path, query)
        else:
            self._objects(path, query)

    def do_POST(self) -> None:
        path, _ = self.api.note("POST", self.path, self.headers)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = self.api.fault(path)
        if fault is not None:
            fault(self)
        else:
            resource = body["spec"]["resourceAttributes"]["resource"]
            self.json(
                {**body, "status": {"allowed": resource != "nodes", "reason": "" if resource != "nodes" else "no"}}
            )

    def send(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def json(self, tree: Any) -> None:
        body = json.dumps(tree).encode()
        if len(body) > 2**17 and "gzip" in self.headers.get("Accept-Encoding", ""):
            self.send(200, gzip.compress(body), Content_Encoding="gzip")
        else:
            self.send(200, body)

    def refuse(self, code: int, message: str, name: str = "", **headers: str) -> None:
        status = {"kind": "Status", "code": code, "message": message, "details": {"name": name} if name else {}}
        self.send(code, json.dumps(status).encode(), **headers)

    def _log(self, path: str, query: dict[str, str]) -> None:
        _, _, _, _, namespace, _, pod, _ = path.split("/")
        key = (namespace, pod, query["container"], query.get("previous") == "true")
        if key in self.api.logs:
            self.send(200, self.api.logs[key])
        else:
            self.refuse(400, f'previous terminated container "{query["container"]}" in pod "{pod}" not found')

    def _objects(self, path: str, query: dict[str, str]) -> None:
        found = re.fullmatch(
            r"/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))(?:/namespaces/(?P<ns>[^/]+)(?=/))?"
            r"/(?P<plural>[^/]+)(?:/(?P<name>[^/]+))?",
            path,
        )
        group = (found["group"] or "") if found else ""
        kind = next((k for k in kinds.KINDS if found and k.plural == found["plural"] and k.group == group), None)
        mine = [o for o in self.api.objects if kind and kind.key == _type(o)]
        is_custom = ("." in group and not group.endswith(".k8s.io")) or group.endswith("x-k8s.io")
        if found is None or kind is None or (is_custom and not mine):
            self.send(404, b"404 page not found")
            return
        api_version = f"{group}/{found['version']}" if group else "v1"
        if found["ns"]:
            mine = [o for o in mine if o["metadata"].get("namespace") == found["ns"]]
        partial = "as=PartialObjectMetadata" in self.headers["Accept"]
        if found["name"]:
            for obj in mine:
                if obj["metadata"]["name"] == found["name"]:
                    self.json(_partial(obj) if partial else obj)
                    return
            self.refuse(404, f'{kind.plural} "{found["name"]}" not found', found["name"])
            return
        mine = [o for o in mine if _fits(o, query.get("labelSelector", ""), query.get("fieldSelector", ""))]
        start, size = int(query.get("continue") or 0), min(int(query.get("limit") or 500), self.api.page_size)
        page = mine[start : start + size]
        meta: Json = {"continue": str(start + size)} if start + size < len(mine) else {}
        if meta and "labelSelector" not in query and "fieldSelector" not in query:
            meta["remainingItemCount"] = len(mine) - start - size
        # Items of a list carry neither kind nor version.
        items = [
            {k: v for k, v in (_partial(o) if partial else o).items() if k not in ("kind", "apiVersion")} for o in page
        ]
        self.json({"kind": f"{kind.kind}List", "apiVersion": api_version, "metadata": meta, "items": items})


def _type(obj: Json) -> tuple[str, str]:
    return obj["apiVersion"].rpartition("/")[0], obj["kind"]


def _partial(obj: Json) -> Json:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def _fits(obj: Json, labels: str, fields: str) -> bool:
    have = obj["metadata"].get("labels") or {}
    for term in filter(None, labels.split(",")):
        key, valued, value = term.partition("=")
        if key not in have or (valued and have[key] != value):
            return False
    for term in filter(None, fields.split(",")):
        path, operator, value = re.split(r"(!?=)", term, maxsplit=1)
        node: Any = obj
        for step in path.split("."):
            node = (node or {}).get(step)
        if ((node or "") == value) != (operator == "="):
            return False
    return True


# --- faults -----------------------------------------------------------------------------------------------------------


def status(code: int, message: str = "no", **headers: str) -> Fault:
    return lambda handler: handler.refuse(code, message, **headers)


def raw(code: int, body: bytes, **headers: str) -> Fault:
    return lambda handler: handler.send(code, body, **headers)


def normal(handler: Handler) -> None:
    path, query = urlsplit(handler.path).path, dict(parse_qsl(urlsplit(handler.path).query))
    if path.endswith("/log"):
        handler._log(path, query)
    else:
        handler._objects(path, query)


def silence(handler: Handler) -> None:
    handler.api.done.wait(10)
    handler.close_connection = True


def drip(handler: Handler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000000")
    handler.end_headers()
    with contextlib.suppress(OSError):
        while not handler.api.done.wait(0.02):
            handler.wfile.write(b" ")
            handler.wfile.flush()
    handler.close_connection = True


def reset_after(body: bytes) -> Fault:
    """Sends a part of a chunked answer, then resets the connection."""

    def fault(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(body), body) if body else b"")
        handler.wfile.flush()
        time.sleep(0.05)  # so that the part arrives before the reset discards it
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        handler.close_connection = True
        handler.connection.close()

    return fault


# --- fixtures ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def api() -> Iterator[FakeApi]:
    fake = FakeApi()
    yield fake
    fake.stop()


@pytest.fixture
def kubeconfig(api: FakeApi, tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config_for(api.url)))
    return path


def config_for(server: str, name: str = "test", *, user: Json | None = None, cluster: Json | None = None) -> Json:
    return {
        "current-context": name,
        "contexts": [{"name": name, "context": {"cluster": name, "user": name, "namespace": "serving"}}],
        "clusters": [{"name": name, "cluster": {"server": server, **(cluster or {})}}],
        "users": [{"name": name, "user": {"token": "t0ken"} if user is None else user}],
    }


@pytest.fixture
def cluster(kubeconfig: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """Waits as long as the program does, for a busy machine; 2 s in a test that is marked `impatient`."""
    monkeypatch.setattr(transport, "_BACKOFF", 0.02)
    patience = 2.0 if request.node.get_closest_marker("impatient") else Connection().request_timeout
    found = connect(Connection(kubeconfig=str(kubeconfig), request_timeout=patience))
    yield found
    found.close()


@pytest.fixture
def client(cluster: Cluster) -> Client:
    return cluster.client


def seconds_of(work: Callable[[], Any]) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def failure(client: Client, path: str) -> RequestError:
    with pytest.raises(RequestError) as caught:
        client.get(path, decode=msgspec.json.decode)
    assert "\n" not in caught.value.reason
    return caught.value


PATH = "/api/v1/namespaces/serving"
OK = raw(200, b'{"metadata": {"name": "serving"}}')


def get(client: Client, path: str = PATH) -> Any:
    return client.get(path, decode=msgspec.json.decode)


# --- tests ------------------------------------------------------------------------------------------------------------


def test_an_answer_comes_back_decoded_with_the_token_sent(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [OK]
    assert get(client)["metadata"]["name"] == "serving"
    headers = api.requests[0][3]
    assert headers["authorization"] == ["Bearer t0ken"]
    assert headers["accept-encoding"] == ["gzip"]
    assert client.requests == 1


def test_a_compressed_answer_is_read(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [raw(200, gzip.compress(b'{"a": 1}'), Content_Encoding="gzip")]
    assert get(client) == {"a": 1}


def test_one_connection_serves_requests_one_after_another(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [OK]
    for _ in range(5):
        get(client)
    assert len(api.peers) == 1


def test_429_waits_as_long_as_the_server_says(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [status(429, "slow down", Retry_After="1"), OK]
    assert 0.95 < seconds_of(lambda: get(client)) < 5
    assert client.requests == 2


def test_429_with_a_date_waits_until_then(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [status(429, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT"), OK]
    assert seconds_of(lambda: get(client)) < 5


@pytest.mark.impatient
def test_429_without_end_is_given_up_within_twice_the_timeout(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [status(429, "slow down")]
    began = time.monotonic()
    error = failure(client, PATH)
    assert error.why == Why.THROTTLED
    assert error.reason == "too many requests (429): slow down"
    assert time.monotonic() - began < 2 * 2.0 + 1


def test_a_wait_beyond_the_budget_is_not_begun(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [status(429, "later", Retry_After="60")]
    assert seconds_of(lambda: failure(client, PATH)) < 5


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_server_error_is_tried_again(api: FakeApi, client: Client, code: int) -> None:
    api.faults[PATH] = [status(code), status(code), OK]
    assert get(client)
    assert client.requests == 3


def test_a_lasting_server_error_is_a_reason(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [status(503, "etcd has\nno leader")]
    assert failure(client, PATH).reason == "server error 503: etcd has no leader"


@pytest.mark.parametrize("part", [b"", b'{"metadata": {'])
def test_a_reset_is_tried_again(api: FakeApi, client: Client, part: bytes) -> None:
    api.faults[PATH] = [reset_after(part), OK]
    assert get(client)["metadata"]
    api.faults[PATH] = [reset_after(part)]
    error = failure(client, PATH)
    assert error.why == Why.BROKEN
    assert error.reason.startswith("connection broken: ")


def test_cut_json_is_tried_again_and_then_a_reason(api: FakeApi, client: Client) -> None:
    cut = raw(200, b'{"metadata": {"name": "ser')
    api.faults[PATH] = [cut, OK]
    assert get(client)["metadata"]
    api.faults[PATH] = [cut]
    assert failure(client, PATH).reason.startswith("the answer is not whole: ")


def test_a_web_page_in_the_place_of_an_answer_is_no_broken_connection(api: FakeApi, client: Client) -> None:
    """A portal that asks to sign in answers everything with 200; to ask again does not help."""
    api.faults[PATH] = [raw(200, b"\n<!doctype html><html><body>Sign in</body></html>"), OK]
    error = failure(client, PATH)
    assert (error.why, error.reason) == (Why.OTHER, "a web page instead of an answer; is it an API server?")


def test_a_body_shorter_than_it_says_is_no_answer(api: FakeApi, client: Client) -> None:
    def short(handler: Handler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100")
        handler.end_headers()
        handler.wfile.write(b"{}")
        handler.close_connection = True

    api.faults[PATH] = [short]
    assert failure(client, PATH).reason == "connection broken: the answer ends too early"


@pytest.mark.parametrize("fault", [silence, drip])
@pytest.mark.impatient
def test_a_server_that_does_not_finish_is_cut_at_the_timeout(api: FakeApi, client: Client, fault: Fault) -> None:
    api.faults[PATH] = [fault]
    began = time.monotonic()
    error = failure(client, PATH)
    assert error.why == Why.TIMEOUT
    assert error.reason == "timed out after 2 s"
    assert 1.9 < time.monotonic() - began < 6
    assert client.requests == 1, "what timed out once is not asked again"


@pytest.mark.impatient
def test_a_cut_connection_is_not_used_again(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [drip, OK]
    failure(client, PATH)
    assert get(client)["metadata"]["name"] == "serving"


def test_a_redirect_is_not_followed(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [raw(302, b"", Location=f"{api.url}/login")]
    assert "sends elsewhere (302" in failure(client, PATH).reason
    assert len(api.requests) == 1


def test_a_web_page_is_not_quoted(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [raw(400, b"<!doctype html><HTML>...</html>")]
    assert failure(client, PATH).reason == "refused (400): a web page instead of an answer; is it an API server?"


@pytest.mark.parametrize(
    ("code", "body", "why"),
    [
        (401, b'{"kind": "Status", "message": "Unauthorized"}', Why.UNAUTHORIZED),
        (403, b'{"kind": "Status", "message": "pods is forbidden"}', Why.FORBIDDEN),
        (404, b'{"kind": "Status", "message": "pods \\"x\\" not found", "details": {"name": "x"}}', Why.NOT_FOUND),
        (404, b"404 page not found\n", Why.NO_SUCH_KIND),
        (
            404,
            b'{"kind": "Status", "message": "the server could not find the requested resource", "details": {}}',
            "no such kind",
        ),
    ],
)
def test_refusals_are_told_apart(api: FakeApi, client: Client, code: int, body: bytes, why: Why) -> None:
    api.faults[PATH] = [raw(code, body)]
    assert failure(client, PATH).why == why
    assert client.requests == 1


def test_nobody_listens(client: Client, api: FakeApi) -> None:
    api.stop()
    error = failure(client, PATH)
    assert (error.why, error.reason) == (Why.UNREACHABLE, "connection refused")


def test_a_stream_gives_what_came_before_the_reset(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [reset_after(b"line 1\n")]
    pieces: list[bytes] = []
    with pytest.raises(RequestError, match="connection broken"):
        pieces.extend(client.stream(PATH, None, seconds=5))
    assert client.requests == 1, "a stream that has begun is not begun again"


def test_a_stream_that_goes_on_and_on_is_cut(api: FakeApi, client: Client) -> None:
    api.faults[PATH] = [drip]
    with pytest.raises(RequestError, match=r"not read to its end in 0\.3 s"):
        list(client.stream(PATH, None, seconds=0.3))
