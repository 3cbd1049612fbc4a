"""The documentation says what the program does: generated pages are current, links work, nothing is missing."""

from __future__ import annotations

import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import click
import pytest
import yaml

from kubectl_llmdoctor.advice.declared import Condition
from kubectl_llmdoctor.check import Check, verified
from kubectl_llmdoctor.cli import COMMANDS, cli
from kubectl_llmdoctor.diagnosis import diagnose
from kubectl_llmdoctor.gather.access import RULES
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.gather.kinds import KINDS
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.signatures.check import as_check
from kubectl_llmdoctor.signatures.declared import parse
from kubectl_llmdoctor.signatures.wording import matching

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), *sorted(ROOT.glob("*.md"))]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


# --- generated pages --------------------------------------------------------------------------------------------------


def test_generated_pages_are_current() -> None:
    wrong = [_name(path) for path in _generator().outdated()]

    assert wrong == [], "run `make docs`"


def test_every_check_stands_in_the_docs() -> None:
    index = (DOCS / "checks" / "README.md").read_text(encoding="utf-8")
    checks = [check for check in installed() if check.pack == "built-in"]

    assert checks
    assert [c.id for c in checks if not (DOCS / "checks" / f"{c.id}.md").is_file()] == []
    assert [c.id for c in checks if f"({c.id}.md)" not in index] == []


def test_the_picture_loads_nothing_from_elsewhere() -> None:
    svg = (DOCS / "picture.svg").read_text(encoding="utf-8")

    assert "url(" not in svg.replace("url(#", "")
    assert set(re.findall(r"https?://[^\s\"<]+", svg)) <= {"http://www.w3.org/2000/svg", "https://www.textualize.io"}


# --- links ------------------------------------------------------------------------------------------------------------


def _prose(path: Path) -> str:
    """A page without its code."""
    text = re.sub(r"(?ms)^(```|~~~).*?^\1$", "", path.read_text(encoding="utf-8"))
    return re.sub(r"`[^`\n]*`", "", text)


def _anchors(path: Path) -> set[str]:
    titles = re.findall(r"(?m)^#+ (.*)$", path.read_text(encoding="utf-8"))
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", _prose(page)):
        path, _, anchor = target.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(target)

    assert broken == []


# --- commands ---------------------------------------------------------------------------------------------------------


def _commands() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli, info_name="kubectl llmdoctor")
    yield "", cli
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command
        yield name, command
        for part, below in command.commands.items() if isinstance(command, click.Group) else ():
            yield f"{name} {part}", below


def test_every_command_and_option_is_documented() -> None:
    text = (DOCS / "usage.md").read_text(encoding="utf-8") + (DOCS / "help.md").read_text(encoding="utf-8")
    names = [f"kubectl llmdoctor {name}" for name, _ in _commands() if name]
    names += [option for _, command in _commands() for p in command.params for option in p.opts if option[0] == "-"]

    assert [name for name in names if not re.search(rf"{re.escape(name)}(?![\w-])", text)] == []


def _shown() -> Iterator[tuple[str, list[str]]]:
    """Every `kubectl llmdoctor …` of the documentation, as words."""
    for page in PAGES:
        for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", page.read_text(encoding="utf-8")):
            for line in block.splitlines():
                words = shlex.shlex(line, posix=True, punctuation_chars="|&")
                words.whitespace_split = True
                for part in " ".join(map(shlex.quote, words)).replace("'|'", "'&&'").split("'&&'"):
                    command = shlex.split(part)
                    if command[:2] == ["kubectl", "llmdoctor"]:
                        yield f"{_name(page)}: {part.strip()}", command[2:]


def test_every_command_line_in_the_docs_is_valid() -> None:
    known = dict(_commands())
    wrong = []
    for where, words in _shown():
        if words in ([], ["--version"], ["--help"]):
            continue
        depth = 2 if isinstance(known.get(words[0]), click.Group) and words[1:] else 1
        command = known.get(" ".join(words[:depth]))
        if command is None:
            wrong.append(where)
            continue
        try:
            command.make_context(words[0], words[depth:])
        except click.exceptions.Exit:  # --help
            continue
        except click.ClickException as error:
            wrong.append(f"{where}: {error.format_message()}")

    assert len(list(_shown())) > 20
    assert wrong == []


def test_make_targets_in_the_docs_exist() -> None:
    targets = set(re.findall(r"(?m)^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8")))
    named = {name for page in PAGES for name in re.findall(r"`?\bmake ([a-z0-9-]+)`", page.read_text(encoding="utf-8"))}
    named |= {
        name
        for page in PAGES
        for block in re.findall(r"(?ms)^```sh\n(.*?)^```$", page.read_text(encoding="utf-8"))
        for name in re.findall(r"(?m)^make ([a-z0-9-]+)", block)
    }

    assert {"demo", "test"} <= named
    assert named - targets == set()


# --- access -----------------------------------------------------------------------------------------------------------


