"""What somebody chose not to see, or to see as more or less severe: rules with a scope, a reason and an end.

Rules stand in an annotation of the object that a person edits, or in a file. What a failing pod shows (the family
`symptoms`) cannot be suppressed: a pod that fails is never reported as fine.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import msgspec

from kubectl_llmdoctor.report import document as doc

if TYPE_CHECKING:
    from kubectl_llmdoctor.facts.cluster import Item
    from kubectl_llmdoctor.facts.subject import Subject

ANNOTATION = "llmdoctor.io/ignore"
PROTECTED = "symptoms"

_ID = r"[a-z0-9]+(?:-[a-z0-9]+)*"
_ENTRY = rf"({_ID}(?:\s*,\s*{_ID})*)\s*(?::\s*(.*))?"
#: The end stands last, in brackets or not; it begins with a digit, so that a reason may end in "until the upgrade".
_UNTIL = r"(.*?)(?<![\s,;])[\s,;]*[\[(]?\buntil:?\s+(\d[^\s\])]*)[\])]?"
#: Characters of one entry that are looked at.
_LONGEST = 1000
_DATE = r"\d{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12]\d|3[01])"


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Where a rule holds: globs, any of which may match; without any, everywhere. Paths are absolute, of manifests."""

    kinds: tuple[str, ...] = ()
    namespaces: tuple[str, ...] = ()
    names: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()

    def holds(self, subject: Subject, folder: str) -> bool:
        """Whether the target, or the workload that owns it, lies within; files are named from the folder."""
        refs = [(item.plain_kind, item.name) for item in _items(subject)]
        return (
            any(_any(self.kinds, kind.lower(), str.lower) and _any(self.names, name) for kind, name in refs)
            and _any(self.namespaces, subject.namespace)
            and (not self.paths or any(_any(self.paths, path) for path in _paths(subject, folder)))
        )


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """One decision about some ids: not to see them (`severity` is None), or their severity."""

    ids: tuple[str, ...]
    reason: str = ""
    until: str = ""
    severity: doc.Severity | None = None
    scope: Scope = Scope()
    #: where it stands, for people, and the file and line if it stands in one
    where: str
    file: str | None = None
    line: int | None = None
    #: why it cannot be followed
    fault: str = ""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """The rules of a file, and the day on which their ends are judged; without a day none has ended."""

    rules: tuple[Rule, ...] = ()
    as_of: str = ""
    #: the folder from which manifest files are named
    folder: str = ""


NO_RULES = Rules()


