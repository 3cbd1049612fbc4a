"""`diagnose` as a step of a runbook: from an alert, until it is healthy, within a time."""
# ruff: noqa: F811

from __future__ import annotations

import copy
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather import alertmanager
from kubectl_llmdoctor.gather.alertmanager import Alerted, about
from kubectl_llmdoctor.snapshot import TargetRef
from tests.program import PROGRAM, run
from tests.test_gather_cluster import NS, deployment_world, obj, pod
from tests.test_gather_server import FakeApi, api, kubeconfig, silence  # noqa: F401

Json = dict[str, Any]
ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "checks" / "cases"
CRASHED = CASES / "oomkilled-host" / "fires_loading.yaml"


def alert(status: Any = "firing", **labels: str) -> Json:
    return {
        "status": status,
        "labels": {"alertname": "KubePodCrashLooping", "severity": "critical", **labels},
        "annotations": {"summary": "x"},
        "startsAt": "2026-11-20T09:50:00Z",
        "endsAt": "0001-01-01T00:00:00Z",
        "fingerprint": "0123456789abcdef",
    }


def payload(*alerts: Json, **more: Any) -> bytes:
    head = {"version": "4", "groupKey": '{}:{alertname="x"}', "truncatedAlerts": 0, "status": "firing", "receiver": "r"}
    return json.dumps({**head, "alerts": list(alerts), **more}).encode()


def subjects(*alerts: Json, **more: Any) -> list[Any]:
    found = about(payload(*alerts, **more), "x.json")
    return [*((t.kind, t.namespace, t.name) for t in found.objects), *found.nodes]


# --- what an alert is about ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "subject"),
    [
        ({"namespace": "serving", "pod": "llama-0", "container": "vllm"}, ("Pod", "serving", "llama-0")),
        ({"pod": "llama-0"}, ("Pod", "", "llama-0")),
        (
            {"namespace": "gpu", "pod": "dcgm-1", "exported_namespace": "serving", "exported_pod": "llama-0"},
            ("Pod", "serving", "llama-0"),
        ),
        ({"kubernetes_namespace": "serving", "kubernetes_pod_name": "llama-0"}, ("Pod", "serving", "llama-0")),
        ({"namespace": "serving", "deployment": "llama"}, ("Deployment", "serving", "llama")),
        ({"namespace": "serving", "statefulset": "llama"}, ("StatefulSet", "serving", "llama")),
        ({"namespace": "serving", "job_name": "load"}, ("Job", "serving", "load")),
        ({"namespace": "serving", "workload": "llama", "workload_type": "deployment"}, ("Deployment", "serving", "llama")),
        (
            # kube-state-metrics, its labels not honoured
            {
                "namespace": "monitoring",
                "pod": "prom-kube-state-metrics-7c9d8f6b5-x2v4q",
                "exported_namespace": "serving",
                "deployment": "llama",
                "job": "kube-state-metrics",
                "instance": "10.0.0.9:8080",
            },
            ("Deployment", "serving", "llama"),
        ),
        ({"node": "gpu-1", "pod": "kube-state-metrics-0", "namespace": "monitoring"}, "gpu-1"),
        ({"namespace": "monitoring", "pod": "kube-state-metrics-0"}, ("Pod", "monitoring", "kube-state-metrics-0")),
        ({"Hostname": "gpu-1", "gpu": "3", "pod": "nvidia-dcgm-exporter-x2v4q", "namespace": "gpu"}, "gpu-1"),
        ({"instance": "10.0.0.7:9100", "job": "node-exporter"}, "10.0.0.7"),
        ({"instance": "gpu-1.example.com:9100"}, "gpu-1.example.com"),
        ({"instance": "[fd00::7]:9100"}, "fd00::7"),
    ],
    ids=str,
)  # fmt: skip
def test_labels_name_a_pod_a_workload_or_a_node(labels: dict[str, str], subject: Any) -> None:
    assert subjects(alert(**labels)) == [subject]


