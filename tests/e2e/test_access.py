"""Users who may see less, and the ways to say who one is."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from .conftest import Doctor
from .controlplane import ISSUER, SERVER, ControlPlane
from .pki import Authority
from .play import Object
from .program import Result, assert_honest

CAUSE = ("cause", "context-uncapped")
TARGET = ("diagnose", "llama-0", "-n", "serving", "-o", "json")
READ_PODS = [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}]
READ_ALL = [
    {"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]},
    {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
]
IMPERSONATE = [{"apiGroups": [""], "resources": ["users", "groups"], "verbs": ["impersonate"]}]


@pytest.fixture(scope="module")
def users(cluster: ControlPlane) -> dict[str, Path]:
    """A kubeconfig for each user; their names say what they may do."""
    cluster.allow("pod-reader", READ_PODS)
    cluster.allow("reader", READ_ALL)
    cluster.allow("impersonator", IMPERSONATE)
    names = ("pod-reader", "reader", "impersonator", "nobody")
    return {name: cluster.kubeconfig(name, cluster.user(name)) for name in names}


@pytest.fixture(scope="module")
def token(cluster: ControlPlane) -> str:
    """A token of a service account that may read everything."""
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    cluster.api.create(accounts, {"metadata": {"name": "doctor"}})
    cluster.allow("default:doctor", READ_ALL)
    issued = cluster.api.create(f"{accounts}/doctor/token", {"spec": {"expirationSeconds": 3600}})
    return str(issued["status"]["token"])


def _one_line(result: Result) -> str:
    assert result.code == 3, result.err
    assert result.out == ""
    (line,) = result.err.splitlines()
    return line


def _found(result: Result) -> bool:
    return result.code == 1 and result.findings[0] == CAUSE


def test_may_read_pods_only(crashed: Object, users: dict[str, Path], doctor: Doctor) -> None:
    result = doctor(*TARGET, kubeconfig=users["pod-reader"])
    for source in ("logs", "events", "nodes"):
        assert_honest(result, source)
    assert result.code == 1
    assert CAUSE not in result.findings
    assert "forbidden" in json.dumps(result.not_read).lower()
    text = doctor("diagnose", "llama-0", "-n", "serving", kubeconfig=users["pod-reader"])
    assert text.code == 1
    assert "no log was read" in text.out


def test_may_read_nothing(crashed: Object, users: dict[str, Path], doctor: Doctor) -> None:
    line = _one_line(doctor(*TARGET, kubeconfig=users["nobody"]))
    assert "nobody" in line or "forbidden" in line.lower()


def test_as_another_user(crashed: Object, users: dict[str, Path], doctor: Doctor) -> None:
    own = users["impersonator"]
    assert "forbidden" in _one_line(doctor(*TARGET, kubeconfig=own)).lower()
    assert _found(doctor(*TARGET, "--as", "reader", kubeconfig=own))
    less = doctor(*TARGET, "--as", "pod-reader", "--as-group", "anyone", kubeconfig=own)
    assert_honest(less)
    assert less.code == 1
    _one_line(doctor(*TARGET, "--as", "nobody", kubeconfig=own))
    refused = _one_line(doctor(*TARGET, "--as", "reader", kubeconfig=users["pod-reader"]))
    assert "impersonate" in refused


def test_access_says_what_is_lost(crashed: Object, users: dict[str, Path], doctor: Doctor) -> None:
    all_of_it = doctor("access", "-n", "serving", kubeconfig=users["reader"])
    less = doctor("access", "-n", "serving", kubeconfig=users["pod-reader"])
    assert "Traceback" not in all_of_it.out + all_of_it.err + less.out + less.err
    assert "log" in less.out.lower()
    assert less.out != all_of_it.out


def test_an_exec_plugin(crashed: Object, cluster: ControlPlane, token: str, doctor: Doctor, tmp_path: Path) -> None:
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    plugin = tmp_path / "plugin.py"
    plugin.write_text(f"import os\nassert os.environ['WHO'] == 'doctor'\nprint({json.dumps(json.dumps(credential))})\n")
    call = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": sys.executable,
        "args": [str(plugin)],
        "env": [{"name": "WHO", "value": "doctor"}],
        "interactiveMode": "Never",
    }
    assert _found(doctor(*TARGET, kubeconfig=cluster.kubeconfig("exec", {"exec": call})))
    plugin.write_text("import sys\nsys.exit('no one is logged in')\n")
    line = _one_line(doctor(*TARGET, kubeconfig=cluster.kubeconfig("exec", {"exec": call})))
    assert sys.executable in line or Path(sys.executable).name in line


def test_a_token(crashed: Object, cluster: ControlPlane, token: str, doctor: Doctor, tmp_path: Path) -> None:
    assert _found(doctor(*TARGET, kubeconfig=cluster.kubeconfig("token", {"token": token})))
    file = tmp_path / "token"
    file.write_text(token + "\n")
    assert _found(doctor(*TARGET, kubeconfig=cluster.kubeconfig("token-file", {"tokenFile": str(file)})))
    anonymous = cluster.kubeconfig("anonymous", {})
    _one_line(doctor(*TARGET, kubeconfig=anonymous))
    assert _found(doctor(*TARGET, "--token", token, kubeconfig=anonymous))


def test_an_expired_token(crashed: Object, cluster: ControlPlane, token: str, doctor: Doctor) -> None:
    account = cluster.api.get("/api/v1/namespaces/default/serviceaccounts/doctor")["metadata"]
    long_ago = int(time.time()) - 7200
    claims = {
        "aud": [ISSUER],
        "iss": ISSUER,
        "iat": long_ago,
        "nbf": long_ago,
        "exp": long_ago + 3600,
        "sub": "system:serviceaccount:default:doctor",
        "kubernetes.io": {"namespace": "default", "serviceaccount": {"name": "doctor", "uid": account["uid"]}},
    }
    kubeconfig = cluster.kubeconfig("expired", {"token": cluster.tokens.sign(claims)})
    line = _one_line(doctor(*TARGET, kubeconfig=kubeconfig)).lower()
    assert "unauthorized" in line or "401" in line or "credentials" in line
    fresh = claims | {"exp": int(time.time()) + 3600}
    assert _found(doctor(*TARGET, kubeconfig=cluster.kubeconfig("fresh", {"token": cluster.tokens.sign(fresh)})))


def test_contexts_of_several_files(crashed: Object, users: dict[str, Path], doctor: Doctor) -> None:
    files = f"{users['nobody']}:{users['reader']}"
    _one_line(doctor(*TARGET, KUBECONFIG=files))  # the first file names the current context
    assert _found(doctor(*TARGET, "--context", "reader", KUBECONFIG=files))
    assert _found(doctor(*TARGET, "--user", "reader", KUBECONFIG=files))
    assert _found(doctor(*TARGET, "--kubeconfig", str(users["reader"]), KUBECONFIG="/dev/null"))
    unknown = doctor(*TARGET, "--context", "no-such-context", KUBECONFIG=files)
    assert unknown.code in (2, 3)
    assert len(unknown.err.splitlines()) == 1
    assert "no-such-context" in unknown.err


def test_the_namespace_of_a_context(crashed: Object, users: dict[str, Path], doctor: Doctor, tmp_path: Path) -> None:
    document: Any = yaml.safe_load(users["reader"].read_text())
    document["contexts"][0]["context"]["namespace"] = "serving"
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(yaml.safe_dump(document))
    assert _found(doctor("diagnose", "llama-0", "-o", "json", kubeconfig=kubeconfig))
    assert "default" in _one_line(doctor("diagnose", "llama-0", "-n", "default", kubeconfig=kubeconfig))


def test_another_authority(crashed: Object, cluster: ControlPlane, doctor: Doctor, tmp_path: Path) -> None:
    other = Authority(tmp_path, "other").certificate
    kubeconfig = cluster.kubeconfig("other-ca", cluster.user("reader"), ca=other)
    assert "certificate" in _one_line(doctor(*TARGET, kubeconfig=kubeconfig)).lower()


def test_no_server(crashed: Object, cluster: ControlPlane, doctor: Doctor) -> None:
    gone = cluster.kubeconfig("gone", cluster.user("reader"), server=SERVER.replace("6443", "6444"))
    assert "6444" in _one_line(doctor(*TARGET, kubeconfig=gone))
    # An address where nobody answers at all: only the timeout ends it.
    silent = cluster.kubeconfig("silent", cluster.user("reader"), server="https://10.99.99.99:6443")
    result = doctor(*TARGET, "--request-timeout", "1s", kubeconfig=silent)
    assert "10.99.99.99" in _one_line(result)
    assert result.seconds < 10


def test_in_a_pod(crashed: Object, cluster: ControlPlane, token: str, home: Path, tmp_path: Path) -> None:
    """Without a kubeconfig the program uses what Kubernetes mounts into every pod."""
    from .program import run

    mounted = tmp_path / "serviceaccount"
    mounted.mkdir()
    (mounted / "token").write_text(token)
    (mounted / "namespace").write_text("serving")
    (mounted / "ca.crt").write_bytes(cluster.authority.certificate.read_bytes())
    # A mount namespace of its own, where /run (which /var/run points to) is an empty folder of ours.
    script = (
        'set -e; mount -t tmpfs none "$(realpath /var/run)"; mkdir -p /var/run/secrets/kubernetes.io; '
        'cp -r "$0" /var/run/secrets/kubernetes.io/serviceaccount; exec kubectl llmdoctor diagnose llama-0 -o json'
    )
    variables = {"KUBERNETES_SERVICE_HOST": "10.77.0.1", "KUBERNETES_SERVICE_PORT": "6443"}
    result = run(["unshare", "--mount", "sh", "-c", script, str(mounted)], home, variables)
    assert _found(result)
