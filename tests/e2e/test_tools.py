"""The stand-ins prove something only if kubectl sees through them what was recorded; so that comes first."""

import datetime
import json
import re

import pytest

from .conftest import CRASHED, Kubectl
from .controlplane import ControlPlane
from .faultproxy import URL, Fault, FaultProxy, Rule, cut_json, refuse, reset_midway, silence
from .kubelet import Instance, Kubelet, Log
from .play import Object, Player, read_snapshot
from .printed import moved

#: How vLLM prints the time.
VLLMS = r"\d\d-\d\d \d\d:\d\d:\d\d"


def test_a_played_pod_is_what_kubectl_shows(player: Player, kubectl: Kubectl) -> None:
    snapshot = read_snapshot(CRASHED)
    player.load(snapshot)
    try:
        pod = json.loads(kubectl("get", "pod", "llama-0", "-n", "serving", "-o", "json").out)
        assert pod["metadata"]["uid"] == "6a2f6c5e-0004-4c1e-9d0a-0a5d1f9c0004"
        assert pod["status"]["containerStatuses"][0]["restartCount"] == 6
        printed, recorded = kubectl("logs", "-p", "llama-0", "-n", "serving").out, snapshot["logs"][0]["text"]
        assert printed != recorded  # it is as old as it was, by the times in it
        assert re.sub(VLLMS, "", printed) == re.sub(VLLMS, "", recorded)
        assert kubectl("logs", "--tail=1", "llama-0", "-n", "serving").out.startswith("RuntimeError: Engine core init")
        described = kubectl("describe", "pod", "llama-0", "-n", "serving").out
        assert "Back-off restarting failed container" in described
        assert re.search(r"\b[2-5]\ds \(x61 over (?:19|20)m\)", described)  # 20 s old when it was played
    finally:
        player.unload()
    assert kubectl("get", "pods,nodes,events,services,statefulsets", "-n", "serving", "-o", "name").out == ""
    gone = kubectl("logs", "-p", "llama-0", "-n", "serving")
    assert (gone.code, "not found" in gone.err) == (1, True)


def test_times_that_programs_print_move_with_the_objects() -> None:
    def later(text: str) -> str:
        return moved(text, 2026, datetime.timedelta(days=30, hours=1, seconds=5))

    assert later("(EngineCore_DP0 pid=7) INFO 06-02 23:30:00 [a.py:1] x") == (
        "(EngineCore_DP0 pid=7) INFO 07-03 00:30:05 [a.py:1] x"
    )
    assert later("I0602 07:03:01.220101 1 server.cc:305] x") == "I0702 08:03:06.220101 1 server.cc:305] x"
    assert later("[2026-06-02 08:00:58 TP0] x") == "[2026-07-02 09:01:03 TP0] x"
    assert later("2026-06-02T08:00:58.5Z x") == "2026-07-02T09:01:03.5Z x"
    assert later("[GIN] 2026/06/02 - 08:39:11 | 200") == "[GIN] 2026/07/02 - 09:39:16 | 200"
    assert later("2026/06/02 08:39:11 [error] x") == "2026/07/02 09:39:16 [error] x"
    assert later("- [02/Jun/2026:08:09:01 +0000] x") == "- [02/Jul/2026:09:09:06 +0000] x"
    assert later("INFO 02-30 08:09:35 x, v2026.06.02, 1234-56-78 99:00:00") == (
        "INFO 02-30 08:09:35 x, v2026.06.02, 1234-56-78 99:00:00"
    )


def test_the_kubelet_gives_what_is_asked_for(crashed: Object, kubelet: Kubelet, kubectl: Kubectl) -> None:
    current = Instance("serving", "llama-0", "vllm", previous=False)
    previous = Instance("serving", "llama-0", "vllm", previous=True)
    kubelet.logs[current] = Log("one\ntwo\nthree\n", at="2026-01-01T00:00:00Z")
    kubelet.logs[previous] = Log("2026-01-02T00:00:00.5Z four\n", stamped=True)
    logs = ("logs", "llama-0", "-n", "serving")
    assert kubectl(*logs, "--tail=2").out == "two\nthree\n"
    assert kubectl(*logs, "--limit-bytes=5").out == "one\nt"
    assert kubectl(*logs, "--tail=1", "--timestamps").out == "2026-01-01T00:00:00.002000000Z three\n"
    assert kubectl(*logs, "-p").out == "four\n"
    assert kubectl(*logs, "-p", "--timestamps").out == "2026-01-02T00:00:00.5Z four\n"
    del kubelet.logs[previous]
    refused = 'Error from server (BadRequest): previous terminated container "vllm" in pod "llama-0" not found\n'
    assert kubectl(*logs, "-p").err == refused
    assert kubelet.requests[previous] == 3


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (refuse(403, "Forbidden", "pods is forbidden"), "Forbidden.*pods is forbidden"),
        (refuse(500, "InternalError", "etcd is gone"), "etcd is gone"),
        (reset_midway, "connection reset by peer"),
        (cut_json, "unexpected end of JSON input"),
        (silence(3), "deadline exceeded|request canceled"),
    ],
    ids=["403", "500", "reset", "cut", "silence"],
)
def test_the_proxy_breaks_what_it_is_told_to(
    crashed: Object, cluster: ControlPlane, proxy: FaultProxy, kubectl: Kubectl, fault: Fault, words: str
) -> None:
    proxied = cluster.kubeconfig("proxied", cluster.user("anyone"), server=URL)
    command = ("get", "pods", "-n", "serving", "-o", "json", "--request-timeout=1s")
    assert json.loads(kubectl(*command, kubeconfig=proxied).out)["items"][0]["metadata"]["name"] == "llama-0"
    proxy.rules.append(Rule(r"GET /api/v1/namespaces/serving/pods", fault))
    broken = kubectl(*command, kubeconfig=proxied)
    assert broken.code == 1
    assert re.search(words, broken.err)
    assert kubectl("get", "events", "-n", "serving", "-o", "name", kubeconfig=proxied).out.startswith("event/llama-0")
