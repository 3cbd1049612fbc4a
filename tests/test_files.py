"""Offline inputs: what each kind of file becomes, and what is said about the files that are something else."""

import gzip
import io
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather import files
from kubectl_llmdoctor.gather.offline import documents, objects, reading
from kubectl_llmdoctor.snapshot import Cut, LogText, Missing, Origin, ReadList, Snapshot, TargetRef

DUMP = Path(__file__).parent / "files" / "cluster-info-dump"
STREAM = DUMP.with_name("cluster-info-dump.yaml.txt")
TOKEN = "hf_" + "Ab3dEf" * 6

POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "p"},
    "spec": {"containers": [{"name": "c", "image": "i"}]},
}
POD_YAML = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: i}]}\n"
SERVICE_YAML = "apiVersion: v1\nkind: Service\nmetadata:\n  name: s\nspec: {}\n"
SNAPSHOT: dict[str, Any] = {
    "schema": "llmdoctor.snapshot/v1",
    "takenAt": "2026-11-20T10:00:00Z",
    "target": {"kind": "Pod", "namespace": "serving", "name": "p"},
    "objects": [POD],
    "read": [{"kind": "Node"}],
    "logs": [{"namespace": "serving", "pod": "p", "container": "c", "previous": False, "text": "one\ntwo\n"}],
    "nodes": {"gpu-1": {"agent": {"driverVersion": "570.1"}, "kernelLog": "NVRM: Xid 79"}},
    "metrics": [{"pod": "p", "takenAt": "2026-11-20T10:00:00Z", "text": "up 1"}],
    "missing": [{"source": "logs", "ref": "serving/p", "reason": "forbidden"}],
}


def put(folder: Path, name: str, content: str | bytes) -> str:
    """Writes a file and returns its path."""
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(file)


def load_text(text: str | bytes) -> Snapshot:
    """What stdin with that text becomes."""
    return files.load("-", stdin=io.BytesIO(text if isinstance(text, bytes) else text.encode()))


def reasons(snapshot: Snapshot) -> list[str]:
    """The reasons in `missing`."""
    return [entry.reason for entry in snapshot.missing]


def kinds(snapshot: Snapshot) -> list[str]:
    """The kinds of the objects, in order."""
    return [tree["kind"] for tree in snapshot.objects]


def usage_error(text: str | bytes) -> str:
    """The error that stdin with that text is."""
    with pytest.raises(UsageError) as caught:
        load_text(text)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- snapshots --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["json", "yaml", "json.gz", "yaml.gz"])
def test_snapshot_in_every_form(tmp_path: Path, form: str) -> None:
    """JSON and YAML, plain and gzipped, are the same snapshot."""
    data = (json.dumps(SNAPSHOT) if form.startswith("json") else yaml.safe_dump(SNAPSHOT)).encode()
    path = put(tmp_path, f"s.{form}", gzip.compress(data, mtime=0) if form.endswith("gz") else data)
    snapshot = files.load(path)
    assert snapshot.taken_at == "2026-11-20T10:00:00Z"
    assert snapshot.target == TargetRef(kind="Pod", namespace="serving", name="p")
    assert snapshot.objects == (POD,)
    assert snapshot.origins == ()
    assert snapshot.read == (ReadList(kind="Node"),)
    assert snapshot.logs == (LogText(text="one\ntwo\n", namespace="serving", pod="p", container="c"),)
    assert snapshot.nodes["gpu-1"].agent == {"driverVersion": "570.1"}
    assert snapshot.nodes["gpu-1"].kernel_log == "NVRM: Xid 79"
    assert snapshot.metrics[0].taken_at == "2026-11-20T10:00:00Z"
    assert snapshot.missing == (Missing(source="logs", ref="serving/p", reason="forbidden"),)


def test_snapshot_of_a_test_case() -> None:
    """Keys that belong to a test case, or to a later version, are ignored."""
    assert load_text(json.dumps({**SNAPSHOT, "expect": {"id": "x"}, "later": 1})) == load_text(json.dumps(SNAPSHOT))


@pytest.mark.parametrize(
    ("key", "value", "ref"),
    [
        ("takenAt", 5, "takenAt"),
        ("takenAt", "yesterday", "takenAt"),
        ("target", ["p"], "target"),
        ("objects", {"kind": "Pod"}, "objects"),
        ("logs", "text", "logs"),
        ("logs", [{"text": 5}], "logs[0]"),
        ("read", [{"namespace": "x"}], "read[0]"),
        ("nodes", [], "nodes"),
        ("nodes", {"gpu-1": 5}, "nodes/gpu-1"),
        ("nodes", {"gpu-1": {"agent": []}}, "nodes/gpu-1/agent"),
        ("metrics", [None, 5], "metrics[1]"),
        ("prometheus", ["x"], "prometheus[0]"),
        ("missing", [{}], "missing[0]"),
    ],
)
def test_snapshot_with_a_malformed_part(key: str, value: object, ref: str) -> None:
    """A part of the wrong type is named, the others are kept."""
    snapshot = load_text(json.dumps({**SNAPSHOT, key: value}))
    entry = next(entry for entry in snapshot.missing if entry.source == "snapshot")
    assert entry.ref == ref
    assert entry.reason.startswith("malformed")
    assert key == "objects" or snapshot.objects == (POD,)
    assert key == "logs" or snapshot.logs


def test_snapshot_with_things_that_are_no_objects() -> None:
    """What is no mapping, or has no kind or no name, is named by its place."""
    snapshot = load_text(
        json.dumps({**SNAPSHOT, "objects": [5, {"metadata": {}}, POD, None, {"kind": ""}, {"kind": "Pod"}]})
    )
    assert snapshot.objects == (POD,)
    assert [m.ref for m in snapshot.missing if m.reason == "not a Kubernetes object"] == [
        "objects[0]",
        "objects[1]",
        "objects[3]",
        "objects[4]",
        "objects[5]",
    ]


def test_nulls_are_dropped_and_empty_values_kept() -> None:
    """Kubernetes reads null as absent; `emptyDir: {}` means something."""
    spec = {"volumes": [{"name": "v", "emptyDir": {}}, None], "nodeName": None, "tolerations": []}
    pod = {**POD, "metadata": {"name": "p", "managedFields": [{"manager": "kubectl"}]}, "spec": spec}
    (tree,) = load_text(json.dumps({**SNAPSHOT, "objects": [pod]})).objects
    assert tree["spec"] == {"volumes": [{"name": "v", "emptyDir": {}}], "tolerations": []}
    assert tree["metadata"] == {"name": "p"}


