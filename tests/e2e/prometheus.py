"""A real Prometheus server whose past is given and whose present it scrapes, and the Services that lead to it."""

import datetime
import math
import os
import re
import subprocess
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml

from . import network
from .play import Object

PORT = 9090
#: The servers that run.py found, by what they are called: `3.x`, `debian`.
VARIABLE = "LLMDOCTOR_E2E_PROMETHEUS_"
START_SECONDS = 60


def servers() -> dict[str, Path]:
    """The folder of each."""
    return {name.removeprefix(VARIABLE): Path(path) for name, path in os.environ.items() if name.startswith(VARIABLE)}


class Prometheus:
    """One server; ``start`` to ``stop``."""

    def __init__(self, programs: Path, folder: Path, port: int = PORT) -> None:
        self.url = f"http://{network.ADDRESS}:{port}"
        self._programs, self._folder, self._port = programs, folder, port
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)

    def backfill(self, text: str) -> None:
        """Puts samples with times, in OpenMetrics, into its storage. To be called before it starts."""
        source = self._folder / "past.om"
        source.write_text(text)
        command: list[str | Path] = [
            self._programs / "promtool",
            "tsdb",
            "create-blocks-from",
            "openmetrics",
            source,
            self._data,
        ]
        subprocess.run(command, check=True, capture_output=True)

    def start(self, targets: Iterable[Mapping[str, Any]] = (), *flags: str) -> None:
        """Starts it; ``targets`` are static_configs that it scrapes every second. Returns when it answers."""
        config = {
            "global": {"scrape_interval": "1s"},
            "scrape_configs": [{"job_name": "static", "static_configs": list(targets)}],
        }
        path = self._folder / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        arguments = [
            f"--config.file={path}",
            f"--storage.tsdb.path={self._data}",
            f"--web.listen-address={network.ADDRESS}:{self._port}",
        ]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._programs / "prometheus"), *arguments, *flags],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + START_SECONDS
        while not self._ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"Prometheus did not start:\n{(self._folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self) -> None:
        """Ends it and waits until its port is free."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def value(self, query: str) -> float | None:
        """The first value of an instant query."""
        answer = urllib3.request("GET", f"{self.url}/api/v1/query", fields={"query": query}, timeout=5).json()
        rows = answer["data"]["result"]
        return float(rows[0]["value"][1]) if rows else None

    @property
    def _data(self) -> str:
        return str(self._folder / "data")

    def _ready(self) -> bool:
        try:
            # One that wants a password says so only when it serves.
            return urllib3.request("GET", f"{self.url}/-/ready", timeout=2, retries=False).status in (200, 401)
        except (OSError, urllib3.exceptions.HTTPError):
            return False


def services(
    name: str = "prometheus-k8s", namespace: str = "monitoring", port: int = PORT, **labels: str
) -> list[Object]:
    """A Service as kube-prometheus makes it, its pod, and the endpoints between them; the server's address is the pod's.

    The API server passes requests on only to an address that it finds again in the pod that an endpoint names.
    """
    meta: Object = {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}"}
    marks = labels or {"app.kubernetes.io/name": "prometheus", "app.kubernetes.io/component": "prometheus"}
    ports = [{"name": "web", "port": port, "protocol": "TCP"}]
    target = {"kind": "Pod", "namespace": namespace, "name": f"{name}-0"}
    container = {"name": "prometheus", "image": "quay.io/prometheus/prometheus:v3.5.0"}
    return [
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": f"{name}-0", "namespace": namespace, "uid": f"{namespace}-{name}-0"},
            "spec": {"containers": [container]},
            "status": {"phase": "Running", "podIP": network.ADDRESS, "podIPs": [{"ip": network.ADDRESS}]},
        },
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "uid": namespace}},
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": meta | {"labels": {key.replace("__", "/"): value for key, value in marks.items()}},
            "spec": {"clusterIP": "None", "ports": [{**ports[0], "targetPort": port}], "type": "ClusterIP"},
        },
        {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": meta | {"uid": f"{namespace}-{name}-endpoints"},
            "subsets": [{"addresses": [{"ip": network.ADDRESS, "targetRef": target}], "ports": ports}],
        },
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": meta | {"labels": {"kubernetes.io/service-name": name}, "uid": f"{namespace}-{name}-slice"},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [network.ADDRESS], "conditions": {"ready": True}, "targetRef": target}],
            "ports": ports,
        },
    ]


def openmetrics(snapshot: Object) -> str:
    """The answers that a snapshot holds, as the samples that Prometheus gave them from, moved so that they end now."""
    end = datetime.datetime.fromisoformat(snapshot["takenAt"])
    shift = math.floor(time.time()) - end.timestamp()
    by_series: dict[str, dict[float, float]] = {}
    for answer in snapshot.get("prometheus", ()):
        start = datetime.datetime.fromisoformat(answer["start"]).timestamp()
        for series in answer["series"]:
            labels = dict(series["labels"])
            name = labels.pop("__name__")
            shown = ",".join(f'{key}="{value}"' for key, value in sorted(labels.items()))
            samples = by_series.setdefault(f"{name}{{{shown}}}", {})
            samples |= {start + at + shift: value for at, value in series["values"] if value is not None}
            if labels.get("le") == "+Inf":  # what a histogram exports besides its buckets
                total = re.sub(r',?le="[^"]*"', "", shown).lstrip(",")
                by_series.setdefault(f"{name.removesuffix('_bucket')}_count{{{total}}}", {}).update(samples)
    lines = [
        f"{series} {value} {at}"
        for series, samples in sorted(by_series.items())
        for at, value in sorted(samples.items())
    ]
    return "\n".join([*lines, "# EOF", ""])
