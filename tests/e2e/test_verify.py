"""The patches of the cases, sent to a real API server as dry runs; the component, built by a real kustomize."""

import itertools
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Finding, Patch

from . import program
from .conftest import Doctor, Kubectl, Play
from .controlplane import ControlPlane
from .play import read_snapshot, target_arguments
from .snapshots import CASES, EVERYTHING

BUILT_IN = ("v1 ", "apps/v1 ", "batch/v1 ", "autoscaling/v2 ", "networking.k8s.io/v1 ")

TYPES = {"json": "application/json-patch+json", "merge": "application/merge-patch+json"}


@cache
def _findings(path: Path) -> list[Finding]:
    return [finding for target in diagnose(load(str(path)), installed()).targets for finding in target.findings]


def _patches(path: Path) -> list[Patch]:
    """The patches of a case for what the API server itself serves."""
    found = [fix.patch for finding in _findings(path) for fix in finding.fixes if fix.patch]
    # most of a pod, and of a claim that is not bound, cannot be changed once it exists: these are for a manifest
    of_files = ("v1 Pod/", "v1 PersistentVolumeClaim/")
    return [patch for patch in found if patch.target.startswith(BUILT_IN) and not patch.target.startswith(of_files)]


def _whole(path: Path) -> bool:
    """Whether the API server takes what is patched at all: a part that others complete may lack its selector, and some is not valid."""
    if any("because it is not valid" in finding.summary for finding in _findings(path)):
        return False
    targets = {patch.target for patch in _patches(path) if patch.target.startswith("apps/v1 ")}
    objects = read_snapshot(path).get("objects", [])
    patched = [o for o in objects if f"{o['apiVersion']} {o['kind']}/{o['metadata']['name']}" in targets]
    return all("selector" in item["spec"] for item in patched)


def _chosen(folder: Path) -> Iterator[Path]:
    """The first case of a check that has such patches, or every one; to look for them takes a diagnosis each."""
    paths = sorted(folder.glob("fires_*.yaml"))[: None if EVERYTHING else 4]
    found = (path for path in paths if _patches(path) and _whole(path))
    yield from found if EVERYTHING else itertools.islice(found, 1)


SNAPSHOTS = {f"{folder.name}/{path.stem}": path for folder in sorted(CASES.glob("*/")) for path in _chosen(folder)}


@pytest.mark.parametrize("path", SNAPSHOTS.values(), ids=SNAPSHOTS.keys())
def test_every_patch_is_accepted(path: Path, play: Play, cluster: ControlPlane) -> None:
    snapshot = read_snapshot(path)
    snapshot.setdefault("takenAt", "2026-11-20T10:00:00Z")
    stored = play(snapshot)
    assert isinstance(stored, list)
    places = {f"{o['apiVersion']} {o['kind']}/{o['metadata']['name']}": place for place, o in stored}
    for patch in _patches(path):
        answer = cluster.api.call("PATCH", f"{places[patch.target]}?dryRun=All", patch.body, TYPES[patch.type])
        assert answer["kind"] in patch.target


def test_what_a_dry_run_said_stands_at_the_fix(play: Play, doctor: Doctor) -> None:
    path = CASES / "rollout-deadlock" / "fires_old_pod_has_the_gpus.yaml"
    snapshot = read_snapshot(path)
    play(snapshot)
    result = doctor("diagnose", *target_arguments(snapshot), "--verify-fix", "-o", "json")
    fixes = [fix for finding in result.target["findings"] for fix in finding.get("fixes", ()) if "patch" in fix]

    assert fixes
    assert [fix["verified"]["accepted"] for fix in fixes] == [True] * len(fixes)


def test_nothing_is_changed(crashed: object, doctor: Doctor, kubectl: Kubectl) -> None:
    read = ("get", "deployment,statefulset,replicaset,pod", "-n", "serving", "-o", "yaml")
    before = kubectl(*read).out
    assert doctor("diagnose", "llama-0", "-n", "serving", "--verify-fix").code == 1
    assert kubectl(*read).out == before


def test_kustomize_takes_the_component(tmp_path: Path, doctor: Doctor) -> None:
    (tmp_path / "fix").mkdir()
    demo = Path(__file__).parents[2] / "docs" / "demo.yaml"
    doctor("diagnose", "--from", str(demo), "--fix-file", str(tmp_path / "fix" / "kustomization.yaml"))
    objects = read_snapshot(demo)["objects"]
    deployment = next(o for o in objects if o["kind"] == "Deployment")
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(deployment))
    (tmp_path / "kustomization.yaml").write_text("resources: [base.yaml]\ncomponents: [fix]\n")
    done = subprocess.run(
        [str(program.BIN / "kubectl"), "kustomize", str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--max-model-len=27840" in done.stdout
