"""What a check is: a pure function from facts to findings, with an id and a page."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Iterable
from pathlib import PurePath
from typing import Any

import msgspec

from kubectl_llmdoctor.report.document import Confidence, Evidence, Fix, Role, Severity

DOCS_URL = "docs/checks/{id}.md"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What a check found. The registry adds id, title and page.

    `summary` states the fault with the numbers and names of this very case, no advice. `severity` is the check's for a
    cause or a symptom, a warning for a risk, info for a note, where nothing else stands there. `explains` names the ids of
    findings that are only consequences of this one. `order` places the finding in time: `Line.order` of the deciding
    line; None for what was so from the start (a wrong spec). `pods` names the pods that it is about, where they are not the one
    that the check was called for. `awaits` names pods outside of the target (`namespace/name`) that should answer, and do not:
    where none of them is ready, the cause of that is the target's. Most findings have one fix, which is given as `fix` and stands
    in `fixes` then.
    """

    summary: str
    role: Role = "cause"
    confidence: Confidence = "likely"
    severity: Severity | None = None
    evidence: tuple[Evidence, ...] = ()
    explains: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    order: float | None = None
    pods: tuple[str, ...] = ()
    awaits: tuple[str, ...] = ()
    fix: Fix | None = None

    def __post_init__(self) -> None:
        if self.fix is not None:
            msgspec.structs.force_setattr(self, "fixes", (self.fix, *self.fixes))
            msgspec.structs.force_setattr(self, "fix", None)


class Abstain(msgspec.Struct, frozen=True, kw_only=True):
    """A check that cannot judge, and what it lacks; shown under "not checked"."""

    reason: str


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """One fact that a check asks for, in the place of its parameter."""

    fact: str
    optional: bool


Run = Callable[..., Iterable[Finding | Abstain]]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One cause, symptom, risk or note that the program can find."""

    id: str
    since: str
    severity: Severity
    run: Run
    where: str
    title: str = ""
    doc: str = ""
    family: str = ""
    needs: tuple[Need, ...] = ()
    pack: str = ""
    #: a signature of the same id that stands beside the function: what is computed, and what is printed
    signature: Check | None = None
    #: whether it was made from a YAML signature
    lines: bool = False
    #: pieces of log lines that it looks for, as far as they are known beforehand
    literals: tuple[str, ...] = ()
    #: what it says of a node with accelerators by itself, whatever runs there: called with `Node` and `Cluster` by audits
    on_node: Run | None = None

    def __call__(self, *facts: Any) -> list[Finding | Abstain]:
        """Run it on facts; this is also its unit test."""
        return list(self.run(*facts))

    @property
    def docs(self) -> str:
        """The page's address."""
        return DOCS_URL.format(id=self.id)

    @property
    def parts(self) -> tuple[Check, ...]:
        """Itself, and the signature beside it."""
        return (self, self.signature) if self.signature else (self,)

    def in_pack(self, pack: str) -> Check:
        """The same, with the name of the pack that it came from."""
        return msgspec.structs.replace(self, pack=pack)


class DeclarationError(Exception):
    """A check that is declared wrongly; the message names file and line."""


#: The facts a check may ask for, by type name; see facts.subject.
FACTS = frozenset({
    "Pod", "Container", "Engine", "Accelerator", "Sizing", "Logs", "Events", "Hardware", "Metrics", "Node", "Nodes",
    "Workload", "Subject", "Cluster", "Pending",
})  # fmt: skip


def check(
    id: str,  # the field's term
    *,
    since: str,
    severity: Severity = "critical",
    literals: Iterable[str] = (),
    on_node: Run | None = None,
) -> Callable[[Run], Check]:
    """Declare a check: the annotated parameters are its needs, the docstring is its page.

    `literals` are the pieces of log lines that it looks for: of a very long log only such lines are kept. `on_node` says
    the same of a node with accelerators, called with `Node` and `Cluster`, where an audit looks at nodes without a pod.
    """

    def declare(run: Run) -> Check:
        return Check(
            id=id,
            since=since,
            severity=severity,
            run=run,
            where=run.__code__.co_filename,
            literals=tuple(literals),
            on_node=on_node,
        )

    return declare


def verified(declared: Check) -> Check:
    """A declared check with what its function says of it: title, page, family and needs. Raises DeclarationError.

    A pack is indexed so, once; a diagnosis loads a hundred functions that the index knows, and only calls them.
    """
    run, id = declared.run, declared.id
    code = run.__code__
    path = PurePath(code.co_filename)
    where = f"{code.co_filename}:{code.co_firstlineno}"
    doc = inspect.cleandoc(run.__doc__ or "")
    if not doc:
        raise DeclarationError(f"{where}: check {id} has no docstring; it is the check's page")
    if path.stem != id.replace("-", "_"):
        raise DeclarationError(f"{where}: check {id} must stand in {id.replace('-', '_')}.py")
    return msgspec.structs.replace(
        declared,
        title=doc.partition("\n")[0].rstrip("."),
        doc=doc,
        family=path.parent.name,
        needs=tuple(_needs(run, id, where)),
    )


def _needs(run: Run, id: str, where: str) -> Iterable[Need]:
    hints: dict[str, Any] = dict(run.__annotations__)
    if any(isinstance(hint, str) for hint in hints.values()):  # the module postpones its annotations
        try:
            hints = typing.get_type_hints(run)
        except NameError as error:
            raise DeclarationError(f"{where}: check {id}: {error}") from error
    code = run.__code__
    for name in code.co_varnames[: code.co_argcount]:
        hint = hints.get(name)
        options = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
        kinds = [o for o in options if o is not type(None)]
        fact = getattr(kinds[0], "__name__", "") if len(kinds) == 1 else ""
        if fact not in FACTS:
            raise DeclarationError(f"{where}: check {id}: parameter {name} asks for {hint}, which is no fact")
        yield Need(fact=fact, optional=len(options) > len(kinds))
