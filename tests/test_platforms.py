"""From each kind to its engine and back: what a manifest says is read, and a fix changes it where it says so."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor import fixes, platforms
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.platforms import pointer
from kubectl_llmdoctor.platforms.rbg import merged
from kubectl_llmdoctor.platforms.table import ROWS
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.target import subjects

GOLDEN = Path(__file__).parent / "platforms"


def load(path: Path) -> tuple[list[Any], dict[str, Any]]:
    """The objects of a golden file, and what is expected of them: its first document."""
    documents = list(yaml.safe_load_all(path.read_text()))
    return documents[1:], documents[0]


def subject_of(objects: list[Any], kind: str) -> Subject:
    found = [s for s in subjects(Cluster(Snapshot(objects=tuple(objects)))) if s.item and s.item.raw["kind"] == kind]
    assert len(found) == 1, [s.item.ref for s in found if s.item]
    return found[0]


def engines_of(subject: Subject) -> Iterator[tuple[Pod, Engine]]:
    for pod in subject.pods:
        for engine in subject.engines(pod):
            yield pod, engine


CASES = sorted(GOLDEN.glob("*.yaml"))


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_reads(path: Path) -> None:
    objects, expect = load(path)
    subject = subject_of(objects, expect["kind"])
    assert [t.part for t, _ in (subject.workload.templates if subject.workload else ())] == expect["parts"]
    found: list[dict[str, Any]] = []
    for pod, engine in engines_of(subject):
        row: dict[str, Any] = {"name": engine.name, "version": engine.version, "at": engine.container.path}
        row["config"] = {k: engine.found.config.get(k) for k in expect["engines"][len(found)]["config"]}
        row |= {"gpus": engine.container.gpus, "shm": engine.container.shm.source}
        if pod.nodes != 1:
            row["nodes"] = pod.nodes
        if subject.namespace and pod.namespace != subject.namespace:
            row["namespace"] = pod.namespace
        found.append(row)
    assert found == expect["engines"]


def _checked(fix: Fix, objects: list[Any], expect: dict[str, Any]) -> Subject | None:
    """The target after the fix, which must apply; None for one that is advice only and names the object."""
    if fix.patch is None:
        assert expect["kind"] in fix.summary, fix.summary
        return None
    assert fix.patch.type == "json"
    target = next(o for o in objects if f"{o['apiVersion']} {o['kind']}/{o['metadata']['name']}" == fix.patch.target)
    fixed = target
    for operation in fix.patch.body:
        fixed = pointer.changed(fixed, operation)
    return subject_of([fixed if o is target else o for o in objects], expect["kind"])


@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_fixes_apply_and_change_what_is_read(path: Path) -> None:
    objects, expect = load(path)
    before = subject_of(objects, expect["kind"])
    patched = set()
    for number, (pod, engine) in enumerate(engines_of(before)):
        container = engine.container

        def again(fix: Fix, number: int = number) -> Engine | None:
            after = _checked(fix, objects, expect)
            return list(engines_of(after))[number][1] if after else None

        capped = fixes.set_flag(engine, "max_model_len", "--max-model-len", "4321", "Cap the context")
        if engine.name == "vllm" and (changed := again(capped)):
            assert changed.value("max_model_len") == 4321
            patched.add("flag")
        if changed := again(fixes.set_resource(container, "limits", "nvidia.com/gpu", "16", "Ask for GPUs")):
            assert changed.container.limit("nvidia.com/gpu") == 16
            patched.add("gpu")
        if changed := again(fixes.mount_shm(container, "3Gi", "Mount memory")):
            assert changed.container.shm.size_bytes == 3 * 2**30
            patched.add("shm")
        if changed := again(fixes.set_spec(pod, "/nodeSelector", {"a": "b"}, "Choose nodes")):
            assert changed.pod.spec.node_selector == {"a": "b"}
            patched.add("spec")
    assert patched == set(expect["patched"])


def test_every_kind_of_the_table_is_read() -> None:
    covered = {(str(o["apiVersion"]).rpartition("/")[0], o["kind"]) for p in CASES for o in load(p)[0]}
    plain = {("apps", "ReplicaSet"), ("apps", "StatefulSet"), ("apps", "DaemonSet"), ("", "ReplicationController")}
    plain |= {("batch", "Job"), ("batch", "CronJob"), ("serving.knative.dev", "Configuration")}
    from kubectl_llmdoctor.platforms.table import _BUILT

    assert (ROWS.keys() | _BUILT.keys()) - covered - plain == set()


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=8)
@given(data=st.data())
@pytest.mark.parametrize("path", CASES, ids=lambda p: p.stem)
def test_any_part_may_be_malformed(path: Path, data: st.DataObject) -> None:
    objects, expect = load(path)
    target = next(o for o in objects if o["kind"] == expect["kind"])
    parts: list[tuple[Any, Any]] = []

    def walk(tree: Any) -> None:
        for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
            parts.append((tree, key))
            walk(value)

    walk(target.get("spec", target))
    tree, key = data.draw(st.sampled_from(parts))
    tree[key] = data.draw(_JSON)
    found = subjects(Cluster(Snapshot(objects=tuple(objects))))
    for subject in found:
        for pod, engine in engines_of(subject):
            assert engine.container.path
            fixes.set_flag(engine, "max_model_len", "--max-model-len", "1", "x")
            fixes.mount_shm(engine.container, "1Gi", "x")
            assert pod.nodes is None or pod.nodes


def test_a_patch_is_fitted_to_what_is_there() -> None:
    tree = {"spec": {"gpu": 1, "args": ["a"]}}
    add = {"op": "add", "path": "/spec/resources/limits/nvidia.com~1gpu", "value": "2"}
    assert pointer.fitted(tree, [add, {**add, "path": "/spec/resources/requests/nvidia.com~1gpu"}]) == [
        {"op": "add", "path": "/spec/resources", "value": {"limits": {"nvidia.com/gpu": "2"}}},
        {"op": "add", "path": "/spec/resources/requests", "value": {"nvidia.com/gpu": "2"}},
    ]
    assert pointer.fitted(tree, [{"op": "add", "path": "/spec/volumes/-", "value": 1}]) == [
        {"op": "add", "path": "/spec/volumes", "value": [1]}
    ]
    assert pointer.fitted(tree, [{"op": "replace", "path": "/spec/gpu", "value": "4"}]) == [
        {"op": "replace", "path": "/spec/gpu", "value": 4}
    ]
    assert pointer.fitted(tree, [{"op": "replace", "path": "/spec/args/1", "value": "b"}]) is None
    assert pointer.fitted(tree, [{"op": "remove", "path": "/spec/none"}]) is None
    words = [{"op": "add", "path": "/spec/args/-", "value": word} for word in ("-b", "1024", "-ub", "1024")]
    assert pointer.fitted(tree, words) == words
    variable = {"op": "add", "path": "/spec/env/-", "value": {"name": "A", "value": "1"}}
    assert pointer.fitted({"spec": {"env": [{"name": "B"}]}}, [variable, variable]) == [variable]
    assert pointer.show(tree, "/spec/args/0") == "spec.args[0]"
    assert pointer.pointer_to("spec.rules[0].timeouts") == "/spec/rules/0/timeouts"
    assert pointer.pointer_to("metadata.annotations[a.io/b~c]") == "/metadata/annotations/a.io~1b~0c"


def test_a_changed_object_leaves_the_one_before_as_it_was() -> None:
    """Only what the path runs through is copied; a later operation may reach into what an earlier one added."""
    value = {"limits": {"cpu": "1"}}
    tree: dict[str, Any] = {"spec": {"args": ["a", "b"], "env": [{"name": "x"}]}, "kind": "Pod"}
    operations: list[dict[str, Any]] = [
        {"op": "add", "path": "/spec/resources", "value": value},
        {"op": "replace", "path": "/spec/resources/limits/cpu", "value": "2"},
        {"op": "remove", "path": "/spec/args/0"},
    ]
    after = tree
    for operation in operations:
        after = pointer.changed(after, operation)

    assert after["spec"] == {"args": ["b"], "env": [{"name": "x"}], "resources": {"limits": {"cpu": "2"}}}
    assert tree == {"spec": {"args": ["a", "b"], "env": [{"name": "x"}]}, "kind": "Pod"}
    assert value == {"limits": {"cpu": "1"}}
    assert after["spec"]["env"] is tree["spec"]["env"]
    with pytest.raises(LookupError):
        pointer.changed(tree, {"op": "replace", "path": "/spec/args/2", "value": "c"})


def test_a_kind_is_told_by_its_group() -> None:
    assert platforms.has_templates("ray.io/v1", "RayService")
    assert not platforms.has_templates("example.com/v1", "RayService")
    assert not platforms.has_templates("v1", "Service")


def _running(raw: dict[str, Any], template: platforms.Template, name: str) -> dict[str, Any]:
    """The pod that admission and the kubelet make of a template: a sidecar first, a token's volume first."""
    spec = copy.deepcopy(template.pod["spec"])
    spec["containers"] = [{"name": "istio-proxy", "image": "istio/proxyv2:1.26"}, *spec["containers"]]
    spec["volumes"] = [{"name": "kube-api-access-x", "projected": {"sources": []}}, *spec.get("volumes", [])]
    spec["nodeName"] = "gpu-1"
    labels = {
        **template.pod.get("metadata", {}).get("labels", {}),
        **{k: v.strip("*").partition("|")[0] for k, v in template.labels.items()},
    }
    owner = {"apiVersion": raw["apiVersion"], "kind": raw["kind"], "name": raw["metadata"]["name"], "controller": True}
    home = raw["metadata"].get("namespace", "serving")
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": home, "labels": labels, "ownerReferences": [owner]},
        "spec": spec,
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    }


