"""How a Prometheus is reached that no Service leads to: its address, and the file that says who asks."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.gather.connection import Endpoint
from kubectl_llmdoctor.gather.credentials import Credentials
from kubectl_llmdoctor.gather.wanted import WantedPrometheus
from kubectl_llmdoctor.snapshot import Json

#: The bearer token, and the tenant of a Prometheus that has many (`X-Scope-OrgID`), for who has no file.
TOKEN, TENANT = "LLMDOCTOR_PROMETHEUS_TOKEN", "LLMDOCTOR_PROMETHEUS_TENANT"


class _Section:
    """A mapping of the file: its values as text, files relative to it."""

    def __init__(self, value: Any, name: str, folder: Path) -> None:
        if not isinstance(value, dict | None):
            raise UsageError(f"--prometheus-config: {name} is no mapping")
        self.value: Json = value or {}
        self._name, self._folder = name, folder

    def text(self, key: str) -> str:
        """`key`, or what stands in the file that `key`_file names. Raises UsageError."""
        direct = self.value.get(key)
        if direct is not None:
            return str(direct)
        data = self.file(f"{key}_file")
        return data.decode(errors="replace").strip() if data else ""

    def file(self, key: str) -> bytes | None:
        """What stands in a file. Raises UsageError."""
        name = self.value.get(key)
        if not name:
            return None
        try:
            return (self._folder / str(name)).read_bytes()
        except OSError as error:
            raise UsageError(f"--prometheus-config: {self._name}{key}: {name}: {error.strerror}") from None

    def section(self, key: str) -> _Section:
        """A mapping below this one. Raises UsageError."""
        return _Section(self.value.get(key), f"{key}.", self._folder)


_KNOWN = frozenset(
    ["basic_auth", "authorization", "bearer_token", "bearer_token_file", "tls_config", "proxy_url", "http_headers"]
)
#: Accepted without an effect: redirects are never followed, and HTTP/1.1 is what is spoken.
_WITHOUT_EFFECT = frozenset(["follow_redirects", "enable_http2"])


def endpoint(wanted: WantedPrometheus) -> Endpoint:
    """What a request to the URL needs. Raises UsageError for a file that cannot be read or asks for more than is known."""
    config = _load(wanted.config)
    parts = urlsplit(wanted.where)
    tls = config.section("tls_config")
    insecure = bool(tls.value.get("insecure_skip_verify"))
    certificate = tls.text("cert").encode() or None
    key = tls.text("key").encode() or None
    if bool(certificate) != bool(key):
        raise UsageError("--prometheus-config: tls_config has a certificate without its key, or a key without it")
    address = parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="")
    return Endpoint(
        server=urlunsplit(address).rstrip("/"),
        credentials=Credentials(
            authorization=_authorization(config, parts.username, parts.password), certificate=certificate, key=key
        ),
        authority=None if insecure else tls.text("ca").encode() or None,
        insecure=insecure,
        tls_server_name=tls.text("server_name"),
        proxy=str(config.value.get("proxy_url") or ""),
        headers=_headers(config),
        user="of --prometheus-config",
    )


def headers(wanted: WantedPrometheus) -> tuple[tuple[str, str], ...]:
    """The further headers alone, for a Prometheus behind the API server, which passes no credentials on."""
    return _headers(_load(wanted.config))


def _load(path: str | None) -> _Section:
    if path is None:
        return _Section({}, "", Path())
    import yaml

    try:
        text = Path(path).read_text(encoding="utf-8")
        tree = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (a safe loader)
    except OSError as error:
        raise UsageError(f"--prometheus-config {path}: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError):
        raise UsageError(f"--prometheus-config {path}: not YAML") from None
    found = _Section(tree, "", Path(path).parent)
    unknown = sorted(map(str, found.value.keys() - _KNOWN - _WITHOUT_EFFECT))
    if unknown:
        raise UsageError(
            f"--prometheus-config {path}: {unknown[0]} is not supported; known: {', '.join(sorted(_KNOWN))}"
        )
    return found


def _authorization(config: _Section, user: str | None, password: str | None) -> str:
    basic = config.section("basic_auth")
    if basic.value:
        user, password = basic.text("username"), basic.text("password")
    if user:
        pair = f"{unquote(user)}:{unquote(password or '')}" if not basic.value else f"{user}:{password}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"
    given = config.section("authorization")
    if given.value:
        value = f"{given.text('type') or 'Bearer'} {given.text('credentials')}"
    else:
        token = config.text("bearer_token") or os.environ.get(TOKEN, "").strip()
        value = f"Bearer {token}" if token else ""
    if not value.isascii() or (value and not value.isprintable()):
        raise UsageError("the token for Prometheus holds characters that no token has")
    return value


def _headers(config: _Section) -> tuple[tuple[str, str], ...]:
    found = []
    listed = config.section("http_headers")
    for name in listed.value:
        row = listed.section(name)
        for key in ("values", "secrets"):
            found += [(str(name), str(value)) for value in row.value.get(key) or ()]
    tenant = os.environ.get(TENANT, "").strip()
    if tenant and not any(name.lower() == "x-scope-orgid" for name, _ in found):
        found.append(("X-Scope-OrgID", tenant))
    if any(not text.isascii() or not text.isprintable() for pair in found for text in pair):
        raise UsageError("a header for Prometheus holds characters that no header has")
    return tuple(found)
