"""Which server is asked as whom: kubeconfig, flags, credential plugins, certificates, proxies, service accounts."""
# ruff: noqa: F811

from __future__ import annotations

import base64
import datetime
import http.client
import ipaddress
import json
import os
import select
import socket
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from kubectl_llmdoctor.errors import AccessError, LlmdoctorError, UsageError
from kubectl_llmdoctor.gather import connection as connections
from kubectl_llmdoctor.gather import credentials as credential_plugins
from kubectl_llmdoctor.gather.cluster import Connection, Query, connect, gather
from kubectl_llmdoctor.gather.connection import resolve
from kubectl_llmdoctor.gather.wire import environment_proxy
from tests.test_gather_server import FakeApi, Json, api, config_for, raw  # noqa: F401

Write = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "HTTPS_PROXY", "HTTP_PROXY", "https_proxy", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(document: Any, name: str = "config") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(document if isinstance(document, str) else yaml.safe_dump(document))
        return str(path)

    return to_file


def refused(connection: Connection, kind: type[LlmdoctorError] = AccessError) -> str:
    with pytest.raises(kind) as caught:
        connect(connection)
    assert type(caught.value) is kind
    assert "\n" not in str(caught.value)
    return str(caught.value)


# --- kubeconfig -------------------------------------------------------------------------------------------------------


def test_the_current_context_says_server_namespace_and_user(write: Write) -> None:
    endpoint = resolve(Connection(kubeconfig=write(config_for("https://a:6443/"))))
    assert endpoint.server == "https://a:6443"
    assert endpoint.namespace == "serving"
    assert endpoint.credentials.authorization == "Bearer t0ken"
    assert endpoint.context == endpoint.user == "test"


def test_flags_win_over_the_kubeconfig(write: Write) -> None:
    one, two = config_for("https://a"), config_for("https://b", "other", user={"token": "second"})
    both = {key: one[key] + two[key] for key in ("contexts", "clusters", "users")} | {"current-context": "test"}
    path = write(both)
    assert resolve(Connection(kubeconfig=path, context="other")).server == "https://b"
    endpoint = resolve(Connection(kubeconfig=path, cluster="other", namespace="elsewhere"))
    assert (endpoint.server, endpoint.namespace) == ("https://b", "elsewhere")
    assert endpoint.credentials.authorization == "Bearer t0ken"
    assert resolve(Connection(kubeconfig=path, user="other")).credentials.authorization == "Bearer second"
    endpoint = resolve(Connection(kubeconfig=path, server="https://c", token="given"))
    assert (endpoint.server, endpoint.credentials.authorization) == ("https://c", "Bearer given")


def test_kubeconfigs_of_a_list_are_merged_and_the_first_counts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    first = write({"current-context": "test", "users": config_for("x", user={"token": "first"})["users"]}, "a/config")
    second = write(config_for("https://b"), "b/config")
    monkeypatch.setenv("KUBECONFIG", os.pathsep.join([first, "/no/such/file", "", second]))
    endpoint = resolve(Connection())
    assert endpoint.server == "https://b"
    assert endpoint.credentials.authorization == "Bearer first"


def test_relative_paths_start_at_the_file_that_names_them(write: Write, tmp_path: Path) -> None:
    write("from-file\n", "a/token")
    path = write(config_for("http://b", user={"tokenFile": "token", "token": "stale"}), "a/config")
    assert resolve(Connection(kubeconfig=path)).credentials.authorization == "Bearer from-file"


