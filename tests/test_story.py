"""The frame around the findings: impact, the timeline of changes, what to look at next."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.report.document import Target
from kubectl_llmdoctor.snapshot import LogText, Snapshot, TargetRef
from kubectl_llmdoctor.story import difference
from kubectl_llmdoctor.testing import diagnose_case, load_case

CASES = Path(__file__).parent.parent / "checks" / "cases"

NOW = "2026-11-20T10:00:00Z"


def _template(*args: str, image: str = "vllm/vllm-openai:v0.10.2", **more: Any) -> dict[str, Any]:
    return {"spec": {"containers": [{"name": "vllm", "image": image, "args": list(args), **more}]}}


def _owner(kind: str, name: str, uid: str) -> list[dict[str, Any]]:
    return [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": True}]


def _cluster() -> list[dict[str, Any]]:
    before, after = (
        _template("--max-model-len", "8192"),
        _template("--max-model-len", "131072", image="vllm/vllm-openai:v0.11.0"),
    )
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llama", "namespace": "serving", "uid": "d"},
        "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "llama"}}, "template": after},
        "status": {"replicas": 3, "readyReplicas": 1},
    }
    sets = [
        {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"llama-{revision}",
                "namespace": "serving",
                "uid": f"rs{revision}",
                "creationTimestamp": created,
                "annotations": {"deployment.kubernetes.io/revision": str(revision)},
                "ownerReferences": _owner("Deployment", "llama", "d"),
            },
            "spec": {"replicas": 1, "template": template},
        }
        for revision, created, template in ((9, "2026-11-18T09:00:00Z", before), (10, "2026-11-20T09:30:00Z", after))
    ]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "llama-10-x",
            "namespace": "serving",
            "labels": {"app": "llama"},
            "creationTimestamp": "2026-11-20T09:30:05Z",
            "ownerReferences": _owner("ReplicaSet", "llama-10", "rs10"),
        },
        "spec": {"nodeName": "gpu-1", **after["spec"]},
        "status": {
            "phase": "Running",
            "startTime": "2026-11-20T09:30:05Z",
            "containerStatuses": [
                {
                    "name": "vllm",
                    "ready": False,
                    "restartCount": 4,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {
                        "terminated": {
                            "exitCode": 1,
                            "reason": "Error",
                            "startedAt": "2026-11-20T09:57:00Z",
                            "finishedAt": "2026-11-20T09:58:00Z",
                        }
                    },
                }
            ],
        },
    }
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "llama", "namespace": "serving"},
        "spec": {"selector": {"app": "llama"}, "ports": [{"port": 80}]},
    }
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "llama-1", "namespace": "serving", "labels": {"kubernetes.io/service-name": "llama"}},
        "endpoints": [{"addresses": ["10.0.0.9"], "conditions": {"ready": False}}],
    }
    rebooted = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "gpu-1.1", "namespace": "default"},
        "involvedObject": {"kind": "Node", "name": "gpu-1"},
        "reason": "Rebooted",
        "message": "Node gpu-1 has been rebooted, boot id: 5",
        "type": "Warning",
        "lastTimestamp": "2026-11-20T09:20:00Z",
    }
    return [deployment, *sets, pod, service, endpoints, rebooted]


def _diagnosed() -> Target:
    target = TargetRef(kind="Pod", namespace="serving", name="llama-10-x")
    return diagnose(Snapshot(objects=tuple(_cluster()), taken_at=NOW, target=target), []).targets[0]


def test_the_impact_names_replicas_and_endpoints() -> None:
    assert _diagnosed().impact == "1 of 3 replicas ready; Service llama has no ready endpoint"


def test_the_status_is_kubectls() -> None:
    assert _diagnosed().status == "CrashLoopBackOff, 4 restarts in 29 min"


def _served_by(kind: str, status: dict[str, Any], *, deleted: str = "") -> Target:
    owner = {
        "apiVersion": "example.com/v1",
        "kind": kind,
        "metadata": {"name": "phi", "namespace": "serving", "uid": "o"},
    }
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "phi-0", "namespace": "serving", "ownerReferences": _owner(kind, "phi", "o")},
        "spec": _template()["spec"],
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }
    if deleted:
        pod["metadata"]["deletionTimestamp"] = deleted
    objects = ({**owner, "spec": {"replicas": 1}, "status": status}, pod)
    target = TargetRef(kind="Pod", namespace="serving", name="phi-0")
    return diagnose(Snapshot(objects=objects, taken_at=NOW, target=target), []).targets[0]


def test_an_operator_that_counts_no_replicas_does_not_say_that_none_is_ready() -> None:
    assert _served_by("Serving", {"state": "Ready"}).impact == ""
    assert _served_by("Serving", {"readyReplicas": 1}).impact == "1 of 1 replica ready"


def test_a_pod_that_was_deleted_is_terminating() -> None:
    assert _served_by("Serving", {}, deleted="2026-11-20T10:00:30Z").status == "Terminating"


def _with_symptom(log: str = "") -> Target:
    from kubectl_llmdoctor.packs import installed

    logs = (LogText(text=log, namespace="serving", pod="llama-10-x", container="vllm", previous=True),) if log else ()
    target = TargetRef(kind="Pod", namespace="serving", name="llama-10-x")
    snapshot = Snapshot(objects=tuple(_cluster()), taken_at=NOW, target=target, logs=logs)
    return diagnose(snapshot, [c for c in installed() if c.id == "crash-loop"]).targets[0]


def test_the_timeline_has_the_rollout_with_its_differences_the_node_and_the_failure() -> None:
    changes = [(c.at, c.what) for c in _with_symptom().changes]
    rollout = next(c for c in _with_symptom().changes if c.what == "rollout")

    assert changes == [
        ("2026-11-20T09:20:00Z", "node"),
        ("2026-11-20T09:30:00Z", "rollout"),
        ("2026-11-20T09:30:05Z", "pod"),
        ("2026-11-20T09:58:00Z", "failure"),
    ]
    assert rollout.text == (
        "Deployment/llama revision 10: image vllm/vllm-openai:v0.10.2 -> vllm/vllm-openai:v0.11.0; args: 8192 -> 131072"
    )


def test_without_a_cause_the_most_telling_lines_and_the_command_are_shown() -> None:
    log = "INFO starting\nValueError: first trouble\nINFO more\nRuntimeError: last trouble\nbye\n"
    target = _with_symptom(log)

    assert target.verdict == "undetermined"
    assert target.next_steps == (
        "vllm (previous), line 2: ValueError: first trouble",
        "vllm (previous), line 4: RuntimeError: last trouble",
        "vllm (previous), line 5: bye",
        "kubectl -n serving logs llama-10-x -c vllm --previous",
    )


def test_of_a_traceback_without_its_head_only_the_end_is_telling() -> None:
    log = (
        'ERROR 06-05 14:26:00 [engine.py:164]   File "/opt/triton/compiler.py", line 341, in make_llir\n'
        "ERROR 06-05 14:26:00 [engine.py:164]     pm.run(mod)\n"
        "ERROR 06-05 14:26:00 [engine.py:164] RuntimeError: PassManager::run failed\n"
    )

    assert _with_symptom(log).next_steps[0] == (
        "vllm (previous), line 3: ERROR 06-05 14:26:00 [engine.py:164] RuntimeError: PassManager::run failed"
    )


def test_the_check_that_failed_on_the_gpu_stands_before_the_error_that_follows_from_it() -> None:
    log = (
        "/pytorch/IndexKernel.cu:93: operator(): block: [0,0,0], thread: [64,0,0] Assertion `index < sizes[i]` failed.\n"
        "Traceback (most recent call last):\n"
        '  File "/opt/vllm/core.py", line 711, in run_engine_core\n'
        "torch.AcceleratorError: CUDA error: device-side assert triggered\n"
    )

    steps = _with_symptom(log).next_steps
    assert "Assertion `index < sizes[i]` failed" in steps[0]
    assert "device-side assert triggered" in steps[1]


def test_a_log_that_breaks_off_in_a_traceback_is_told_by_the_line_before() -> None:
    mark = "ERROR 06-02 08:00:00 [core.py:708] "
    steps = _with_symptom(f"{mark}EngineCore failed to start.\n{mark}Traceback (most recent call last):\n").next_steps

    assert [step for step in steps if "line" in step] == [f"vllm (previous), line 1: {mark}EngineCore failed to start."]


def test_what_spring_boot_describes_is_telling() -> None:
    log = (
        "2026-06-02T08:00:00.676Z ERROR 1 --- [chat] [main] o.s.b.d.LoggingFailureAnalysisReporter   : \n\n"
        "***************************\nAPPLICATION FAILED TO START\n***************************\n\n"
        "Description:\n\nParameter 0 of method talker required a bean of type 'a.Api' that could not be found.\n\n"
        "\nAction:\n\nConsider defining a bean of type 'a.Api' in your configuration.\n\n"
    )

    assert any("line 9: Parameter 0 of method talker" in step for step in _with_symptom(log).next_steps)


def test_what_ollama_failed_with_is_telling() -> None:
    log = (
        'time=2025-08-20T11:53:39 level=INFO source=server.go:318 msg="starting runner"\n'
        'time=2025-08-20T11:53:40 level=INFO source=sched.go:417 msg="NewLlamaServer failed" error="do load request: EOF"\n'
        '[GIN] 2025/08/20 - 11:53:40 | 500 | 1.231s | 127.0.0.1 | POST "/api/generate"\n'
    )

    assert "do load request: EOF" in _with_symptom(log).next_steps[0]


def test_a_difference_names_variables_but_not_their_values() -> None:
    before = _template(
        env=[{"name": "A", "value": "1"}, {"name": "B", "value": "secret"}], resources={"limits": {"cpu": "1"}}
    )
    after = _template(env=[{"name": "A", "value": "2"}, {"name": "C", "value": "x"}])

    assert list(difference(before, after)) == ["env A changed", "env B removed", "env C added", "resources changed"]


def test_a_difference_survives_rubbish() -> None:
    garbage: tuple[Any, ...] = (None, 7, [], {"spec": {"containers": [3, None, {"name": 1, "env": 5}]}})
    for rubbish in garbage:
        assert isinstance(list(difference(rubbish, _template("x"))), list)


def _member(index: int, finished: str, code: int, started: str = "2026-11-20T09:40:00Z") -> dict[str, Any]:
    name = "llama-0" if index == 0 else f"llama-0-{index}"
    labels = {
        "leaderworkerset.sigs.k8s.io/name": "llama",
        "leaderworkerset.sigs.k8s.io/group-index": "0",
        "leaderworkerset.sigs.k8s.io/worker-index": str(index),
    }
    ended = {"exitCode": code, "reason": "Error", "startedAt": started, "finishedAt": finished}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "serving", "labels": labels},
        "spec": {"nodeName": f"gpu-{index}", "containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.10.2"}]},
        "status": {
            "phase": "Running",
            "containerStatuses": [
                {
                    "name": "vllm",
                    "restartCount": 2,
                    "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                    "lastState": {"terminated": ended},
                }
            ],
        },
    }


def _group(*members: dict[str, Any], **logs: str) -> Target:
    from kubectl_llmdoctor.packs import installed

    texts = tuple(
        LogText(namespace="serving", pod=pod.replace("_", "-"), container="vllm", previous=True, text=text)
        for pod, text in logs.items()
    )
    report = diagnose(Snapshot(taken_at=NOW, objects=members, logs=texts), installed())
    assert len(report.targets) == 1
    return report.targets[0]


def test_in_a_group_the_pod_that_ended_first_is_named_and_looked_at_first() -> None:
    target = _group(
        _member(0, "2026-11-20T09:50:12Z", 1),
        _member(1, "2026-11-20T09:50:00Z", 137),
        _member(2, "2026-11-20T09:50:09Z", 1),
        llama_0="PermissionError: [Errno 13] Permission denied: '/models/a'\n",
        llama_0_1="starting\nloading\nOSError: [Errno 28] No space left on device: '/models/b'\n",
    )
    assert [c.text for c in target.changes if c.what == "failure"] == [
        "worker 1 (pod llama-0-1) ended first, vllm with exit code 137; 2 others followed within 12 s"
    ]
    causes = [f.id for f in target.findings if f.role == "cause"]
    assert causes == ["disk-full", "permission-denied"]


def test_an_end_of_a_round_before_is_not_the_first() -> None:
    target = _group(
        _member(0, "2026-11-20T09:39:00Z", 1, started="2026-11-20T09:30:00Z"),
        _member(1, "2026-11-20T09:50:00Z", 1),
        _member(2, "2026-11-20T09:49:00Z", 1),
    )
    (text,) = [c.text for c in target.changes if c.what == "failure"]
    assert text == "worker 2 (pod llama-0-2) ended first, vllm with exit code 1; the other followed within 60 s"


@pytest.mark.parametrize("case_name", ["fires_no_port_in_slice", "fires_no_ports_in_slice_as_read"])
def test_an_endpoint_without_a_port_takes_no_requests(case_name: str) -> None:
    case = load_case(CASES / "service-selects-nothing" / f"{case_name}.yaml")
    assert diagnose_case(case).targets[0].impact == "Service llama has no ready endpoint"


def test_a_workload_that_shall_have_no_pods_is_said_to_be_scaled_down() -> None:
    case = load_case(CASES / "hpa-wrong-metric" / "fires_keda_trigger_invalid.yaml")
    assert diagnose_case(case).targets[0].impact == "it is scaled to 0 replicas"


def test_what_a_running_engine_printed_stands_before_commands() -> None:
    steps = diagnose_case(load_case(CASES / "engine-dead" / "fires_ready_503.yaml")).targets[0].next_steps
    assert "EngineCore encountered a fatal error" in steps[0]
    assert steps[-1].startswith("kubectl ")


def test_what_a_program_says_of_its_end_is_telling_in_any_language() -> None:
    go = "starting\npanic: no database\n\ngoroutine 1 [running]:\nmain.main()\n\t/app/main.go:33 +0x2a5\n"
    net = "info: App[0]\nUnhandled exception. System.ArgumentException: empty\n   at Program.Main()\n   at Program.<Main>()\n"
    node = "DbError: Query failed:\nalter table\n    at run (/app/a.js:17:3) {\n  cause: error: value too long\n  code: '22001'\n}\n"
    logged = 'up\n{"level":"fatal","msg":"no store"}\nbye\n'
    native = "# Fatal error in , line 0\n# Check failed: 12 == errno.\n#\n2026-06-02T08:00:00Z\terror\tEpoch 0 exited: signal\n"
    plain = "******\nEmbedding.Type is not configured.\nPlease read on:\n1. Set a variable\n"

    assert _first_step(go) == "line 2: panic: no database"
    assert _first_step(net) == "line 2: Unhandled exception. System.ArgumentException: empty"
    assert _first_step(node) == "line 1: DbError: Query failed: alter table cause: error: value too long"
    assert _first_step(logged) == 'line 2: {"level":"fatal","msg":"no store"}'
    assert _first_step(native) == "line 2: # Check failed: 12 == errno."
    assert _first_step(plain) == "line 2: Embedding.Type is not configured."


def test_what_a_line_announces_and_the_end_of_a_long_one_are_quoted() -> None:
    several = "[ERROR] agent: runtime error:\n  error=\n  | Code: 403. Errors:\n  | \n  | * permission denied\nError encountered\n"
    wrapped = f"[ERROR] cannot start: {'get: ' * 200}no credentials\n"

    assert (
        _first_step(several)
        == "line 1: [ERROR] agent: runtime error: error= | Code: 403. Errors: | * permission denied"
    )
    assert _first_step(wrapped).startswith("line 1: [ERROR] cannot start: get: ")
    assert _first_step(wrapped).endswith("get: no credentials")
    assert len(_first_step(wrapped)) < 540


def test_what_the_program_of_a_traced_command_says_is_telling() -> None:
    log = "+ iptables -t nat -N PROXY\niptables: Chain already exists.\n+ dump\n+ iptables-save\n# Completed\n"

    assert _first_step(log) == "line 2: iptables: Chain already exists."
    assert _first_step(log.replace("iptables: Chain", "Chain")) == "line 5: # Completed"
    assert _first_step(f"{log}+ iptables -t nat -N PROXY\n+ dump\nbye\n") == "line 8: bye"


def test_what_a_tool_says_that_a_script_runs_again_is_telling() -> None:
    log = "nc: bad port '//db'\nwaiting for db\n" * 3

    assert _with_symptom(log).next_steps[:2] == (
        "vllm (previous), line 5: nc: bad port '//db'",
        "vllm (previous), line 6: waiting for db",
    )


def test_what_an_exception_refers_to_stands_before_it() -> None:
    log = (
        "E0602 08:00:00.184481 41 dnn.cc:456] Loaded 9.1, compiled with 9.8\n"
        "Traceback (most recent call last):\n"
        '  File "/app/server.py", line 31, in load\n'
        "RuntimeError: initialization failed. Look at the errors above for more details.\n"
    )
    alone = log.replace(" Look at the errors above for more details.", "")

    assert _first_step(log) == "line 1: E0602 08:00:00.184481 41 dnn.cc:456] Loaded 9.1, compiled with 9.8"
    assert _first_step(alone) == "line 4: ended with RuntimeError: initialization failed."


def _first_step(log: str) -> str:
    return _with_symptom(log).next_steps[0].removeprefix("vllm (previous), ")
