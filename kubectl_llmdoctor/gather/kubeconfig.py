"""kubeconfig files, found and merged as kubectl does it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec

from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.snapshot import Json
from kubectl_llmdoctor.tree import rows, table


class Entry(msgspec.Struct, frozen=True):
    """One named cluster, user or context, and the folder that its relative paths start from."""

    data: Json
    folder: Path = Path()

    def text(self, key: str) -> str:
        """A string value; empty when absent."""
        value = self.data.get(key)
        return value if isinstance(value, str) else ""

    def path(self, key: str) -> Path | None:
        """A file name, relative to the kubeconfig that names it."""
        return self.folder / self.text(key) if self.text(key) else None

    def with_data(self, **changes: Any) -> Entry:
        """The same entry with other values; None removes one."""
        data = {**self.data, **{key.replace("_", "-"): value for key, value in changes.items()}}
        return Entry({key: value for key, value in data.items() if value is not None}, self.folder)


class Kubeconfig(msgspec.Struct, frozen=True):
    """All kubeconfig files merged: of two entries with one name the first file's counts."""

    current_context: str = ""
    contexts: dict[str, Entry] = {}
    clusters: dict[str, Entry] = {}
    users: dict[str, Entry] = {}

    @property
    def empty(self) -> bool:
        """Whether there is nothing to connect with."""
        return not (self.contexts or self.clusters or self.users)


def load(explicit: str | None) -> Kubeconfig:
    """The kubeconfig named on the command line, else those of $KUBECONFIG, else ~/.kube/config; raises AccessError.

    Files of $KUBECONFIG that do not exist are passed over, as kubectl does.
    """
    if explicit:
        path = Path(explicit).expanduser()
        if not path.exists():
            raise AccessError(f"the kubeconfig {path} does not exist")
        return _merge([path])
    listed = os.environ.get("KUBECONFIG", "")
    if listed:
        paths = dict.fromkeys(Path(part) for part in listed.split(os.pathsep) if part)
    else:
        paths = dict.fromkeys([Path.home() / ".kube" / "config"])
    return _merge([path for path in paths if path.exists()])


def _merge(paths: list[Path]) -> Kubeconfig:
    current = ""
    found: dict[str, dict[str, Entry]] = {"contexts": {}, "clusters": {}, "users": {}}
    for path in paths:
        tree = _read(path)
        folder = path.absolute().parent
        context = tree.get("current-context")
        current = current or (context if isinstance(context, str) else "")
        for group, entries in found.items():
            inner = group.removesuffix("s")
            for row in rows(tree, group):
                if isinstance(row.get("name"), str):
                    entries.setdefault(row["name"], Entry(table(row.get(inner)), folder))
    return Kubeconfig(current, **found)


def _read(path: Path) -> Json:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        tree = yaml.load(path.read_bytes(), Loader=loader)  # noqa: S506  (both loaders are the safe ones)
    except OSError as error:
        raise AccessError(f"the kubeconfig {path} cannot be read: {error.strerror or error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise AccessError(f"the kubeconfig {path} is not valid YAML{where}") from None
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise AccessError(f"the kubeconfig {path} is not a mapping")
    return tree