def test_the_default_file_is_in_the_home_folder(write: Write) -> None:
    write(config_for("https://home"), "home/.kube/config")
    assert resolve(Connection()).server == "https://home"


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        (Connection(context="x"), "has no context 'x'; it has: test"),
        (Connection(cluster="x"), "has no cluster 'x'"),
        (Connection(user="x"), "has no user 'x'"),
        (Connection(as_groups=("g",)), "--as-group needs --as"),
    ],
)
def test_wrong_names_are_wrong_usage(write: Write, connection: Connection, says: str) -> None:
    write(config_for("https://a"), "home/.kube/config")
    assert says in refused(connection, UsageError)


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ("a: [", "is not valid YAML"),
        ("just text", "is not a mapping"),
        ({}, "no cluster is configured"),
        ({**config_for("https://a"), "current-context": ""}, "has no current context; choose one with --context: test"),
        ({**config_for("https://a"), "current-context": "gone"}, "has no context 'gone'"),
        ({**config_for("https://a"), "clusters": []}, "has no cluster 'test'"),
        (config_for(""), "has no server"),
        (config_for("https://a", cluster={"certificate-authority-data": "%%%"}), "is not base64"),
        (config_for("https://a", cluster={"certificate-authority-data": "YWJj"}), "is not a PEM certificate"),
        (config_for("https://a", cluster={"certificate-authority": "gone.crt"}), "cannot be read"),
        (config_for("https://a", user={"client-certificate-data": "YWJj"}), "without its key"),
        (config_for("https://a", user={"client-certificate-data": "YWJj", "client-key-data": "YWJj"}), "do not fit"),
        (config_for("https://a", user={"tokenFile": "gone"}), "tokenFile of user test cannot be read"),
        (config_for("https://a", user={"token": "two\nlines"}), "characters that no token has"),
        (config_for("https://a", user={"auth-provider": {"name": "gcp"}}), "which kubectl dropped"),
        (config_for("https://a", cluster={"proxy-url": "https://user:pw@proxy:1"}), "speaks TLS is not supported"),
        (
            config_for("https://a", cluster={"proxy-url": "ftp://user:pw@proxy:1"}),
            "the proxy is not an address: proxy:1",
        ),
        (config_for("https://a:b"), "the server of the cluster is not an address"),
        (config_for("https://a..bä"), "the server of the cluster is not an address"),
    ],
)
def test_a_broken_kubeconfig_is_one_line(write: Write, document: Any, says: str) -> None:
    message = refused(Connection(kubeconfig=write(document)))
    assert says in message
    assert "pw@" not in message


def test_a_kubeconfig_that_is_named_must_exist() -> None:
    assert refused(Connection(kubeconfig="/no/such")) == "the kubeconfig /no/such does not exist"


def test_without_anything_the_message_says_what_to_do() -> None:
    assert "--kubeconfig or --server" in refused(Connection())


def test_a_server_on_the_command_line_is_enough() -> None:
    assert resolve(Connection(server="http://127.0.0.1:8001")).server == "http://127.0.0.1:8001"


def test_a_password_is_sent_as_basic_authorization(write: Write) -> None:
    path = write(config_for("http://a", user={"username": "u", "password": "p"}))
    assert resolve(Connection(kubeconfig=path)).credentials.authorization == "Basic dTpw"


def _jwt(**claims: Any) -> str:
    return f"h.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.s"


def test_an_oidc_token_serves_while_it_is_valid(write: Write) -> None:
    def user(token: str) -> Json:
        return {"auth-provider": {"name": "oidc", "config": {"id-token": token, "refresh-token": "r"}}}

    valid = _jwt(exp=4_000_000_000)
    assert resolve(Connection(kubeconfig=write(config_for("http://a", user=user(valid))))).credentials == (
        credential_plugins.Credentials(authorization=f"Bearer {valid}")
    )
    message = refused(Connection(kubeconfig=write(config_for("http://a", user=user(_jwt(exp=1))))))
    assert "has expired: run `kubectl version` once" in message


# --- impersonation ----------------------------------------------------------------------------------------------------


def test_as_and_as_group_are_sent(api: FakeApi, write: Write) -> None:
    api.faults["/x"] = [raw(200, b"{}")]
    flags = {"as_user": "dev@example.com", "as_groups": ("a", "b")}
    cluster = connect(Connection(kubeconfig=write(config_for(api.url)), **flags))  # type: ignore[arg-type]
    cluster.client.get("/x", decode=msgspec.json.decode)
    cluster.close()
    headers = api.requests[0][3]
    assert headers["impersonate-user"] == ["dev@example.com"]
    assert headers["impersonate-group"] == ["a", "b"]


def test_the_kubeconfig_may_impersonate_too(write: Write) -> None:
    user = {"token": "t", "as": "dev", "as-groups": ["g"], "as-uid": "7", "as-user-extra": {"scopes": ["view"]}}
    path = write(config_for("http://a", user=user))
    assert resolve(Connection(kubeconfig=path)).impersonation == (
        ("Impersonate-User", "dev"),
        ("Impersonate-Group", "g"),
        ("Impersonate-Uid", "7"),
        ("Impersonate-Extra-scopes", "view"),
    )
    flagged = Connection(kubeconfig=path, as_user="other", token="x")
    assert resolve(flagged).impersonation[0] == ("Impersonate-User", "other")


