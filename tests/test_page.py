"""The HTML report in a real browser: it shows, filters, and lets nothing in or out.

Skipped where there is no Chromium; `LLMDOCTOR_CHROMIUM_REQUIRED=1` makes that a failure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace

from kubectl_llmdoctor.report import document as doc
from kubectl_llmdoctor.report import html
from kubectl_llmdoctor.report.behind import behind
from kubectl_llmdoctor.report.document import Evidence, Fix, Report

from . import chromium
from .fleet import AUDIT, NODES, fleet
from .test_report_formats import MARKUP, SEVERAL
from .test_report_text import AT_RISK, HEALTHY, KV_CACHE, UNDETERMINED, cause, other, pod, report, reports

#: Attacks that run, ask for something, or leave their place in some context.
ATTACKS = (
    "<script>window.hit = 1</script>",
    "</script><script>window.hit = 1</script>",
    "</style><script>window.hit = 1</script>",
    "</title><script>window.hit = 1</script>",
    '"><img src=x onerror="window.hit = 1">',
    "' onmouseover='window.hit = 1' autofocus onfocus='window.hit = 1",
    "<svg onload=window.hit=1>",
    "<iframe srcdoc='<script>parent.hit = 1</script>'>",
    "<link rel=stylesheet href=http://example.org/x.css>",
    "<meta http-equiv=refresh content='0;url=http://example.org/'>",
    "<base href=http://example.org/>",
    "<form action=http://example.org/><input name=x>",
    "--><script>window.hit = 1</script><!--",
    "]]><script>window.hit = 1</script>",
    "javascript:window.hit=1",
    "&lt;script&gt;window.hit = 1&lt;/script&gt;",
)


def hostile(text: str) -> Report:
    """A report that says the text wherever it can."""
    evidence = (Evidence(source="log", ref=text, text=text, file=text, line=1),)
    fix = Fix(
        summary=text,
        commands=(text,),
        patch=doc.Patch(target=text, type="json", body=text, diff=(f"+ {text}", f"- {text}")),
        verified=doc.Verification(accepted=False, said=text),
    )
    finding = replace(cause(text, text, text + ".", evidence=evidence, fixes=(fix,)), docs=text, explains=(text,))
    engine = doc.EngineInfo(name=text, version=text, container=text, config={text: text})
    size = doc.Bytes(low=1, high=1 << 36, source=text)
    target = pod(
        text,
        "cause-found",
        workload=text,
        status=text,
        engine=engine,
        impact=text,
        memory=(doc.Memory(container=text, gpu=text, verdict="fits", total=size, weights=size, context=1),),
        changes=(doc.Change(at=text, what=text, text=text),),
        findings=(finding, other("risk", text, text, text + ".", evidence=evidence), other("note", text, text)),
        placement=(doc.Placement(nodes=(text,), fits=False, devices=text, reasons=(text,)),),
        suppressed=(doc.Suppressed(id=text, reason=text, where=text, until=text),),
        not_checked=(doc.NotChecked(id=text, reason=text),),
        next_steps=(text, f"kubectl {text}"),
    )
    holder = doc.Holder(namespace=text, workload=text, devices=2, idle=1)
    capacity = replace(
        AUDIT.cluster.capacity[0], product=text, resource=text, stranded={text: 1}, chunks={text: 1}, holders=(holder,)
    )
    changed = doc.Changed(target=text, id=text, role="cause", severity="critical", summary=text)
    return Report(
        tool_version=text,
        taken_at=text,
        targets=(replace(target, namespace=text), replace(HEALTHY, namespace=text, name=text, impact=text), AT_RISK),
        cluster=doc.Cluster(
            capacity=(capacity,),
            findings=(finding,),
            nodes=(replace(NODES[0], name=text, product=text, holders=(holder,), stranded=text),),
            engines=(doc.EngineVersion(name=text, version=text, workloads=(text,), vulnerabilities=(text,)),),
        ),
        comparison=doc.Comparison(taken_at=text, new=(changed,), fixed=(changed,)),
        not_read=(doc.NotRead(source=text, reason=text, ref=text),),
        not_checked=(doc.NotChecked(id=text, reason=text),),
        unused_suppressions=(doc.UnusedSuppression(id=text, where=text, reason=text),),
    )


# -- without a browser ------------------------------------------------------------------------------------------------

_ELEMENTS = frozenset(
    re.findall(
        r"\w+",
        "html head meta title style body a header h1 h2 h3 h4 p nav ul ol li b form div label input select option button "
        "main section span details summary strong code pre table caption thead tbody tr th td dl dt dd footer script "
        "svg path rect del ins",
    )
)


class _Reader(HTMLParser):
    """All elements with their attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag


