"""Installed packs of checks: found by entry point, loaded from modules and YAML files; no list to maintain."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from kubectl_llmdoctor.check import Check, DeclarationError

GROUP = "kubectl_llmdoctor.checks"
BUILT_IN = "llmdoctor_checks"


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
            checks[found.id] = replace(other, signature=found) if other else found.in_pack(pack)
    return tuple(checks[key] for key in sorted(checks))


def load(package: str) -> Iterator[Check]:
    """The checks of one package: each module's `Check`, then each YAML signature.

    A module and a signature of one id may stand side by side: what must be computed, and what is printed.
    """
    root = importlib.import_module(package)
    signatures: list[tuple[str, str]] = []
    for base in map(Path, root.__path__):
        for folder in sorted(p for p in base.iterdir() if p.is_dir() and not p.name.startswith(("_", "."))):
            for path in sorted(folder.iterdir()):
                if path.suffix == ".py" and not path.name.startswith("_"):
                    yield from _from_module(f"{package}.{folder.name}.{path.stem}", path.stem)
                elif path.suffix == ".yaml" and not path.name.startswith("_"):
                    signatures.append((folder.name, str(path)))
    yield from _signatures(package, signatures)


def _from_module(name: str, stem: str) -> Iterator[Check]:
    module = importlib.import_module(name)
    found = getattr(module, stem, None)
    if not isinstance(found, Check):
        raise DeclarationError(f"{module.__file__}: no check named {stem}; declare it with @check")
    yield found


def _signatures(package: str, files: list[tuple[str, str]]) -> Iterator[Check]:
    import msgspec

    from kubectl_llmdoctor.signature import Signature, as_check, parse

    root = Path(next(iter(importlib.import_module(package).__path__)))
    index = root / "_signatures.json"
    if index.exists():  # built into the wheel: parsing YAML at every start would cost more than the diagnosis
        for entry in msgspec.json.decode(index.read_bytes(), type=list[tuple[str, str, Signature]]):
            family, name, signature = entry
            yield as_check(signature, family=family, where=str(root / family / name))
        return
    import re

    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    for family, path in files:
        try:
            tree = yaml.load(Path(path).read_bytes(), Loader=loader)  # noqa: S506 # a safe loader
            signature = parse(tree, stem=Path(path).stem)
        except (msgspec.ValidationError, ValueError, re.error, yaml.YAMLError) as error:
            raise DeclarationError(f"{path}: {error}") from error
        yield as_check(signature, family=family, where=path)
