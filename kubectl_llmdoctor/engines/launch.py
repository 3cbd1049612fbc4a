"""What a container was told to run: the input of every engine reader."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec


class EnvVar(msgspec.Struct, frozen=True, kw_only=True):
    """One variable as the container gets it; `value` is None where it is not known (a Secret, a downward field).

    `origin` is `value`, `ConfigMap cfg/key`, `Secret s/key` or `field status.podIP`; `path` its place in the manifest.
    """

    name: str
    value: str | None
    origin: str
    path: str


class Launch(msgspec.Struct, frozen=True, kw_only=True):
    """A container's image, command, arguments, environment (in order, `$(VAR)` not yet replaced) and mounted files.

    `files` maps an absolute path in the container to its text, as far as it is known (mounted ConfigMaps);
    `path` is the container's place in the manifest, such as `spec.containers[vllm]`.
    """

    image: str
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: Mapping[str, EnvVar] = {}
    files: Mapping[str, str] = {}
    ports: tuple[int, ...] = ()
    path: str = ""
    labels: Mapping[str, str] = {}