@settings(max_examples=25)
@given(reports(MARKUP, MARKUP))
def test_nothing_in_a_report_becomes_an_element(document: Report) -> None:
    found = _Reader(html.render(document).decode()).found
    assert {tag for tag, _ in found} <= _ELEMENTS
    assert [tag for tag, _ in found if tag in ("script", "style")] == ["style", "script"]
    names = {name for _, attributes in found for name in attributes}
    assert not any(
        name.startswith("on") or name in ("style", "src", "srcset", "action", "formaction") for name in names
    )
    addresses = [a["href"] or "" for _, a in found if "href" in a]
    assert all(address.startswith(("#", "https://", "http://")) for address in addresses)


def test_only_the_web_is_linked() -> None:
    for url in ("javascript:alert(1)", "data:text/html,x", " https://example.org", "file:///etc/passwd", "//x"):
        found = replace(cause("x", "X", "x"), docs=url)
        text = html.render(report(pod("a", "cause-found", findings=(found,)))).decode()
        assert "About this check" not in text


def test_a_thousand_workloads_stay_below_two_megabytes() -> None:
    for document in (
        fleet(1000),
        fleet(1000, broken=600, at_risk=400, nodes=1000),
        fleet(5000, broken=0, at_risk=5000, nodes=1000),
    ):
        written = html.render(document)
        assert len(written) < (2_000_000 if len(document.targets) == 1000 else 4_000_000)
        names = re.findall(r"(?:llama-70b-0|mixtral-7d9f8c-x2k4p|qwen-6f7b9-abcde|qwen-0|phi)-\d{4}<", written.decode())
        assert len(set(names)) == sum(t.verdict != "healthy" for t in document.targets), "none is left out"


def test_the_overview_counts_what_is_behind() -> None:
    found = [(b.finding.id, len(b.failing), len(b.at_risk)) for b in behind(fleet(100, broken=10, at_risk=7).targets)]
    assert found == [
        ("gpu-fragmented", 3, 0),
        ("kv-cache-below-max-len", 3, 0),
        ("crash-loop", 2, 0),
        ("oom-weights-load", 2, 0),
        ("shm-too-small", 0, 7),
    ]


def test_of_workloads_of_which_the_same_is_said_the_first_is_unfolded() -> None:
    shared = cause("secret-missing", "A ConfigMap is not there", "ConfigMap defaults is not there.")
    other_one = cause("node-lost", "A node is lost", "gpu-1 is lost.")
    targets = [pod(name, "cause-found", findings=(shared,)) for name in "abcd"]

    text = html.render(report(*targets, pod("e", "cause-found", findings=(other_one,)))).decode()

    opened = re.findall(
        r"<details class=target(?:(?!data-fold)[^>])*><summary><h3>(?:\w+/)*(\w)</h3>", text.replace('"', "")
    )
    assert opened == ["a", "e"]


def test_a_healthy_verdict_hides_no_cause() -> None:
    text = html.render(report(pod("a", "healthy", findings=(cause("x", "It is broken", "x"),)))).decode()
    assert "<title>llmdoctor: 1 failing</title>" in text
    assert "<strong>It is broken</strong>" in text
    text = html.render(report(pod("a", "healthy", findings=(other("risk", "x", "It may break", "x"),)))).decode()
    assert "<title>llmdoctor: 1 at risk</title>" in text


def test_many_findings_of_one_cluster_are_folded_and_counted_with_the_rest() -> None:
    many = tuple(cause("node-lost", "A node is lost", f"gpu-{n} is lost.") for n in range(2000))
    text = html.render(replace(fleet(1000), cluster=doc.Cluster(findings=many))).decode()
    assert all(f"gpu-{n} is lost." in text for n in (0, 4, 5, 1999))
    assert len(text) < 2_000_000


# -- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[chromium.Browser]:
    executable = chromium.program()
    if executable is None:
        message = "no Chromium here: apt-get install chromium, or name one in CHROMIUM"
        if os.environ.get("LLMDOCTOR_CHROMIUM_REQUIRED") == "1":
            pytest.fail(message)
        pytest.skip(message)
    with chromium.Browser(executable) as started:
        yield started


