"""Installed packs of checks: found by entry point, loaded from modules and YAML files; no list to maintain."""

import contextlib
import importlib
import os
import sys
from collections.abc import Iterable, Iterator
from functools import cache
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any

import msgspec

from kubectl_llmdoctor.check import Abstain, Check, DeclarationError, Finding, Need, Run, verified
from kubectl_llmdoctor.report.document import Severity
from kubectl_llmdoctor.signatures.check import as_check, literals_of
from kubectl_llmdoctor.signatures.declared import Pattern, Signature, parse
from kubectl_llmdoctor.signatures.wording import REQUIRED

GROUP = "kubectl_llmdoctor.checks"
BUILT_IN = "llmdoctor_checks"
#: What build_index made of a package: in a built wheel, and beside the bytecode of a source tree.
INDEX = "_index.msgpack"
#: The file of a package with the expressions that its signatures share, by name.
WORDS = "_words.yaml"


def packages() -> dict[str, str]:
    """Packs by name: package, in the order of names; the built-in one is always there.

    Reads entry_points.txt itself: importlib.metadata costs 15 ms at start-up.
    """
    found: dict[str, str] = {}
    for folder in dict.fromkeys(sys.path):
        try:
            entries = [e.path for e in os.scandir(folder or ".") if e.name.endswith((".dist-info", ".egg-info"))]
        except OSError:
            continue
        for entry in entries:
            try:
                text = Path(entry, "entry_points.txt").read_text(encoding="utf-8")
            except OSError:
                continue
            if f"[{GROUP}]" in text:
                found.update(_entries(text))
    if BUILT_IN not in found.values():
        found["built-in"] = BUILT_IN
    return dict(sorted(found.items()))


def _entries(text: str) -> Iterator[tuple[str, str]]:
    inside = False
    for line in text.splitlines():
        if line.startswith("["):
            inside = line.strip() == f"[{GROUP}]"
        elif inside and "=" in line:
            name, _, package = line.partition("=")
            yield name.strip(), package.strip()


@cache
def installed() -> tuple[Check, ...]:
    """Every check of every pack, by id. Raises DeclarationError when one is declared wrongly or an id occurs twice."""
    checks: dict[str, Check] = {}
    for pack, package in packages().items():
        for found in load(package):
            other = checks.get(found.id)
            if other and (other.pack != pack or other.family != found.family or other.signature or not found.lines):
                raise DeclarationError(f"{found.where}: check {found.id} is declared in {other.where} too")
            checks[found.id] = msgspec.structs.replace(other, signature=found) if other else found.in_pack(pack)
    return tuple(checks[key] for key in sorted(checks))


def loaded() -> Iterator[Check]:
    """The installed checks, each with its module imported, which else happens when it is first called."""
    packs = packages()
    for check in installed():
        if not check.lines:
            with contextlib.suppress(Exception):  # what is wrong with it is said when it is called
                importlib.import_module(f"{packs[check.pack]}.{check.family}.{check.id.replace('-', '_')}")
        yield check


def texts() -> Iterator[str]:
    """Every text that the program and the packs hold, but their documentation: names of programs, images, options.

    Read from compiled code, which is all that a frozen program has.
    """
    import pkgutil

    for package in ("kubectl_llmdoctor", *packages().values()):
        root = importlib.import_module(package)
        for module in pkgutil.walk_packages(root.__path__, f"{package}."):
            spec = module.module_finder.find_spec(module.name, None)
            code = spec.loader.get_code(module.name) if spec and spec.loader else None  # type: ignore[attr-defined]
            yield from _constants(code)


def _constants(code: Any) -> Iterator[str]:
    for position, constant in enumerate(getattr(code, "co_consts", ())):
        if isinstance(constant, str):
            if position or "\n" not in constant:
                yield constant
        elif isinstance(constant, tuple | frozenset):
            yield from (item for item in constant if isinstance(item, str))
        else:
            yield from _constants(constant)


