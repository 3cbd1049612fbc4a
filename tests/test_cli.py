"""The command line: exit codes, one line per error, formats, determinism."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.program import report, run

CASES = Path(__file__).parent.parent / "checks" / "cases"
CRASHED = CASES / "oomkilled-host" / "fires_loading.yaml"
HEALTHY = CASES / "context-uncapped" / "quiet_capped.yaml"


def _one_line(stderr: bytes) -> str:
    lines = stderr.decode().strip().splitlines()
    assert len(lines) == 1, lines
    assert "Traceback" not in lines[0]
    return lines[0]


def test_a_found_cause_exits_with_1_and_stands_in_the_first_lines() -> None:
    done = run("diagnose", "--from", str(CRASHED))

    assert done.returncode == 1
    assert done.stderr == b""
    assert "serving/llama-0" in done.stdout.decode().splitlines()[0]
    assert "memory limit of 16 GiB" in done.stdout.decode()


def test_a_healthy_pod_exits_with_0_and_says_so_in_one_line() -> None:
    done = run("diagnose", "--from", str(HEALTHY))

    assert done.returncode == 0
    assert len(done.stdout.decode().strip().splitlines()) == 1
    assert "healthy" in done.stdout.decode()


@pytest.mark.parametrize(
    ("fail_on", "code"), [("critical", 0), ("warning", 1), ("info", 1), ("never", 0)], ids=lambda v: str(v)
)
def test_fail_on_sets_the_threshold(fail_on: str, code: int) -> None:
    risky = CASES / "shm-too-small" / "fires_risk_default.yaml"

    assert run("diagnose", "--from", str(risky), "--fail-on", fail_on).returncode == code


def test_json_follows_the_contract() -> None:
    tree = report(CRASHED)

    assert tree["schema"] == "llmdoctor.report/v1"
    assert tree["takenAt"] == "2026-11-20T10:00:00Z"
    target = tree["targets"][0]
    assert (target["apiVersion"], target["kind"], target["namespace"], target["name"]) == (
        "v1",
        "Pod",
        "serving",
        "llama-0",
    )
    assert target["verdict"] == "cause-found"
    assert target["engine"]["name"] == "vllm"
    assert target["engine"]["version"] == "0.10.2"
    assert target["engine"]["config"]["max_model_len"] == 8192
    first = target["findings"][0]
    assert (first["id"], first["role"], first["severity"], first["confidence"]) == (
        "oomkilled-host",
        "cause",
        "critical",
        "certain",
    )
    assert all({"source", "ref", "text"} <= e.keys() for e in first["evidence"])
    assert isinstance(tree["notRead"], list)


def test_the_same_snapshot_gives_the_same_bytes_whatever_the_hash_seed() -> None:
    outputs = {
        run("diagnose", "--from", str(CRASHED), "-o", form, PYTHONHASHSEED=seed).stdout
        for seed in ("0", "1", "77")
        for form in ("json",)
    }

    assert len(outputs) == 1


def test_a_saved_snapshot_gives_the_same_report(tmp_path: Path) -> None:
    saved = tmp_path / "saved.json.gz"
    first = run("diagnose", "--from", str(CRASHED), "--save", str(saved), "-o", "json")
    again = run("diagnose", "--from", str(saved), "-o", "json")

    assert first.stdout == again.stdout


def test_several_formats_go_to_several_files(tmp_path: Path) -> None:
    done = run(
        "diagnose",
        "--from",
        str(CRASHED),
        "-o",
        f"json={tmp_path}/r.json",
        "-o",
        f"yaml={tmp_path}/r.yaml",
        "-o",
        "text",
    )

    assert done.returncode == 1
    assert json.loads((tmp_path / "r.json").read_text()) == yaml.safe_load((tmp_path / "r.yaml").read_text())
    assert done.stdout.decode().startswith("serving/llama-0")


def test_a_log_alone_is_explained_from_standard_input() -> None:
    log = b"INFO vLLM API server version 0.10.2\nRuntimeError: unable to write to file </torch_7_1_0>: No space left on device (28)\n"
    done = run("diagnose", "--logs", "-", "-o", "json", stdin=log)

    assert done.returncode == 1
    finding = json.loads(done.stdout)["targets"][0]["findings"][0]
    assert finding["id"] == "shm-too-small"
    assert finding["evidence"][0]["line"] == 2


def test_a_manifest_from_standard_input_has_no_time_and_no_cause() -> None:
    manifest = (CASES / "shm-too-small" / "fires_risk_default.yaml").read_text()
    deployment = yaml.safe_dump_all([yaml.safe_load(manifest)["objects"][0]])
    done = run("diagnose", "--from", "-", "-o", "json", stdin=deployment.encode())
    tree = json.loads(done.stdout)

    assert tree["takenAt"] is None
    assert {f["role"] for f in tree["targets"][0]["findings"]} <= {"risk", "note"}
    assert "shm-too-small" in {f["id"] for f in tree["targets"][0]["findings"]}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["diagnose"], 3, ""),
        (["diagnose", "--from", "/no/such/file"], 2, "no such file"),
        (["diagnose", "--from", str(CRASHED), "-o", "pdf"], 2, "unknown format"),
        (["diagnose", "--from", str(CRASHED), "-o", "json", "-o", "text"], 2, "only one format"),
        (["diagnose", "--from", str(CRASHED), "-l", "a=b"], 2, "-l asks a cluster"),
        (["diagnose", "--from", "-", "--logs", "-"], 2, "a log alone"),
        (["diagnose", "--from", str(CRASHED), "nobody"], 3, "no such object"),
        (["diagnose", "--from", str(CRASHED), "a/b/c"], 2, "'a/b/c' is not a name"),
        (["diagnose", str(CRASHED)], 2, "is a file: read it with --from"),
        (["snapshot", str(CRASHED)], 2, "is a file: read it with --from"),
        (["diagnose", "--prometheus", "maybe", "x"], 2, "--prometheus maybe"),
        (["snapshot", "--prometheus", "prometheus:9090", "x"], 2, "not auto, off or a URL"),
        (["diagnose", "--ports", "off", "--sample", "10s", "x"], 2, "cannot be used with --ports off"),
        (["diagnose", "--sample", "soon", "x"], 2, "--sample soon: not a duration"),
        (["diagnose", "--sample", "1h", "x"], 2, "at most 300s"),
        (["diagnose", "--from", str(CRASHED), "-n", "elsewhere"], 3, "namespace elsewhere"),
        (["diagnose", "--request-timeout", "soon", "x"], 2, "not a duration"),
        (["diagnose", "--wrong"], 2, "No such option"),
        (["explain", "shm-to-small"], 2, "did you mean shm-too-small"),
        (["treat"], 2, "No such command"),
        (["diagnos"], 2, "did you mean diagnose"),
        (["llama-0"], 2, "to explain a pod: diagnose llama-0"),
        (["diagnose", "--from", ""], 2, "the name of a file is empty"),
        (["diagnose", "--logs", ""], 2, "the name of a file is empty"),
        (["lint", ""], 2, "the name of a file is empty"),
        (["diagnose", "--from", str(CRASHED), "-o", "json="], 2, "-o json=: no file named"),
        (["explain", "SHM-TOO-SMALL"], 2, "did you mean shm-too-small"),
    ],
    ids=lambda v: " ".join(v[:3]) if isinstance(v, list) else "",
)
def test_wrong_usage_gets_one_line_and_its_exit_code(arguments: list[str], code: int, says: str) -> None:
    done = run(*arguments)

    assert done.returncode == code
    assert says.lower() in _one_line(done.stderr).lower()
    assert done.stdout == b""


def test_without_a_command_its_help_is_shown() -> None:
    done = run()

    assert done.returncode == 2
    assert "\nCommands:\n  diagnose " in done.stderr.decode()
    assert done.stdout == b""


def test_an_unreadable_input_gets_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty.yaml").write_text("")
    (tmp_path / "binary.yaml").write_bytes(bytes(range(256)) * 20)
    for name in ("empty.yaml", "binary.yaml"):
        done = run("diagnose", "--from", str(tmp_path / name))

        assert done.returncode == 2
        _one_line(done.stderr)


@pytest.mark.parametrize("name", ["pod/llama-0", "llama-0"])
def test_names_choose_among_the_pods_of_a_snapshot(name: str) -> None:
    done = run("diagnose", "--from", str(CRASHED), name, "-n", "serving", "-o", "json")

    assert json.loads(done.stdout)["targets"][0]["name"] == "llama-0"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("llama", "did you mean llama-0 -n serving?"),
        ("lama-0", "did you mean llama-0 -n serving?"),
        ("another", "of kind Pod it has serving/llama-0"),
        ("lws/llama-0", "did you mean llama-0 -n serving?"),
        ("lws/llama", "it has none of kind LeaderWorkerSet"),
    ],
)
def test_a_name_that_a_snapshot_lacks_leads_to_those_that_it_has(name: str, said: str) -> None:
    done = run("diagnose", "--from", str(CRASHED), name)

    assert done.returncode == 3
    assert said in done.stderr.decode()


@pytest.mark.parametrize(("columns", "widest"), [("60", 60), ("120", 120), ("wide", 80), ("0", 80), ("9999", 160)])
def test_lines_are_as_long_as_the_environment_says(columns: str, widest: int) -> None:
    done = run("diagnose", "--from", str(CRASHED), "-o", "wide", COLUMNS=columns)
    sentences = [
        line for line in done.stdout.decode().splitlines() if not line.lstrip().startswith(("kubectl", "+", "-"))
    ]

    assert widest - 30 < max(map(len, sentences)) <= widest


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my-llm", "did you mean deployment/my-llm -n serving?"),
        ("deploy/my-lm", "did you mean deployment/my-llm -n serving?"),
        ("deploy/my-llm-0", "did you mean deployment/my-llm -n serving?"),
        ("deploy/mysq", "did you mean deployment/mysql -n serving?"),
        ("sts/mysql", "did you mean deployment/mysql -n serving?"),
        ("my-other", "it has none of kind Pod"),
    ],
)
def test_a_name_leads_to_workloads_with_their_type(tmp_path: Path, name: str, said: str) -> None:
    made = "".join(
        f"""apiVersion: apps/v1
