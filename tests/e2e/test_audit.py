"""An audit of a large cluster costs less than kubectl's listing of it, and names what is broken in it."""

import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest

from . import bigcluster
from .conftest import Play
from .controlplane import ControlPlane
from .test_scale import _measured

#: The whole size takes minutes to play; CI runs a tenth.
FULL = os.environ.get("LLMDOCTOR_EXAM") == "1"
NODES, PODS, MODELS, BROKEN = (1000, 10_000, 1000, 50) if FULL else (100, 1000, 100, 20)
RUNS = 3 if FULL else 1
MOST_OF_KUBECTL, MOST_OF_PLAIN, MOST_MIB = 0.5, 4.0, 400
MOST_GROWTH = 10.5
KINDS = "pods,nodes,events,deployments,replicasets,services,pvc,hpa"
PATHS = (
    "api/v1/pods", "api/v1/nodes", "api/v1/events", "apis/apps/v1/deployments", "apis/apps/v1/replicasets",
    "api/v1/services", "api/v1/persistentvolumeclaims", "apis/autoscaling/v2/horizontalpodautoscalers",
)  # fmt: skip

#: The same lists, one request a kind, from the watch cache, compressed, thrown away.
_PLAIN = """
import sys
from kubectl_llmdoctor.gather.connection import Connection
from kubectl_llmdoctor.gather.session import connect
client = connect(Connection(request_timeout=60.0)).client
for path in sys.argv[1:]:
    client.get("/" + path, {"resourceVersion": "0"}, decode=len)
"""


def _audit(home: Path, cluster: ControlPlane) -> tuple[float, int, Any]:
    command = ["kubectl", "llmdoctor", "audit", "-A", "-o", "json", "--request-timeout", "60s"]
    seconds, mebibytes, out = _measured(command, home, cluster.admin)
    return seconds, mebibytes, json.loads(out)


def _named(report: Any, expected: dict[str, str]) -> list[str]:
    """The broken workloads of which the report names the cause first."""
    found = {
        f"{target['namespace']}/{target['workload'].partition('/')[2]}": target["findings"][0]["id"]
        for target in report["targets"]
        if target["findings"]
    }
    return [name for name, id in expected.items() if found.get(name) == id]


def test_a_large_cluster(play: Play, cluster: ControlPlane, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    snapshot, expected = bigcluster.cluster(NODES, PODS, MODELS, BROKEN)
    play(snapshot)
    listing = ["kubectl", "get", KINDS, "-A", "-o", "json"]
    plain = [sys.executable, "-c", _PLAIN, *PATHS]
    theirs, lists, ours, peak, report = [], [], [], 0, None
    for _ in range(RUNS + 1):
        theirs.append(_measured(listing, home, cluster.admin)[0])
        lists.append(_measured(plain, home, cluster.admin)[0])
        seconds, mebibytes, report = _audit(home, cluster)
        ours.append(seconds)
        peak = max(peak, mebibytes)
    base, bare, our = (statistics.median(times[1:]) for times in (theirs, lists, ours))
    named = _named(report, expected)
    with capsys.disabled():
        print(
            f"\naudit: {NODES} nodes, {PODS} pods, {MODELS} models: {our:.2f} s, peak {peak} MiB; kubectl get ", end=""
        )
        print(f"{base:.2f} s, ratio {our / base:.2f}; plain lists {bare:.2f} s, ratio {our / bare:.1f}; ", end="")
        print(f"names {len(named)} of {len(expected)} broken")
    wrong = {name: id for name, id in expected.items() if name not in named}
    assert not wrong
    assert len(report["targets"]) == MODELS
    assert [t["verdict"] == "cause-found" for t in report["targets"]] == [True] * BROKEN + [False] * (MODELS - BROKEN)
    (h100, *_) = [row for row in report["cluster"]["capacity"] if "H100" in row["product"]]
    assert h100["total"] == h100["allocated"] + h100["free"]
    if FULL:  # in a small cluster the start of the program is most of it
        assert our <= MOST_OF_KUBECTL * base
        assert our <= MOST_OF_PLAIN * bare
    assert peak <= MOST_MIB