def test_each_thing_is_named_once_and_what_is_resolved_is_passed_over() -> None:
    one, two = alert(namespace="serving", pod="llama-0"), alert(namespace="serving", pod="llama-1")

    assert subjects(one, two, one) == [("Pod", "serving", "llama-0"), ("Pod", "serving", "llama-1")]
    assert subjects(one, alert("resolved", namespace="serving", pod="llama-1")) == [("Pod", "serving", "llama-0")]
    over = about(payload(alert("resolved", namespace="serving", pod="llama-1")), "x")
    assert (over.objects, over.alerts) == ((), 1)


def test_the_bare_list_of_the_api_is_taken_too() -> None:
    listed = json.dumps([alert({"state": "active", "silencedBy": []}, namespace="serving", pod="llama-0")]).encode()

    assert about(listed, "x").objects == (TargetRef(kind="Pod", namespace="serving", name="llama-0"),)


def test_what_is_left_out_is_said() -> None:
    many = [alert(namespace="serving", pod=f"llama-{n}") for n in range(50)]
    found = about(payload(*many, alert(job="x"), truncatedAlerts=7), "x.json")

    assert len(found.objects) == alertmanager.MAX_TARGETS
    assert {row.reason for row in found.passed_over} == {
        "Alertmanager left out 7 more alerts of this group",
        "its labels name no pod, workload or node (labels: alertname, job, severity)",
        "only the first 20 of 50 things that the alerts name are explained",
    }


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"{}", "no alerts in it"),
        (b"[]", "the list of alerts is empty"),
        (b'"firing"', "no alerts in it"),
        (payload(alert(namespace="serving", pod="x"), version="5"), "of version '5'"),
        (payload(alert(job="x")), "its labels name no pod"),
        (payload(alert(namespace="serving", pod="../../../secrets/x")), "its label pod is no name of an object"),
        (payload(alert(namespace="a/../b", pod="x")), "its label namespace is no name of an object"),
        (payload(alert(pod="--kubeconfig=/etc/x")), "its label pod is no name of an object"),
        (payload(alert(pod="\x1b[31mred\n")), "its label pod is no name of an object: '?[31mred?'"),
        (payload(*[alert(node="x" * 300)]), "its label node is no name"),
        (json.dumps([1, None, "x"]).encode(), "it has no labels"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_payload_that_leads_nowhere_gets_one_line(data: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "alert.json").write_bytes(data)
    done = run("diagnose", "--alert", str(tmp_path / "alert.json"))

    (line,) = done.stderr.decode().splitlines()
    assert done.returncode == 2
    assert says in line
    assert line.isprintable()
    assert len(line) < 400


JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
LABELS = st.dictionaries(
    st.sampled_from(
        ["pod", "namespace", "exported_pod", "node", "instance", "deployment", "workload", "workload_type"]
    ),
    st.text(max_size=12) | JUNK,
)
HOSTILE = st.lists(st.fixed_dictionaries({"labels": LABELS, "status": JUNK}) | JUNK, max_size=4)


@given(JUNK | HOSTILE | st.fixed_dictionaries({"version": st.just("4"), "alerts": HOSTILE, "truncatedAlerts": JUNK}))
def test_no_payload_breaks_it_or_names_anything_but_names(tree: Any) -> None:
    try:
        found = about(json.dumps(tree).encode(), "x")
    except UsageError:
        return
    assert isinstance(found, Alerted)
    for name in [*(ref.name for ref in found.objects), *(ref.namespace for ref in found.objects), *found.nodes]:
        assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789.-:")


# --- against a cluster --------------------------------------------------------------------------------------------------

OFFLINE = ("--prometheus", "off", "--ports", "off", "--agent", "off")
READY = {
    "phase": "Running",
    "conditions": [{"type": "Ready", "status": "True"}],
    "containerStatuses": [{"name": "vllm", "ready": True, "restartCount": 0, "state": {"running": {}}}],
}


def diagnosed(kubeconfig: Path, *arguments: str, stdin: bytes = b"") -> tuple[int, Json, str]:
    done = run("diagnose", *arguments, *OFFLINE, "-o", "json", stdin=stdin, KUBECONFIG=str(kubeconfig))
    return done.returncode, json.loads(done.stdout or b"{}"), done.stderr.decode()


def test_an_alert_leads_to_its_pods(api: FakeApi, kubeconfig: Path) -> None:
    api.objects = deployment_world()
    elsewhere = pod("other-0", spec={"nodeName": "gpu-2"})
    elsewhere["metadata"]["namespace"] = "team"
    addresses = [{"type": "InternalIP", "address": "10.0.0.7"}, {"type": "Hostname", "address": "gpu-2"}]
    api.objects += [elsewhere, obj("Node", "gpu-2", ns="", status={"addresses": addresses, "capacity": {}})]
    api.objects += [obj("Pod", "web-0", spec={"nodeName": "gpu-2", "containers": [{"name": "web", "image": "nginx"}]})]
    alerts = payload(
        alert(namespace="serving", pod="llama-2-a"),
        alert(namespace="serving", pod="gone-0"),
        alert(instance="10.0.0.7:9100"),
        alert(node="gpu-9"),
        alert("resolved", namespace="serving", pod="llama-2-b"),
    )
    code, tree, errors = diagnosed(kubeconfig, "--alert", "-", stdin=alerts)

    assert (code, errors) == (1, "")
    assert {(t["namespace"], t["name"]) for t in tree["targets"]} == {("serving", "llama-2-a"), ("team", "other-0")}
    said = {(row["source"], row.get("ref")): row["reason"] for row in tree["notRead"]}
    assert "there is no Pod 'gone-0'" in said["pods", "serving/gone-0"]
    assert said["nodes", "gpu-9"] == "there is no node of this name or address"


def test_an_alert_whose_pod_is_gone_ends_with_3(api: FakeApi, kubeconfig: Path) -> None:
    api.objects = deployment_world()
    code, _, errors = diagnosed(kubeconfig, "--alert", "-", stdin=payload(alert(namespace="serving", pod="gone-0")))

    assert code == 3
    assert "there is no Pod 'gone-0'" in errors


def test_resolved_alerts_are_nothing_to_explain(kubeconfig: Path) -> None:
    done = run("diagnose", "--alert", "-", stdin=payload(alert("resolved", pod="x")), KUBECONFIG=str(kubeconfig))

    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"nothing to explain: all 1 alerts are resolved\n"


def test_an_alert_chooses_from_a_snapshot() -> None:
    done = run(
        "diagnose", "--from", str(CRASHED), "--alert", "-", "-o", "json",
        stdin=payload(alert(namespace="serving", pod="llama-0")),
    )  # fmt: skip
    by_node = run("diagnose", "--from", str(CRASHED), "--alert", "-", stdin=payload(alert(node="no-such-node")))

    assert json.loads(done.stdout)["targets"][0]["findings"][0]["id"] == "oomkilled-host"
    assert by_node.returncode == 3
    assert b"no pod on a node of the name or address no-such-node" in by_node.stderr


# --- a bound ------------------------------------------------------------------------------------------------------------


def test_what_was_read_in_time_is_judged(api: FakeApi, kubeconfig: Path) -> None:
    api.objects = deployment_world()
    api.faults[f"{NS}/events"] = [silence]
    api.faults[f"{NS}/services"] = [silence]
    start = time.monotonic()
    code, tree, _ = diagnosed(kubeconfig, "llama-2-a", "--timeout", "1s", "--request-timeout", "60s")

    assert time.monotonic() - start < 60  # the timeout of one request alone
    assert code == 1
    assert tree["targets"][0]["name"] == "llama-2-a"
    late = {row["source"] for row in tree["notRead"] if row["reason"] == "not read: the time of --timeout was over"}
    assert {"events", "services"} <= late


def test_a_target_that_does_not_come_in_time_ends_with_3(api: FakeApi, kubeconfig: Path) -> None:
    api.faults[f"{NS}/pods/llama-0"] = [silence]
    code, tree, errors = diagnosed(kubeconfig, "llama-0", "--timeout", "500ms")

    assert (code, tree) == (3, {})
    assert "the time of --timeout was over" in errors


# --- until it is healthy ------------------------------------------------------------------------------------------------


@contextmanager
def watching(kubeconfig: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    command = [*PROGRAM, "diagnose", "llama-2-a", "--watch", "--interval", "100ms", *OFFLINE, *arguments]
    environment = os.environ | {"KUBECONFIG": str(kubeconfig), "COLUMNS": "80"}
    # what a shell starts in the background ignores interrupts, and so would all below it
    heard = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, preexec_fn=heard
    ) as program:
        try:
            yield program
        finally:
            program.kill()


def looks(api: FakeApi, program: subprocess.Popen[bytes], count: int) -> None:
    """Waits for so many looks."""
    until = time.monotonic() + 60
    while len(api.asked(f"{NS}/pods/llama-2-a")) < count:
        assert program.poll() is None, program.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)


