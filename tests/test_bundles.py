"""Support bundles of troubleshoot.sh: what is in one is read as from a snapshot, and nothing gets out of it."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.gather.offline import bundle
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.snapshot import ReadList, Snapshot
from tests import bundles
from tests.program import run
from tests.sampling import some

Json = dict[str, Any]
CASES = Path(__file__).parent.parent / "checks" / "cases"
#: Causes that logs, statuses, events and specs show, and not that the pods of all namespaces are known, of which a bundle has some;
#: some of those that fire.
SAMPLE = some(
    (
        path
        for path in CASES.glob("*/fires_*.yaml")
        if "\n  kind: Pod\n" in (text := path.read_text())
        and "\ntakenAt: " in text
        and not any(f"\n{part}:" in text for part in ("nodes", "prometheus", "metrics", "answers"))
        and "\n- kind: Pod\n" not in text
    ),
    240,
)


def tree_of(path: Path) -> Json:
    tree: Json = yaml.safe_load(path.read_text())
    return tree


def causes(snapshot: Snapshot) -> list[tuple[str, list[str]]]:
    report = diagnose(snapshot, installed())
    return [(t.name, [f.id for f in t.findings if f.role == "cause"]) for t in report.targets]


@pytest.mark.parametrize("old", [False, True], ids=["lists", "arrays"])
@pytest.mark.parametrize("case", SAMPLE, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_bundle_says_what_the_snapshot_says(case: Path, old: bool, tmp_path: Path) -> None:
    tree, whole = tree_of(case), load(str(case))
    if any(o["kind"] == "Secret" for o in whole.objects):
        pytest.skip("a bundle holds no Secrets")
    pods = {(o["metadata"].get("namespace"), o["metadata"]["name"]) for o in whole.objects if o["kind"] == "Pod"}
    if old and not {(x.namespace, x.pod) for x in whole.logs} <= pods:
        pytest.skip("a collector's folder does not name the namespace of a log, and only the pod would")
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(bundles.packed(bundles.files(tree, old=old)))
    found = load(str(path))

    key = {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in whole.objects}
    assert {(o["kind"], o["metadata"].get("namespace"), o["metadata"]["name"]) for o in found.objects} == key
    texts = {(x.namespace, x.pod, x.container, x.previous): x.text for x in whole.logs}
    assert {(x.namespace, x.pod, x.container, x.previous): x.text for x in found.logs} == texts
    # A bundle does not say when it was made, so that its time is that of the newest thing in it.
    assert found.taken_at is not None
    assert found.taken_at <= str(whole.taken_at)
    same = msgspec.structs.replace(found, taken_at=whole.taken_at, target=whole.target, targets=whole.targets)
    assert causes(same) == causes(whole)


@pytest.fixture
def content() -> dict[str, bytes]:
    return bundles.files(tree_of(CASES / "oomkilled-host" / "fires_loading.yaml"))


def test_the_program_reads_a_bundle_packed_unpacked_and_from_standard_input(
    content: dict[str, bytes], tmp_path: Path
) -> None:
    data = bundles.packed(content)
    (tmp_path / "bundle.tar.gz").write_bytes(data)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    found = [
        json.loads(run("diagnose", "--from", where, "-o", "json", stdin=stdin).stdout)
        for where, stdin in (
            (str(tmp_path / "bundle.tar.gz"), b""),
            (str(tmp_path / "unpacked"), b""),
            (str(next((tmp_path / "unpacked").iterdir())), b""),
            ("-", data),
        )
    ]

    assert [tree["targets"][0]["findings"][0]["id"] for tree in found] == ["oomkilled-host"] * 4
    assert len({json.dumps(tree) for tree in found}) == 1


def test_lists_are_complete_and_what_could_not_be_listed_is_said(content: dict[str, bytes], tmp_path: Path) -> None:
    content["cluster-resources/pvcs/serving.json"] = b'{"kind": "PersistentVolumeClaimList", "items": null}'
    content["cluster-resources/pvcs-errors.json"] = b'{"team": "pvcs is forbidden"}'
    content["cluster-resources/nodes-errors.json"] = b'["nodes is forbidden"]'
    content["cluster-resources/nodes.json"] = b"null"
    content["cluster-resources/services/serving.json"] = (
        b'{"kind": "ServiceList", "metadata": {"continue": "x"}, "items": []}'
    )
    content["cluster-resources/namespaces.json"] = b'{"metadata": {"name": "serving"}}'
    content["cluster-resources/events/serving.json"] = b"{broken"
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(bundles.packed(content))
    found = load(str(path))

    assert {r for r in found.read if r.kind in ("PersistentVolumeClaim", "Node", "Service", "Namespace", "Event")} == {
        ReadList(kind="PersistentVolumeClaim", namespace="serving")
    }
    said = {row.ref: row.reason for row in found.missing}
    assert said["pvcs team"] == "pvcs is forbidden"
    assert said["nodes"] == "nodes is forbidden"
    assert any("events/serving.json" in ref for ref in said)


def test_a_container_whose_name_ends_like_a_previous_log(tmp_path: Path) -> None:
    pod = {"kind": "Pod", "apiVersion": "v1", "metadata": {"name": "a", "namespace": "x"}}
    pod["spec"] = {"containers": [{"name": "keep-previous"}, {"name": "vllm"}]}
    names = ["keep-previous", "keep-previous-previous", "vllm-previous"]
    content = {f"cluster-resources/pods/logs/x/a/{name}.log": name.encode() for name in names}
    content["cluster-resources/pods/x.json"] = json.dumps([pod]).encode()
    path = tmp_path / "b.tar.gz"
    path.write_bytes(bundles.packed(content, root=""))

    assert {(log.container, log.previous, log.text) for log in load(str(path)).logs} == {
        ("keep-previous", False, "keep-previous"),
        ("keep-previous", True, "keep-previous-previous"),
        ("vllm", True, "vllm-previous"),
    }


# --- hostile archives ---------------------------------------------------------------------------------------------------

LOG = "cluster-resources/pods/logs/serving/llama-0/vllm.log"


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def test_links_lead_nowhere_outside(content: dict[str, bytes], tmp_path: Path) -> None:
    secret = tmp_path / "secret.log"
    secret.write_text("top secret\n")
    content.pop(LOG, None)
    more = [
        member(LOG, tarfile.SYMTYPE, str(secret)),
        member("cluster-resources/pods/logs/serving/llama-0/a.log", tarfile.SYMTYPE, "../" * 12 + str(secret)[1:]),
        member("cluster-resources/pods/logs/serving/llama-0/b.log", tarfile.LNKTYPE, str(secret)),
        member("cluster-resources/pods/logs/serving/llama-0/c.log", tarfile.SYMTYPE, "c.log"),
        member("cluster-resources/pods/logs/serving/llama-0/d.log", tarfile.FIFOTYPE),
        member("cluster-resources/pods/logs/serving/llama-0/e.log", tarfile.SYMTYPE, "../../../../../real.log"),
        member("../outside.log", tarfile.REGTYPE),
        member("/cluster-resources/nodes.json", tarfile.REGTYPE),
    ]
    path = tmp_path / "b.tar.gz"
    path.write_bytes(bundles.packed({**content, "real.log": b"inside\n"}, root="", more=more))
    before = sorted(tmp_path.iterdir())
    found = load(str(path))

    assert "top secret" not in "".join(log.text for log in found.logs)
    assert [log.text for log in found.logs if log.container == "e"] == ["inside\n"]
    assert {log.container for log in found.logs} & {"a", "b", "c", "d"} == set()
    assert sorted(tmp_path.iterdir()) == before


def test_links_of_an_unpacked_bundle_lead_nowhere_outside(content: dict[str, bytes], tmp_path: Path) -> None:
    (tmp_path / "secret.log").write_text("top secret\n")
    folder = tmp_path / "bundle"
    for name, data in content.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    (folder / LOG).parent.mkdir(parents=True, exist_ok=True)
    (folder / LOG).unlink(missing_ok=True)
    (folder / LOG).symlink_to(tmp_path / "secret.log")

    assert "top secret" not in "".join(log.text for log in load(str(folder)).logs)


def test_bombs_are_refused_and_not_swallowed(
    content: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundle, "MAX_FILE", 1 << 20)
    path = tmp_path / "b.tar.gz"
    path.write_bytes(bundles.packed({**content, LOG: b"\0" * (2 << 20)}))
    found = load(str(path))
    assert [row.reason for row in found.missing if row.ref.endswith(LOG)] == ["larger than 1 MiB"]

    monkeypatch.setattr(bundle, "_MAX_TOTAL", 1 << 20)
    with pytest.raises(UsageError, match="it holds more than 1 MiB"):
        load(str(path))

    monkeypatch.setattr(bundle, "_MAX_FILES", 3)
    with pytest.raises(UsageError, match="an archive of more than 3 files"):
        load(str(path))


def test_another_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "b.tar.gz"
    path.write_bytes(bundles.packed({"deploy.yaml": b"kind: Pod"}))

    with pytest.raises(UsageError, match=r"no support bundle of troubleshoot\.sh"):
        load(str(path))


WHOLE = bundles.packed(bundles.files(tree_of(CASES / "oomkilled-host" / "fires_loading.yaml")))
PLAIN = gzip.decompress(WHOLE)


@settings(max_examples=60)
@given(
    st.lists(st.tuples(st.integers(0, len(PLAIN) - 1), st.binary(max_size=8)), max_size=6), st.integers(0, len(PLAIN))
)
def test_no_damage_breaks_it(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[int, bytes]], end: int
) -> None:
    data = bytearray(PLAIN)
    for place, change in changes:
        data[place : place + len(change)] = change
    path = tmp_path_factory.getbasetemp() / "damaged.tar"
    path.write_bytes(data[: end or None])
    try:
        found = load(str(path))
    except UsageError as error:
        message = str(error)
    else:
        message = ""
        diagnose(found, installed())
    assert "\n" not in message
