"""An audit of a large cluster costs less than kubectl's listing of it, names what is broken in it, and is gentle."""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from . import bigcluster, network, program
from .conftest import Doctor, Kubectl, Play
from .controlplane import ControlPlane
from .faultproxy import URL, FaultProxy, Rule, refuse
from .test_scale import _measured

#: Nodes, pods, pods that serve models, and how many of these are broken. `make exam` runs all of them; the large ones
#: take minutes to play. Of the middle one the times of other tools are known.
SMALL, MIDDLE, LARGE = (100, 1000, 100, 20), (300, 3000, 300, 50), (1000, 10_000, 1000, 50)
FULL = os.environ.get("LLMDOCTOR_EXAM") == "1"
RUNS = 3 if FULL else 1
MOST_OF_KUBECTL, MOST_OF_PLAIN, MOST_MIB, MOST_GROWTH = 0.5, 4.0, 400, 10.5
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
#: Seconds of an audit by number of pods.
_TOOK: dict[int, float] = {}


def _audit(home: Path, cluster: ControlPlane) -> tuple[float, int, Any]:
    command = ["kubectl", "llmdoctor", "audit", "-A", "-o", "json", "--request-timeout", "60s"]
    seconds, mebibytes, out = _measured(command, home, cluster.admin)
    return seconds, mebibytes, json.loads(out)


def _wrong(report: Any, expected: dict[str, str]) -> dict[str, str]:
    """The broken workloads of which the report does not name the cause first."""
    found = {
        f"{target['namespace']}/{target['workload'].partition('/')[2]}": target["findings"][0]["id"]
        for target in report["targets"]
        if target["findings"]
    }
    return {name: id for name, id in expected.items() if found.get(name) != id}


