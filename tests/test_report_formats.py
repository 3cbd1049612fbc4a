"""Markdown and policy reports: whole outputs as files, and what must hold for any report, however hostile.

`UPDATE_GOLDEN=1 pytest tests/test_report_formats.py` rewrites the files under `tests/golden`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token
from msgspec.structs import replace

from kubectl_llmdoctor.cli.output import render
from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report import html, junit, markdown, policyreport, sarif
from kubectl_llmdoctor.report.document import Evidence, Fix, Report

from .fleet import AUDIT, fleet
from .program import run
from .test_report_text import HOSTILE, KV_CACHE, NOW, PENDING, cause, other, pod, report, reports

GOLDEN = Path(__file__).parent / "golden"


def _page(document: Report) -> bytes:
    """The HTML without the style and the script, which are the same in every report."""
    written = html.render(document)
    for name in ("page.css", "page.js"):
        written = written.replace(Path(html.__file__).with_name(name).read_bytes(), name.encode())
    return written


FORMATS: dict[str, tuple[Callable[[Report], bytes], str]] = {
    "markdown": (markdown.render, "md"),
    "html": (_page, "html"),
    "policyreport": (policyreport.render, "json"),
}
CASES = {"kv-cache": report(KV_CACHE), "audit": AUDIT}

#: Text that means something to a browser, to Markdown, or to a platform that shows it.
MARKUP = st.text(alphabet=st.sampled_from("`*_[]()<>!#|~@&;:/-+=.1\n\\ ${}aw'\""), max_size=40) | st.sampled_from(
    (
        "<script>alert(1)</script>",
        "</script><script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "[click](javascript:alert(1))",
        "![x](https://example.org/x.png)",
        "@channel #42 GH-7 https://example.org www.example.org",
        "```\n# out\n```",
        "| a | b |\n| - | - |",
        "<!channel> &lt;b&gt; &#x3c;",
        "__init__ and *a* and ~~b~~ and a_b_c",
        "- [ ] task\n1. one\n> quote\n# title\n---\n===",
    )
)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", CASES)
def test_the_whole_output(form: str, name: str) -> None:
    write, suffix = FORMATS[form]
    written = write(CASES[name])
    path = GOLDEN / form / f"{name}.{suffix}"
    if os.environ.get("UPDATE_GOLDEN"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(written)
    assert written == path.read_bytes()


@pytest.mark.parametrize("form", FORMATS)
def test_every_golden_file_has_a_case(form: str) -> None:
    assert {path.stem for path in (GOLDEN / form).glob("*")} == set(CASES)


@pytest.mark.parametrize("form", FORMATS)
@settings(max_examples=15)
@given(document=reports(HOSTILE | MARKUP, HOSTILE | MARKUP))
def test_any_report_can_be_written_and_twice_the_same(form: str, document: Report) -> None:
    write, _ = FORMATS[form]
    written = write(document)
    assert written == write(document)
    assert written.endswith(b"\n")
    shown = "".join(c for c in written.decode() if c not in "\n" + markdown._WORD_JOINER)
    assert shown.isprintable()


# -- Markdown ---------------------------------------------------------------------------------------------------------

PARSER = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


def tokens(text: str) -> list[Token]:
    """All tokens, those inside of lines too."""
    return [t for token in PARSER.parse(text) for t in (token, *(token.children or ()))]


@settings(max_examples=40)
@given(reports(MARKUP, MARKUP))
def test_nothing_in_a_report_becomes_markup(document: Report) -> None:
    text = markdown.render(document).decode()
    found = tokens(text)
    assert {t.type for t in found} <= {
        *("paragraph_open", "paragraph_close", "inline", "text", "text_special", "softbreak", "fence", "code_inline"),
        *("heading_open", "heading_close", "bullet_list_open", "bullet_list_close"),
        *("list_item_open", "list_item_close", "strong_open", "strong_close"),
    }
    assert {t.tag for t in found if t.type == "heading_open"} <= {"h2"}
    # platforms make mentions, references and links of the text that is shown
    for token in found:
        if token.type in ("text", "text_special"):
            assert not re.search(r"@\w|#\d|\bGH-\d|://|\bwww\.", token.content)
    assert len(text) <= markdown.MOST


@given(MARKUP)
def test_prose_reads_as_it_was_written(text: str) -> None:
    (inline,) = [t for t in PARSER.parse(f"- {markdown.prose(text, 500)}x") if t.type == "inline"]
    shown = "".join(t.content for t in inline.children or ()).replace(markdown._WORD_JOINER, "")
    assert shown == " ".join(text.split()) + "x"


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("2026-11-20T10:00:00Z", "2026-11-20T10:00:00Z"),
        ("1. one", "1\\. one"),
        ("0.9.1 is old", "0.9.1 is old"),
        ("- x", "\\- x"),
        ("max_model_len of __init__", "max_model_len of \\_\\_init\\_\\_"),
        ("mail a@b", "mail a@\u2060b"),
        ("see #42", "see #\u206042"),
        ("a | b <b>", "a \\| b \\<b\\>"),
    ],
)
def test_prose_is_escaped_no_more_than_it_must(text: str, written: str) -> None:
    assert markdown.prose(text) == written


@given(MARKUP)
def test_quotations_are_word_for_word(text: str) -> None:
    (block,) = PARSER.parse(markdown.fence(text, 500))
    rows = text.replace("\r\n", "\n").strip("\n").split("\n")
    assert block.type == "fence"
    assert block.content == "\n".join(row.rstrip() for row in rows) + "\n"


def test_a_command_is_whole_or_not_there() -> None:
    short, long = "kubectl get pods", "kubectl patch x -p '" + "y" * 5000 + "'"
    fixes = (Fix(summary="Do it", commands=(short,)),)
    text = markdown.render(report(pod("a", "cause-found", findings=(cause("x", "X", "x", fixes=fixes),)))).decode()
    assert f"```\n{short}\n```" in text
    fixes = (Fix(summary="Do it", commands=(long,)),)
    text = markdown.render(report(pod("a", "cause-found", findings=(cause("x", "X", "x", fixes=fixes),)))).decode()
    assert "too long for this place" in text
    assert "yyy" not in text


def test_what_does_not_fit_is_one_line_or_counted() -> None:
    text = markdown.render(fleet(1000)).decode()
    assert len(text) <= markdown.MOST
    assert text.startswith("**1000 workloads: 38 cause found, 12 cause not determined, 400 at risk, 550 healthy**")
    assert "\n- Enough GPUs are free, but on no single node (`gpu-fragmented`): 13 failing\n" in text
    listed, more = text.count("\n- `team-") + text.count("\n- `Deployment team-"), re.search(r"\n- (\d+) more", text)
    assert more
    alike = sum(map(int, re.findall(r"The same holds for (\d+) other", text)))
    assert text.count("\n## `") + alike + listed + int(more[1]) == 1000
    assert text.count("```") % 2 == 0
    assert "**GPU capacity:**" in text


# -- policy reports ---------------------------------------------------------------------------------------------------


def objects(document: Report) -> list[dict[str, Any]]:
    items: list[dict[str, Any]] = json.loads(policyreport.render(document))["items"]
    return items


def test_each_namespace_has_one_object_and_the_cluster_another() -> None:
    chat, serving, cluster = objects(AUDIT)
    assert [o["kind"] for o in (chat, serving, cluster)] == ["Report", "Report", "ClusterReport"]
    assert [o["metadata"].get("namespace") for o in (chat, serving, cluster)] == ["chat", "serving", None]
    assert chat["summary"] == {"fail": 0, "warn": 0, "error": 0, "skip": 0, "pass": 1}
    first = serving["results"][0]
    assert (first["policy"], first["result"], first["severity"]) == ("kv-cache-below-max-len", "fail", "critical")
    assert first["resources"] == [{"apiVersion": "v1", "kind": "Pod", "namespace": "serving", "name": "llama-70b-0"}]
    assert first["timestamp"] == {"seconds": 1795168800, "nanos": 0}
    assert [r["policy"] for r in cluster["results"]] == ["not-read"] * 3


def test_what_was_not_judged_is_neither_passed_nor_failed() -> None:
    (serving, _) = objects(report(KV_CACHE))
    (result,) = [r for r in serving["results"] if r["policy"] == "not-checked"]
    assert result["result"] == "skip"
    assert result["message"].startswith("3 checks could not judge. ecc-uncorrectable: no node agent")


def test_suppressed_and_known_findings_are_skipped() -> None:
    known = (doc.Known(id="api-exposed", role="risk", severity="warning"),)
    (serving, _) = objects(report(pod("a", "healthy", known=known)))
    assert [(r["policy"], r["result"]) for r in serving["results"]] == [("api-exposed", "skip")]


def test_an_object_stays_below_what_etcd_takes() -> None:
    evidence = (Evidence(source="log", ref="vllm", text="模" * 5000, line=1),)
    risks = tuple(other("risk", f"risk-{n}", "R", "模" * 5000, evidence=evidence) for n in range(900))
    broken = pod("z", "cause-found", findings=(*risks, cause("x", "X", "x")))
    (serving, _) = objects(report(broken))
    assert len(json.dumps(serving, ensure_ascii=False).encode()) < 1_100_000
    assert serving["summary"]["warn"] == 900
    assert serving["results"][0]["policy"] == "x", "the worst is kept"
    assert serving["results"][-1]["message"].startswith(f"{901 - len(serving['results']) + 1} more results")


def test_the_results_are_bounded() -> None:
    targets = tuple(pod(f"p-{n}", "at-risk", findings=(other("risk", "r", "R", "r"),)) for n in range(1500))
    (serving, _) = objects(report(*targets))
    assert len(serving["results"]) == policyreport.MOST_RESULTS == serving["configuration"]["limits"]["maxResults"]
    assert serving["results"][-1]["message"].startswith("501 more results")


def test_without_a_time_there_is_no_timestamp() -> None:
    for taken_at in (None, "soon"):
        assert "timestamp" not in policyreport.render(report(PENDING, taken_at=taken_at)).decode()
    assert "timestamp" in policyreport.render(report(PENDING, taken_at=NOW)).decode()


# -- what other formats say of an audit -----------------------------------------------------------------------------


def test_what_was_not_read_is_a_skipped_test() -> None:
    root = Xml.fromstring(junit.render(AUDIT))
    suite = root.findall("testsuite")[-1]
    assert (suite.get("name"), suite.get("skipped"), suite.get("tests")) == ("not read", "3", "3")
    assert suite.findall("testcase/skipped")[2].get("message", "").startswith("forbidden: User")
    assert root.get("failures") == str(sum(f.role != "note" for t in AUDIT.targets for f in t.findings))


def test_a_fingerprint_outlives_the_pods() -> None:
    def fingerprints(name: str) -> list[str]:
        (run,) = json.loads(sarif.render(report(replace(PENDING, name=name))))["runs"]
        return [result["partialFingerprints"]["targetAndRule/v1"] for result in run["results"]]

    assert fingerprints("mixtral-1") == fingerprints("mixtral-2")
    assert fingerprints("mixtral-1")[0] == "Deployment serving/mixtral gpu-fragmented"


@pytest.mark.parametrize("form", ["markdown", "html", "sarif", "github", "policyreport"])
def test_a_broken_check_of_a_healthy_pod_is_said(form: str) -> None:
    failed = doc.NotChecked(id="shm-too-small", reason="broken check: KeyError: 'x'")
    assert "broken check" in render(report(pod("a", "healthy", not_checked=(failed,))), form).decode()


# -- several clusters -------------------------------------------------------------------------------------------------

ONE = pod("a", "cause-found", findings=(cause("x", "X", "x"),))
SEVERAL = report(
    replace(ONE, context="eu"),
    replace(ONE, context="arn:aws:eks:us-east-1:1:cluster/Main"),
    cluster=doc.Cluster(
        capacity=(replace(AUDIT.cluster.capacity[0], context="eu"),),
        findings=(replace(other("risk", "driver-old", "The driver is old", "535 is old."), context="eu"),),
    ),
)


@pytest.mark.parametrize("form", ["markdown", "html", "sarif", "junit", "github"])
def test_the_cluster_is_named_where_there_are_several(form: str) -> None:
    written = render(SEVERAL, form).decode()
    assert written.count("eu: ") >= 2
    assert "arn:aws:eks:us-east-1:1:cluster/Main: " in written.replace(markdown._WORD_JOINER, "")


def test_objects_of_several_clusters_do_not_replace_each_other() -> None:
    found = [(o["kind"], o["metadata"]["name"]) for o in objects(SEVERAL)]
    other_name = "llmdoctor-arn-aws-eks-us-east-1-1-cluster-main-2a19a835"
    assert found == [
        ("Report", other_name),
        ("Report", "llmdoctor-eu"),
        ("ClusterReport", "llmdoctor"),
        ("ClusterReport", other_name),
        ("ClusterReport", "llmdoctor-eu"),
    ]
    names = [
        o["metadata"]["name"]
        for c in ("A" * 300, "é", "\ud800", "--")
        for o in objects(report(replace(ONE, context=c), not_read=()))
    ]
    assert len(set(names)) == 4
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?", name) for name in names)


# -- by the program ---------------------------------------------------------------------------------------------------


def test_the_program_writes_them_all_at_once_and_always_the_same(tmp_path: Path) -> None:
    suffixes = {"html": "html", "markdown": "md", "policyreport": "json"}
    for seed in ("0", "77"):
        (tmp_path / seed).mkdir()
        outputs = [f"-o{form}={tmp_path / seed / f'report.{suffix}'}" for form, suffix in suffixes.items()]
        done = run("diagnose", "--from", "docs/demo.yaml", *outputs, PYTHONHASHSEED=seed)
        assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"")
    for suffix in suffixes.values():
        first, second = ((tmp_path / seed / f"report.{suffix}").read_bytes() for seed in ("0", "77"))
        assert first == second
        assert b"27840" in first, "the numbers of this very case"
