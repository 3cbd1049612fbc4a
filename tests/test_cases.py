"""Every case gives what it expects, and what it advises fits: each is judged once, for all that is asked of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kubectl_llmdoctor.report.document import Fix, Patch, Report
from kubectl_llmdoctor.snapshot import Snapshot
from kubectl_llmdoctor.testing import Case, complaints, diagnose_case, find_cases, load_case
from tests import schemas
from tests.patching import patched

CASES = Path(__file__).parents[1] / "checks" / "cases"


@pytest.mark.parametrize("path", find_cases(CASES), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_case(path: Path) -> None:
    """One test for all of it: a case is read and diagnosed once, and five thousand tests cost a minute by themselves."""
    case = load_case(path)
    report = diagnose_case(case)

    assert complaints(case, report) == []
    assert list(_slips(report)) == []
    for id, fix, patch in _patches(report):
        _applies(case, report, id, fix, patch)
        _is_allowed_by_baseline(patch)
    for raw, patch in schemas.patches(case.snapshot.objects, report):
        assert schemas.misfits(raw, patch) == [], patch


def test_each_key_of_a_case_is_one_that_is_read_and_stands_once() -> None:
    known = {"expect", "says", *(field.encode_name for field in msgspec.structs.fields(Snapshot))}
    keys = {path: re.findall(r"^(\w+):", path.read_text(encoding="utf-8"), re.MULTILINE) for path in find_cases(CASES)}

    assert [
        path.stem for path, found in keys.items() if not known.issuperset(found) or len(set(found)) < len(found)
    ] == []


def test_a_command_names_the_server_that_a_client_asks() -> None:
    """A shell must not get where it runs as one word."""
    report = diagnose_case(load_case(CASES / "served-model-name-mismatch" / "fires_told_to_an_agent_by_ollama.yaml"))

    (fix, *_) = report.targets[0].findings[0].fixes
    assert fix.commands[-1] == "kubectl -n serving exec ollama-0 -c ollama -- ollama pull qwen3:8b"


@pytest.mark.parametrize(
    ("case", "last"),
    [
        ("dra-claim-pending/fires_devices_that_share_no_root", "kubectl -n llm delete pod qwen-dfd7955-29p8s"),
        ("dra-claim-pending/fires_more_devices_than_a_node_has", "kubectl -n llm patch deployment/vllm"),
        ("dra-claim-pending/fires_constraint_of_a_claim_of_its_own", "echo "),
        ("node-selector-mismatch/fires_selector_of_a_runtime_class", "kubectl -n llm delete pod"),
    ],
)
def test_a_pod_that_keeps_what_it_was_made_with_is_made_again(case: str, last: str) -> None:
    """What admission wrote into a pod, and the claim that was made for it, do not follow what they were taken from."""
    report = diagnose_case(load_case((CASES / case).with_suffix(".yaml")))

    (fix, *_) = report.targets[0].findings[0].fixes
    assert fix.commands[-1].startswith(last)


@pytest.mark.parametrize(
    ("case", "commands"),
    [
        ("nccl-other/fires_gloo_rank_not_connected", ["kubectl -n serving delete pod llm-0"]),
        (
            "hf-unauthorized/fires_token_of_the_server_alone",
            ["kubectl -n serving edit serviceaccount default", "kubectl -n serving delete pod llm-0"],
        ),
    ],
)
def test_a_bare_pod_is_made_again_and_other_objects_are_edited(case: str, commands: list[str]) -> None:
    """`kubectl rollout restart` knows no pods, and what a bare pod does not take is taken by other objects."""
    report = diagnose_case(load_case((CASES / case).with_suffix(".yaml")))

    (fix, *_) = report.targets[0].findings[0].fixes
    assert list(fix.commands) == commands


def test_no_second_replica_is_asked_for_where_one_node_has_the_volume() -> None:
    report = diagnose_case(load_case(CASES / "node-drained" / "fires_risk_claim_of_one_node.yaml"))

    (fix,) = report.targets[0].findings[0].fixes
    assert fix.summary.startswith("Have the autoscaler leave its node")


#: What is said of one thing as of many, a name that was not filled in, and an alternative called one twice.
_SLIP = re.compile(
    r"(?<![\w.-])(?<!of )1 (?:(?:other|more|free) )?(?:GPUs|nodes|pods|replicas|requests|times|tokens|devices)\b"
    r"|(?<![\w.-])(?<!of )1 (?:node|pod|GPU|replica|request) (?:\([^)]*\) )?(?:are|have|do|were)\b"
    r"|(?<!node)(?<!pod)\(s\)|\S  \S| [?;,]|: \.(?:\s|$)|^[Oo]r "
)


def _slips(report: Report) -> Iterator[str]:
    """Sentences of a report that were put together badly; what a cluster printed is quoted as it is."""
    for finding in (f for target in report.targets for f in target.findings):
        for text in (finding.title, finding.summary, *(fix.summary for fix in finding.fixes)):
            if _SLIP.search(text):
                yield f"{finding.id}: {text}"


def _applies(case: Case, report: Report, id: str, fix: Fix, patch: Patch) -> None:
    """The case has the object, the command carries the patch, and what it mends is then no finding."""
    after = patched(case.snapshot, patch)

    assert after, f"{patch.target} is not in the case"
    if patch.type == "json" and fix.commands:  # a file of manifests has none
        (command,) = (command for command in fix.commands if " --type=json -p " in command)
        assert msgspec.json.decode(shlex.split(command)[-1]) == patch.body
    if report.taken_at is None and id == case.id and case.fires:
        again = diagnose_case(replace(case, snapshot=after))
        roles = {f.id: f.role for t in again.targets for f in t.findings}
        assert roles.get(id) not in ("cause", "risk"), f"{id} is still there after {patch.body}"


def _is_allowed_by_baseline(patch: Patch) -> None:
    """No patch adds what the Pod Security Standard Baseline forbids."""
    for operation in patch.body if patch.type == "json" else ():
        if operation["op"] == "remove":
            continue
        added = msgspec.json.encode({operation["path"].rpartition("/")[2]: operation["value"]}).decode()
        for forbidden in ('"hostPath":{', '"hostPort":', '"privileged":true', '"runAsUser":0'):
            assert forbidden not in added
        for name in ("hostIPC", "hostPID", "hostNetwork"):
            assert f'"{name}":true' not in added
        assert "/capabilities/add" not in operation["path"]
        assert '"capabilities":{"add"' not in added


def _patches(report: Report) -> Iterator[tuple[str, Fix, Patch]]:
    """The fixes with a patch, each with the id of its finding."""
    findings = [finding for target in report.targets for finding in target.findings]
    for finding in findings:
        for fix in finding.fixes:
            if fix.patch:
                yield finding.id, fix, fix.patch