@pytest.mark.timed
@pytest.mark.parametrize("size", [SMALL, MIDDLE, LARGE] if FULL else [SMALL], ids=str)
def test_a_large_cluster(
    size: tuple[int, int, int, int],
    play: Play,
    cluster: ControlPlane,
    home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    nodes, pods, models, broken = size
    snapshot, expected = bigcluster.cluster(*size)
    play(snapshot)
    listing = ["kubectl", "get", KINDS, "-A", "-o", "json"]
    plain = [sys.executable, "-c", _PLAIN, *PATHS]
    theirs, lists, ours, peak, report = [], [], [], 0, dict[str, Any]()
    for _ in range(RUNS + 1):
        theirs.append(_measured(listing, home, cluster.admin)[0])
        lists.append(_measured(plain, home, cluster.admin)[0])
        seconds, mebibytes, report = _audit(home, cluster)
        ours.append(seconds)
        peak = max(peak, mebibytes)
    base, bare, our = (statistics.median(times[1:]) for times in (theirs, lists, ours))
    _TOOK[pods] = our
    wrong = _wrong(report, expected)
    demanded = size == LARGE  # in a smaller cluster the start of the program is most of it
    bound, other = (f" (at most {most})" if demanded else "" for most in (MOST_OF_KUBECTL, MOST_OF_PLAIN))
    with capsys.disabled():
        print(f"\naudit: {nodes} nodes, {pods} pods, {models} models: {our:.2f} s, peak {peak} MiB; ", end="")
        print(f"kubectl get {base:.2f} s, ratio {our / base:.2f}{bound}; ", end="")
        print(f"plain lists {bare:.2f} s, ratio {our / bare:.1f}{other}; ", end="")
        print(f"{broken - len(wrong)} of {broken} broken workloads named")
    assert not wrong
    assert len(report["targets"]) == models
    down = [target["verdict"] == "cause-found" for target in report["targets"]]
    assert down == [True] * broken + [False] * (models - broken)
    for row in report["cluster"]["capacity"]:
        assert row["total"] == row["allocated"] + row["free"]
    assert peak <= MOST_MIB
    if demanded:
        assert our <= MOST_OF_KUBECTL * base
        assert our <= MOST_OF_PLAIN * bare
        assert our <= MOST_GROWTH * _TOOK[SMALL[1]]


@pytest.fixture
def small(play: Play) -> dict[str, str]:
    """A small cluster with one workload broken in each way."""
    snapshot, expected = bigcluster.cluster(20, 100, 20, 10)
    play(snapshot)
    return expected


def test_requests_are_few_and_come_again_when_told(
    small: dict[str, str], cluster: ControlPlane, proxy: FaultProxy, doctor: Doctor, capsys: pytest.CaptureFixture[str]
) -> None:
    kubeconfig = cluster.kubeconfig("proxied-audit", cluster.user("anyone"), server=URL)
    busy = refuse(429, "TooManyRequests", "too many requests", {"Retry-After": "2"})
    proxy.rules.append(Rule(r"GET /api/v1/nodes\b", busy, times=1))
    began = time.monotonic()
    result = doctor("audit", "-A", "-o", "json", kubeconfig=kubeconfig)
    lists = [one for one in proxy.requests if not re.search(r"/namespaces/", one)]
    with capsys.disabled():
        print(f"\naudit: {len(lists)} requests for lists (at most 60), {len(proxy.requests) - len(lists)} ", end="")
        print(f"for {len(small)} broken pods")
    assert time.monotonic() - began >= 2
    assert not _wrong(result.report, small)
    assert [row for row in result.not_read if row["source"] == "nodes"] == []
    assert len(lists) <= 60
    assert len(proxy.requests) - len(lists) <= 6 * len(small)


def test_a_cluster_that_does_not_answer_costs_its_part_only(
    small: dict[str, str], cluster: ControlPlane, doctor: Doctor
) -> None:
    gone = cluster.kubeconfig("gone", cluster.user("anyone"), server=f"https://{network.ADDRESS}:1")
    both = Path(os.pathsep.join(map(str, (cluster.admin, gone))))
    result = doctor("audit", "-A", "--all-contexts", "-o", "json", kubeconfig=both)
    assert not _wrong(result.report, small)
    assert {target["context"] for target in result.report["targets"]} == {"admin"}
    assert [row["ref"] for row in result.not_read if row["source"] == "cluster"] == ["gone"]
    misspelt = doctor("audit", "-A", "--context", "admin", "--context", "admim", kubeconfig=both)
    assert (misspelt.code, len(misspelt.err.splitlines())) == (2, 1)
    alone = doctor("audit", "-A", "--context", "gone", kubeconfig=both)
    assert alone.code == 3
    assert len(alone.err.splitlines()) == 1


def test_from_a_pod_with_its_own_credentials(
    small: dict[str, str], cluster: ControlPlane, home: Path, kubectl: Kubectl, doctor: Doctor, tmp_path: Path
) -> None:
    printed = doctor("audit", "--print-cronjob", "registry.example/llmdoctor:1.0", "-n", "ops")
    assert printed.code == 0
    path = tmp_path / "cronjob.yaml"
    path.write_text(printed.out)
    applied = kubectl("apply", "-f", str(path))
    assert applied.code == 0, applied.err
    accounts = "/api/v1/namespaces/ops/serviceaccounts"
    issued = cluster.api.create(f"{accounts}/llmdoctor-audit/token", {"spec": {"expirationSeconds": 3600}})
    secret = tmp_path / "serviceaccount"
    secret.mkdir()
    (secret / "token").write_text(issued["status"]["token"])
    (secret / "namespace").write_text("ops")
    (secret / "ca.crt").write_bytes(cluster.authority.certificate.read_bytes())
    # A pod has its credentials at one fixed place, which is nobody else's in a mount namespace of its own.
    script = 'mount -t tmpfs none /run && d=/run/secrets/kubernetes.io && mkdir -p $d && cp -r "$0" $d/ && exec "$@"'
    inside = ["unshare", "--mount", "sh", "-c", script, str(secret)]
    if subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace of its own")
    command = [*inside, "kubectl-llmdoctor", "audit", "-A", "-o", "json"]
    variables = {"KUBERNETES_SERVICE_HOST": network.ADDRESS, "KUBERNETES_SERVICE_PORT": "6443"}
    result = program.run(command, home, variables)
    refused = {row["source"] for row in result.not_read if "forbidden" in row["reason"]}
    assert not _wrong(result.report, small)
    assert refused <= {"secrets"}
    (job,) = [item for item in yaml.safe_load_all(printed.out) if item["kind"] == "CronJob"]
    assert job["spec"]["jobTemplate"]["spec"]["template"]["spec"]["serviceAccountName"] == "llmdoctor-audit"
    assert kubectl("delete", "-f", str(path), "--wait=false").code == 0
