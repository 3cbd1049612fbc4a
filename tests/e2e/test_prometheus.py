"""Real Prometheus servers, found through Services of the real API server and asked through its proxy."""

import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socketserver import TCPServer, ThreadingMixIn
from typing import Any

import pytest
import urllib3

from . import network
from .conftest import CRASHED, Doctor, Play
from .controlplane import ControlPlane
from .play import Object, read_snapshot, target_arguments
from .prometheus import Prometheus, openmetrics, servers, services
from .tlsserver import QuietHandler

TOP = Path(__file__).parents[2]
CASES = TOP / "checks" / "cases"

Start = Callable[..., Prometheus]


def _cases() -> dict[str, Path]:
    """The checks' own cases that hold series of Prometheus."""
    paths = sorted(path for path in CASES.glob("*/*.yaml") if "\nprometheus:" in path.read_text(encoding="utf-8"))
    return {f"{path.parent.name}/{path.stem}": path for path in paths}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a server of one kind, with a past; it ends with the test."""
    running: list[Prometheus] = []

    def begin(kind: str = "3.x", past: str = "", targets: Any = (), port: int = 9090, flags: Any = ()) -> Prometheus:
        server = Prometheus(servers()[kind], tmp_path / f"prometheus-{port}", port)
        running.append(server)
        if past:
            server.backfill(past)
        server.start(targets, *flags)
        return server

    yield begin
    for server in running:
        server.stop()


def offline(path: Path) -> list[tuple[str, str]]:
    command = [sys.executable, "-m", "kubectl_llmdoctor", "diagnose", "--from", str(path), "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    (target,) = json.loads(done.stdout)["targets"]
    return sorted((finding["role"], finding["id"]) for finding in target["findings"])


def _played() -> list[tuple[str, str]]:
    """Of each check the first case that fires and the first that is quiet; with LLMDOCTOR_E2E_ALL=1 every case."""
    names = sorted(_cases())
    firsts = {name.partition("_")[0]: name for name in reversed(names)}  # check/fires, check/quiet
    fires = [name for key, name in firsts.items() if key.endswith("/fires")]
    chosen = names if os.environ.get("LLMDOCTOR_E2E_ALL") == "1" else list(firsts.values())
    return [(name, kind) for kind in sorted(servers()) for name in sorted(chosen if kind == "3.x" else fires)]


@pytest.mark.parametrize(("name", "kind"), _played())
def test_a_case_of_a_check(name: str, kind: str, play: Play, start: Start, doctor: Doctor) -> None:
    path = _cases()[name]
    snapshot = read_snapshot(path)
    start(kind, openmetrics(snapshot))
    play({**snapshot, "objects": snapshot["objects"] + services()})

    result = doctor("diagnose", *target_arguments(snapshot), "-o", "json", "--agent", "off", "--ports", "off")

    assert [row for row in result.not_read if row["source"] == "prometheus"] == []
    assert sorted(result.findings) == offline(path)


def test_an_audit_sees_the_load(play: Play, start: Start, doctor: Doctor) -> None:
    name = next(name for name in sorted(_cases()) if name.startswith("queue-growing/fires"))
    snapshot = read_snapshot(_cases()[name])
    start("3.x", openmetrics(snapshot))
    play({**snapshot, "objects": snapshot["objects"] + services()})

    result = doctor("audit", "-A", "-o", "json", "--agent", "off")

    assert [row for row in result.not_read if row["source"] == "prometheus"] == []
    assert "queue-growing" in {finding["id"] for target in result.report["targets"] for finding in target["findings"]}


# --- a pod that serves ------------------------------------------------------------------------------------------------


class Engine(QuietHandler):
    """The port of a vLLM server that is asked by this many and answers so."""

    # The API server would use a connection again that belongs to the test before.
    protocol_version = "HTTP/1.0"

    served: dict[str, tuple[int, str]]
    asked: list[str]

    def do_GET(self) -> None:  # noqa: N802 (http.server looks for this name)
        self.asked.append(f"{self.command} {self.path}")
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, text = self.served.get(self.path, (404, '{"detail":"Not Found"}'))
        self.send_response(status)
        self.send_header("Content-Type", "application/json" if text.startswith("{") else "text/plain; version=0.0.4")
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write(text.encode())

    do_POST = do_GET  # noqa: N815 (the same)


METRICS = """\
vllm:num_requests_running{engine="0",model_name="llama"} 32.0
vllm:num_requests_waiting{engine="0",model_name="llama"} 40.0
vllm:gpu_cache_usage_perc{engine="0",model_name="llama"} 0.99
vllm:request_success_total{engine="0",finished_reason="stop",model_name="llama"} 700.0
"""


@pytest.fixture
def engine() -> Iterator[type[Engine]]:
    """A port 8000 of the network that is every pod's."""
    models = {"object": "list", "data": [{"id": "llama", "root": "/models/llama", "max_model_len": 8192}]}
    answers = {
        "/metrics": (200, METRICS),
        "/health": (200, ""),
        "/version": (200, '{"version":"0.9.1"}'),
        "/v1/models": (200, json.dumps(models)),
    }
    handler = type("Port", (Engine,), {"served": answers, "asked": []})
    server = Server((network.ADDRESS, 8000), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield handler
    server.shutdown()
    server.server_close()
    thread.join()


class Server(ThreadingMixIn, TCPServer):
    """Plain HTTP; like ``tlsserver.TlsServer`` it asks no DNS for its own name."""

    allow_reuse_address = True
    daemon_threads = True


@pytest.fixture
def serving() -> Object:
    """The snapshot of ``crashed.yaml`` as if nothing had happened: ``serving/llama-0`` is ready."""
    snapshot = read_snapshot(CRASHED)
    (pod,) = (item for item in snapshot["objects"] if item["kind"] == "Pod" and item["metadata"]["name"] == "llama-0")
    started = {"startedAt": "2026-11-20T09:45:00Z"}
    ready = {"name": "vllm", "ready": True, "started": True, "restartCount": 0, "state": {"running": started}}
    image = {"image": "vllm/vllm-openai:v0.9.1", "imageID": "x"}
    conditions = [
        {"type": kind, "status": "True"} for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    ]
    pod["status"] = {
        "phase": "Running",
        "podIP": network.ADDRESS,
        "podIPs": [{"ip": network.ADDRESS}],
        "conditions": conditions,
        "containerStatuses": [ready | image],
    }
    for item in snapshot["objects"]:
        if item["kind"] == "StatefulSet":
            item["status"] |= {"readyReplicas": 1, "availableReplicas": 1}
        if item["kind"] == "EndpointSlice":
            item["endpoints"][0]["conditions"] = {"ready": True, "serving": True, "terminating": False}
    kept = [item for item in snapshot["objects"] if item["kind"] != "Event"]
    return {**snapshot, "objects": kept, "logs": []}


TARGETS = [{"targets": [f"{network.ADDRESS}:8000"], "labels": {"namespace": "serving", "pod": "llama-0"}}]


def wait_for(server: Prometheus, query: str) -> None:
    """Waits until a series has some samples."""
    deadline = time.monotonic() + 20
    while (server.value(f"count_over_time({query}[1m])") or 0) < 3:
        assert time.monotonic() < deadline, query
        time.sleep(0.2)


def taken(doctor: Doctor, folder: Path, *options: str, kubeconfig: Path | None = None) -> Any:
    """The snapshot of the pod, read with these options."""
    path = folder / "taken.json"
    result = doctor("snapshot", "llama-0", "-n", "serving", "-f", str(path), *options, kubeconfig=kubeconfig)
    assert result.code == 0, result.err
    return json.loads(path.read_text())


def said(snapshot: Any, source: str) -> list[str]:
    return [f"{row.get('ref', '')}: {row['reason']}" for row in snapshot.get("missing", ()) if row["source"] == source]


def test_a_live_scrape_is_found_and_read(
    serving: Object, engine: type[Engine], play: Play, start: Start, doctor: Doctor, tmp_path: Path
) -> None:
    server = start(targets=TARGETS)
    play({**serving, "objects": serving["objects"] + services()})
    wait_for(server, "vllm:num_requests_waiting")
    engine.asked.clear()

    found = taken(doctor, tmp_path)

    assert said(found, "prometheus") == []
    names = {row["labels"]["__name__"] for answer in found["prometheus"] for row in answer["series"]}
    assert {"vllm:num_requests_waiting", "vllm:gpu_cache_usage_perc", "vllm:request_success_total"} <= names
    assert {answer["source"] for answer in found["prometheus"]} == {"Service monitoring/prometheus-k8s:9090"}
    # What Prometheus knows is not read again, and nothing is generated.
    assert "metrics" not in found
    asked = [line for line in engine.asked if line != "GET /metrics"]
    assert sorted(asked) == ["GET /health", "GET /v1/models", "GET /version"]
    assert {answer["path"]: answer["status"] for answer in found["answers"]} == {
        "/health": 200,
        "/version": 200,
        "/v1/models": 200,
    }


@pytest.mark.parametrize(
    ("pod", "namespace"),
    [("exported_pod", "exported_namespace"), ("kubernetes_pod_name", "kubernetes_namespace"), ("pod", "")],
)
def test_other_labels_are_found(
    pod: str,
    namespace: str,
    serving: Object,
    engine: type[Engine],
    play: Play,
    start: Start,
    doctor: Doctor,
    tmp_path: Path,
) -> None:
    labels = {pod: "llama-0", "job": "engines"} | ({namespace: "serving"} if namespace else {})
    server = start(targets=[{"targets": [f"{network.ADDRESS}:8000"], "labels": labels}])
    play({**serving, "objects": serving["objects"] + services()})
    wait_for(server, "vllm:num_requests_waiting")

    found = taken(doctor, tmp_path, "--ports", "off")

    assert said(found, "prometheus") == []
    (waiting,) = (
        row
        for answer in found["prometheus"]
        for row in answer["series"]
        if row["labels"]["__name__"] == "vllm:num_requests_waiting"
    )
    assert waiting["labels"][pod] == "llama-0"
    assert waiting["values"][-1][1] == 40


def test_a_target_without_labels_is_found_by_its_address(
    serving: Object, engine: type[Engine], play: Play, start: Start, doctor: Doctor, tmp_path: Path
) -> None:
    server = start(targets=[{"targets": [f"{network.ADDRESS}:8000"]}])
    play({**serving, "objects": serving["objects"] + services()})
    wait_for(server, "vllm:num_requests_waiting")

    found = taken(doctor, tmp_path, "--ports", "off")

    assert any(answer["series"] for answer in found["prometheus"])


def test_without_prometheus_the_port_is_read(
    serving: Object, engine: type[Engine], play: Play, doctor: Doctor, tmp_path: Path
) -> None:
    play(serving)

    found = taken(doctor, tmp_path, "--sample", "1s")

    assert said(found, "prometheus") == [": none found"]
    first, second = found["metrics"]
    assert first["text"] == METRICS
    assert first["takenAt"] < second["takenAt"]
    assert (first["pod"], first["container"]) == ("llama-0", "vllm")


def test_smoke_generates_one_token_and_keeps_no_text(
    serving: Object, engine: type[Engine], play: Play, doctor: Doctor, tmp_path: Path
) -> None:
    play(serving)
    engine.served["/v1/completions"] = (200, '{"choices":[{"text":"pong"}]}')

    found = taken(doctor, tmp_path, "--prometheus", "off", "--smoke")

    (answer,) = (one for one in found["answers"] if one.get("method") == "POST")
    assert (answer["path"], answer["status"], answer.get("text", "")) == ("/v1/completions", 200, "")
    assert engine.asked.count("POST /v1/completions") == 1


def test_an_engine_that_is_dead_behind_a_ready_pod(
    serving: Object, engine: type[Engine], play: Play, doctor: Doctor
) -> None:
    play(serving)
    well = doctor("diagnose", "llama-0", "-n", "serving", "--prometheus", "off", "-o", "json")
    engine.served["/health"] = (503, "")

    dead = doctor("diagnose", "llama-0", "-n", "serving", "--prometheus", "off", "-o", "json")

    assert "engine-dead" not in {id for _, id in well.findings}
    # nothing says why it died
    assert ("symptom", "engine-dead") in dead.findings
    assert (well.code, dead.code) == (0, 1)


# --- what it costs, and who may not -----------------------------------------------------------------------------------

RUNS = 5
ALLOWED_SECONDS = 0.4
QUERIES = ("/api/v1/query", "/api/v1/query_range")


def queries_of(server: Prometheus) -> int:
    """How many queries a server says that it has answered."""
    text = urllib3.request("GET", f"{server.url}/metrics", timeout=5).data.decode()
    rows = re.findall(r'^prometheus_http_requests_total\{code="200",handler="([^"]+)"\} (\d+)', text, re.MULTILINE)
    return sum(int(count) for handler, count in rows if handler in QUERIES)


@pytest.mark.timed
def test_a_diagnosis_costs_little_more_with_prometheus(
    serving: Object,
    engine: type[Engine],
    play: Play,
    start: Start,
    doctor: Doctor,
    capsys: pytest.CaptureFixture[str],
) -> None:
    server = start(targets=TARGETS)
    play({**serving, "objects": serving["objects"] + services()})
    wait_for(server, "vllm:num_requests_waiting")
    with_it, without = [], []
    before = queries_of(server)
    for _ in range(RUNS + 1):
        with_it.append(doctor("diagnose", "llama-0", "-n", "serving", "--ports", "off").seconds)
        off = doctor("diagnose", "llama-0", "-n", "serving", "--ports", "off", "--prometheus", "off")
        without.append(off.seconds)
    queries = (queries_of(server) - before) / (RUNS + 1)
    # The first round fills caches and does not count.
    more = statistics.median(with_it[1:]) - statistics.median(without[1:])
    with capsys.disabled():
        print(
            f"\nprometheus: {queries:g} queries, {more:.3f} s more (medians of {RUNS}, at most {ALLOWED_SECONDS}), ",
            end="",
        )
        print(f"{statistics.median(with_it[1:]):.3f} s in all")
    assert 2 <= queries <= 12
    assert more <= ALLOWED_SECONDS


def test_without_the_right_to_the_proxy_one_line_says_so(
    serving: Object, cluster: ControlPlane, play: Play, start: Start, doctor: Doctor, tmp_path: Path
) -> None:
    start()
    play({**serving, "objects": serving["objects"] + services()})
    resources = ["pods", "pods/log", "services", "events", "nodes", "statefulsets"]
    cluster.allow("no-proxy", [{"apiGroups": ["", "apps"], "resources": resources, "verbs": ["get", "list"]}])
    kubeconfig = cluster.kubeconfig("no-proxy", cluster.user("no-proxy"))

    found = taken(doctor, tmp_path, kubeconfig=kubeconfig)

    (line,) = said(found, "prometheus")
    assert line.startswith("Service monitoring/prometheus-k8s:9090: forbidden: ")
    assert "services/proxy" in line
    (line,) = said(found, "metrics")
    assert line.startswith("serving: forbidden: ")
    assert "pods/proxy" in line


def test_a_server_that_is_gone_is_one_line(serving: Object, play: Play, doctor: Doctor, tmp_path: Path) -> None:
    play({**serving, "objects": serving["objects"] + services()})

    (line,) = said(taken(doctor, tmp_path, "--ports", "off"), "prometheus")

    assert "connection refused" in line


def test_a_query_that_is_too_much_costs_its_series(
    serving: Object, engine: type[Engine], play: Play, start: Start, doctor: Doctor, tmp_path: Path
) -> None:
    start(targets=TARGETS, flags=["--query.max-samples=1"])
    play({**serving, "objects": serving["objects"] + services()})
    time.sleep(10)  # until it has scraped; it refuses every query that could tell

    lines = said(taken(doctor, tmp_path, "--ports", "off"), "prometheus")

    assert lines
    assert all("refused (422): execution: query processing would load too many samples" in line for line in lines)


def test_by_url_with_a_password(
    serving: Object, engine: type[Engine], play: Play, start: Start, doctor: Doctor, tmp_path: Path
) -> None:
    # The bcrypt hash of "doctor", as Prometheus' own web configuration wants it.
    (tmp_path / "web.yml").write_text(
        "basic_auth_users: {doctor: $2b$04$abcdefghijklmnopqrstuu5fKBCVyxtr6nd0Gfa5NzjBXKeiC9b4C}\n"
    )
    server = start(targets=TARGETS, flags=[f"--web.config.file={tmp_path / 'web.yml'}"])
    play(serving)
    (tmp_path / "right.yml").write_text("basic_auth: {username: doctor, password: doctor}\n")
    (tmp_path / "wrong.yml").write_text("basic_auth: {username: doctor, password: wrong}\n")
    options = ("--ports", "off", "--prometheus", server.url, "--prometheus-config")
    time.sleep(10)  # its first scrape comes up to five seconds after its start

    right = taken(doctor, tmp_path, *options, str(tmp_path / "right.yml"))
    wrong = taken(doctor, tmp_path, *options, str(tmp_path / "wrong.yml"))

    assert said(right, "prometheus") == []
    assert {answer["source"] for answer in right["prometheus"]} == {server.url}
    assert said(wrong, "prometheus") == [f"{server.url}: unauthorized: Unauthorized"]


def test_access_names_the_one_that_answers(serving: Object, play: Play, start: Start, doctor: Doctor) -> None:
    start()
    play({**serving, "objects": serving["objects"] + services()})

    lines = doctor("access", "-n", "serving").out.splitlines()

    (line,) = (line for line in lines if line.split()[1] == "Prometheus")
    assert line.startswith("yes")
    assert "Service monitoring/prometheus-k8s:9090" in line