@pytest.mark.parametrize("path", [p for p in CASES if "cluster_serving" not in p.stem], ids=lambda p: p.stem)
def test_a_fix_for_a_running_pod_changes_the_object_above_it(path: Path) -> None:
    objects, expect = load(path)
    raw = next(o for o in objects if o["kind"] == expect["kind"])
    alone = subject_of(objects, expect["kind"])
    made = {p.template.part: p.template for p, _ in engines_of(alone) if p.template}
    for number, (part, template) in enumerate(made.items()):
        pods = [_running(raw, template, f"x-{number}")]
        found = [
            s
            for s in subjects(Cluster(Snapshot(taken_at="2026-11-20T10:00:00Z", objects=(*objects, *pods))))
            if s.exists
        ]
        (pod,) = found[0].pods
        assert pod.template is not None, "the template of a running pod is found"
        assert pod.template.part == part
        for engine in found[0].engines(pod):
            container = engine.container
            for fix in (
                fixes.set_resource(container, "limits", "nvidia.com/gpu", "16", "Ask for GPUs"),
                fixes.set_flag(engine, "max_model_len", "--max-model-len", "4321", "Cap the context"),
                fixes.mount_shm(container, "3Gi", "Mount memory"),
            ):
                after = _checked(fix, objects, expect)
                if after is None or ("--max-model-len" in str(fix) and engine.name != "vllm"):
                    continue
                changed = [e for p, e in engines_of(after) if p.template and p.template.part == part]
                assert any(
                    e.container.limit("nvidia.com/gpu") == 16
                    or e.value("max_model_len") == 4321
                    or e.container.shm.size_bytes == 3 * 2**30
                    for e in changed
                ), fix