kind: Deployment
metadata: {{name: {one}, namespace: serving}}
spec:
  selector: {{matchLabels: {{app: {one}}}}}
  template: {{metadata: {{labels: {{app: {one}}}}}, spec: {{containers: [{{name: one, image: "{one}:1"}}]}}}}
---
"""
        for one in ("my-llm", "mysql")
    )
    (tmp_path / "made.yaml").write_text(made)

    assert said in run("diagnose", "--from", str(tmp_path / "made.yaml"), name).stderr.decode()


def test_an_audit_of_a_file_names_the_command_that_explains_it_from_there() -> None:
    text = run("audit", "--from", str(CRASHED)).stdout.decode()

    assert f"  kubectl llmdoctor diagnose --from {CRASHED} " in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize(
    "arguments",
    [["explain"], ["fit", "Qwen/Qwen3-8B", "--gpu", "L40S"], ["fit", "-o", "json", "Qwen/Qwen3-8B", "--gpu", "L40S"]],
)
def test_a_full_disk_behind_standard_output_is_no_error_of_the_program(arguments: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "kubectl_llmdoctor", *arguments], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (3, b"error: standard output: No space left on device\n")


def test_explain_shows_a_page_and_lists_all_ids() -> None:
    page = run("explain", "shm-too-small").stdout.decode()
    listed = run("explain").stdout.decode()

    assert "## Fix" in page
    assert page.startswith("shm-too-small")
    assert "oomkilled-host" in listed
    assert "nccl-timeout-missing" in listed


@pytest.mark.parametrize("command", ["", "diagnose", "snapshot", "explain", "access"])
def test_every_command_has_help(command: str) -> None:
    done = run(*([command] if command else []), "--help")

    assert done.returncode == 0
    assert done.stdout.decode().startswith("Usage:")


def test_version() -> None:
    assert run("--version").stdout.decode().startswith("kubectl-llmdoctor 0.")


def test_secrets_in_a_snapshot_reach_no_output(tmp_path: Path) -> None:
    token = "hf_" + "AbCdEfGhIjKlMnOpQrStUvWxYz012345"
    tree = yaml.safe_load(CRASHED.read_text())
    container = tree["objects"][0]["spec"]["containers"][0]
    container["args"] += ["--hf-token", token]
    container["env"] = [{"name": "HF_TOKEN", "value": token}]
    tree["logs"][0]["text"] += f"using token {token}\n"
    path = tmp_path / "leaky.yaml"
    path.write_text(yaml.safe_dump(tree))
    done = run(
        "diagnose", "--from", str(path), "-o", "json", "-o", f"wide={tmp_path}/w", "--save", f"{tmp_path}/s.json"
    )

    assert done.returncode == 1
    for data in (done.stdout, (tmp_path / "w").read_bytes(), (tmp_path / "s.json").read_bytes()):
        assert token.encode() not in data


MANIFEST = """\
apiVersion: v1
kind: Service
metadata: {name: llama}
spec: {selector: {app: llama}, ports: [{port: 80, targetPort: 8000}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: llama}
spec:
  selector: {matchLabels: {app: llama}}
  template:
    metadata: {labels: {app: llama}}
    spec:
      containers:
      - name: vllm
        image: vllm/vllm-openai:v0.11.0
        args: [--model, mistralai/Mistral-7B-Instruct-v0.3, --max-model-len, "8192", -tp, "2"]
        resources: {limits: {nvidia.com/gpu: 2}}
"""


def test_lint_says_what_will_go_wrong_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "llama.yaml").write_text(MANIFEST)
    (tmp_path / "values.yaml").write_text("replicaCount: 1\n")
    done = run("lint", str(tmp_path), "-o", "json")
    tree = json.loads(done.stdout)
    (target,) = tree["targets"]
    (risk,) = [f for f in target["findings"] if f["role"] == "risk"]

    assert done.returncode == 1
    assert (target["apiVersion"], target["kind"], target["name"]) == ("apps/v1", "Deployment", "llama")
    assert target["engine"]["config"]["tensor_parallel_size"] == 2
    assert risk["id"] == "shm-too-small"
    assert risk["evidence"][0]["file"].endswith("llama.yaml")
    assert risk["evidence"][0]["line"] == 1 + MANIFEST.splitlines().index(
        '        args: [--model, mistralai/Mistral-7B-Instruct-v0.3, --max-model-len, "8192", -tp, "2"]'
    )
    assert "values.yaml" in tree["notRead"][0]["ref"]


def test_lint_from_standard_input_passes_when_nothing_is_wrong() -> None:
    fine = MANIFEST.replace(', -tp, "2"', "").replace("nvidia.com/gpu: 2", "nvidia.com/gpu: 1")
    done = run("lint", "-", stdin=fine.encode())

    assert done.returncode == 0
    assert "healthy" in done.stdout.decode()


def test_lint_of_what_cannot_be_read_gets_one_line() -> None:
    done = run("lint", "/no/such/folder")

    assert done.returncode == 2
    _one_line(done.stderr)


def test_a_component_is_written_into_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    file = tmp_path / "fix" / "kustomization.yaml"
    done = run("diagnose", "--from", str(CRASHED), "--fix-file", str(file))

    assert done.returncode == 1
    assert file.read_text().startswith("apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n")


def test_a_component_without_a_patch_says_that_it_changes_nothing(tmp_path: Path) -> None:
    case = CRASHED.parent.parent / "hf-unauthorized"
    without = min(case.glob("fires_*.yaml"))
    file = tmp_path / "kustomization.yaml"
    done = run("diagnose", "--from", str(without), "--fix-file", str(file))

    assert done.stderr.decode() == f"--fix-file: no fix is a patch, and {file} changes nothing\n"
    assert file.read_text().endswith("patch.\npatches: []\n")


def test_an_audit_of_standard_input_says_that_its_command_needs_the_same_input() -> None:
    text = run("audit", "--from", "-", stdin=CRASHED.read_bytes()).stdout.decode()

    assert "in full from the same input (all of them: -o wide):" in text
    assert "  kubectl llmdoctor diagnose --from - " in text