def test_lists_in_a_snapshot_are_flattened() -> None:
    """A list pasted into `objects` counts as its items."""
    pods = {"apiVersion": "v1", "kind": "PodList", "items": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b"}}]}
    assert kinds(load_text(json.dumps({**SNAPSHOT, "objects": [pods, POD]}))) == ["Pod", "Pod", "Pod"]


@pytest.mark.parametrize("schema", ["llmdoctor.snapshot/v9", "llmdoctor.agent/v1", 7])
def test_unknown_schema(schema: object) -> None:
    """Another schema is refused with what was found and what is supported."""
    message = usage_error(json.dumps({**SNAPSHOT, "schema": schema}))
    assert str(schema) in message
    assert "llmdoctor.snapshot/v1" in message


def test_report_instead_of_a_snapshot() -> None:
    """The other document of this program is told apart."""
    assert "report" in usage_error('{"schema": "llmdoctor.report/v1", "targets": []}')


def test_snapshot_without_schema() -> None:
    """Made by hand and incomplete: the message says what to add."""
    assert "schema: llmdoctor.snapshot/v1" in usage_error(json.dumps({"objects": [POD]}))


def test_empty_snapshot_is_a_snapshot() -> None:
    """Every key but `schema` is optional."""
    assert load_text("schema: llmdoctor.snapshot/v1\n") == Snapshot()


def test_secrets_are_masked_everywhere() -> None:
    """A snapshot made by hand is masked like everything that comes in."""
    pod = {**POD, "spec": {"containers": [{"name": "c", "env": [{"name": "HF_TOKEN", "value": TOKEN}]}]}}
    text = f"loading with token={TOKEN}\n"
    whole = {
        **SNAPSHOT,
        "objects": [pod],
        "logs": [{"text": text}],
        "nodes": {"n": {"agent": {"note": f"HF_TOKEN={TOKEN}"}, "kernelLog": text}},
        "metrics": [{"text": text}],
        "prometheus": [{"note": f"HF_TOKEN={TOKEN}"}],
        "missing": [{"source": "logs", "reason": text}],
    }
    snapshot = load_text(json.dumps(whole))
    assert TOKEN not in str(snapshot)
    assert str(snapshot).count("<masked:") == 7


# --- saving -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["s", "s.json", "s.yaml", "s.yml", "s.json.gz", "s.yaml.gz"])
def test_save_and_load(tmp_path: Path, name: str) -> None:
    """What was loaded and saved loads as the same; origins of manifests too."""
    for snapshot in (load_text(json.dumps(SNAPSHOT)), load_text(POD_YAML + "---\n" + SERVICE_YAML)):
        path = str(tmp_path / name)
        files.save(snapshot, path)
        assert files.load(path) == snapshot
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
        assert [entry.name for entry in tmp_path.iterdir()] == [name]


def test_save_is_deterministic(tmp_path: Path) -> None:
    """The same snapshot is the same bytes, gzipped too."""
    snapshot = load_text(json.dumps(SNAPSHOT))
    for name in ("a.json.gz", "b.json.gz"):
        files.save(snapshot, str(tmp_path / name))
    assert (tmp_path / "a.json.gz").read_bytes() == (tmp_path / "b.json.gz").read_bytes()


def test_save_writes_readable_yaml(tmp_path: Path) -> None:
    """Logs stand as blocks, for people read these files."""
    files.save(load_text(json.dumps(SNAPSHOT)), str(tmp_path / "s.yaml"))
    text = (tmp_path / "s.yaml").read_text()
    assert text.startswith("schema: llmdoctor.snapshot/v1\n")
    assert "text: |\n    one\n    two\n" in text


def test_save_keeps_the_old_file_when_it_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed write leaves neither half a file nor a stray one."""
    path = put(tmp_path, "s.json", "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(UsageError, match=r"cannot write .*: No space left on device"):
        files.save(Snapshot(), path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["s.json"]
    assert Path(path).read_text() == "old"


def test_save_through_a_link_and_to_a_pipe(tmp_path: Path) -> None:
    """A link stays a link; what is no regular file is written to, not replaced."""
    real = tmp_path / "real.json"
    real.write_text("old")
    link = tmp_path / "link.json"
    link.symlink_to(real)
    files.save(Snapshot(), str(link))
    assert link.is_symlink()
    assert files.load(str(real)) == Snapshot()
    files.save(Snapshot(), "/dev/null")
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("path", ["-", "/nowhere/s.json", "/dev", "a\0b"])
def test_save_where_it_cannot(path: str) -> None:
    """A place that can't be written is a usage error."""
    with pytest.raises(UsageError):
        files.save(Snapshot(), path)


# --- manifests --------------------------------------------------------------------------------------------------------


def test_manifest_documents_have_origins(tmp_path: Path) -> None:
    """Each object knows the line its document starts at; comments and separators don't count."""
    path = put(
        tmp_path, "m.yaml", f"# a comment\n---\n# another\n\n{POD_YAML}--- # more\n{SERVICE_YAML}...\n---\n---\n"
    )
    snapshot = files.load_manifests([path])
    assert kinds(snapshot) == ["Pod", "Service"]
    assert snapshot.origins == (Origin(file=path, line=5), Origin(file=path, line=10))
    assert snapshot.taken_at is None
    assert snapshot.missing == ()
    assert files.load(path) == snapshot


def test_document_on_the_separator_line() -> None:
    """`--- {…}` and `--- text` are documents too."""
    snapshot = load_text(f"--- {json.dumps(POD)}\n--- \n{SERVICE_YAML}")
    assert [origin and origin.line for origin in snapshot.origins] == [1, 3]


@pytest.mark.parametrize("indent", [None, 4])
def test_lists_have_a_line_per_item(tmp_path: Path, indent: int | None) -> None:
    """`kubectl get -o yaml` and `-o json` print lists; typed lists leave the items' type out."""
    items = [{"metadata": {"name": name, "note": '"}[{'}, "spec": {"containers": []}} for name in ("a", "b")]
    value = {"apiVersion": "v1", "kind": "PodList", "items": items, "metadata": {"items": [1, 2]}}
    text = json.dumps(value, indent=indent)
    snapshot = files.load(put(tmp_path, "l.json", "\n\n" + text))
    assert [(o["apiVersion"], o["kind"]) for o in snapshot.objects] == [("v1", "Pod")] * 2
    lines = text.split("\n")
    wanted = [i + 3 for i, line in enumerate(lines) if line == "        {"] if indent else [3, 3]
    assert [origin and origin.line for origin in snapshot.origins] == wanted
    as_yaml = files.load(put(tmp_path, "l.yaml", "kind: PodList\napiVersion: v1\nitems:\n" + yaml.safe_dump(items)))
    assert as_yaml.objects == snapshot.objects
    assert as_yaml.origins[0] == Origin(file=str(tmp_path / "l.yaml"), line=4)


def test_list_of_mixed_kinds_and_lists_in_lists() -> None:
    """`kind: List` names no kind for its items; an item without one is no object."""
    inner = {"apiVersion": "v1", "kind": "List", "items": [POD, {"metadata": {"name": "x"}}]}
    snapshot = load_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": [inner, POD]}))
    assert kinds(snapshot) == ["Pod", "Pod"]
    assert reasons(snapshot) == ["not a Kubernetes object"]


def test_empty_list_is_read() -> None:
    """Nothing in it, but it was understood."""
    for items in ("[]", "null"):
        assert load_text(f'{{"kind": "List", "apiVersion": "v1", "items": {items}}}') == Snapshot()


def test_openshift_template_is_a_list(tmp_path: Path) -> None:
    """Its objects count, with their lines."""
    text = (
        "apiVersion: template.openshift.io/v1\nkind: Template\nmetadata: {name: t}\nobjects:\n- "
        + json.dumps(POD)
        + "\n"
    )
    snapshot = files.load(put(tmp_path, "t.yaml", text))
    assert snapshot.objects == (POD,)
    assert snapshot.origins == (Origin(file=str(tmp_path / "t.yaml"), line=5),)


def test_broken_document_costs_only_itself(tmp_path: Path) -> None:
    """Reading goes on at the next separator, and lines still count from the top."""
    path = put(tmp_path, "m.yaml", f'{POD_YAML}---\nkind: "open\nmore: x\n---\n{SERVICE_YAML}---\na: [}}\n')
    snapshot = files.load(path)
    assert kinds(snapshot) == ["Pod", "Service"]
    assert [origin and origin.line for origin in snapshot.origins] == [1, 9]
    assert [entry.ref for entry in snapshot.missing] == [f"{path}:6", f"{path}:15"] or len(snapshot.missing) == 2
    assert all(reason.startswith("YAML error at line ") for reason in reasons(snapshot))


def test_scalars_are_what_kubernetes_reads() -> None:
    """Times and `22:30` stay text, octal modes are numbers, `on:` becomes the key "true"."""
    text = (
        "when: 2026-11-20T10:00:00Z\nday: 2026-11-20\nclock: 22:30\nmode: 0644\nhex: 0x1f\nbig: 1_000\nratio: 0.9\n"
        "exp: 1e3\nyes: no\nquoted: 'no'\n3: x\nnull: x\ntagged: !!str 5\nforeign: !Ref abc\nbin: !!binary aGk=\n"
        "dup: 1\ndup: 2\nbase: &b {x: 1, y: 1}\nmerged:\n  <<: *b\n  y: 2\nnan: .nan\n"
    )
    (document,) = documents.documents(text)
    assert document.value == {
        "when": "2026-11-20T10:00:00Z",
        "day": "2026-11-20",
        "clock": "22:30",
        "mode": 0o644,
        "hex": 31,
        "big": 1000,
        "ratio": 0.9,
        "exp": "1e3",
        "true": False,
        "quoted": "no",
        "3": "x",
        "null": "x",
        "tagged": "5",
        "foreign": "abc",
        "bin": "aGk=",
        "dup": 2,
        "base": {"x": 1, "y": 1},
        "merged": {"x": 1, "y": 2},
        "nan": ".nan",
    }


@pytest.mark.parametrize("word", ["1" * 5000, "0x_", "-", "+", ".", "0b", "1__", "08"])
def test_odd_numbers_do_not_fail(word: str) -> None:
    """What looks like a number and is none is text."""
    assert documents.plain_scalar(word) in (word, 1)


def test_same_without_libyaml(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyYAML without its C half gives the same objects, lines and files."""
    text = f"{POD_YAML}---\na: [}}\n---\n{SERVICE_YAML}"
    with_c = load_text(text)
    monkeypatch.delattr(yaml, "CSafeLoader")
    monkeypatch.delattr(yaml, "CSafeDumper")
    without = load_text(text)
    assert (without.objects, without.origins) == (with_c.objects, with_c.origins)
    assert len(without.missing) == 1
    files.save(with_c, str(tmp_path / "s.yaml"))
    assert files.load(str(tmp_path / "s.yaml")) == with_c


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n"
        + "".join(f"{c}: &{c} [{','.join([f'*{p}'] * 10)}]\n" for p, c in zip("abcdefgh", "bcdefghi", strict=True)),
        "a: &a {k: v}\nb:\n" + "- *a\n" * 10_001,
        "a: &a '" + "x" * 1_000_000 + "'\nb:\n" + "- *a\n" * 1000,
        "a: &a " + json.dumps({str(i): i for i in range(2000)}) + "\nb:\n" + "- {<<: *a}\n" * 1000,
    ],
    ids=["laughs", "references", "text", "merges"],
)
def test_alias_bombs_are_refused(text: str) -> None:
    """Aliases are counted by what they stand for."""
    snapshot = load_text(f"{text}---\n{POD_YAML}")
    assert snapshot.objects == (POD,)
    assert "aliases expand to too much" in reasons(snapshot)[0]


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path: Path) -> None:
    """The last one counts, as for kubectl; elements of a list and merged keys are no repetition."""
    spec = "spec:\n  containers:\n  - name: a\n    env: []\n    image: i\n    # again\n    env:\n    - {name: X, value: y}\n"
    merged = "  - &b {name: b, image: i}\n  - {<<: *b, image: j}\n  nodeName: n\n  nodeName: m\n"
    path = put(tmp_path, "m.yaml", f"---\napiVersion: v1\nkind: Pod\nmetadata: {{name: p}}\n{spec}{merged}")
    snapshot = files.load(path)
    assert snapshot.objects[0]["spec"]["containers"][0]["env"] == [{"name": "X", "value": "y"}]
    assert [entry.ref for entry in snapshot.missing] == [f"{path}:11", f"{path}:16"]
    assert [reason.partition(" over")[0] for reason in reasons(snapshot)] == ["a second `env`", "a second `nodeName`"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("kind: Pod\rspec:\r  a: 1\r  a: 2\r", 4),
        ("kind: Pod\n" + "# far\n" * 20_000 + "spec: {" + "a: 1, " * 2_000 + "}\n", 20_002),
    ],
    ids=["carriage-returns", "thousands-on-a-line"],
)
def test_keys_that_stand_twice_in_odd_files(text: str, line: int) -> None:
    found = next(documents.documents(text)).repeated

    assert len(found) <= 5
    assert set(found) == {("a", line)}


@pytest.mark.parametrize("text", ["a: &a [*a]\n", "a: *nothing\n", "? [a]\n: b\n", "<<: 5\n"])
def test_impossible_yaml_is_an_error(text: str) -> None:
    """Parsers disagree about these; here they are errors with a line."""
    assert "YAML error at line 1" in usage_error(text)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "- " * 50_000, "{a: " * 5000])
def test_deep_nesting_is_refused(text: str) -> None:
    """No recursion error, and the next document is read."""
    snapshot = load_text(f"---\n{text}\n---\n{POD_YAML}")
    assert snapshot.objects == (POD,)
    assert len(snapshot.missing) == 1
    deep = '{"apiVersion":"v1","kind":"Service","metadata":{"name":"p"},"x":' + "[" * 300 + "]" * 300 + "}"
    assert "nested too deeply" in usage_error(deep)
    assert reasons(load_text(json.dumps({**SNAPSHOT, "objects": [json.loads(deep)]}))) == [
        "forbidden",
        "malformed: nested too deeply",
    ]


def test_garbage_is_given_up() -> None:
    """A text with hundreds of broken documents does not make hundreds of entries."""
    snapshot = load_text(POD_YAML + "---\n}\n" * 5000)
    assert len(snapshot.missing) == documents.MAX_ERRORS + 1
    assert "gave up" in reasons(snapshot)[-1]
    assert len(load_text(json.dumps(POD) + "\n{\n" * 5000).missing) == documents.MAX_ERRORS + 1


def test_concatenated_json() -> None:
    """As `kubectl get -o json` run twice into one file; a broken one in the middle costs only itself."""
    text = json.dumps(POD, indent=2)
    snapshot = load_text(f"{text}\n{text[:-20]}\n{text}{text}")
    assert kinds(snapshot) == ["Pod"] * 3
    assert reasons(snapshot)[0].startswith("JSON error at line ")
    lines = len(text.split("\n"))
    assert [origin and origin.line for origin in snapshot.origins][:1] == [1]
    assert snapshot.origins[-1] == Origin(file="stdin", line=snapshot.origins[-2].line + lines - 1)  # type: ignore[union-attr]


def test_flow_style_yaml_is_no_json() -> None:
    """`{kind: Pod}` starts like JSON."""
    snapshot = load_text("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c, image: i}]}}")
    assert snapshot.objects == (POD,)


@pytest.mark.parametrize("rest", ["ports: [{containerPort: 80}]", "args: [serve], resources: {limits: {cpu: 1}}"])
def test_a_workload_that_lacks_its_selector_alone(tmp_path: Path, rest: str) -> None:
    """It is a manifest with a fault, and no patch: what runs in it is said."""
    spec = f"{{replicas: 1, template: {{spec: {{containers: [{{name: c, image: i, {rest}}}]}}}}}}"
    text = f"apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: d}}\nspec: {spec}\n"
    snapshot = files.load_manifests([put(tmp_path, "d.yaml", text)])
    assert [o["kind"] for o in snapshot.objects] == ["Deployment"]


@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        (
            "c/templates/d.yaml",
            "metadata:\n  name: {{ .Release.Name }}\n",
            "Helm template, render it first: helm template {folder}/c | kubectl llmdoctor lint -",
        ),
        (
            "d.yaml",
            "{{- if .Values.x }}\nkind: Pod\n{{- end }}\n",
            "Helm template, render it first: helm template CHART",
        ),
        ("q.yaml", f'{POD_YAML}  x: "{{{{ .Values.x }}}}"\n', "Helm template, render it first"),
        (
            "j.yaml",
            "kind: Pod\nmetadata:\n{% if x %}\n  name: p\n",
            "a template, render it first (YAML error at line 3",
        ),
        ("values.yaml", "image: {repository: x}\n", "Helm values, not a manifest"),
        ("values-prod.yaml", "image: {repository: x}\n", "Helm values, not a manifest"),
        ("Chart.yaml", "apiVersion: v2\nname: c\nversion: 1.0.0\n", "a chart's description, not a manifest"),
        (
            "o/kustomization.yaml",
            "resources: [a.yaml]\n",
            "kustomization, build it first: kubectl kustomize {folder}/o",
        ),
        ("c.yaml", "services: {vllm: {image: x, ports: ['80:80']}}\n", "a compose file, not a manifest"),
        ("ci.yaml", "on: push\njobs: {a: {}}\n", "a CI workflow, not a manifest"),
        ("f.yaml", "spec:\n  replicas: 2\n", "a patch or fragment, not a manifest: no kind"),
        ("k.yaml", "kind: Pod\nmetadata: {name: p}\n", "not a manifest: no apiVersion"),
        ("n.yaml", "a: 1\n", "not a manifest: no apiVersion and kind"),
        ("p.yaml", "- {op: add, path: /x, value: 1}\n", "a JSON patch, not a manifest"),
        ("l.yaml", "- hosts: all\n", "not a manifest"),
        ("s.yaml", "just words\n", "not a manifest"),
        ("m.yaml", POD_YAML + "x:\n- $patch: delete\n", "a patch, not a manifest"),
        (
            "patch.yaml",
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\nspec: {template: {}}\n",
            "a patch or fragment: Deployment without spec.selector",
        ),
        ("u.yaml", "apiVersion: kubelet.config.k8s.io/v1\nkind: KubeletConfiguration\n", "without metadata.name"),
        ("config", "apiVersion: v1\nkind: Config\nclusters: []\nusers: [{user: {token: x}}]\n", "a kubeconfig"),
        ("e.yaml", "a: [}\n", "YAML error at line 1"),
        ("e.json", '{"kind": "Pod",\n"metadata": {"name"', "JSON error at line 2"),
        ("none.yaml", "# nothing\n---\n", "nothing but comments"),
        ("empty.yaml", " \n", "empty"),
        ("README.md", "# Title\n\n- a: b\n  c\n * d: `e`\n", "not a manifest"),
        ("Dockerfile", "FROM vllm/vllm-openai:v0.9.1\nRUN x: y: z\n", "not a manifest"),
        ("engine.log", "INFO 11-20 09:58:01 [api.py:1] a: b: c\n", "not a manifest; a log is read with --logs"),
        ("lines.json", '{"level": "info", "msg": "x"}\n' * 30, "not a manifest; a log is read with --logs"),
        ("b.yaml", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\xff\xfe", "not a manifest"),
        ("x.zip", b"PK\x03\x04" + b"\0" * 40, "a zip archive: unpack it first"),
        ("x.tar", b"\0" * 257 + b"ustar\x0000" + b"\0" * 300, "tar archive"),
        (
            "describe.txt",
            "Name:             p\nNamespace:        serving\nPriority: 0\n",
            "this is kubectl describe output",
        ),
        ("table.txt", "NAME   READY   STATUS    RESTARTS   AGE\np   0/1   Pending   0   3m\n", "add -o yaml"),
        ("half.yaml.gz", gzip.compress(b"x" * 9999, mtime=0)[:30], "damaged gzip file"),
    ],
)
def test_what_is_no_manifest(tmp_path: Path, name: str, text: str | bytes, reason: str) -> None:
    """Alone it is a usage error that says what it is; beside a manifest it is an entry and the run goes on."""
    path = put(tmp_path, name, text)
    reason = reason.format(folder=tmp_path)
    with pytest.raises(UsageError) as caught:
        files.load(path)
    assert reason in str(caught.value)
    assert str(caught.value).startswith(path)
    assert "\n" not in str(caught.value)
    pod = put(tmp_path, "zz/pod.yaml", POD_YAML)
    if not name.endswith("gz"):
        snapshot = files.load_manifests([path, pod])
        assert snapshot.objects == (POD,)
        assert reason in reasons(snapshot)[0]


def test_crd_is_understood() -> None:
    """A file of definitions alone is no error: there is just nothing in it to look at."""
    snapshot = load_text("apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: x}\n")
    assert snapshot.objects == ()
    assert "CustomResourceDefinition" in reasons(snapshot)[0]


def test_text_of_a_template_in_a_configmap() -> None:
    """A ConfigMap may hold a chart's or a chat template; so may any object's strings, other than Helm's."""
    text = (
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n  a: |\n    {{ .Values.x }}\n    $patch: delete\n"
    )
    assert kinds(load_text(text)) == ["ConfigMap"]
    assert kinds(load_text(POD_YAML + "x: '{{ messages }} {{ $labels.pod }} {{.Name}}'\n# {{ .Values.x }}\n")) == [
        "Pod"
    ]


def test_values_of_a_release_are_no_template_of_a_chart() -> None:
    """Charts fill in what stands in their values; the object itself is whole."""
    values = "{metadata: {name: a}, spec: {values: {host: '{{ .Release.Name }}.example'}}}"
    text = "{apiVersion: helm.toolkit.fluxcd.io/v2, kind: HelmRelease, " + values[1:] + "\n"
    assert kinds(load_text(text)) == ["HelmRelease"]


def test_helm_file_has_one_entry(tmp_path: Path) -> None:
    """However many of its documents are broken."""
    broken = "metadata: {{ .Release.Name }}\n"
    snapshot = files.load(put(tmp_path, "t.yaml", f"{broken}---\n{broken}---\nx: {{{{ }}}}\n---\n{POD_YAML}"))
    assert snapshot.objects == (POD,)
    assert len(snapshot.missing) == 1


def test_snapshot_for_lint(tmp_path: Path) -> None:
    """Lint reads manifests only, and says where a snapshot belongs."""
    with pytest.raises(UsageError, match="diagnose --from"):
        files.load_manifests([put(tmp_path, "s.json", json.dumps(SNAPSHOT))])


# --- bytes and paths --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_editors_encodings(encoding: str) -> None:
    """Byte order marks, and what PowerShell's redirection writes."""
    assert load_text(POD_YAML.encode(encoding)).objects == (POD,)
    assert load_text(json.dumps(SNAPSHOT).encode(encoding)).objects == (POD,)


def test_bytes_that_are_no_text() -> None:
    """Wrong UTF-8, NUL and escape characters are replaced; the rest is kept."""
    text = SERVICE_YAML.encode() + b"x: 'a\xffb\x00c\x1b[31m'\n"
    (tree,) = load_text(text).objects
    assert tree["x"] == "a\ufffdb\ufffdc\ufffd[31m"
    assert kinds(load_text(POD_YAML.replace("\n", "\r\n") + "---\r\n" + SERVICE_YAML)) == ["Pod", "Service"]


def test_values_that_json_cannot_hold() -> None:
    """Lone surrogates, infinities and huge numbers become text, so that any file format can hold them."""
    text = (
        '{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"a":"\\ud800","b":1e999,"c":NaN,"d":1'
        + "0" * 400
        + "}"
    )
    (tree,) = load_text(text).objects
    assert tree["a"] == "\ufffd"
    assert (tree["b"], tree["c"], tree["d"]) == ("inf", "nan", "overflow")
    assert objects.clean(10**30) == "1.000000e+30"


def test_folder_is_walked_in_order(tmp_path: Path) -> None:
    """Sorted, recursive; hidden folders and other suffixes are skipped, what is foreign is named."""
    for name in ("b.yaml", "a/z.yml", "a/b/c.json", ".git/x.yaml", "a/.hidden.yaml", "notes.txt", "c.yaml.gz"):
        content = json.dumps(POD).encode() if name.endswith("json") else POD_YAML.encode()
        put(tmp_path, name, gzip.compress(content, mtime=0) if name.endswith("gz") else content)
    put(tmp_path, "values.yaml", "a: 1\n")
    snapshot = files.load(str(tmp_path))
    names = [origin.file.removeprefix(f"{tmp_path}/") for origin in snapshot.origins if origin]
    assert names == ["a/b/c.json", "a/z.yml", "b.yaml", "c.yaml.gz"]
    assert [entry.ref for entry in snapshot.missing] == [f"{tmp_path}/values.yaml"]


def test_names_are_relative_as_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`lint .` names files as an annotation in a pull request needs them."""
    monkeypatch.chdir(tmp_path)
    put(tmp_path, "a/p.yaml", POD_YAML)
    for path in (".", "./a", "a", "./a/p.yaml"):
        assert files.load(path).origins == (Origin(file="a/p.yaml", line=1),)


def test_links_and_loops(tmp_path: Path) -> None:
    """Linked folders are followed once, loops end, dangling links are named."""
    put(tmp_path, "in/p.yaml", POD_YAML)
    put(tmp_path, "elsewhere/q.yaml", POD_YAML)
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "more").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in" / "self.yaml").symlink_to(tmp_path / "in" / "self.yaml")
    (tmp_path / "in" / "gone.yaml").symlink_to(tmp_path / "nothing")
    snapshot = files.load(str(tmp_path / "in"))
    assert [Path(origin.file).name for origin in snapshot.origins if origin] == ["q.yaml", "p.yaml"]
    assert sorted(Path(entry.ref).name for entry in snapshot.missing) == ["gone.yaml", "self.yaml"]


def test_deep_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Deeper than Python's stack."""
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        Path("d").mkdir()
        os.chdir("d")
    put(Path(), "p.yaml", POD_YAML)
    bottom = Path.cwd()
    os.chdir(tmp_path)
    found = len(files.load(".").objects)
    (bottom / "p.yaml").unlink()
    for folder in [bottom, *bottom.parents][:1100]:  # pytest's own cleaning up would not get down there
        folder.rmdir()
    assert found == 1


def test_pipes(tmp_path: Path) -> None:
    """A pipe in a folder would wait forever; one that is named is read."""
    put(tmp_path, "p.yaml", POD_YAML)
    os.mkfifo(tmp_path / "a.yaml")
    assert reasons(files.load(str(tmp_path))) == ["not a regular file"]
    script = "import sys; from kubectl_llmdoctor.gather import files; print(len(files.load(sys.argv[1]).objects))"
    command = f"exec {sys.executable} -c '{script}' <(cat {tmp_path}/p.yaml)"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == "1\n", done.stderr


@pytest.mark.parametrize("size", [0, 1, (1 << 16) - 1, 1 << 16, (1 << 16) + 1, 3 << 16, (7 << 16) + 5])
def test_whole_reads_all_or_refuses(size: int) -> None:
    """Whatever the size of the pieces in which it is asked for."""
    data = bytes(n % 251 + 1 for n in range(size))
    assert reading.whole(io.BytesIO(data), size) == data
    assert reading.whole(io.BytesIO(data), 1 << 30) == data
    if size:
        with pytest.raises(reading.UnreadableError, match="larger than"):
            reading.whole(io.BytesIO(data), size - 1)


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Large files of a folder are skipped, packed or not; a named one ends the program."""
    put(tmp_path, "a.yaml", POD_YAML)
    put(tmp_path, "b.yaml", POD_YAML + "#" * 3000)
    put(tmp_path, "c.yaml.gz", gzip.compress(POD_YAML.encode() + b"#" * 3000, mtime=0))
    monkeypatch.setattr(reading, "MAX_FILE", 2000)
    snapshot = files.load(str(tmp_path))
    assert snapshot.objects == (POD,)
    assert [reason.startswith("larger than") for reason in reasons(snapshot)] == [True, True]
    monkeypatch.setattr(reading, "MAX_NAMED", 2000)
    with pytest.raises(UsageError, match="larger than"):
        files.load(str(tmp_path / "c.yaml.gz"))
    monkeypatch.setattr(reading, "MAX_FILE", 5000)
    monkeypatch.setattr(files, "MAX_FOLDER", 1000)
    assert "the folder holds more than" in reasons(files.load(str(tmp_path)))[0]


def test_unreadable_file_of_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No permission for one file is an entry, for the named one an error."""
    path = put(tmp_path, "a.yaml", POD_YAML)
    put(tmp_path, "b.yaml", POD_YAML)
    whole = open

    def refuse(file: Any, *args: Any, **kwargs: Any) -> Any:
        if str(file).endswith("a.yaml"):
            raise PermissionError(13, "Permission denied")
        return whole(file, *args, **kwargs)

    monkeypatch.setattr("builtins.open", refuse)
    assert reasons(files.load(str(tmp_path))) == ["Permission denied"]
    with pytest.raises(UsageError, match=r"a\.yaml: Permission denied"):
        files.load(path)


@pytest.mark.parametrize("path", ["/nowhere/at/all", "a\0b", "x" * 5000, ""])
def test_no_such_file(path: str) -> None:
    """One line, whichever way it is asked for."""
    for read in (files.load, lambda p: files.load_manifests([p]), files.load_log):
        with pytest.raises(UsageError):
            read(path)


def test_nothing_to_read(tmp_path: Path) -> None:
    """An empty folder, and no path at all."""
    with pytest.raises(UsageError, match=r"no \*\.yaml"):
        files.load(str(tmp_path))
    with pytest.raises(UsageError):
        files.load_manifests([])
    for name in ("a.yaml", "b.yaml", "c.yaml"):
        put(tmp_path, name, "a: 1\n")
    with pytest.raises(UsageError, match=r"a\.yaml: not a manifest: .* \(and 2 more that could not be read\)"):
        files.load(str(tmp_path))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """A file name of any bytes can be reported and saved."""
    file = os.fsencode(tmp_path) + b"/p\xff.yaml"
    with open(file, "wb") as stream:  # noqa: PTH123 - a bytes path
        stream.write(POD_YAML.encode())
    snapshot = files.load(str(tmp_path))
    assert snapshot.origins == (Origin(file=f"{tmp_path}/p\ufffd.yaml", line=1),)
    files.save(snapshot, str(tmp_path / "s.json"))


def test_patches_of_a_kustomization(tmp_path: Path) -> None:
    """A patch that looks complete is still one if a kustomization says so."""
    put(tmp_path, "base/pod.yaml", POD_YAML)
    put(tmp_path, "over/pod-patch.yaml", POD_YAML)
    put(
        tmp_path,
        "over/kustomization.yaml",
        "resources: [../base]\npatches:\n- path: ./pod-patch.yaml\n- patch: |\n    a: b\n",
    )
    snapshot = files.load(str(tmp_path))
    assert snapshot.origins == (Origin(file=f"{tmp_path}/base/pod.yaml", line=1),)
    assert "a patch of a kustomization" in reasons(snapshot)[1]


def test_folder_with_snapshots(tmp_path: Path) -> None:
    """One snapshot may stand beside manifests; a second belongs to another diagnosis."""
    put(tmp_path, "a.json", json.dumps(SNAPSHOT))
    put(tmp_path, "b.yaml", SERVICE_YAML)
    snapshot = files.load(str(tmp_path))
    assert kinds(snapshot) == ["Pod", "Service"]
    assert snapshot.origins == (None, Origin(file=f"{tmp_path}/b.yaml", line=1))
    assert snapshot.taken_at == SNAPSHOT["takenAt"]
    put(tmp_path, "c.json", json.dumps(SNAPSHOT))
    assert "another snapshot, open it by itself" in reasons(files.load(str(tmp_path)))


def test_stdin_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A daemon may have no stdin at all."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="stdin: closed"):
        files.load("-")


# --- kubectl cluster-info dump ----------------------------------------------------------------------------------------

LISTS = ["Event", "ReplicationController", "Service", "DaemonSet", "Deployment", "ReplicaSet", "Pod"]


def dump_text(form: str) -> str:
    """The fixture as `kubectl cluster-info dump` prints it without a folder; kubectl walks it in this order."""
    if form == "yaml":
        return STREAM.read_text()
    parts = [DUMP / "nodes.json"]
    for namespace in ("kube-system", "serving"):
        names = ("events", "replication-controllers", "services", "daemonsets", "deployments", "replicasets", "pods")
        parts += [DUMP / namespace / f"{name}.json" for name in names]
        parts += sorted((DUMP / namespace).glob("*/logs.txt"), reverse=True)
    return "".join(part.read_text() for part in parts)


def test_dump_folder() -> None:
    """Objects, logs per container, lists that are complete, and what such a dump never holds."""
    snapshot = files.load(str(DUMP))
    assert kinds(snapshot) == ["Node", "Event", "Service", "Pod", "Pod"]
    assert snapshot.taken_at == "2026-11-20T10:00:00Z"
    assert snapshot.origins == ()
    assert snapshot.read == (
        ReadList(kind="Node"),
        *(ReadList(kind=kind, namespace="kube-system") for kind in LISTS),
        *(ReadList(kind=kind, namespace="serving") for kind in LISTS),
    )
    assert [(log.namespace, log.pod, log.container, log.previous) for log in snapshot.logs] == [
        ("serving", "llama-0", "fetch", False),
        ("serving", "llama-0", "vllm", False),
    ]
    assert snapshot.logs[1].text.endswith("\nRuntimeError: Engine core initialization failed.")
    assert "\n---\n" in snapshot.logs[1].text
    refused, previous, absent = snapshot.missing
    assert (refused.source, refused.ref) == ("logs", "serving/gone-0/c")
    assert "previous" in previous.reason
    assert "PersistentVolumeClaim" in absent.reason


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_dump_text(form: str, tmp_path: Path) -> None:
    """The one-text form holds the same; a namespace that nothing names is not claimed to be complete."""
    folder, stream = files.load(str(DUMP)), load_text(dump_text(form))
    assert stream.objects == folder.objects
    assert stream.logs == folder.logs
    assert stream.taken_at == folder.taken_at
    assert stream.missing == folder.missing
    assert stream.read == tuple(entry for entry in folder.read if entry.namespace != "kube-system")
    files.save(stream, str(tmp_path / "s.yaml"))
    assert files.load(str(tmp_path / "s.yaml")) == stream
    assert files.load(put(tmp_path, "dump.txt.gz", gzip.compress(dump_text(form).encode()))) == stream


def test_dump_text_without_pods() -> None:
    """Typed lists side by side are a dump even without logs."""
    text = dump_text("json").partition("==== START")[0]
    snapshot = load_text(text)
    assert ReadList(kind="Pod", namespace="serving") in snapshot.read
    assert snapshot.origins == ()


def test_dump_that_was_cut_off() -> None:
    """A log without its end goes to the next one's start; lists cut short are not complete."""
    text = dump_text("json")
    cut = load_text(text.replace("==== END logs for container fetch of pod serving/llama-0 ====\n", ""))
    assert [log.container for log in cut.logs] == ["fetch", "vllm"]
    assert cut.logs[0].text == "fetched 12 files\n"
    broken = text.replace('"items": [', '"items": [5, ', 1)
    snapshot = load_text(broken)
    assert ReadList(kind="Node") not in snapshot.read
    assert "not a Kubernetes object" in reasons(snapshot)
    paged = text.replace(
        '"metadata": {\n        "resourceVersion"', '"metadata": {\n        "continue": "x", "resourceVersion"', 1
    )
    assert ReadList(kind="Node") not in load_text(paged).read


def test_dump_with_a_broken_list(tmp_path: Path) -> None:
    """One broken file costs its list; secrets in logs are masked."""
    for file in DUMP.rglob("*.*"):
        put(tmp_path, str(file.relative_to(DUMP)), file.read_bytes())
    put(tmp_path, "serving/services.json", '{"kind": "ServiceList", "items": [')
    (tmp_path / "kube-system" / "pods.json").write_bytes(b"")
    what = "logs for container c of pod serving/x ===="
    log = f"==== START {what}\nHF_TOKEN={TOKEN}\n==== END {what}"
    put(tmp_path, "serving/x/logs.txt", log)
    snapshot = files.load(str(tmp_path))
    assert ReadList(kind="Service", namespace="serving") not in snapshot.read
    assert ReadList(kind="Pod", namespace="serving") in snapshot.read
    assert any(entry.ref.startswith(f"{tmp_path}/serving/services.json") for entry in snapshot.missing)
    assert TOKEN not in str(snapshot)
    assert snapshot.logs[-1].pod == "x"


@pytest.mark.parametrize("root", ["", "must-gather.local.1/quay-io-x"])
def test_must_gather(tmp_path: Path, root: str) -> None:
    """A pod stands in a list and by itself, its logs beside it; the newest time is now."""
    name, namespace = "p", "serving"
    head = {"name": name, "namespace": namespace}
    pod: dict[str, Any] = POD | {"metadata": head, "status": {"startTime": "2026-11-20T09:58:00Z"}}
    own = f"{root}/namespaces/{namespace}".lstrip("/")
    put(tmp_path, f"{own}/core/pods.yaml", json.dumps({"apiVersion": "v1", "kind": "PodList", "items": [pod]}))
    put(tmp_path, f"{own}/pods/{name}/{name}.yaml", json.dumps(pod))
    logs = f"{own}/pods/{name}/vllm/vllm/logs"
    put(tmp_path, f"{logs}/current.log", "2026-11-20T09:58:01.000000001Z on its way\n")
    put(tmp_path, f"{logs}/previous.log", "the end\n")
    put(tmp_path, f"{own}/core/broken.yaml", "a: [}\n")

    snapshot = files.load(str(tmp_path))

    assert snapshot.objects == (pod,)
    assert [(log.namespace, log.pod, log.container, log.previous) for log in snapshot.logs] == [
        (namespace, name, "vllm", False),
        (namespace, name, "vllm", True),
    ]
    assert [log.timestamps for log in snapshot.logs] == [True, False]
    assert snapshot.taken_at == "2026-11-20T09:58:00Z"
    assert [m.reason.partition(" at")[0] for m in snapshot.missing] == ["YAML error"]


def test_of_a_large_must_gather_the_logs_of_the_platform_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kubectl_llmdoctor.gather.offline import inspected

    for namespace in ("openshift-apiserver", "serving"):
        own = f"must-gather.local.1/quay-io-x/namespaces/{namespace}"
        put(tmp_path, f"{own}/core/pods.yaml", POD_YAML)
        put(tmp_path, f"{own}/pods/p/vllm/vllm/logs/current.log", "on its way\n" * 200)
    monkeypatch.setattr(inspected, "_MAX_TOTAL", 3000)

    snapshot = files.load(str(tmp_path))

    assert [log.namespace for log in snapshot.logs] == ["serving"]
    assert [m.reason.partition(",")[0] for m in snapshot.missing] == ["not read"]


def test_a_repository_with_a_folder_of_namespaces_is_no_must_gather(tmp_path: Path) -> None:
    put(tmp_path, "namespaces/serving/core/pod.yaml", POD_YAML)

    assert [origin.file for origin in files.load(str(tmp_path)).origins if origin]


def test_dump_log_with_kubelet_times() -> None:
    """Times at the start of each line are noticed per container."""
    line = "2026-11-20T09:58:01.123456789Z INFO x\n"
    text = f"==== START logs for container c of pod a/b ====\n{line * 3}==== END logs for container c of pod a/b ====\n"
    (log,) = load_text(text).logs
    assert log == LogText(text=line * 3, namespace="a", pod="b", container="c", timestamps=True)


# --- a log alone ------------------------------------------------------------------------------------------------------


def log_of(data: bytes) -> LogText:
    """What stdin with that log becomes."""
    return files.load_log("-", stdin=io.BytesIO(data))


def test_log_is_read_whole_and_masked(tmp_path: Path) -> None:
    """From a file, a gzip file or stdin, whatever its bytes."""
    text = f"INFO start\nHF_TOKEN={TOKEN}\n" + "line\n" * 100_000 + "ValueError: \xe9\n"
    for path in (put(tmp_path, "a.log", text), put(tmp_path, "b.log", gzip.compress(text.encode(), mtime=0))):
        log = files.load_log(path)
        assert TOKEN not in log.text
        assert log.text.count("\n") == 100_003
        assert log.text.endswith("ValueError: \xe9\n")
        assert log == log_of(text.encode())
        assert (log.pod, log.timestamps, log.cut) == ("", False, None)
    assert log_of(b"\xef\xbb\xbfa\xffb\x00\n").text == "a\ufffdb\x00\n"
    assert log_of("a\r\nb\r\n".encode("utf-16")).text == "a\nb\n"
    assert log_of(gzip.compress(b"a\n", mtime=0) + gzip.compress(b"b\n") + b"\0\0").text == "a\nb\n"
    broken_off = gzip.compress(bytes(os.urandom(50_000).hex(), "ascii"))[:-9000]
    assert 10_000 < len(log_of(broken_off).text) < 100_000


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("2026-11-20T09:58:01.123456789Z INFO x", True),
        ("2026-11-20T09:58:01.12345678Z", True),
        ("2026-11-20T09:58:01.123456789+01:00 INFO x", True),
        ("2024-05-01T10:00:00.123456Z  INFO text_generation_launcher: x", False),
        ("2026-11-20T09:58:01Z INFO x", False),
        ("INFO 11-20 09:58:01 [x.py:1] x", False),
    ],
)
def test_kubelet_times_are_told_from_an_engines_own(line: str, expected: bool) -> None:
    """The kubelet writes nanoseconds, engines write less."""
    log = log_of(f"{line}\n".encode() * 5 + b"Traceback (most recent call last):\n")
    assert log.timestamps is expected
    assert log.text.startswith(line)