class Suppressions:
    """Applies the rules of a file and of annotations to target after target, and knows which had no effect."""

    def __init__(self, rules: Rules, families: dict[str, str]) -> None:
        self._rules = rules.rules
        self._as_of = rules.as_of
        self._folder = rules.folder
        self._families = families
        self._annotated: dict[Any, tuple[Rule, ...]] = {}
        self._met: dict[tuple[Rule, str], bool] = {(rule, id): False for rule in rules.rules for id in rule.ids}
        self._in_scope: set[Rule] = set()

    def graded(self, findings: Iterable[doc.Finding], subject: Subject) -> list[doc.Finding]:
        """The findings with the severities that the file gives them."""
        rules = [r for r in self._rules if r.severity and self._holds(r, subject)]
        return [self._graded(finding, rules) for finding in findings]

    def _graded(self, finding: doc.Finding, rules: list[Rule]) -> doc.Finding:
        for rule in rules:
            if finding.id in rule.ids and self._live(rule, finding.id):
                self._met[rule, finding.id] = True
                finding = msgspec.structs.replace(finding, severity=rule.severity)
        return finding

    def split(
        self, findings: list[doc.Finding], subject: Subject
    ) -> tuple[tuple[doc.Finding, ...], tuple[doc.Suppressed, ...]]:
        """The findings that are to be seen, and the suppressed ones with their reasons."""
        rules = [r for r in self._rules if not r.severity and self._holds(r, subject)]
        for item, text in _annotated(subject):
            rules += self._annotation(item, text)
        if not rules:
            return tuple(findings), ()
        kept, hidden = list[doc.Finding](), list[doc.Suppressed]()
        for finding in findings:
            rule = next((r for r in rules if finding.id in r.ids and self._live(r, finding.id)), None)
            if rule is None:
                kept.append(finding)
                continue
            self._met[rule, finding.id] = True
            hidden.append(
                doc.Suppressed(
                    id=finding.id,
                    reason=rule.reason,
                    where=rule.where,
                    until=rule.until,
                    role=finding.role,
                    severity=finding.severity,
                    summary=finding.summary,
                )
            )
        shown = {f.id for f in kept}
        kept = [msgspec.structs.replace(f, explains=tuple(e for e in f.explains if e in shown)) for f in kept]
        return tuple(kept), tuple(hidden)

    def join(self, other: Suppressions) -> None:
        """Takes over which rules had an effect in another process."""
        for key, met in other._met.items():
            self._met[key] = self._met.get(key, False) or met
        self._in_scope |= other._in_scope

    def unused(self) -> tuple[doc.UnusedSuppression, ...]:
        """The rules that changed nothing, and why."""
        return tuple(
            doc.UnusedSuppression(
                id=id, where=rule.where, reason=self._why(rule, id), file=rule.file, line=rule.line or None
            )
            for (rule, id), met in self._met.items()
            if not met
        )

    def _why(self, rule: Rule, id: str) -> str:
        if rule.fault:
            return rule.fault
        if id not in self._families:
            return "no check has this id"
        if self._families[id] == PROTECTED:
            return "what a failing pod shows cannot be suppressed"
        if self._ended(rule):
            return f"ended on {rule.until}"
        if rule in self._rules and rule not in self._in_scope:
            return "nothing that was read lies in its scope"
        return "matches nothing"

    def _live(self, rule: Rule, id: str) -> bool:
        return not rule.fault and not self._ended(rule) and self._families.get(id) != PROTECTED

    def _ended(self, rule: Rule) -> bool:
        return bool(rule.until and self._as_of) and rule.until < self._as_of

    def _holds(self, rule: Rule, subject: Subject) -> bool:
        holds = rule.scope.holds(subject, self._folder)
        if holds:
            self._in_scope.add(rule)
        return holds

    def _annotation(self, item: Item, text: str) -> tuple[Rule, ...]:
        key = item.kind, item.namespace, item.name, item.origin, text
        if key not in self._annotated:
            self._annotated[key] = rules = tuple(parse(text, item))
            self._met.update(((rule, id), False) for rule in rules for id in rule.ids)
        return self._annotated[key]


def parse(text: str, item: Item) -> Iterator[Rule]:
    """The rules of an annotation: one a line, `id[, id]: reason [until 2026-12-31]`."""
    kind = item.plain_kind
    where = f"annotation of {kind} {item.namespace}/{item.name}"
    file, line = (item.origin.file, item.origin.line) if item.origin else (None, None)
    for row in filter(None, map(str.strip, text.splitlines())):
        match = re.fullmatch(_ENTRY, row)
        if match is None:
            fault = "not of the form ID: reason [until 2026-12-31]"
            yield Rule(ids=(row[:60],), where=where, file=file, line=line, fault=fault)
            continue
        reason, until, fault = with_end(match[2] or "")
        ids = tuple(map(str.strip, match[1].split(",")))
        yield Rule(ids=ids, reason=reason, until=until, where=where, file=file, line=line, fault=fault)


def with_end(text: str) -> tuple[str, str, str]:
    """A reason and its end, and why they will not do: no reason, or an end that is no date."""
    text = text.strip()[:_LONGEST]
    match = re.fullmatch(_UNTIL, text)
    reason, until = (match[1], match[2]) if match else (text, "")
    if until and not is_date(until):
        return reason, "", f"its end {until[:20]} is no date such as 2026-12-31"
    return reason, until, "" if reason else "no reason is given"


def is_date(text: str) -> bool:
    """Whether it is a day as `2026-12-31`."""
    from datetime import date

    try:
        return bool(re.fullmatch(_DATE, text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False


def _any(globs: tuple[str, ...], text: str, form: Any = str) -> bool:
    return not globs or any(fnmatchcase(text, form(glob)) for glob in globs)


def _items(subject: Subject) -> list[Item]:
    workload = subject.workload
    found = [subject.item, workload.item if workload else None]
    return [item for item in found if item]


def _paths(subject: Subject, folder: str) -> list[str]:
    return [posixpath.normpath(posixpath.join(folder, i.origin.file)) for i in _items(subject) if i.origin]


def _annotated(subject: Subject) -> Iterator[tuple[Item, str]]:
    """The annotations of what owns the target, of the target, and of its pods or their templates: each text once."""
    owner = subject.workload.item if subject.workload else subject.item
    texts = [item.annotations.get(ANNOTATION) for item in _items(subject)]
    texts += [pod.annotations.get(ANNOTATION) for pod in subject.pods]
    for text in dict.fromkeys(texts):
        if owner and text is not None:
            yield owner, text