def _granted(*, whole_cluster: bool = False) -> dict[tuple[str, str], set[str]]:
    """What the ClusterRoles of access.md allow: verbs by group and resource; the second one is bound per namespace."""
    text = (DOCS / "access.md").read_text(encoding="utf-8")
    roles: list[dict[str, Any]] = [yaml.safe_load(block) for block in re.findall(r"(?ms)^```yaml\n(.*?)^```$", text)]
    granted: dict[tuple[str, str], set[str]] = {}
    for rule in (rule for role in (roles[:1] if whole_cluster else roles) for rule in role["rules"]):
        for group in rule["apiGroups"]:
            for resource in rule["resources"]:
                granted.setdefault((group, resource), set()).update(rule["verbs"])
    return granted


def test_the_role_grants_what_access_asks_for() -> None:
    granted = _granted()
    lacking = []
    for rule in RULES:
        resource = rule.resource.partition(" ")[0]
        # what a rule of another namespace asks for is granted by that namespace's own Role
        if (
            resource != "secrets"
            and not rule.namespace
            and not set(rule.verbs) <= granted.get((rule.group, resource), set())
        ):
            lacking.append((rule.resource, rule.verbs))

    assert lacking == []


def test_the_role_grants_every_kind_that_is_gathered() -> None:
    granted = _granted()

    assert [k.resource for k in KINDS if k.kind != "Secret" and (k.group, k.plural) not in granted] == []


def test_every_rule_has_its_reason_and_its_loss() -> None:
    """One row each; custom resources, which lead to pods, share one."""
    text = (DOCS / "access.md").read_text(encoding="utf-8").partition("## Each rule")[2]
    rows = [line.split(" | ") for line in re.findall(r"(?m)^\| (?!rule|---)(.*) \|$", text)]
    named = {word for row in rows for word in re.findall(r"[a-z]+(?:/[a-z]+)?", row[0])}

    assert all(len(row) == 3 for row in rows)
    plain = {resource for group, resource in _granted() if "." not in group or group.endswith(".k8s.io")}
    assert plain - named == set()


def test_the_role_grants_nothing_dangerous() -> None:
    granted = _granted()

    assert {verb for verbs in granted.values() for verb in verbs} <= {"get", "list"}
    resources = {resource for _, resource in granted}
    assert not resources & {"secrets", "*", "nodes/proxy", "pods/exec", "pods/attach", "pods/portforward"}
    # whoever may ask every pod may also ask every node agent
    assert not {resource for _, resource in _granted(whole_cluster=True)} & {"pods/proxy", "services/proxy"}


# --- writing a check ---------------------------------------------------------------------------------------------------


def _examples(language: str) -> list[str]:
    text = (DOCS / "writing-a-check.md").read_text(encoding="utf-8")
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", text)


def test_each_condition_of_a_fix_is_explained() -> None:
    text = (DOCS / "writing-a-check.md").read_text(encoding="utf-8")
    explained = re.findall(r"(?m)^\| ([^|]*) \|", text.partition("### Conditions")[2])

    assert [name for name in get_args(Condition) if not any(f"`{name}`" in cell for cell in explained)] == []


def test_the_example_of_a_signature_works(tmp_path: Path) -> None:
    text, case = _examples("yaml")
    signature = parse(yaml.safe_load(text), stem="too_many_open_files")
    path = tmp_path / "fires_first.yaml"
    path.write_text(case, encoding="utf-8")

    report = diagnose(load(str(path)), [as_check(signature, family="start", where="docs")])

    assert all(matching(signature, line) for line in signature.matches)
    assert not any(matching(signature, line) for line in signature.ignores)
    assert [(f.id, f.role) for t in report.targets for f in t.findings] == [("too-many-open-files", "cause")]


def test_the_example_of_a_function_works(tmp_path: Path) -> None:
    (text,) = _examples("python")
    module: dict[str, Any] = {}
    exec(compile(text, "memory/swap_space_exceeds_limit.py", "exec"), module)
    check = module["swap_space_exceeds_limit"]
    assert isinstance(check, Check)
    manifest = yaml.safe_load((ROOT / "tests" / "guide" / "lab" / "vllm.yaml").read_text("utf-8").partition("---\n")[0])
    manifest["spec"]["template"]["spec"]["containers"][0]["args"].append("--swap-space=64")
    path = tmp_path / "manifest.yaml"
    path.write_text(yaml.safe_dump(manifest), encoding="utf-8")

    report = diagnose(load(str(path)), [verified(check)])

    assert [(f.id, f.role) for t in report.targets for f in t.findings] == [("swap-space-exceeds-limit", "risk")]


# --- others -----------------------------------------------------------------------------------------------------------


def test_the_readme_opens_with_the_two_commands() -> None:
    head = (ROOT / "README.md").read_text(encoding="utf-8")[:1500]

    assert "make demo" in head
    assert "make test" in head
    assert "docs/picture.svg" in head


def test_the_guide_names_only_checks_that_exist() -> None:
    text = (DOCS / "guide.md").read_text(encoding="utf-8")
    ids = {check.id for check in installed()}

    assert set(re.findall(r"\]\(checks/([a-z0-9-]+)\.md\)", text)) - ids == set()