def healed(objects: list[Json]) -> list[Json]:
    found = copy.deepcopy(objects)
    for one in found:
        if one["kind"] == "Pod":
            one["status"] = READY
    return found


def test_watch_prints_what_is_new_and_ends_when_all_is_well(api: FakeApi, kubeconfig: Path) -> None:
    broken = deployment_world()
    api.objects = broken
    with watching(kubeconfig) as program:
        looks(api, program, 4)
        starting = healed(broken)
        for one in starting:
            if one["kind"] == "Pod":
                one["status"] = {**READY, "conditions": [{"type": "Ready", "status": "False"}]}
        api.objects = starting
        looks(api, program, len(api.asked(f"{NS}/pods/llama-2-a")) + 4)
        assert program.poll() is None
        api.objects = healed(broken)
        out, err = program.communicate(timeout=60)

    assert (program.returncode, err) == (0, b"")
    headings = [line for line in out.decode().splitlines() if line.startswith("serving/llama-2-a")]
    assert 2 <= len(headings) <= 3
    assert headings[0] != headings[-1]
    assert "at risk" in headings[-1]


def test_watch_that_ends_too_late_ends_with_1(api: FakeApi, kubeconfig: Path) -> None:
    api.objects = deployment_world()
    with watching(kubeconfig, "--timeout", "2s") as program:
        out, err = program.communicate(timeout=60)

    # on a busy machine a last look may not have ended either, which is said before
    assert (program.returncode, err.splitlines()[-1]) == (1, b"not healthy within 2 s")
    assert out.decode().count("serving/llama-2-a ") == 1


