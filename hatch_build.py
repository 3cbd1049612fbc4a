"""Builds the index of checks into the wheel: parsing YAML and importing every check would cost more than a diagnosis."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CheckIndex(BuildHookInterface):  # type: ignore[type-arg]
    """Writes `llmdoctor_checks/_index.msgpack` into a wheel; a source tree and an editable install make their own."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Called before the wheel is packed; `version` is `editable` for an editable install."""
        if version == "editable":
            return
        root = Path(self.root)
        sys.path[:0] = [str(root), str(root / "checks")]
        from kubectl_llmdoctor.packs import BUILT_IN, INDEX, build_index

        index = Path(self.directory) / INDEX
        index.parent.mkdir(parents=True, exist_ok=True)
        index.write_bytes(build_index(BUILT_IN))
        build_data["force_include"][str(index)] = f"{BUILT_IN}/{INDEX}"