@pytest.fixture
def load(browser: chromium.Browser, tmp_path: Path) -> Iterator[Any]:
    """Opens a report as a person would, from a file."""
    pages: list[chromium.Page] = []

    def opened(document: Report, **options: Any) -> chromium.Page:
        path = tmp_path / f"report-{len(pages)}.html"
        path.write_bytes(html.render(document))
        pages.append(browser.open(path, **options))
        return pages[-1]

    yield opened
    for page in pages:
        page.close()


def assert_clean(page: chromium.Page) -> None:
    """Nothing was reported, nothing was asked for but the file itself."""
    assert page.problems() == []
    assert len(page.requests()) == 1, page.requests()


VISIBLE = "[...document.querySelectorAll('[data-ns]')].filter(e => !e.hidden).length"
SAID = "document.getElementById('shown').textContent"
INPUT = """(async (id, value) => {
  const field = document.getElementById(id);
  field.value = value;
  field.dispatchEvent(new Event('input', {bubbles: true}));
  await new Promise(done => setTimeout(done, 200));
})"""


@pytest.mark.parametrize("options", [{}, {"dark": True}, {"width": 390}, {"script": False}], ids=str)
def test_it_shows_without_a_complaint(load: Any, options: dict[str, Any]) -> None:
    page = load(AUDIT, **options)
    assert page.run("document.title") == "llmdoctor: 4 failing, 1 at risk, 2 healthy"
    sections = page.run("[...document.querySelectorAll('main > section')].map(s => s.id)")
    assert sections == ["failing", "at-risk", "changed", "healthy", "capacity", "engines", "unseen", "decided"]
    assert page.run("document.documentElement.scrollWidth <= innerWidth"), "nothing is wider than the window"
    assert page.run("document.querySelectorAll('.map svg').length") == len(NODES)
    row = page.run("[...document.querySelectorAll('#capacity tbody tr')][0].innerText.trim().split(/\\s*\\t\\s*/)")
    chunks = "1 node with 2, 1 node with 3, 1 node with 8"
    assert row == ["NVIDIA H100 80GB HBM3", "4", "32", "31", "18", "4", "13", chunks, "8: cordoned"]
    assert_clean(page)


def test_without_javascript_everything_is_unfolded_and_no_control_is_dead(load: Any) -> None:
    page = load(AUDIT, script=False)
    assert page.run("document.querySelectorAll('details:not([open])').length") == 0
    shown = page.run("[...document.querySelectorAll('button, input, select')].filter(e => e.checkVisibility()).length")
    assert shown == 0


def test_the_cause_stands_first_and_what_matters_less_is_folded(load: Any) -> None:
    page = load(AUDIT)
    page.draw()
    first = page.run("document.querySelector('.target .row').innerText")
    assert first.startswith("Cause\n")
    assert "One request of the maximum length does not fit into the KV cache" in first
    assert page.run("[...document.querySelectorAll('details.target')].map(d => d.open)") == [True] * 3 + [False] * 2


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        ("f-ns", "=chat", 1),
        ("f-ns", "=serving", 6),
        ("f-severity", "=critical", 4),
        ("f-severity", "=warning", 5),
        ("f-id", "=shm-too-small", 2),
        ("f-id", "=gpu-fragmented", 1),
        ("f-text", "KV CACHE", 1),
        ("f-text", "mixtral drain", 1),
        ("f-text", "no such words", 0),
    ],
)
def test_filters(load: Any, field: str, value: str, left: int) -> None:
    page = load(AUDIT)
    page.run(f"{INPUT}('{field}', '{value}')")
    assert page.run(VISIBLE) == left
    assert page.run(SAID) == f"{left} of 7 workloads match"
    page.run("document.querySelector('[type=reset]').click()")
    page.run("new Promise(done => setTimeout(done, 50))")
    assert page.run(VISIBLE) == 7
    assert_clean(page)


def test_filters_narrow_together_and_count_their_section(load: Any) -> None:
    page = load(AUDIT)
    page.run(f"{INPUT}('f-ns', '=serving')")
    page.run(f"{INPUT}('f-severity', '=critical')")
    page.run(f"{INPUT}('f-text', 'sglang')")
    assert page.run(VISIBLE) == 1
    counts = page.run("[...document.querySelectorAll('[data-all]')].map(e => e.textContent)")
    assert counts == ["1 of 4", "0 of 1", "0 of 2", "36"]


def test_clusters_are_a_filter_where_there_are_several(load: Any) -> None:
    page = load(SEVERAL)
    assert page.run("[...document.getElementById('f-context').options].map(o => o.text)")[-1] == "eu (1)"
    page.run(f"{INPUT}('f-context', '=eu')")
    assert page.run(VISIBLE) == 1
    assert page.run("document.querySelector('#cluster h3').textContent") == "eu: cluster"
    assert_clean(page)


