"""Every case gives what it expects, and what it advises fits: each is judged once, for all that is asked of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from kubectl_llmdoctor.report.document import Fix, Report
from kubectl_llmdoctor.testing import Case, complaints, diagnose_case, find_cases, load_case
from tests.patching import patched

CASES = Path(__file__).parents[1] / "checks" / "cases"

Judged = tuple[Case, Report]


@pytest.fixture(scope="module", params=find_cases(CASES), ids=lambda path: f"{path.parent.name}/{path.stem}")
def judged(request: pytest.FixtureRequest) -> Judged:
    """A case with its report."""
    case = load_case(request.param)
    return case, diagnose_case(case)


def test_it_gives_what_it_expects(judged: Judged) -> None:
    case, report = judged

    assert complaints(case, report) == []
    assert list(_slips(report)) == []


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


def test_its_patches_apply_and_its_commands_carry_them(judged: Judged) -> None:
    case, report = judged
    for id, fix in _patches(report):
        assert fix.patch
        after = patched(case.snapshot, fix.patch)

        assert after, f"{fix.patch.target} is not in the case"
        if fix.patch.type == "json" and fix.commands:  # a file of manifests has none
            (command,) = (command for command in fix.commands if " --type=json -p " in command)
            assert msgspec.json.decode(shlex.split(command)[-1]) == fix.patch.body
        if report.taken_at is None and id == case.id and case.fires:
            again = diagnose_case(replace(case, snapshot=after))
            roles = {f.id: f.role for t in again.targets for f in t.findings}
            assert roles.get(id) not in ("cause", "risk"), f"{id} is still there after {fix.patch.body}"


def test_no_patch_adds_what_baseline_forbids(judged: Judged) -> None:
    for _, fix in _patches(judged[1]):
        assert fix.patch
        for operation in fix.patch.body if fix.patch.type == "json" else ():
            if operation["op"] == "remove":
                continue
            added = msgspec.json.encode({operation["path"].rpartition("/")[2]: operation["value"]}).decode()
            for forbidden in ('"hostPath":{', '"hostPort":', '"privileged":true', '"runAsUser":0'):
                assert forbidden not in added
            for name in ("hostIPC", "hostPID", "hostNetwork"):
                assert f'"{name}":true' not in added
            assert "/capabilities/add" not in operation["path"]
            assert '"capabilities":{"add"' not in added


def _patches(report: Report) -> list[tuple[str, Fix]]:
    """The fixes with a patch, each with the id of its finding."""
    findings = [finding for target in report.targets for finding in target.findings]
    return [(finding.id, fix) for finding in findings for fix in finding.fixes if fix.patch]