# --- credential plugins -----------------------------------------------------------------------------------------------

V1 = "client.authentication.k8s.io/v1"


def plugin(tmp_path: Path, script: str, **config: Any) -> Json:
    path = tmp_path / "bin" / "plugin"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return {"exec": {"apiVersion": V1, "command": "./bin/plugin", "interactiveMode": "Never", **config}}


def answer(status: Any, version: str = V1) -> str:
    return f"echo '{json.dumps({'apiVersion': version, 'kind': 'ExecCredential', 'status': status})}'"


def test_a_plugin_gives_the_token(write: Write, tmp_path: Path) -> None:
    user = plugin(tmp_path, answer({"token": "from-plugin"}))
    assert resolve(Connection(kubeconfig=write(config_for("http://a", user=user)))).credentials.authorization == (
        "Bearer from-plugin"
    )


def test_a_plugin_is_told_about_the_cluster_and_gets_its_arguments(write: Write, tmp_path: Path) -> None:
    script = (
        f'echo "$1 $REGION" >{tmp_path}/args; echo "$KUBERNETES_EXEC_INFO" >{tmp_path}/info; {answer({"token": "t"})}'
    )
    env = [{"name": "REGION", "value": "eu"}]
    user = plugin(tmp_path, script, args=["token"], env=env, provideClusterInfo=True)
    extensions = [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "x"}}]
    write("PEM", "ca.crt")
    document = config_for("https://a", user=user, cluster={"certificate-authority": "ca.crt", "extensions": extensions})
    resolve(Connection(kubeconfig=write(document)))
    assert (tmp_path / "args").read_text() == "token eu\n"
    assert json.loads((tmp_path / "info").read_text()) == {
        "apiVersion": V1,
        "kind": "ExecCredential",
        "spec": {
            "interactive": False,
            "cluster": {
                "server": "https://a",
                "certificate-authority-data": base64.b64encode(b"PEM").decode(),
                "config": {"audience": "x"},
            },
        },
    }


def test_a_plugin_is_not_run_when_a_token_is_given(write: Write, tmp_path: Path) -> None:
    path = write(config_for("http://a", user=plugin(tmp_path, "exit 3")))
    assert resolve(Connection(kubeconfig=path, token="given")).credentials.authorization == "Bearer given"