def test_a_merge_takes_elements_whose_name_is_no_text_as_further_ones() -> None:
    base = {"containers": [{"name": ["a"]}, {"name": "b", "image": "x"}]}
    patch = {"containers": [{"name": ["a"]}, {"name": {}}, 7, {"name": "b", "image": "y"}]}

    assert merged(base, patch)["containers"] == [
        {"name": ["a"]},
        {"name": "b", "image": "y"},
        {"name": ["a"]},
        {"name": {}},
        7,
    ]


@pytest.mark.parametrize(("made", "owner"), [("heron-x7d2p", "heron"), ("heron-b9k4t", "")])
def test_a_ray_service_is_behind_the_cluster_that_it_made(made: str, owner: str) -> None:
    meta: dict[str, Any] = {"name": "heron-x7d2p-head", "namespace": "lab"}
    meta["ownerReferences"] = [{"apiVersion": "ray.io/v1", "kind": "RayCluster", "name": "heron-x7d2p", "uid": "1"}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": meta}
    service: dict[str, Any] = {
        "apiVersion": "ray.io/v1",
        "kind": "RayService",
        "metadata": {"name": "heron", "namespace": "lab"},
    }
    service["status"] = {"pendingServiceStatus": {"rayClusterName": made}}
    cluster = Cluster(Snapshot(objects=(pod, service)))
    item = cluster.item("Pod", "lab", "heron-x7d2p-head")
    found = cluster.owner(item) if item else None
    assert (found.name if found else "") == owner