def test_watch_goes_on_after_an_outage_and_ends_when_the_pod_is_gone(api: FakeApi, kubeconfig: Path) -> None:
    api.objects = deployment_world()
    with watching(kubeconfig, "--request-timeout", "2s") as program:
        looks(api, program, 2)
        api.faults[f"{NS}/pods/llama-2-a"] = [silence]
        looks(api, program, len(api.asked(f"{NS}/pods/llama-2-a")) + 3)
        assert program.poll() is None
        api.objects = [one for one in api.objects if one["metadata"]["name"] != "llama-2-a"]
        api.faults.clear()
        _, err = program.communicate(timeout=60)
    lines = err.decode().splitlines()

    assert program.returncode == 3
    assert lines[0].startswith("warning: ")
    assert "does not answer" in lines[0]
    assert "error: there is no Pod 'llama-2-a'" in lines[-1]
    assert len(lines) == 2


def test_an_interrupt_ends_watch_without_a_word(api: FakeApi, kubeconfig: Path) -> None:
    api.objects = deployment_world()
    with watching(kubeconfig, "-o", "json") as program:
        looks(api, program, 3)
        program.send_signal(signal.SIGINT)
        out, err = program.communicate(timeout=60)

    assert (program.returncode, err.strip()) == (130, b"")
    assert json.loads(out)["targets"][0]["name"] == "llama-2-a"