def test_an_id_of_the_overview_is_a_filter(load: Any) -> None:
    page = load(fleet(40, broken=8, at_risk=8))
    page.run("[...document.querySelectorAll('button.id')].find(b => b.textContent === 'gpu-fragmented').click()")
    assert page.run(VISIBLE) == 2
    assert page.run("document.activeElement.id") == "f-id"


def test_it_works_by_keyboard(load: Any) -> None:
    page = load(AUDIT)
    page.press("Tab", 9)
    assert page.run("document.activeElement.textContent") == "Skip to the report"
    assert page.run("document.activeElement.getBoundingClientRect().left >= 0"), "it shows when it has the focus"
    page.press("Enter", 13, "\r")
    assert page.run("document.activeElement.id") == "report"
    page.press("Tab", 9)
    assert page.run("document.activeElement.matches('details.target > summary')")
    outline = page.run("getComputedStyle(document.activeElement).outlineWidth")
    assert float(outline.removesuffix("px")) >= 2
    page.press("Enter", 13, "\r")
    assert page.run("document.querySelector('details.target').open") is False


def test_a_fix_is_copied_as_it_stands(load: Any, browser: chromium.Browser) -> None:
    script = "kubectl apply -f - <<'EOF'\nkind: Pod\n\n  x: <1> & 'y'\nEOF"
    fix = Fix(summary="Do it", commands=(script,))
    page = load(report(pod("a", "cause-found", findings=(cause("x", "X", "x", fixes=(fix,)),))))
    browser.call("Browser.grantPermissions", permissions=["clipboardReadWrite", "clipboardSanitizedWrite"])
    page.call("Page.bringToFront")
    page.run("document.querySelector('button.copy').click(), new Promise(done => setTimeout(done, 300))")
    assert page.run("document.querySelector('button.copy').textContent") == "Copied"
    assert page.run("navigator.clipboard.readText()") == script


def test_paper_shows_what_is_folded(load: Any) -> None:
    page = load(AUDIT)
    folded = page.run("document.querySelectorAll('details:not([open])').length")
    assert folded > 5
    page.run("dispatchEvent(new Event('beforeprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") == 0
    page.run("dispatchEvent(new Event('afterprint'))")
    assert page.run("document.querySelectorAll('details:not([open])').length") == folded
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.parametrize("attack", ATTACKS)
def test_injected_markup_stays_text(load: Any, attack: str) -> None:
    page = load(hostile(attack))
    page.run("document.getElementById('unfold').click(), new Promise(done => setTimeout(done, 100))")
    assert page.run("window.hit") is None
    assert page.run("document.scripts.length") == 1
    assert page.run("document.querySelectorAll('main img, iframe, link, base, object, embed, main form').length") == 0
    assert page.run("document.querySelector('.target .row strong').textContent") == attack
    assert page.run("document.querySelector('.command code').textContent") == attack
    assert page.run("document.querySelector('.evidence pre').textContent") == attack
    page.run(f"{INPUT}('f-text', 'x')")
    assert_clean(page)


def test_the_policy_holds_against_what_an_escape_would_let_through(browser: chromium.Browser, tmp_path: Path) -> None:
    """Even if a text became markup, it could neither run nor ask for anything."""
    attack = (
        "<script>window.hit = 1</script><img src=http://127.0.0.1:9/x onerror='window.hit = 1'>"
        "<link rel=stylesheet href=http://127.0.0.1:9/x><p style='color: red' onclick='window.hit = 1' id=p>x</p>"
        "<iframe src=http://127.0.0.1:9/></iframe><style>#p { background: url(http://127.0.0.1:9/) }</style>"
    )
    path = tmp_path / "page.html"
    path.write_bytes(html.render(AUDIT).replace(b"<main ", attack.encode() + b"<main ", 1))
    page = browser.open(path)
    page.run("document.getElementById('p').click(), new Promise(done => setTimeout(done, 200))")
    assert page.run("window.hit") is None
    refused = [p for p in page.problems() if "Content Security Policy" in p]
    assert len(refused) >= 6, page.problems()
    assert page.run("document.getElementById('filters').hidden") is False, "its own script still runs"
    page.close()


