"""Which API server to talk to and as whom: kubectl's flags over the kubeconfig, or the pod's own service account."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from kubectl_llmdoctor.errors import AccessError, UsageError
from kubectl_llmdoctor.gather.credentials import NOBODY, Credentials, credentials, pem
from kubectl_llmdoctor.gather.kubeconfig import Entry, Kubeconfig, load

#: Where Kubernetes mounts a pod's own credentials.
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


@dataclass(frozen=True, kw_only=True)
class Connection:
    """kubectl's connection flags as given; None and empty mean not given. `request_timeout` and `timeout` are in seconds."""

    kubeconfig: str | None = None
    context: str | None = None
    cluster: str | None = None
    user: str | None = None
    namespace: str | None = None
    server: str | None = None
    token: str | None = None
    as_user: str | None = None
    as_groups: tuple[str, ...] = ()
    insecure_skip_tls_verify: bool = False
    request_timeout: float = 10.0
    #: for everything that is read; 0 means no bound
    timeout: float = 0.0


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """One API server and everything that a request to it needs."""

    #: URL without a slash at its end; may have a path (Rancher and other gateways)
    server: str
    namespace: str = "default"
    credentials: Credentials = NOBODY
    #: PEM; None means the system's authorities
    authority: bytes | None = None
    insecure: bool = False
    tls_server_name: str = ""
    proxy: str = ""
    #: header names and values; a name may repeat
    impersonation: tuple[tuple[str, str], ...] = ()
    #: further headers, such as the tenant that a Prometheus of many tenants wants to know
    headers: tuple[tuple[str, str], ...] = ()
    #: how an error message calls the cluster and the user
    context: str = ""
    user: str = ""


def resolve(connection: Connection) -> Endpoint:
    """The endpoint that kubectl would use with the same flags. Raises UsageError and AccessError."""
    config = load(connection.kubeconfig)
    context_name = connection.context or config.current_context
    context = _named(config.contexts, context_name, "context", given=bool(connection.context))
    cluster_name = connection.cluster or context.text("cluster")
    user_name = connection.user or context.text("user")
    cluster = _named(config.clusters, cluster_name, "cluster", given=bool(connection.cluster))
    user = _named(config.users, user_name, "user", given=bool(connection.user))
    namespace = connection.namespace or context.text("namespace")
    if not connection.server and not cluster.text("server"):
        pod = _in_cluster() if config.empty else None
        if pod is None:
            raise AccessError(_no_server(config, context_name))
        cluster, user, own_namespace = pod
        namespace = namespace or own_namespace
    cluster, user = _with_flags(connection, cluster, user)
    impersonation = _impersonation(connection, user)
    found = credentials(user, user_name or "of the kubeconfig", cluster)
    if not found.authorization.isascii() or (found.authorization and not found.authorization.isprintable()):
        raise AccessError(f"the token of user {user_name or 'given'} holds characters that no token has")
    server = cluster.text("server").rstrip("/")
    authority = pem(cluster, "certificate-authority", f"cluster {cluster_name}")
    insecure = bool(cluster.data.get("insecure-skip-tls-verify"))
    if "://" not in server:
        server = f"{'https' if authority or insecure or found.certificate else 'http'}://{server}"
    return Endpoint(
        server=server,
        namespace=namespace or "default",
        credentials=found,
        authority=None if insecure else authority,
        insecure=insecure,
        tls_server_name=cluster.text("tls-server-name"),
        proxy=cluster.text("proxy-url"),
        impersonation=impersonation,
        context=context_name,
        user=user_name,
    )


def _named(entries: Any, name: str, what: str, *, given: bool) -> Entry:
    """The entry of that name; an empty one where the kubeconfig names none or, as kubectl has it, a missing one."""
    if not name:
        return Entry({})
    if name in entries:
        found: Entry = entries[name]
        return found
    known = ", ".join(sorted(entries)) or "none"
    message = f"the kubeconfig has no {what} {name!r}; it has: {known}"
    raise UsageError(message) if given else AccessError(message)


def _no_server(config: Kubeconfig, context_name: str) -> str:
    if config.empty:
        return (
            "no cluster is configured: there is no kubeconfig ($KUBECONFIG, ~/.kube/config), and this does not run in a pod; "
            "name one with --kubeconfig or --server, or read a file: diagnose --from FILE, diagnose --logs FILE"
        )
    if not context_name:
        return f"the kubeconfig has no current context; choose one with --context: {', '.join(sorted(config.contexts))}"
    return f"the cluster of context {context_name!r} has no server in the kubeconfig"


def _with_flags(connection: Connection, cluster: Entry, user: Entry) -> tuple[Entry, Entry]:
    if connection.server:
        # As kubectl has it: a name that belongs to the other server's certificate must not be expected of this one.
        cluster = cluster.with_data(server=connection.server, tls_server_name=None)
    if connection.insecure_skip_tls_verify:
        cluster = cluster.with_data(
            insecure_skip_tls_verify=True, certificate_authority=None, certificate_authority_data=None
        )
    if connection.token:
        # A token on the command line replaces every other way to sign in but the client certificate.
        kept = {key: value for key, value in user.data.items() if key.startswith(("client-", "as"))}
        user = Entry({"token": connection.token, **kept}, user.folder)
    return cluster, user


def _impersonation(connection: Connection, user: Entry) -> tuple[tuple[str, str], ...]:
    """The Impersonate headers; the flags win over `as` of the kubeconfig's user."""
    if connection.as_groups and not connection.as_user and not user.text("as"):
        raise UsageError("--as-group needs --as")
    name = connection.as_user or user.text("as")
    if not name:
        return ()
    groups = connection.as_groups or tuple(map(str, user.data.get("as-groups") or ()))
    headers = [("Impersonate-User", name), *(("Impersonate-Group", group) for group in groups)]
    if not connection.as_user and user.text("as-uid"):
        headers.append(("Impersonate-Uid", user.text("as-uid")))
    extra = user.data.get("as-user-extra")
    if not connection.as_user and isinstance(extra, dict):
        for key, values in sorted(extra.items()):
            headers += [(f"Impersonate-Extra-{key}", str(value)) for value in values or ()]
    return tuple(headers)


def _in_cluster() -> tuple[Entry, Entry, str] | None:
    """Cluster, user and namespace of the pod that this runs in; None outside of a cluster."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "")
    if not host or not port or not (SERVICE_ACCOUNT / "token").exists():
        return None
    cluster = Entry(
        {
            "server": f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}",
            "certificate-authority": str(SERVICE_ACCOUNT / "ca.crt"),
        }
    )
    try:
        namespace = (SERVICE_ACCOUNT / "namespace").read_text().strip()
    except OSError:
        namespace = ""
    return cluster, Entry({"tokenFile": str(SERVICE_ACCOUNT / "token")}), namespace
