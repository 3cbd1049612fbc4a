"""Fixes apply: every JSON patch of every case fits its object, and a static finding is gone afterwards."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import msgspec
import pytest

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Patch, Report
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.testing import Case, diagnose_case, find_cases, load_case

CASES = Path(__file__).parent.parent / "checks" / "cases"
FIRES = [path for path in find_cases(CASES) if path.name.startswith("fires_")]


def apply(tree: Any, operations: list[dict[str, Any]]) -> Any:
    """RFC 6902 with add, replace and remove. Raises KeyError or IndexError where a path does not exist."""
    tree = copy.deepcopy(tree)
    for operation in operations:
        *path, last = [p.replace("~1", "/").replace("~0", "~") for p in operation["path"].split("/")[1:]]
        parent = tree
        for key in path:
            parent = parent[int(key)] if isinstance(parent, list) else parent[key]
        kind, value = operation["op"], operation.get("value")
        if isinstance(parent, list):
            if last == "-":
                assert kind == "add"
                parent.append(value)
            elif kind == "add":
                parent.insert(int(last), value)
            elif kind == "remove":
                del parent[int(last)]
            else:
                parent[int(last)] = value
        else:
            if kind != "add":
                parent[last]
            if kind == "remove":
                del parent[last]
            else:
                parent[last] = value
    return tree


def _patches(report: Report) -> list[tuple[str, Patch, tuple[str, ...]]]:
    return [
        (finding.id, fix.patch, fix.commands)
        for target in report.targets
        for finding in target.findings
        for fix in finding.fixes
        if fix.patch and fix.patch.type == "json"
    ]


def _patched(case: Case, patch: Patch) -> Case:
    api_version, _, ref = patch.target.partition(" ")
    kind, _, name = ref.partition("/")
    objects = list(case.snapshot.objects)
    found = [
        i
        for i, o in enumerate(objects)
        if (o["apiVersion"], o["kind"], o["metadata"]["name"]) == (api_version, kind, name)
    ]
    assert found, f"{patch.target} is not in the case"
    objects[found[0]] = apply(objects[found[0]], patch.body)
    snapshot = msgspec.structs.replace(case.snapshot, objects=tuple(objects))
    return Case(path=case.path, id=case.id, fires=case.fires, expect=case.expect, snapshot=snapshot)


@pytest.mark.parametrize("path", FIRES, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_patches_fit_their_object_and_commands_carry_them(path: Path) -> None:
    case = load_case(path)
    report = diagnose_case(case)
    for id, patch, commands in _patches(report):  # the field's term
        after = _patched(case, patch)

        assert msgspec.json.decode(shlex.split(commands[0])[-1]) == patch.body
        if report.taken_at is None and id == case.id:
            roles = {f.id: f.role for t in diagnose_case(after).targets for f in t.findings}
            assert roles.get(id) not in ("cause", "risk"), f"{id} is still there after {patch.body}"


def test_a_pod_in_a_manifest_gets_a_patch_and_no_command() -> None:
    from kubectl_llmdoctor.diagnosis import diagnose
    from kubectl_llmdoctor.packs import installed
    from kubectl_llmdoctor.report import text
    from kubectl_llmdoctor.snapshot import Snapshot

    container = {"name": "v", "image": "vllm/vllm-openai:v0.11.0", "args": ["--model", "x", "-tp", "2"]}
    container |= {"resources": {"limits": {"nvidia.com/gpu": 2}}}  # type: ignore[dict-item]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "q"}, "spec": {"containers": [container]}}
    report = diagnose(Snapshot(objects=(pod,)), installed())
    finding = next(f for f in report.targets[0].findings if f.id == "shm-too-small")
    patch = finding.fixes[0].patch

    assert patch
    assert apply(pod, patch.body)["spec"]["volumes"][0]["name"] == "dshm"
    assert "kubectl patch" not in text.render(report, wide=True)


@pytest.mark.parametrize(("more", "size"), [([], "4"), (["--pipeline-parallel-size", "2"], "2")])
def test_a_size_that_divides_is_first_looked_for_in_the_gpus_that_are_there(more: list[str], size: str) -> None:
    args = ["--model", "Qwen/Qwen3-235B-A22B", "--tensor-parallel-size", "3", *more]
    container = {
        "name": "vllm",
        "image": "vllm/vllm-openai:v0.11.0",
        "args": args,
        "resources": {"limits": {"nvidia.com/gpu": "4"}},
    }
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "llm", "namespace": "prod"},
        "spec": {"template": {"metadata": {"labels": {"app": "llm"}}, "spec": {"containers": [container]}}},
    }
    (target,) = diagnose(Snapshot(objects=(deployment,)), installed()).targets
    (found,) = [f for f in target.findings if f.id == "tp-not-divisible"]

    assert found.fixes[0].summary.startswith(f"Set --tensor-parallel-size to {size},")