def test_a_thousand_workloads_are_usable_within_a_second(load: Any) -> None:
    # Processor time of the page's process, and the best of three, since other tests share the machine.
    seconds: list[float] = []
    while len(seconds) < 3 and min(seconds, default=1) >= 1:
        page = load(fleet(1000))
        page.call("Performance.enable")
        metrics = {m["name"]: m["value"] for m in page.call("Performance.getMetrics")["metrics"]}
        seconds.append(metrics["ProcessTime"])
    assert min(seconds) < 1, seconds
    took = page.run(f"""(async () => {{
      const began = performance.now();
      await {INPUT}('f-text', 'team-07');
      document.body.offsetHeight;
      return performance.now() - began - 200;
    }})()""")
    assert took < 1000
    assert page.run(VISIBLE) == 50


# -- for everybody ----------------------------------------------------------------------------------------------------

#: The lowest contrast of each kind of element: text of its own, or the fill of a shape, against what is behind it.
CONTRASTS = """(() => {
  const light = c => {
    const [r, g, b] = c.map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
    return .2126 * r + .7152 * g + .0722 * b;
  };
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
  };
  const found = {text: {}, shapes: {}};
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    const shape = e.matches('path, rect:not(.rest)');
    if (!(own || shape) || !e.checkVisibility() || e.matches('script, style, title')) continue;
    const front = parse(getComputedStyle(e)[shape ? 'fill' : 'color']).slice(0, 3);
    const [a, b] = [light(front), light(behind(shape ? e.parentElement : e).slice(0, 3))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const kind = found[shape ? 'shapes' : 'text'], name = e.tagName + '.' + e.getAttribute('class');
    kind[name] = Math.min(kind[name] ?? 21, ratio);
  }
  return found;
})()"""


@pytest.mark.parametrize("dark", [False, True])
def test_every_text_and_shape_has_contrast(load: Any, dark: bool) -> None:
    page = load(AUDIT, dark=dark)
    page.run("document.getElementById('unfold').click()")
    found = page.run(CONTRASTS)
    assert len(found["text"]) > 25
    assert len(found["shapes"]) > 7
    assert {name: ratio for name, ratio in found["text"].items() if ratio < 4.5} == {}
    assert {name: ratio for name, ratio in found["shapes"].items() if ratio < 3} == {}


def test_everything_has_a_name_and_a_place(load: Any) -> None:
    """What the browser hands to a screen reader."""
    page = load(AUDIT)
    page.run("document.getElementById('unfold').click()")
    page.draw()
    page.call("Accessibility.enable")
    nodes = [n for n in page.call("Accessibility.getFullAXTree")["nodes"] if not n.get("ignored")]
    by_role: dict[str, list[str]] = {}
    for node in nodes:
        by_role.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    for role in ("banner", "main", "contentinfo", "navigation", "search"):
        assert len(by_role[role]) == 1, role
    for role in ("button", "link", "searchbox", "combobox", "table", "columnheader", "heading", "image", "region"):
        names = by_role.get(role, by_role.get("img" if role == "image" else role, []))
        assert names, role
        assert all(names), role
    assert any(name.startswith("gpu-a-001: 8 GPUs, 2 in use, 4 held, idle, 2 free") for name in by_role["image"])
    assert "serving/llama-70b-0 cause found" in by_role["DisclosureTriangle"]
    assert page.run("new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size") == page.run(
        "document.querySelectorAll('[id]').length"
    ), "ids are unique"
    widths = page.run(
        "[...document.querySelectorAll('table')].map(t => new Set([...t.rows].map(r => r.cells.length)).size)"
    )
    assert set(widths) == {1}, "every cell has a heading"
    levels = page.run("[...document.querySelectorAll('h1, h2, h3, h4')].map(h => +h.tagName[1])")
    assert levels.count(1) == 1
    assert all(below <= above + 1 for above, below in pairwise(levels)), "no level is skipped"
    assert page.run("document.documentElement.lang") == "en"
    targets = page.run(
        "[...document.querySelectorAll('nav a')].filter(a => !document.querySelector(a.getAttribute('href'))).length"
    )
    assert targets == 0, "every link of the page leads somewhere"


def test_small_reports_show_everything_at_once(load: Any) -> None:
    page = load(report(UNDETERMINED))
    page.draw()
    assert page.run("document.querySelectorAll('#filters').length") == 0
    assert "The cause is not determined" in page.run("document.querySelector('.target').innerText")
    assert page.run("document.querySelectorAll('.command').length") == 1
    assert_clean(page)
    assert_clean(load(report()))
    assert_clean(load(report(KV_CACHE)))