def load(package: str) -> Iterator[Check]:
    """The checks of one package: each module's `Check`, then each YAML signature.

    A module and a signature of one id may stand side by side: what must be computed, and what is printed.
    """
    root = Path(next(iter(importlib.import_module(package).__path__)))
    yield from _from_index(_mapped(root / INDEX) or _kept_index(package, root), root)


def _mapped(path: Path, head: bytes = b"") -> memoryview:
    """What a file holds behind this head, as it lies on disk: most of an index is passed over, and to copy it takes longer.

    Empty where there is no such file, or its head is another.
    """
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:  # ValueError: it is empty
        if file.read(len(head)) == head:
            return memoryview(mmap(file.fileno(), 0, access=ACCESS_READ))[len(head) :]
    return memoryview(b"")


def _kept_index(package: str, root: Path) -> memoryview:
    """The index of a package that was not built, kept beside the bytecode until a source of it or of ours changes."""
    kept = root / "__pycache__" / INDEX
    sources = _fingerprint(root, Path(__file__).parent)
    if found := _mapped(kept, sources):
        return found
    index = build_index(package)
    if not sys.dont_write_bytecode:
        draft = kept.with_name(f"{INDEX}.{os.getpid()}")
        with contextlib.suppress(OSError):  # read-only, as site-packages may be
            kept.parent.mkdir(exist_ok=True)
            draft.write_bytes(sources + index)
            draft.replace(kept)
    return memoryview(index)


def _fingerprint(*roots: Path) -> bytes:
    """A line with the name, size and time of change of each source below some folders: what makes digests takes 2 ms to load."""
    found = list[str]()
    folders = [str(root) for root in roots]
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if entry.name not in ("__pycache__", "cases"):
                        folders.append(entry.path)
                else:
                    info = entry.stat()
                    found.append(f"{entry.path} {info.st_size} {info.st_mtime_ns}")
    return "\0".join(sorted(found)).encode() + b"\n"


def _modules(package: str, root: Path) -> Iterator[Check]:
    for path in _files(root, ".py"):
        yield verified(_from_module(f"{package}.{path.parent.name}.{path.stem}"))


def _files(root: Path, suffix: str) -> list[Path]:
    """What declares a check: one file each, in the folder of its family."""
    return sorted(root.glob(f"[!_.]*/[!_.]*{suffix}"))


def _from_module(name: str) -> Check:
    module = importlib.import_module(name)
    stem = name.rpartition(".")[2]
    found = getattr(module, stem, None)
    if not isinstance(found, Check):
        raise DeclarationError(f"{module.__file__}: no check named {stem}; declare it with @check")
    return found


def signature_of(path: Path) -> Signature:
    """The signature of a YAML file. Raises DeclarationError with what is wrong."""
    import re

    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        kept = path.parents[1] / WORDS
        words = yaml.load(kept.read_bytes(), Loader=loader) if kept.exists() else {}  # noqa: S506 # a safe loader
        reader = loader(path.read_bytes())
        node = reader.get_single_node()
        if node is None:
            raise ValueError("the file is empty")
        tree = reader.construct_document(node)
        _refuse_repeated(node)
        return parse(tree, stem=path.stem, words=words)
    except (msgspec.ValidationError, ValueError, re.error, yaml.YAMLError) as error:
        raise DeclarationError(f"{path}: {error}") from error


def _refuse_repeated(node: Any) -> None:
    """Raises ValueError for a key that stands twice in one mapping, of which YAML's loaders take the last."""
    pairs, seen = node.value if node.id == "mapping" else (), set[str]()
    for key, _ in pairs:
        if key.value in seen:
            raise ValueError(f"line {key.start_mark.line + 1}: {key.value} stands twice")
        seen.add(key.value)
    for inner in [value for _, value in pairs] or (node.value if node.id == "sequence" else ()):
        _refuse_repeated(inner)


