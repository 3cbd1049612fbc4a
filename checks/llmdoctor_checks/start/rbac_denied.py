"""A router that may not look for its servers."""

import re
from collections.abc import Iterator
from datetime import datetime

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    check,
    fixes,
    log_evidence,
    pod_evidence,
    written_ago,
)

_FORBIDDEN = "is forbidden: User "
#: What tells that a controller never began with a kind of object, which the signature of this check goes by.
_NEVER_BEGAN = "caches to sync"
#: The API server's answer to a program that looks for pods; `where` is the namespace, absent for the whole cluster.
_PODS = (
    r'is forbidden: User \\*"system:serviceaccount:(?P<owner>[^":\\]{1,63}):(?P<name>[^"\\]{1,253})\\*" cannot (?P<verb>list|watch) '
    r'resource \\*"pods\\*" in API group \\*"\\*" (?:in the namespace \\*"(?P<where>[^"\\]{1,63})|at the cluster scope)'
)

#: A router without a token of a service account (Rust's kube), which goes on with no server; it never looks again.
_NO_DISCOVERY = "Failed to start service discovery: "
_UNMOUNTED = r"in-cluster: \(failed to read (?:the default namespace|a certificate bundle): No such file or directory"

#: Routers that were told to find their servers by themselves (vLLM's, SGLang's), and not by a list.
_DISCOVERS = r"--service-discovery(?:[=\s](?!static)|$)"

#: Both ask again and again, with at most 300 s between (SGLang's `MAX_RETRY_DELAY`): who has not been refused for so long may since.
_ASKS_AGAIN = 900

#: What shows that a router has a server all the same: it answered a request, or found one.
_GOES_ON = r'"POST /[^"]{1,300}" 200\b|[Aa]dd(?:ed|ing) (?:worker|pod)|[Dd]iscovered '


@check("rbac-denied", since="0.3", severity="critical", literals=(_FORBIDDEN, _NEVER_BEGAN, _NO_DISCOVERY))
def rbac_denied(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """The pod's service account is not allowed to ask the API server for what its program needs.

    Routers and endpoint pickers look for the pods that serve, Ray's autoscaler makes pods, operators watch objects of their own
    kinds. They do so as the pod's service account, and the API server refuses what no Role or ClusterRole allows it: a chart of an
    older release without the rule for a new kind, a binding in another namespace, a pod that runs as `default`. Controllers then
    wait for their caches in vain and end.

    A router that was told to find its servers by itself (`--service-discovery`) is Ready nevertheless, and has nobody to send a
    request to. So is one in a pod into which no token of a service account is mounted (`automountServiceAccountToken: false`).

    ## Fix

    Install the Role and RoleBinding of the same release as the program, or add the rule that the message names:

        kubectl auth can-i list pods -n NAMESPACE --as=system:serviceaccount:NAMESPACE:ACCOUNT

    Let the token be mounted, where the log says that its file is not there.

    ## References

    - https://kubernetes.io/docs/reference/access-authn-authz/rbac/
    - https://gateway-api-inference-extension.sigs.k8s.io/guides/troubleshooting/
    """
    if logs is None or not pod.ready:  # what fails is told by its messages alone
        return
    for container in pod.containers:
        words = " ".join(container.spec.argv)
        log = logs.current(container.name)
        discovers = re.search(_DISCOVERS, words)
        if log is None or discovers is None:
            continue
        option = discovers[0].rstrip("= \n")
        if (refused := _last(log, pod.cluster.now)) is not None:
            yield _finding(container, option, *refused)
            return
        if (line := _tokenless(log)) is not None:
            yield _without_token(pod, container, option, line)
            return


def _last(log: Log, now: datetime | None) -> tuple[Line, re.Match[str]] | None:
    """The last time that pods were kept from a router which has found no server since."""
    last = None
    for line, said in log.matching(_PODS, _FORBIDDEN, most=4000):
        last = line, said
    if last is None or any(re.search(_GOES_ON, line.text[:2000]) for line in log.lines(last[0].number + 1)):
        return None
    return None if _long_since(log, last[0], now) else last


def _tokenless(log: Log) -> Line | None:
    """Where a router gave up looking for servers, since it has no token to ask with, and has none since."""
    for line in log.find(_NO_DISCOVERY):
        if re.search(_UNMOUNTED, line.text[:4000]):
            later = log.lines(line.number + 1)
            return None if any(re.search(_GOES_ON, one.text[:2000]) for one in later) else line
    return None


def _long_since(log: Log, line: Line, now: datetime | None) -> bool:
    """Whether a line was written long before the snapshot, by the kubelet's time, or before the log's end, by the router's own."""
    ago, end = written_ago(line, now), 0.0 if line.time else written_ago(log.line(len(log)), now)
    return ago is not None and end is not None and ago - end > _ASKS_AGAIN


def _finding(container: Container, option: str, line: Line, said: re.Match[str]) -> Finding:
    owner, name, where = said["owner"], said["name"], said["where"]
    return Finding(
        summary=f"Service account {owner}/{name} is not allowed to {said['verb']} pods in {where or 'the whole cluster'}: "
        f"{container.name}, which looks for its servers there, finds none.",
        evidence=(log_evidence(line), pod_evidence(container, "args", option)),
        fix=_role(owner, name, where),
        order=line.order,
    )


def _without_token(pod: Pod, container: Container, option: str, line: Line) -> Finding:
    return Finding(
        summary=f"{container.name} is told to look for its servers by itself, and no token of a service account is mounted: it finds none.",
        evidence=(log_evidence(line), pod_evidence(container, "args", option)),
        fix=fixes.set_spec(pod, "/automountServiceAccountToken", True, "Mount the token of the pod's service account"),
        order=line.order,
    )


def _role(owner: str, name: str, where: str | None) -> Fix:
    if where is None:
        return fixes.platform(
            f"Let {owner}/{name} get, list and watch pods in the whole cluster (or have it look in one namespace)",
            f"kubectl create clusterrole {owner}-{name}-pods --verb=get,list,watch --resource=pods",
            f"kubectl create clusterrolebinding {owner}-{name}-pods --clusterrole={owner}-{name}-pods --serviceaccount={owner}:{name}",
        )
    return fixes.platform(
        f"Let {owner}/{name} get, list and watch pods in {where}",
        f"kubectl -n {where} create role {name}-pods --verb=get,list,watch --resource=pods",
        f"kubectl -n {where} create rolebinding {name}-pods --role={name}-pods --serviceaccount={owner}:{name}",
    )