# --- the page -----------------------------------------------------------------------------------------------------------

PAGE = (ROOT / "docs" / "runbook.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code of the page, that of the quoted part without its quotation marks."""
    plain = re.sub(r"(?m)^> ?(?:   )?", "", PAGE)
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", plain)


@pytest.fixture
def shell(api: FakeApi, kubeconfig: Path, tmp_path: Path) -> dict[str, str]:
    """A healthy cluster, a kubectl that finds the plugin, and a folder with an alert."""
    kubectl = shutil.which("kubectl", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if kubectl is None:
        pytest.skip("no kubectl")
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(kubectl)
    plugin = programs / "kubectl-llmdoctor"
    plugin.write_text(f"#!{sys.executable}\nfrom kubectl_llmdoctor.cli import main\nmain()\n")
    plugin.chmod(0o755)
    api.objects = healed(deployment_world())
    (tmp_path / "alert.json").write_bytes(payload(alert(namespace="serving", deployment="llama")))
    return os.environ | {
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "checks")]),
        "KUBECONFIG": str(kubeconfig),
        "GITHUB_STEP_SUMMARY": str(tmp_path / "summary"),
    }


def done(script: str, environment: dict[str, str], folder: Path) -> str:
    """The standard output of a script that must end well."""
    run = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, env=environment, capture_output=True, check=False
    )
    assert (run.returncode, run.stderr) == (0, b""), run.stderr
    return run.stdout.decode()


def test_the_commands_of_the_page_run(shell: dict[str, str], tmp_path: Path) -> None:
    scripts = blocks("sh")
    assert len(scripts) == 7

    for script in scripts:
        assert "serving/llama" in done(script, shell, tmp_path) or "snapshot" in script
    assert (tmp_path / "incident.json.gz").stat().st_size > 100


def test_the_workflow_of_argo_runs(shell: dict[str, str], tmp_path: Path) -> None:
    workflow = yaml.safe_load(blocks("yaml")[0])
    templates = {template["name"]: template for template in workflow["spec"]["templates"]}
    steps = [one["template"] for group in templates["explain"]["steps"] for one in group]

    assert (workflow["kind"], workflow["spec"]["entrypoint"]) == ("WorkflowTemplate", "explain")
    assert steps == ["diagnose", "until-healthy"]
    for name in steps:
        arguments = [text.replace("/tmp/", f"{tmp_path}/") for text in templates[name]["container"]["args"]]
        assert "serving/llama" in done(shlex.join(["kubectl-llmdoctor", *arguments]), shell, tmp_path)
    (left,) = templates["diagnose"]["outputs"]["artifacts"]
    assert json.loads((tmp_path / Path(left["path"]).name).read_text())["schema"] == "llmdoctor.report/v1"


def test_the_workflow_of_github_runs(shell: dict[str, str], tmp_path: Path) -> None:
    workflow = yaml.safe_load(blocks("yaml")[1])
    scripts = {step["name"]: step["run"] for step in workflow["jobs"]["rollout"]["steps"] if "run" in step}

    assert "llmdoctor" in done(
        scripts["Wait until it serves"] + " && ls report.json && echo llmdoctor", shell, tmp_path
    )
    assert "serving/llama" in done(scripts["Keep the report"], shell, tmp_path)
    assert "serving/llama" in (tmp_path / "summary").read_text()
    assert set(scripts) == {"Install", "Apply", "Wait until it serves", "Keep the report"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--watch", "--from", str(CRASHED)],
        ["--timeout", "5s", "--from", str(CRASHED)],
        ["--watch", "--fail-on", "never", "x"],
        ["--timeout", "soon", "x"],
        ["--alert", "-", "x"],
        ["--alert", "-", "--from", "-"],
        ["--alert", "/no/such/file"],
    ],
    ids=" ".join,
)
def test_wrong_usage_gets_one_line(arguments: list[str]) -> None:
    done = run("diagnose", *arguments)

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
