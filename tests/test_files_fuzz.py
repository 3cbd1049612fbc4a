"""Whatever the bytes: a snapshot or one line of error, never another exception; and what was loaded survives saving."""

import gzip
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather import files
from kubectl_llmdoctor.gather.offline import documents
from kubectl_llmdoctor.snapshot import LogText, Snapshot

RELAXED = settings(suppress_health_check=[HealthCheck.too_slow])

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=30)
keys = st.sampled_from(
    ["kind", "apiVersion", "metadata", "items", "spec", "name", "objects", "schema", "logs"]
) | st.text(max_size=8)
trees = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5), max_leaves=25
)
pods = st.fixed_dictionaries(
    {"apiVersion": st.just("v1"), "kind": st.sampled_from(["Pod", "Secret", "List", "PodList", "Template"])},
    optional={"metadata": trees, "spec": trees, "items": trees, "data": trees, "status": trees},
)
logs = st.fixed_dictionaries({"text": st.text()}, optional={"pod": st.text(max_size=5), "restart": st.integers()})
snapshots = st.fixed_dictionaries(
    {"schema": st.just("llmdoctor.snapshot/v1")},
    optional={
        "takenAt": trees | st.datetimes().map(lambda t: t.isoformat() + "Z"),
        "target": trees,
        "objects": st.lists(pods | trees, max_size=4) | trees,
        "origins": trees | st.lists(st.fixed_dictionaries({"file": st.text(), "line": st.integers()}), max_size=4),
        "read": trees,
        "logs": st.lists(logs | trees, max_size=3) | trees,
        "nodes": st.dictionaries(st.text(max_size=5), st.dictionaries(keys, trees, max_size=2) | trees, max_size=2)
        | trees,
        "metrics": st.lists(logs | trees, max_size=2) | trees,
        "prometheus": trees,
        "missing": trees,
    },
)
FRAGMENTS = """
---|apiVersion: v1|kind: Pod|metadata: {name: p}|- a|  b: &x 1|c: *x|<<: *x|{|}|[|]|"|'|: |? |- >-|text: >+|...|!!int
{{ .Values.x }}|==== START logs for container c of pod a/b ====|==== END logs for container c of pod a/b ====|0x_
{"kind": "NodeList", "apiVersion": "v1", "items": []}|{"kind": "EventList", "items": null}|\x00|\ufeff|\t|objects:|1e999
%TAG ! x|schema: llmdoctor.snapshot/v1
"""
words = st.sampled_from([word for line in FRAGMENTS.split("\n") for word in line.split("|")])
fragments = st.lists(st.tuples(words, st.sampled_from(["", "\n", "\n", "\r\n"])).map("".join), max_size=25).map("".join)


def load(data: bytes) -> Snapshot | None:
    """The snapshot, or None for a usage error of one line."""
    try:
        return files.load("-", stdin=io.BytesIO(data))
    except UsageError as e:
        message = str(e)
    assert message
    assert "\n" not in message
    return None


def assert_survives_saving(snapshot: Snapshot) -> None:
    """Saved in either format it loads as itself, so masking it again changed nothing."""
    with tempfile.TemporaryDirectory() as folder:
        for name in ("s.json", "s.yaml.gz"):
            path = str(Path(folder) / name)
            files.save(snapshot, path)
            assert files.load(path) == snapshot


@RELAXED
@given(st.binary(max_size=300) | fragments.map(str.encode) | st.binary(max_size=100).map(gzip.compress))
@example(b"\x1f\x8b")
@example(b"\xff\xfe")
@example(b"---")
@example(b"{")
def test_arbitrary_bytes(data: bytes) -> None:
    """A file of any bytes."""
    if snapshot := load(data):
        assert_survives_saving(snapshot)
    try:
        log = files.load_log("-", stdin=io.BytesIO(data))
    except UsageError:
        return
    assert isinstance(log, LogText)


@RELAXED
@given(st.lists(pods | trees, min_size=1, max_size=3))
def test_arbitrary_objects(values: list[Any]) -> None:
    """Any JSON as manifest, in one document or several."""
    for text in (json.dumps(values), "\n".join(map(json.dumps, values)), "\n---\n".join(map(json.dumps, values))):
        if snapshot := load(text.encode("utf-8", "surrogatepass")):
            assert len(snapshot.origins) == len(snapshot.objects)
            assert_survives_saving(snapshot)


@RELAXED
@given(snapshots)
def test_arbitrary_snapshots(value: dict[str, Any]) -> None:
    """Any JSON under the keys of a snapshot: it opens, and what is kept survives saving."""
    snapshot = load(json.dumps(value).encode())
    assert snapshot is not None
    assert_survives_saving(snapshot)


@RELAXED
@given(trees)
def test_yaml_means_what_pyyaml_wrote(value: Any) -> None:
    """A tree written by PyYAML reads back as itself; keys as text."""
    text = yaml.dump(json.loads(json.dumps(value, allow_nan=True)), Dumper=yaml.SafeDumper, sort_keys=False)
    found = [document.value for document in documents.documents(text)]
    assert not any(document.error for document in documents.documents(text))
    assert found in ([], [value]) or str(found[0]) == str(plain(value))


def plain(value: Any) -> Any:
    """What a reader without infinities makes of them."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    if isinstance(value, float) and value in (float("inf"), float("-inf")):
        return ".inf" if value > 0 else "-.inf"
    return ".nan" if isinstance(value, float) and value != value else value