@pytest.mark.parametrize(
    ("script", "config", "says"),
    [
        ("echo first >&2; echo 'run aws sso login' >&2; exit 255", {}, "failed with exit code 255: run aws sso login"),
        ("echo no json", {}, "did not answer with JSON"),
        (answer({}), {}, "without a token or a certificate"),
        (answer({"token": "t"}, "client.authentication.k8s.io/v1beta1"), {}, "the kubeconfig says"),
        ("", {"apiVersion": "client.authentication.k8s.io/v1alpha1"}, "speaks client.authentication.k8s.io/v1alpha1"),
        ("", {"interactiveMode": "Always"}, "needs a terminal"),
        ("", {"command": "no-such-plugin", "installHint": "brew install\nit"}, "is not installed. brew install it"),
        (answer({"clientCertificateData": "abc"}), {}, "without its key"),
    ],
)
def test_a_plugin_that_fails_is_one_line(
    write: Write, tmp_path: Path, script: str, config: Json, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", None)
    assert says in refused(
        Connection(kubeconfig=write(config_for("http://a", user=plugin(tmp_path, script, **config))))
    )


def test_a_plugin_that_hangs_is_given_up(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credential_plugins, "_EXEC_SECONDS", 0.1)
    path = write(config_for("http://a", user=plugin(tmp_path, "exec sleep 5")))
    assert "did not answer in 0.1 s" in refused(Connection(kubeconfig=path))


# --- in a pod ---------------------------------------------------------------------------------------------------------


def test_in_a_pod_its_service_account_is_used(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"token": "sa-token\n", "namespace": "own", "ca.crt": "PEM"}.items():
        write(text, f"sa/{name}")
    monkeypatch.setattr(connections, "SERVICE_ACCOUNT", tmp_path / "sa")
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    endpoint = resolve(Connection())
    assert (endpoint.server, endpoint.namespace, endpoint.authority) == ("https://[fd00::1]:443", "own", b"PEM")
    assert endpoint.credentials.authorization == "Bearer sa-token"
    assert resolve(Connection(namespace="serving")).namespace == "serving"


# --- TLS --------------------------------------------------------------------------------------------------------------


class Pki:
    """An authority, a server certificate for `api.example` and 127.0.0.1, and a client certificate."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca = self._issue("ca", None)
        self.other_ca = Pki._self_signed(folder)

    def _issue(self, name: str, names: list[x509.GeneralName] | None) -> Path:
        key = self._key if names is None else ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ca")])
        now = datetime.datetime.now(datetime.UTC)
        builder = (
            x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=names is None, path_length=None), critical=True)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        path = self.folder / f"{name}.crt"
        path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.folder.joinpath(f"{name}.key").write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    def server(self) -> Path:
        names = [x509.DNSName("api.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        return self._issue("server", names)

    def client(self) -> Path:
        return self._issue("client", [x509.DNSName("client")])

    @staticmethod
    def _self_signed(folder: Path) -> Path:
        inner = folder / "other"
        inner.mkdir()
        other = Pki.__new__(Pki)
        other.folder, other._key = inner, ec.generate_private_key(ec.SECP256R1())
        return other._issue("ca", None)


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def secure(api: FakeApi, pki: Pki) -> FakeApi:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pki.server(), pki.folder / "server.key")
    context.load_verify_locations(pki.ca)
    context.verify_mode = ssl.CERT_OPTIONAL
    api.server.socket = context.wrap_socket(api.server.socket, server_side=True, do_handshake_on_connect=False)
    api.url = f"https://127.0.0.1:{api.server.server_port}"
    api.faults["/x"] = [lambda handler: handler.json({"peer": handler.connection.getpeercert() or {}})]
    return api


def ask(connection: Connection) -> Json:
    cluster = connect(connection)
    try:
        found: Json = cluster.client.get("/x", decode=msgspec.json.decode)
    finally:
        cluster.close()
    return found


def data(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()


def test_the_server_is_checked_against_the_authority(secure: FakeApi, pki: Pki, write: Write) -> None:
    for authority in ({"certificate-authority": str(pki.ca)}, {"certificate-authority-data": data(pki.ca)}):
        assert ask(Connection(kubeconfig=write(config_for(secure.url, cluster=authority)))) == {"peer": {}}


def test_a_client_certificate_is_shown(secure: FakeApi, pki: Pki, write: Write) -> None:
    path, key = pki.client(), pki.folder / "client.key"
    users: list[Json] = [
        {"client-certificate": str(path), "client-key": str(key)},
        {"client-certificate-data": data(path), "client-key-data": data(key)},
    ]
    for user in users:
        document = config_for(secure.url, user=user, cluster={"certificate-authority": str(pki.ca)})
        assert ask(Connection(kubeconfig=write(document)))["peer"]["subject"][0][0] == ["commonName", "client"]


def test_a_client_certificate_is_shown_without_files_in_memory(
    secure: FakeApi, pki: Pki, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(name: str) -> int:
        raise PermissionError(name)

    monkeypatch.setattr("os.memfd_create", forbidden, raising=False)
    test_a_client_certificate_is_shown(secure, pki, write)


def test_a_plugin_may_give_a_certificate(secure: FakeApi, pki: Pki, write: Write, tmp_path: Path) -> None:
    status = {
        "clientCertificateData": pki.client().read_text(),
        "clientKeyData": (pki.folder / "client.key").read_text(),
    }
    write(json.dumps({"apiVersion": V1, "kind": "ExecCredential", "status": status}), "answer.json")
    user = plugin(tmp_path, f"cat {tmp_path}/answer.json")
    document = config_for(secure.url, user=user, cluster={"certificate-authority": str(pki.ca)})
    assert ask(Connection(kubeconfig=write(document)))["peer"]["subject"]


def test_the_name_in_the_certificate_may_be_given(secure: FakeApi, pki: Pki, write: Write) -> None:
    server = secure.url.replace("127.0.0.1", "localhost")
    named = {"certificate-authority": str(pki.ca), "tls-server-name": "api.example"}
    assert ask(Connection(kubeconfig=write(config_for(server, cluster=named)))) == {"peer": {}}


def gather_fails(connection: Connection) -> str:
    cluster = connect(connection)
    try:
        with pytest.raises(AccessError) as caught:
            gather(cluster, Query(names=("llama-0",)))
    finally:
        cluster.close()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_server_of_another_authority_is_refused(secure: FakeApi, pki: Pki, write: Write) -> None:
    document = config_for(secure.url, cluster={"certificate-authority": str(pki.other_ca)})
    message = gather_fails(Connection(kubeconfig=write(document)))
    assert "its certificate is not trusted: " in message
    assert "check certificate-authority" in message


def test_a_server_of_another_name_is_refused(secure: FakeApi, pki: Pki, write: Write) -> None:
    server = secure.url.replace("127.0.0.1", "localhost")
    document = config_for(server, cluster={"certificate-authority": str(pki.ca)})
    assert "its certificate is not trusted: Hostname mismatch" in gather_fails(Connection(kubeconfig=write(document)))


def test_the_check_can_be_switched_off(secure: FakeApi, pki: Pki, write: Write) -> None:
    path = write(config_for(secure.url, cluster={"certificate-authority": str(pki.other_ca)}))
    assert ask(Connection(kubeconfig=path, insecure_skip_tls_verify=True)) == {"peer": {}}
    assert ask(Connection(kubeconfig=write(config_for(secure.url, cluster={"insecure-skip-tls-verify": True})))) == {
        "peer": {}
    }


def test_a_server_without_tls_is_said(api: FakeApi, write: Write) -> None:
    message = gather_fails(
        Connection(kubeconfig=write(config_for(api.url.replace("http:", "https:"))), request_timeout=1)
    )
    assert "it does not speak TLS" in message


# --- the first request ------------------------------------------------------------------------------------------------


def test_nobody_listens(api: FakeApi, write: Write) -> None:
    api.stop()
    message = gather_fails(Connection(kubeconfig=write(config_for(api.url))))
    assert message == (
        f"cannot reach {api.url} (context test): connection refused; check the context, the network and the VPN"
    )


def test_an_unknown_host(write: Write) -> None:
    assert "the name of the server cannot be resolved" in gather_fails(
        Connection(kubeconfig=write(config_for("http://no.invalid")))
    )


def test_expired_credentials(api: FakeApi, write: Write) -> None:
    api.faults["/api/v1/namespaces/serving/pods/llama-0"] = [raw(401, b'{"kind":"Status","message":"Unauthorized"}')]
    message = gather_fails(Connection(kubeconfig=write(config_for(api.url))))
    assert "does not accept the credentials of user test (unauthorized: Unauthorized); sign in again" in message


# --- proxies ----------------------------------------------------------------------------------------------------------


class Proxy:
    """A proxy on 127.0.0.1 that answers requests itself and passes connections on to `beyond`."""

    def __init__(self, beyond: FakeApi, *, refuses: bool = False) -> None:
        self.seen: list[str] = []
        self._beyond = ("127.0.0.1", beyond.server.server_port)
        self._refuses = refuses
        outer = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                first = self.rfile.read(1)
                if first == b"\x05":
                    outer._socks(self)
                else:
                    outer._http(self, first)

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def _http(self, handler: socketserver.StreamRequestHandler, first: bytes) -> None:
        line = (first + handler.rfile.readline()).decode().strip()
        headers = http.client.parse_headers(handler.rfile)
        self.seen.append(f"{line} | {headers.get('Proxy-Authorization')}")
        if self._refuses:
            handler.wfile.write(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
        elif line.startswith("CONNECT"):
            handler.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            self._pass_on(handler.connection)
        else:
            handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

    def _socks(self, handler: socketserver.StreamRequestHandler) -> None:
        method = handler.rfile.read(handler.rfile.read(1)[0])[0]
        handler.wfile.write(b"\x05" + (b"\xff" if self._refuses else bytes([method])))
        if self._refuses:
            return
        if method == 2:
            handler.rfile.read(1)
            user = handler.rfile.read(handler.rfile.read(1)[0]).decode()
            self.seen.append(f"{user}:{handler.rfile.read(handler.rfile.read(1)[0]).decode()}")
            handler.wfile.write(b"\x01\x00")
        handler.rfile.read(4)
        self.seen.append(handler.rfile.read(handler.rfile.read(1)[0]).decode())
        handler.rfile.read(2)
        handler.wfile.write(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
        self._pass_on(handler.connection)

    def _pass_on(self, client: socket.socket) -> None:
        with socket.create_connection(self._beyond) as server:
            ends = {client: server, server: client}
            while True:
                for one in select.select(list(ends), [], [])[0]:
                    data = one.recv(65536)
                    if not data:
                        return
                    ends[one].sendall(data)


@pytest.fixture
def proxy(api: FakeApi) -> Iterator[Proxy]:
    found = Proxy(api)
    yield found
    found.stop()


BASIC = f"Basic {base64.b64encode(b'user:pw').decode()}"


def test_a_proxy_gets_plain_requests_itself(proxy: Proxy, write: Write) -> None:
    cluster = {"proxy-url": f"http://user:pw@127.0.0.1:{proxy.port}"}
    ask(Connection(kubeconfig=write(config_for("http://api.example", cluster=cluster))))
    assert proxy.seen == [f"GET http://api.example/x HTTP/1.1 | {BASIC}"]


def test_the_proxy_of_the_environment_is_used(proxy: Proxy, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"127.0.0.1:{proxy.port}")
    ask(Connection(kubeconfig=write(config_for("http://api.example"))))
    assert len(proxy.seen) == 1


@pytest.mark.parametrize(
    ("address", "seen"),
    [
        ("http://user:pw@127.0.0.1", [f"CONNECT api.example:6443 HTTP/1.1 | {BASIC}"]),
        ("http://127.0.0.1", ["CONNECT api.example:6443 HTTP/1.1 | None"]),
        ("socks5://127.0.0.1", ["api.example"]),
        ("socks5://user:p%40w@127.0.0.1", ["user:p@w", "api.example"]),
    ],
)
def test_a_proxy_passes_tls_on(
    secure: FakeApi, pki: Pki, proxy: Proxy, write: Write, address: str, seen: list[str]
) -> None:
    cluster = {"proxy-url": f"{address}:{proxy.port}", "certificate-authority": str(pki.ca)}
    assert ask(Connection(kubeconfig=write(config_for("https://api.example:6443", cluster=cluster)))) == {"peer": {}}
    assert proxy.seen == seen


@pytest.mark.parametrize(
    ("scheme", "says"),
    [("http", "the proxy refuses: 407"), ("socks5", "the proxy wants another way to sign in")],
)
def test_a_proxy_that_refuses_is_said(api: FakeApi, write: Write, scheme: str, says: str) -> None:
    refusing = Proxy(api, refuses=True)
    cluster = {"proxy-url": f"{scheme}://127.0.0.1:{refusing.port}"}
    assert says in gather_fails(Connection(kubeconfig=write(config_for("https://api.example", cluster=cluster))))
    refusing.stop()


def test_a_proxy_that_is_not_there_is_said(api: FakeApi, write: Write) -> None:
    api.stop()
    message = gather_fails(
        Connection(kubeconfig=write(config_for("https://a.example", cluster={"proxy-url": api.url})))
    )
    assert "the proxy: connection refused" in message


@pytest.mark.parametrize(
    ("excluded", "server", "direct"),
    [
        ("", "https://api.example", False),
        ("*", "https://api.example", True),
        ("example", "https://api.example", True),
        (".example", "https://api.example", True),
        ("other, api.example:6443", "https://api.example:6443", True),
        ("api.example:6443", "https://api.example", False),
        ("pi.example", "https://api.example", False),
        ("10.0.0.0/8", "https://10.1.2.3:6443", True),
        ("10.0.0.0/8", "https://api.example", False),
        ("", "https://127.0.0.1:6443", True),
        ("", "https://localhost", True),
    ],
)
def test_addresses_without_a_proxy(excluded: str, server: str, direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "proxy:3128")
    monkeypatch.setenv("NO_PROXY", excluded)
    assert environment_proxy(urlsplit(server)) == ("" if direct else "http://proxy:3128")
