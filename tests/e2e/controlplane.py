"""A real control plane: etcd, kube-apiserver and, when asked for, kube-scheduler and kube-controller-manager.

It expects the network namespace that ``network.py`` sets up. Nodes have no kubelet; ``kubelet.py`` stands in for the
one thing that the tests need of it.
"""

import base64
import json
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import urllib3
import yaml

from . import network
from .pki import Authority, Pair, TokenKey

SERVER = f"https://{network.ADDRESS}:6443"
ISSUER = "https://kubernetes.default.svc"
START_SECONDS = 60


class ApiError(Exception):
    """The API server refused a request of the tests' own."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


class Api:
    """The API server as its administrator sees it, spoken to directly."""

    def __init__(self, ca: Path, admin: Pair) -> None:
        # It says 504 after three seconds where its cache has not caught up with the store, as on a busy machine.
        again = urllib3.Retry(connect=0, read=0, redirect=0, status=10, status_forcelist=(504,), raise_on_status=False)
        self._pool = urllib3.PoolManager(
            ca_certs=str(ca), cert_file=str(admin.certificate), key_file=str(admin.key), retries=again, maxsize=16
        )

    def call(self, method: str, path: str, body: Any = None, kind: str = "application/json") -> Any:
        """Sends one request; returns the decoded answer."""
        data = None if body is None else json.dumps(body).encode()
        answer = self._pool.request(method, SERVER + path, body=data, headers={"Content-Type": kind}, timeout=30)
        if answer.status >= 400:
            raise ApiError(answer.status, answer.data.decode(errors="replace"))
        return json.loads(answer.data) if answer.data.startswith(b"{") else answer.data.decode()

    def get(self, path: str) -> Any:
        """Reads one object or list."""
        return self.call("GET", path)

    def create(self, path: str, body: Any) -> Any:
        """Posts an object to a collection."""
        return self.call("POST", path, body)

    def patch(self, path: str, body: Any) -> Any:
        """Merges into an object or, with a path that ends in ``/status``, into its status."""
        return self.call("PATCH", path, body, "application/merge-patch+json")

    def delete(self, path: str) -> Any:
        """Deletes an object at once."""
        return self.call("DELETE", f"{path}?gracePeriodSeconds=0&propagationPolicy=Background")

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()


class Etcd:
    """The store below the API server, through its JSON gateway."""

    URL = "http://127.0.0.1:2379"

    def __init__(self) -> None:
        self._pool = urllib3.PoolManager(retries=False, maxsize=16)

    def healthy(self) -> bool:
        """Whether it serves."""
        try:
            return self._pool.request("GET", f"{self.URL}/health", timeout=2).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def write(self, values: Mapping[str, bytes | None]) -> tuple[int, dict[str, bytes | None]]:
        """Puts the keys, or deletes those without a value; returns the store's revision and what stood there before."""
        before: dict[str, bytes | None] = {}
        revision = 0
        for chunk in _chunks(values):
            operations = [_operation(key, values[key]) for key in chunk]
            answer = self._pool.request("POST", f"{self.URL}/v3/kv/txn", json={"success": operations}, timeout=30)
            if answer.status != 200:
                raise ApiError(answer.status, answer.data.decode(errors="replace"))
            done = answer.json()
            revision = int(done["header"]["revision"])
            for key, response in zip(chunk, done["responses"], strict=True):
                (outcome,) = response.values()
                previous = outcome.get("prev_kv") or next(iter(outcome.get("prev_kvs", [])), None)
                before[key] = base64.b64decode(previous["value"]) if previous else None
        return revision, before

    def read(self, prefix: str) -> dict[str, bytes]:
        """All values whose keys begin so."""
        first = prefix.encode()
        body = {"key": _encoded(first), "range_end": _encoded(first[:-1] + bytes([first[-1] + 1]))}
        answer = self._pool.request("POST", f"{self.URL}/v3/kv/range", json=body, timeout=30)
        if answer.status != 200:
            raise ApiError(answer.status, answer.data.decode(errors="replace"))
        rows = answer.json().get("kvs", [])
        return {base64.b64decode(row["key"]).decode(): base64.b64decode(row["value"]) for row in rows}

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _operation(key: str, value: bytes | None) -> dict[str, Any]:
    name = base64.b64encode(key.encode()).decode()
    if value is None:
        return {"requestDeleteRange": {"key": name, "prev_kv": True}}
    return {"requestPut": {"key": name, "value": base64.b64encode(value).decode(), "prev_kv": True}}


