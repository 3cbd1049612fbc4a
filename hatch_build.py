"""Builds the index of log signatures into the wheel: parsing their YAML at every start would cost more than a diagnosis."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class SignatureIndex(BuildHookInterface):  # type: ignore[type-arg]
    """Writes `llmdoctor_checks/_signatures.json` into a wheel; a source tree and an editable install read the YAML."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is packed; `version` is `editable` for an editable install."""
        if version == "editable":
            return
        root = Path(self.root)
        import yaml

        pack = root / "checks" / "llmdoctor_checks"
        entries = []
        for path in sorted(pack.glob("*/*.yaml")):
            if not path.name.startswith("_"):
                entries.append([path.parent.name, path.name, yaml.safe_load(path.read_text(encoding="utf-8"))])
        index = Path(self.directory) / "_signatures.json"
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_text(json.dumps(entries, ensure_ascii=False, sort_keys=True), encoding="utf-8")
        build_data["force_include"][str(index)] = "llmdoctor_checks/_signatures.json"
