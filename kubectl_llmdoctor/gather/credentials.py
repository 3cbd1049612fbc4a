"""Who the user is: tokens, client certificates and credential plugins of a kubeconfig user."""

from __future__ import annotations

import base64
import binascii
import os
import sys
import time
from pathlib import Path
from typing import Any

import msgspec

from kubectl_llmdoctor.errors import AccessError
from kubectl_llmdoctor.gather.kubeconfig import Entry
from kubectl_llmdoctor.snapshot import Json
from kubectl_llmdoctor.tree import table

_EXEC_VERSIONS = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")

#: Seconds that a credential plugin may take when no one can answer a question of it.
_EXEC_SECONDS = 60


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """What proves who the user is: an Authorization header, a client certificate and its key (PEM), or neither."""

    authorization: str = ""
    certificate: bytes | None = None
    key: bytes | None = None


NOBODY = Credentials()


def credentials(user: Entry, name: str, cluster: Entry) -> Credentials:
    """The credentials of a kubeconfig user; runs its credential plugin if it has one. Raises AccessError."""
    certificate = pem(user, "client-certificate", f"user {name}")
    key = pem(user, "client-key", f"user {name}")
    authorization = _authorization(user, name)
    if not authorization and isinstance(user.data.get("exec"), dict):
        plugin = _run_plugin(user.data["exec"], name, user.folder, cluster)
        if plugin.get("token"):
            authorization = f"Bearer {plugin['token']}"
        if plugin.get("clientCertificateData"):
            certificate = str(plugin["clientCertificateData"]).encode()
            key = str(plugin.get("clientKeyData") or "").encode()
    if bool(certificate) != bool(key):
        raise AccessError(
            f"user {name} of the kubeconfig has a client certificate without its key, or a key without it"
        )
    return Credentials(authorization=authorization, certificate=certificate, key=key)


def pem(entry: Entry, key: str, owner: str) -> bytes | None:
    """A certificate or key: `<key>-data` in base64, else the file that `<key>` names. Raises AccessError."""
    data = entry.text(f"{key}-data")
    if data:
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            raise AccessError(f"{key}-data of {owner} in the kubeconfig is not base64") from None
    path = entry.path(key)
    if path is None:
        return None
    try:
        return path.read_bytes()
    except OSError as error:
        raise AccessError(f"{key} of {owner} cannot be read: {path}: {error.strerror}") from None


def _authorization(user: Entry, name: str) -> str:
    token_file = user.path("tokenFile")
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except OSError as error:
            raise AccessError(f"tokenFile of user {name} cannot be read: {token_file}: {error.strerror}") from None
        if token:
            return f"Bearer {token}"
    if user.text("token"):
        return f"Bearer {user.text('token').strip()}"
    if user.text("username"):
        pair = f"{user.text('username')}:{user.text('password')}".encode()
        return f"Basic {base64.b64encode(pair).decode()}"
    provider = user.data.get("auth-provider")
    if isinstance(provider, dict):
        return _legacy_token(provider, name)
    return ""


def _legacy_token(provider: Json, name: str) -> str:
    """The id-token of the oidc auth-provider, while it is valid.

    Renewing it would mean to write the rotated refresh token back into the user's kubeconfig; kubectl does that.
    """
    kind, config = provider.get("name"), table(provider.get("config"))
    if kind != "oidc":
        raise AccessError(
            f"user {name} signs in with the auth-provider {kind!r}, which kubectl dropped: use an exec plugin"
        )
    token = str(config.get("id-token") or "")
    if not token or _expiry(token) <= time.time() + 10:
        raise AccessError(
            f"the OIDC token of user {name} has expired: run `kubectl version` once, which renews it, and try again"
        )
    return f"Bearer {token}"


def _expiry(token: str) -> float:
    """When a JWT expires, in seconds since 1970; infinity when it does not say."""
    try:
        payload = token.split(".")[1]
        claims = msgspec.json.decode(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
        return float(claims["exp"])
    except (ValueError, IndexError, KeyError, TypeError):
        return float("inf")


def _run_plugin(config: Json, name: str, folder: Path, cluster: Entry) -> Json:
    """The `status` that a credential plugin answers (client.authentication.k8s.io). Raises AccessError."""
    import subprocess

    version, command = str(config.get("apiVersion") or ""), str(config.get("command") or "")
    if version not in _EXEC_VERSIONS:
        raise AccessError(
            f"the credential plugin of user {name} speaks {version or 'no version'}, not {_EXEC_VERSIONS[0]}"
        )
    mode = str(config.get("interactiveMode") or "IfAvailable")
    terminal = sys.stdin is not None and sys.stdin.isatty()
    if mode == "Always" and not terminal:
        raise AccessError(f"the credential plugin {command} of user {name} needs a terminal to ask on")
    interactive = terminal and mode != "Never"
    spec: Json = {"interactive": interactive}
    if config.get("provideClusterInfo"):
        spec["cluster"] = _cluster_info(cluster)
    info = {"apiVersion": version, "kind": "ExecCredential", "spec": spec}
    environment = {**os.environ, "KUBERNETES_EXEC_INFO": msgspec.json.encode(info).decode()}
    for variable in config.get("env") or ():
        environment[str(variable.get("name"))] = str(variable.get("value"))
    if os.sep in command:  # a bare name is looked up in PATH
        command = str(folder / command)
    try:
        done = subprocess.run(
            [command, *map(str, config.get("args") or ())],
            env=environment,
            stdin=None if interactive else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            # A plugin that asks its user does so on stderr.
            stderr=None if interactive else subprocess.PIPE,
            timeout=None if interactive else _EXEC_SECONDS,
            check=False,
        )
    except FileNotFoundError:
        hint = " ".join(str(config.get("installHint") or "").split())
        raise AccessError(f"the credential plugin {command} of user {name} is not installed. {hint}".strip()) from None
    except OSError as error:
        raise AccessError(f"the credential plugin {command} of user {name} cannot be run: {error.strerror}") from None
    except subprocess.TimeoutExpired:
        raise AccessError(
            f"the credential plugin {command} of user {name} did not answer in {_EXEC_SECONDS} s"
        ) from None
    if done.returncode:
        said = (done.stderr or b"").decode(errors="replace").strip().splitlines()
        words = f": {said[-1].strip()}" if said else ""
        raise AccessError(
            f"the credential plugin {command} of user {name} failed with exit code {done.returncode}{words}"
        )
    return _plugin_status(done.stdout, version, f"the credential plugin {command} of user {name}")


def _plugin_status(answer: bytes, version: str, plugin: str) -> Json:
    try:
        tree: Any = msgspec.json.decode(answer)
    except ValueError:
        raise AccessError(f"{plugin} did not answer with JSON") from None
    status = tree.get("status") if isinstance(tree, dict) else None
    if not isinstance(status, dict) or not (status.get("token") or status.get("clientCertificateData")):
        raise AccessError(f"{plugin} answered without a token or a certificate")
    if tree.get("apiVersion") != version:
        raise AccessError(f"{plugin} answered in {tree.get('apiVersion')}, the kubeconfig says {version}")
    return status


def _cluster_info(cluster: Entry) -> Json:
    keys = ("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url", "disable-compression")
    info = {key: cluster.data[key] for key in keys if key in cluster.data}
    authority = pem(cluster, "certificate-authority", "the cluster")
    if authority:
        info["certificate-authority-data"] = base64.b64encode(authority).decode()
    for extension in cluster.data.get("extensions") or ():
        if isinstance(extension, dict) and extension.get("name") == "client.authentication.k8s.io/exec":
            info["config"] = extension.get("extension")
    return info