class _Rest(msgspec.Struct, frozen=True, array_like=True):
    """A pattern of a signature, and by its expressions the texts of which every match has one."""

    pattern: Pattern
    required: dict[str, tuple[str, ...]]


class _Kept(msgspec.Struct, array_like=True, dict=True):
    """A pattern in the index: most literals stand in no log, so all else is decoded when a field of it is asked for."""

    literal: str
    rest: msgspec.Raw

    def __getattr__(self, name: str) -> Any:
        found = msgspec.msgpack.decode(self.rest, type=_Rest)
        REQUIRED.update(found.required)
        self.__dict__.update(msgspec.structs.asdict(found.pattern))
        return getattr(found.pattern, name)


class _Signature(Signature, frozen=True, kw_only=True):
    """What a diagnosis needs of a signature; its example lines, a quarter of it, are for its tests and its page."""

    patterns: tuple[_Kept, ...]  # type: ignore[assignment] # they have the fields of a Pattern
    matches: tuple[str, ...] = ()
    ignores: tuple[str, ...] = ()


class _Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the index says of one check: a signature, or where the function is."""

    family: str
    file: str
    signature: _Signature | None = None
    id: str = ""
    title: str = ""
    doc: str = ""
    since: str = ""
    severity: Severity = "critical"
    needs: tuple[Need, ...] = ()
    literals: tuple[str, ...] = ()
    module: str = ""
    on_node: bool = False


def build_index(package: str) -> bytes:
    """The index of a package: with it, nothing is parsed at start-up and a module is imported when its check runs."""
    root = Path(next(iter(importlib.import_module(package).__path__)))
    entries = []
    for path in _files(root, ".yaml"):
        signature = signature_of(path)
        kept = msgspec.structs.asdict(signature) | {"patterns": tuple(map(_kept, signature.patterns))}
        del kept["matches"], kept["ignores"]
        entries.append(
            _Entry(
                family=path.parent.name,
                file=path.name,
                signature=_Signature(**kept),
                literals=literals_of(signature),
            )
        )
    for found in _modules(package, root):
        stem = found.id.replace("-", "_")
        entries.append(
            _Entry(
                family=found.family,
                file=f"{stem}.py",
                id=found.id,
                title=found.title,
                doc=found.doc,
                since=found.since,
                severity=found.severity,
                needs=found.needs,
                literals=found.literals,
                module=f"{package}.{found.family}.{stem}",
                on_node=found.on_node is not None,
            )
        )
    entries.sort(key=lambda e: (e.signature is not None, e.family, e.file))
    return msgspec.msgpack.encode(entries)


def _kept(pattern: Pattern) -> _Kept:
    from kubectl_llmdoctor.signatures.required import required_of

    return _Kept(pattern.literal, msgspec.Raw(msgspec.msgpack.encode(_Rest(pattern, required_of(pattern)))))


def _from_index(index: bytes | memoryview, root: Path) -> Iterator[Check]:
    for entry in msgspec.msgpack.decode(index, type=list[_Entry]):
        where = f"{root}/{entry.family}/{entry.file}"
        if entry.signature:
            yield as_check(entry.signature, family=entry.family, where=where, literals=entry.literals)
        else:
            yield Check(
                id=entry.id,
                title=entry.title,
                doc=entry.doc,
                family=entry.family,
                since=entry.since,
                severity=entry.severity,
                needs=entry.needs,
                run=_later(entry.module),
                where=where,
                literals=entry.literals,
                on_node=_later_on_node(entry.module) if entry.on_node else None,
            )


def _later(module: str) -> Run:
    """A check's function, imported when it is first called."""
    found = cache(lambda: _from_module(module).run)
    return lambda *facts: found()(*facts)


def _later_on_node(module: str) -> Run:
    """The same for what it says of a node."""

    def run(*facts: Any) -> Iterable[Finding | Abstain]:
        on_node = _from_module(module).on_node
        return on_node(*facts) if on_node else ()

    return run
