"""A played incident gives the same diagnosis as its snapshot: gathering loses nothing and adds nothing."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from . import program
from .conftest import Doctor, Play
from .controlplane import ControlPlane
from .play import lost, read_snapshot, target_arguments
from .snapshots import CASES, chosen

SNAPSHOTS = chosen()


@pytest.mark.parametrize("path", SNAPSHOTS.values(), ids=SNAPSHOTS.keys())
def test_live_equals_offline(path: Path, play: Play, doctor: Doctor, cluster: ControlPlane) -> None:
    snapshot = read_snapshot(path)
    played = play(snapshot)
    with ThreadPoolExecutor() as both:
        # Nobody listens at the addresses of played pods.
        live = both.submit(doctor, "diagnose", *target_arguments(snapshot), "--ports", "off", "-o", "json")
        offline = both.submit(doctor, "diagnose", "--from", str(path), "-o", "json", KUBECONFIG="/dev/null")
        # The API server decoded every object and gives every field that was recorded.
        gone = [what for where, item in played for what in lost(item, cluster.api.get(where))]
    assert gone == []
    assert program.signature(live.result().report) == program.signature(offline.result().report)


def test_fit_of_a_running_object_equals_offline(play: Play, doctor: Doctor) -> None:
    path = CASES / "cuda-oom-weights" / "fires_computed.yaml"
    play(read_snapshot(path))
    live = doctor("fit", "pod/llama-0", "-n", "serving", "-o", "json")
    offline = doctor("fit", "pod/llama-0", "--from", str(path), "-o", "json", KUBECONFIG="/dev/null")

    assert (live.code, live.err) == (1, "")
    assert live.out == offline.out
    assert '"verdict": "does-not-fit"' in live.out


@pytest.mark.parametrize(
    ("case", "other"),
    [
        pytest.param("port-mismatch/fires_pool_with_a_port_of_others", "decode-0", id="a client by its address"),
        pytest.param("kv-transfer-failed/fires_prefill_says_why", "read-0", id="prefill"),
        pytest.param("ready-before-serving/fires_launcher_by_envoys_flags", "gateway-0", id="a gateway's proxy"),
        pytest.param(
            "gpu-runtime-missing/fires_reservation_for_another_finds_no_nvml",
            "gpu-reservation-9d1c",
            id="KAI's own pod, by an event",
        ),
    ],
)
def test_the_log_of_another_pod_that_nobody_named_is_read(case: str, other: str, play: Play, doctor: Doctor) -> None:
    snapshot = read_snapshot(CASES / f"{case}.yaml")
    play(snapshot)
    live = doctor("diagnose", *target_arguments(snapshot), "--ports", "off", "-o", "json")

    (target,) = live.report["targets"]
    assert [(one["id"], one["role"]) for one in target["findings"][:1]] == [(case.partition("/")[0], "cause")]
    assert any(other in one["ref"] for one in target["findings"][0]["evidence"])