def _chunks(values: Mapping[str, bytes | None]) -> Iterable[list[str]]:
    # etcd takes 128 operations and 1.5 MiB in one transaction. The last key has one of its own: all changes of a
    # transaction share a revision, so only who has seen a later revision has seen all of them.
    chunk: list[str] = []
    size = 0
    for number, (key, value) in enumerate(values.items(), 1):
        size += len(value or b"")
        if chunk and (len(chunk) == 100 or size > 1_000_000 or number == len(values)):
            yield chunk
            chunk, size = [], len(value or b"")
        chunk.append(key)
    if chunk:
        yield chunk


class ControlPlane:
    """One cluster; ``start`` to ``stop``."""

    def __init__(self, programs: Mapping[str, Path], folder: Path) -> None:
        self._programs = programs
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self.folder = folder
        self.authority = Authority(folder, "ca")
        self.tokens = TokenKey(folder)
        self.admin_pair = self.authority.issue("admin", groups=["system:masters"])
        self.api = Api(self.authority.certificate, self.admin_pair)
        self.etcd = Etcd()
        self.admin = self.kubeconfig("admin", self.certificate_user(self.admin_pair))

    def start(self) -> None:
        """Starts etcd and the API server; returns when the API is ready, after about three seconds."""
        self._launch("etcd", data_dir=self.folder / "etcd", log_level="error", unsafe_no_fsync=True)
        self._wait_for("etcd", self.etcd.healthy)
        hosts = [network.ADDRESS, "127.0.0.1", "10.96.0.1", "localhost", "kubernetes", "kubernetes.default"]
        server = self.authority.issue("kube-apiserver", hosts=hosts)
        kubelet_client = self.authority.issue("kube-apiserver-kubelet-client", groups=["system:masters"])
        self._launch(
            "kube-apiserver",
            etcd_servers=Etcd.URL,
            advertise_address=network.ADDRESS,
            bind_address="0.0.0.0",
            secure_port=6443,
            service_cluster_ip_range="10.96.0.0/16",
            client_ca_file=self.authority.certificate,
            tls_cert_file=server.certificate,
            tls_private_key_file=server.key,
            service_account_key_file=self.tokens.public,
            service_account_signing_key_file=self.tokens.private,
            service_account_issuer=ISSUER,
            authorization_mode="Node,RBAC",
            kubelet_client_certificate=kubelet_client.certificate,
            kubelet_client_key=kubelet_client.key,
            kubelet_preferred_address_types="InternalIP",
            allow_privileged=True,
            # New nodes stay free of the not-ready taint, and pods can be made before their service account.
            disable_admission_plugins="TaintNodesByCondition,ServiceAccount",
            # The recorded events are up to hours old and must outlive the tests.
            event_ttl="24h",
        )
        self._wait_for("kube-apiserver", self._ready)

    def start_scheduler(self) -> None:
        """Starts the scheduler alone."""
        self._launch("kube-scheduler", kubeconfig=self.admin, leader_elect=False, bind_address="127.0.0.1")

    def stop_scheduler(self) -> None:
        """Stops it again."""
        self._end("kube-scheduler")

    def start_controllers(self) -> None:
        """Starts the scheduler and the controller manager."""
        self.start_scheduler()
        self._launch(
            "kube-controller-manager",
            kubeconfig=self.admin,
            leader_elect=False,
            bind_address="127.0.0.1",
            service_account_private_key_file=self.tokens.private,
            root_ca_file=self.authority.certificate,
            use_service_account_credentials=True,
            # No kubelet renews a lease here, which these would take for dead nodes.
            controllers="*,-node-lifecycle-controller,-pod-garbage-collector-controller,-taint-eviction-controller",
        )

    def stop_controllers(self) -> None:
        """Stops them again, so that nothing changes the objects in the store any more."""
        for name in ("kube-controller-manager", "kube-scheduler"):
            self._end(name)

    def stop(self) -> None:
        """Ends every process that was started."""
        for name in reversed(list(self._processes)):
            self._end(name)
        self.api.close()
        self.etcd.close()

    def certificate_user(self, pair: Pair) -> dict[str, Any]:
        """The user entry of a kubeconfig for a client certificate."""
        return {"client-certificate": str(pair.certificate), "client-key": str(pair.key)}

    def user(self, name: str, groups: Iterable[str] = ()) -> dict[str, Any]:
        """The user entry of a new user; what it may do is a matter of RBAC."""
        return self.certificate_user(self.authority.issue(name, groups))

    def kubeconfig(self, name: str, user: Mapping[str, Any], *, server: str = SERVER, ca: Path | None = None) -> Path:
        """Writes a kubeconfig whose only context, cluster and user are called ``name``."""
        cluster = {"server": server, "certificate-authority": str(ca or self.authority.certificate)}
        path = self.folder / f"{name}.kubeconfig"
        document = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": name,
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "clusters": [{"name": name, "cluster": cluster}],
            "users": [{"name": name, "user": dict(user)}],
        }
        path.write_text(yaml.safe_dump(document))
        return path

    def allow(self, subject: str, rules: list[dict[str, Any]]) -> None:
        """Grants the rules in the whole cluster to a user, or to a service account ``namespace:name``."""
        role = f"e2e-{subject.replace(':', '-')}"
        namespace, _, account = subject.rpartition(":")
        who = (
            {"kind": "ServiceAccount", "name": account, "namespace": namespace}
            if namespace
            else {"kind": "User", "name": subject, "apiGroup": "rbac.authorization.k8s.io"}
        )
        base = "/apis/rbac.authorization.k8s.io/v1"
        self.api.create(f"{base}/clusterroles", {"metadata": {"name": role}, "rules": rules})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
        binding = {"metadata": {"name": role}, "roleRef": reference, "subjects": [who]}
        self.api.create(f"{base}/clusterrolebindings", binding)

    def wait_until_served(self, path: str) -> None:
        """Waits for a resource whose definition is new: at first the API server knows nothing of it, then it starts."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.api.get(path)
            except ApiError as error:
                if error.code not in (404, 429) or time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
            else:
                return

    def _ready(self) -> bool:
        try:
            return bool(self.api.get("/readyz") == "ok")
        except (ApiError, urllib3.exceptions.HTTPError):
            return False

    def _launch(self, program: str, **flags: object) -> None:
        words = {True: "true", False: "false"}
        arguments = [
            f"--{name.replace('_', '-')}={words[value] if isinstance(value, bool) else value}"
            for name, value in flags.items()
        ]
        with (self.folder / f"{program}.log").open("ab") as log:
            self._processes[program] = subprocess.Popen(
                [str(self._programs[program]), *arguments], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def _wait_for(self, program: str, done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not done():
            if self._processes[program].poll() is not None or time.monotonic() > deadline:
                log = (self.folder / f"{program}.log").read_text(errors="replace")
                raise RuntimeError(f"{program} did not start:\n{log[-2000:]}")
            time.sleep(0.05)

    def _end(self, program: str) -> None:
        process = self._processes.pop(program)
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def programs_of_environment() -> dict[str, Path]:
    """The programs that ``run.py`` found, by name."""
    paths = (Path(path) for path in os.environ["LLMDOCTOR_E2E"].split(os.pathsep))
    return {path.name: path for path in paths}