def test_huge_log_loses_its_middle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole lines are cut, and how much is said."""
    monkeypatch.setattr(reading, "MAX_LOG", 4096)
    monkeypatch.setattr(reading, "_PIECE", 500)
    data = b"".join(b"line %06d\n" % i for i in range(10_000))
    for stream in (data, gzip.compress(data, mtime=0)):
        log = log_of(stream)
        assert log.cut
        lines = log.text.splitlines()
        assert lines[0] == "line 000000"
        assert lines[-1] == "line 009999"
        assert all(len(line) == 11 for line in lines)
        assert len(log.text) + log.cut.bytes == len(data)
        assert lines[log.cut.after_line - 1] == f"line {log.cut.after_line - 1:06d}"
        assert lines[log.cut.after_line] != f"line {log.cut.after_line:06d}"
    assert log_of(data[:4000]).cut is None
    assert Cut(after_line=0, bytes=1) != log.cut


def test_no_log(tmp_path: Path) -> None:
    """An empty log, a folder, and a gzip file that is none."""
    for data in (b"", b"\n \n", b"\x1f\x8bnot gzip"):
        with pytest.raises(UsageError, match=r"^stdin: "):
            log_of(data)
    with pytest.raises(UsageError, match="a folder"):
        files.load_log(str(tmp_path))


# --- cost -------------------------------------------------------------------------------------------------------------


def test_json_snapshot_needs_no_yaml(tmp_path: Path) -> None:
    """Start-up is most of the time of a small diagnosis: what is not needed is not imported."""
    path = put(tmp_path, "s.json", json.dumps(SNAPSHOT))
    script = (
        "import sys; from kubectl_llmdoctor.gather import files; files.load(sys.argv[1]);"
        "print(sorted(sys.modules.keys() & {'yaml', 'gzip', 'zlib', 'kubernetes', 'json', 'datetime', 'dataclasses'}))"
    )
    done = subprocess.run([sys.executable, "-c", script, path], capture_output=True, text=True, check=True, timeout=60)
    assert not {"yaml", "gzip", "kubernetes"} & set(eval(done.stdout))
