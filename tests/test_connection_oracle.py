"""The light kubeconfig reader agrees with the official Python client, which is too slow to start with every run."""

from __future__ import annotations

import base64
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from kubectl_llmdoctor.gather.connection import Connection, resolve

_PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
_DATA = base64.b64encode(_PEM.encode()).decode()


def _config(cluster: dict[str, Any], user: dict[str, Any], **context: str) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [
            {"name": "c", "cluster": {"server": "https://10.1.2.3:6443", **cluster}},
            {"name": "other", "cluster": {"server": "https://other.example"}},
        ],
        "users": [{"name": "u", "user": user}, {"name": "other", "user": {"token": "other-token"}}],
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", **context}},
            {"name": "there", "context": {"cluster": "other", "user": "other"}},
        ],
    }


_PLUGIN = (
    "import json; print(json.dumps({'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential',"
    " 'status': {'token': 'from-a-plugin'}}))"
)
_EXEC = {
    "apiVersion": "client.authentication.k8s.io/v1",
    "command": sys.executable,
    "args": ["-c", _PLUGIN],
    "interactiveMode": "Never",
}

CONFIGS: dict[str, tuple[dict[str, Any], str | None]] = {
    "token": (_config({"certificate-authority-data": _DATA}, {"token": "abc"}, namespace="serving"), None),
    "insecure": (_config({"insecure-skip-tls-verify": True}, {"token": "abc"}), None),
    "certificates": (
        _config({"certificate-authority-data": _DATA}, {"client-certificate-data": _DATA, "client-key-data": _DATA}),
        None,
    ),
    "server-name": (
        _config({"tls-server-name": "api.example", "certificate-authority-data": _DATA}, {"token": "x"}),
        None,
    ),
    "proxy": (_config({"proxy-url": "http://127.0.0.1:3128"}, {"token": "x"}), None),
    "plugin": (_config({}, {"exec": _EXEC}), None),
    "other context": (_config({}, {"token": "abc"}), "there"),
    "path": (_config({"server": "https://rancher.example/k8s/clusters/c-1"}, {"token": "abc"}), None),
    "basic": (_config({}, {"username": "anna", "password": "pw"}), None),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_the_reader_agrees_with_the_official_client(name: str, tmp_path: Path) -> None:
    from kubernetes import client, config

    tree, context = CONFIGS[name]
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(tree))
    theirs = client.Configuration()
    config.load_kube_config(str(path), context=context, client_configuration=theirs, persist_config=False)  # type: ignore[no-untyped-call]
    ours = resolve(Connection(kubeconfig=str(path), context=context))

    assert ours.server == theirs.host
    basic = theirs.get_basic_auth_token() if theirs.username else ""
    authorization = theirs.get_api_key_with_prefix("BearerToken") or basic
    assert ours.credentials.authorization == (authorization or "")
    assert ours.insecure == (not theirs.verify_ssl)
    assert ours.tls_server_name == (theirs.tls_server_name or "")
    assert ours.proxy == (theirs.proxy or "")
    for mine, their_file in (
        (ours.authority, theirs.ssl_ca_cert),
        (ours.credentials.certificate, theirs.cert_file),
        (ours.credentials.key, theirs.key_file),
    ):
        assert (mine or b"") == (Path(their_file).read_bytes() if their_file else b"")
