"""What a fix says for each platform's kind is taken by kubectl and the API server as it stands."""

import json
import shlex
from pathlib import Path

import pytest

from kubectl_llmdoctor import fixes
from tests.test_platforms import CASES, engines_of, load, subject_of

from . import program
from .conftest import Doctor, Play
from .controlplane import ControlPlane
from .snapshots import half


@pytest.mark.parametrize("path", half(CASES, 1), ids=lambda p: p.stem)
def test_a_fix_is_applied_and_read_back(cluster: ControlPlane, home: Path, play: Play, path: Path) -> None:
    objects, expect = load(path)
    if any(o["kind"].startswith("Cluster") for o in objects):
        pytest.skip("the stand-in serves custom resources of a namespace only")
    play({"takenAt": "2026-11-20T10:00:00Z", "objects": objects})
    applied, home_of = 0, {o["kind"]: o["metadata"].get("namespace", "") for o in objects}
    for number, (pod, engine) in enumerate(engines_of(subject_of(objects, expect["kind"]))):
        for fix in (
            fixes.set_resource(engine.container, "limits", "nvidia.com/gpu", "16", "Ask for GPUs"),
            fixes.set_flag(engine, "max_model_len", "--max-model-len", "4321", "Cap the context"),
            fixes.set_spec(pod, "/nodeSelector", {"a": "b"}, "Choose nodes"),
        ):
            if fix.patch is None or (engine.name != "vllm" and "4321" in fix.commands[0]):  # an option of vLLM's
                continue
            done = program.run(shlex.split(fix.commands[0]), home, {"KUBECONFIG": str(cluster.admin)})
            assert done.code == 0, done.err
            applied += 1
            target = fix.patch.target.partition(" ")[2]
            group = fix.patch.target.partition("/")[0] if "." in fix.patch.target.partition("/")[0] else ""
            kind, _, name = target.partition("/")
            where = f"{kind.lower()}.{group}" if group else kind.lower()
            read = ["kubectl", "-n", home_of[kind], "get", where, name, "-o", "json"]
            got = program.run(read, home, {"KUBECONFIG": str(cluster.admin)})
            now = [json.loads(got.out) if o["kind"] == expect["kind"] else o for o in objects]
            assert list(engines_of(subject_of(now, expect["kind"])))[number], "what is there now is still read"
            objects = now
            break  # one for each engine: the next would be computed from what stood there before
    assert (applied > 0) == any(part in expect["patched"] for part in ("gpu", "flag", "spec"))


@pytest.mark.parametrize(
    ("case", "target"),
    [
        ("isvc_containers", "isvc/llama"),
        ("ray_service", "rayservice/llama"),
        ("nim_service", "nimservice/llama"),
        ("dynamo_alpha", "dgd/llama"),
        ("job_set", "jobset/llama"),
        ("leader_worker_set", "lws/llama"),
        ("storm_service", "stormservice/llama"),
        ("rollout", "rollout/llama"),
    ],
)
def test_an_object_without_pods_is_read_from_its_templates(doctor: Doctor, play: Play, case: str, target: str) -> None:
    path = next(p for p in CASES if p.stem == case)
    objects, expect = load(path)
    play({"takenAt": "2026-11-20T10:00:00Z", "objects": objects})
    found = doctor("diagnose", target, "-n", "serving", "-o", "json").target
    assert found["kind"] == expect["kind"]
    assert found["engine"]["name"] == expect["engines"][0]["name"]
    assert [f["id"] for f in found["findings"] if f["role"] == "symptom"] == ["rollout-stuck"]
