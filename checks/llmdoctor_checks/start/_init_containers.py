"""Init containers that do not end, so that nothing after them starts."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Container, Finding, Fix, Logs, Pod, expression, fixes, log_evidence, pod_evidence
from llmdoctor_checks._consequences import CRASHED

#: What is only a consequence where containers of a pod do not start, or start without the network.
NOT_STARTED = (
    "volume-mount-failed", "hf-unreachable", "model-registry-failed", "storage-initializer-failed", "ngc-unauthorized",
    "multinode-discovery", "ray-cluster", *CRASHED,
)  # fmt: skip

#: Servers that are meant to run beside others, by name: as a plain init container they never let the next one start.
_SERVERS = (
    r"(?:istio|linkerd|queue|routing|cloud-?sql|auth|oauth2?|envoy|kube-rbac)-proxy|(?:llm-d-)?routing-sidecar"
    r"|lora-adapter-syncer|vllm-render|gke-gcsfuse-sidecar"
)

#: A command that goes on for ever once a script comes there: a loop that nothing leaves, or a sleep without an end.
_AT = r"(?:^|[;\n{(&]|\bdo\b)\s{0,8}"
_LOOP = expression(
    _AT + r"(?P<words>(?:while[ \t]+(?:true|:|1|\[+[ \t]*(?:1|true)[ \t]*\]+)|until[ \t]+false)\s{0,8};?\s{0,8}do\b)"
)
_SLEEP = expression(
    _AT
    + r"(?P<words>(?:exec\s{1,8})?(?:sleep\s{1,8}inf(?:inity)?\b|tail\s{1,8}(?:-n\s{0,2}0\s{1,4})?-[fF]\s{1,8}/dev/null))"
)
#: Where another loop begins within one, or one ends.
_NESTED = expression(r"[;\n&})]\s{0,8}(?P<word>do|done)\b")
#: What sends it, or the group that it ends, to the background.
_BEHIND = expression(r"(?:\s{0,8}[)}]){0,3}(?:[^\n&>]|>[&>]?|&>){0,200}(?<!>)&(?![&>])")
#: What leaves a loop or a script, by a way that its words do not tell, or goes another one.
_LEAVES = expression(r"\b(?:break|exit|return|kill|exec|if|case|trap)\b")
#: What says before a command that it may not be reached, ends in time, or is only written somewhere.
_DOUBTFUL = expression(r"\b(?:timeout|test|function)\b|\[[ \t]|\(\)|<<")
#: The release of a kubelet, and the first that starts sidecars among init containers without a gate.
_KUBELET, _SIDECARS = expression(r"v1\.(\d{1,3})\."), 29
#: So much of a script is read.
_LONGEST = 20_000
#: Who takes a script somewhere else.
_COPIES = expression(r"\b(?:cp|mv|ln|install|rsync|cat)\b")

#: A script that asks something over HTTP or TCP, and one that starts a server of its own first.
_ASKS = expression(r"\b(?:curl|wget|nc|ncat|requests\.get|urlopen)\b")
_STARTS = expression(r"\b(?:serve|server|launch_server|api_server|llama-server)\b|[^&>]&[ \t]*(?:$|\n)")

#: Ollama's client, which asks the server at OLLAMA_HOST, by default the port of the pod itself.
_OLLAMA = expression(r"\bollama[\"',\s]{1,8}(?:pull|run|create|list)\b")
_OLLAMA_PORT = 11434
_OWN_HOST = r"(?:https?://)?(?:0\.0\.0\.0|127\.0\.0\.1|localhost|::|\[::\])?(?::\d+)?/?$"

#: A line that only says something, and one that goes on without an answer.
_WORDS = expression(r"[ \t]*(?:#|(?:echo|printf)\b[^|;&]*$)")
_ANYHOW = expression(r"\|\|[ \t]*(?:true\b|:|echo\b|exit 0\b)")

#: A port of the pod itself.
_AT_OWN = expression(r"(?:\[::1\]|\b127\.0\.0\.1|\blocalhost)[: ](\d{2,5})\b")

#: What Vault's injected agent says of a login, and of a secret (consul-template), that it tries again for ever: until then its init
#: container does not end. Of a secret that is not there, `secret-missing` speaks.
_LOGIN = "auth.handler: error authenticating"
_SECRET_PATH = expression(r"vault\.read\((?P<path>[^)\s]{1,300})\): (?!no secret exists)")
VAULT = (_LOGIN, "(view) vault.read(")
#: An answer of Vault's goes on over some lines, of which the address says the path that a policy has to name.
_ANSWER_LINES = 8
_REFUSED = expression(r"\bCode: 403\b")
_API_PATH = expression(r"URL: GET \S{1,200}?/v1/(?P<path>\S{1,300})")
_NO_VAULT = expression(
    r'dial tcp[^\n"]{0,100}?: (?P<why>lookup [^\n"]{1,200}|i/o timeout|connect: [a-z ]{1,60})'
    r'|(?P<other>x509: [^\n"(]{1,200}|context deadline exceeded|Vault is sealed)'
)


def servers_in_the_way(pod: Pod) -> Iterator[Finding]:
    """In a manifest, a server among the plain init containers that runs as its image has it: a command of its own may end.

    Or one whose command sleeps for ever.
    """
    for container in pod.containers:
        asleep = _sleeps(container)
        if asleep or (_is_server(container) and not container.spec.command):
            last = pod.containers[-1].name
            what = "runs until it is stopped" if asleep else "is a server"
            yield Finding(
                role="risk",
                severity="critical",
                summary=f"{container.name} {what}, and stands among the init containers as a plain one: it does not end, "
                f"so that {last} never starts.",
                evidence=(
                    *((pod_evidence(container, _place(container, asleep), asleep),) if asleep else ()),
                    pod_evidence(container, "restartPolicy", "not set"),
                ),
                fixes=_let_go_on(container, asleep),
            )
            return


def waits_for_later(pod: Pod) -> Iterator[Finding]:
    """An init container that asks a port of the pod's own server, which is started when it has ended."""
    later = {p.container_port: c.name for c in pod.containers if c.role == "main" for p in c.spec.ports}
    sooner = {p.container_port for c in pod.containers if c.role == "sidecar" for p in c.spec.ports}
    for container in pod.containers:
        script = script_of(container)
        if container.role != "init" or _STARTS.search(script):
            continue
        client = _OLLAMA.search(script)
        asked = _asked_of_ollama(container, script) if client else _asked(script) if _ASKS.search(script) else set()
        port = min(asked & (later.keys() - sooner), default=None)
        if port is None:
            continue
        words = (_ASKS.search(script) or client)[0] if client else f"localhost:{port}"
        yield Finding(
            role="risk",
            severity="critical",
            summary=f"Init container {container.name} asks port {port} of its own pod, where {later[port]} listens: that is started "
            "only when all init containers have ended, so that nothing answers.",
            evidence=(
                pod_evidence(container, "command", words),
                pod_evidence(pod, f"containers[{later[port]}].ports", str(port)),
            ),
            fix=fixes.advice(
                f"Do it after the start instead: in a Job that asks the Service, or in a postStart hook of {later[port]}, in "
                f"{fixes.edited(pod)}"
            ),
        )
        return


def script_of(container: Container) -> str:
    """What a container runs, with the files that its words name, but for what only says something."""
    said = "\n".join(text for _, text in container.words)
    script = "\n".join([said, *(text for path, text in container.files.items() if path in said)])
    return "\n".join(line for line in script.splitlines() if not _WORDS.match(line))


def _asked(script: str) -> set[int]:
    """The ports of the pod itself that a script asks, and needs an answer of."""
    needs = (line for line in script.splitlines() if not _ANYHOW.search(line))
    return {int(found[1]) for line in needs for found in _AT_OWN.finditer(line)}


def _asked_of_ollama(container: Container, script: str) -> set[int]:
    """The same with Ollama's client in it; none where that may ask another host."""
    host = container.env.get("OLLAMA_HOST")
    elsewhere = container.spec.env_from if host is None else not re.match(_OWN_HOST, str(host.value))
    return set() if elsewhere or "OLLAMA_HOST" in script else {*_asked(script), _OLLAMA_PORT}


def not_ended(pod: Pod) -> Iterator[tuple[Container, str]]:
    """The init container that the others wait for, as it runs, and how it does."""
    for trouble in pod.troubles:
        container = trouble.container
        if trouble.kind == "creating" and container is not None and container.role == "init" and container.running:
            yield container, trouble.text


def never_ends(pod: Pod, logs: Logs | None) -> Iterator[Finding]:
    """An init container that is a server or sleeps for ever, or an agent that waits for its login."""
    for container, state in not_ended(pod):
        asleep = _sleeps(container)
        if asleep or _is_server(container):
            last = pod.containers[-1].name
            what = "runs until it is stopped" if asleep else "is a server"
            yield Finding(
                summary=f"{container.name} {what}, and stands among the init containers as a plain one: it does not end, "
                f"and {last} waits for that.",
                evidence=(
                    *((pod_evidence(container, _place(container, asleep), asleep),) if asleep else ()),
                    pod_evidence(container, "restartPolicy", container.spec.restart_policy or "not set"),
                    pod_evidence(pod, f"status.initContainerStatuses[{container.name}].state.running", state),
                ),
                explains=NOT_STARTED,
                fixes=_let_go_on(container, asleep),
            )
        elif container.name == "vault-agent-init":
            yield from _kept_by_vault(pod, container, logs)


def _kept_by_vault(pod: Pod, agent: Container, logs: Logs | None) -> Iterator[Finding]:
    """Vault's agent, which tries again until it may log in, and has read every secret that the pod asks for."""
    log = agent.own_log(logs)
    last = log.last(*VAULT) if log else None
    if log is None or last is None:
        return
    answer = "\n".join(line.text[:2000] for line in log.lines(last.number, last.number + _ANSWER_LINES))
    role = str(pod.annotations.get("vault.hashicorp.com/role") or "")
    for what, cure in _refused_by_vault(pod, last.text[:2000], answer, role):
        yield Finding(
            summary=f"{agent.name} {what}, so that no other container of the pod starts.",
            evidence=(
                log_evidence(last, *(literal for literal in VAULT if literal in last.text)),
                pod_evidence(pod, "metadata.annotations[vault.hashicorp.com/role]", role or "not set"),
            ),
            explains=NOT_STARTED,
            fix=fixes.advice(cure, f"kubectl -n {pod.namespace} logs {pod.name} -c {agent.name}"),
        )


def _refused_by_vault(pod: Pod, line: str, answer: str, role: str) -> Iterator[tuple[str, str]]:
    """What keeps the agent by its last word, and what lets it go on; nothing of errors that pass, and of secrets that are not there."""
    path = _SECRET_PATH.search(line)
    if unreached := _NO_VAULT.search(answer):
        # without the mesh's proxy nothing in the pod reaches anything
        if not any(c.name in ("istio-proxy", "linkerd-proxy") for c in pod.containers):
            yield (
                f"gets no answer of Vault ({' '.join((unreached['why'] or unreached['other']).split())})",
                "See that Vault is up, unsealed and reached from the pod: its address in the injector, a NetworkPolicy between",
            )
    elif _LOGIN in line:
        yield (
            "is not allowed to log in at Vault",
            f"Have a role of Vault's Kubernetes login admit the service account of {fixes.edited(pod)} in "
            f"{pod.namespace}, and name it in vault.hashicorp.com/role",
        )
    elif path and _REFUSED.search(answer):
        asked = (_API_PATH.search(answer) or path)["path"]
        yield (
            f"cannot read {asked} in Vault",
            f"Let a policy of Vault's role {role or 'for the pod'} read {asked}, or correct the path in the annotations "
            f"vault.hashicorp.com/agent-inject-… of {fixes.edited(pod)}",
        )


def _sleeps(container: Container) -> str:
    """The words by which a plain init container never ends, whatever it does before."""
    if container.role != "init":
        return ""
    said = "\n".join(text for _, text in container.words)
    script = (said if _COPIES.search(said) else script_of(container))[:_LONGEST]
    ways = ((one.start("words"), one.end()) for one in _SLEEP.finditer(script))
    loops = ((one.start("words"), _done(script, one.end())) for one in _LOOP.finditer(script))
    for start, end in (*ways, *loops):
        before = script[:start]
        if end and not (_LEAVES.search(before) or _DOUBTFUL.search(before) or _BEHIND.match(script, end)):
            return " ".join(script[start:end].split())
    return ""


def _done(script: str, begun: int) -> int:
    """Where a loop ends whose body begins there; 0 where something leaves it, or its end is not found."""
    open_loops = 1
    for one in _NESTED.finditer(script, begun):
        open_loops += 1 if one["word"] == "do" else -1
        if open_loops == 0:
            return 0 if _LEAVES.search(script[begun : one.start()]) else one.end()
    return 0


def _is_server(container: Container) -> bool:
    """Whether an init container runs a program that is known to serve until it is stopped."""
    image = container.spec.image.rpartition("/")[2].partition("@")[0].partition(":")[0]
    return container.role == "init" and bool(re.fullmatch(_SERVERS, container.name) or re.fullmatch(_SERVERS, image))


def _place(container: Container, asleep: str) -> str:
    """Whether its command or its arguments have these words."""
    first = asleep.split()[0]
    return next((at.partition("[")[0] for at, text in container.words if first in text), "command")


def _let_go_on(container: Container, asleep: str) -> tuple[Fix, ...]:
    """What lets the next container start beside one that does not end."""
    sidecar = _as_sidecar(container)
    if not asleep:
        return (sidecar,)
    end = fixes.advice(
        f"Have {container.name} end: take `{asleep}` out of its command, in {fixes.edited(container.pod)}"
    )
    # a loop works beside the others; of a sleep, what stands before it may be what they wait for
    return (sidecar, end) if asleep.startswith(("while", "until")) else (end, sidecar)


def _as_sidecar(container: Container) -> Fix:
    pod = container.pod
    kubelet = str(pod.cluster.field("Node", "", pod.spec.node_name or "", "status.nodeInfo.kubeletVersion") or "")
    minor = _KUBELET.match(kubelet)
    if minor and int(minor[1]) < _SIDECARS:
        return fixes.advice(
            f"Move {container.name} from initContainers to containers, in {fixes.edited(pod)}: Kubernetes {kubelet} of node "
            f"{pod.spec.node_name} has no sidecars among init containers, which 1.{_SIDECARS} brings (restartPolicy: Always)"
        )
    summary = f"Mark it as a sidecar with restartPolicy: Always (from Kubernetes 1.{_SIDECARS} on)"
    return fixes.set_spec(pod, f"{container.pointer}/restartPolicy", "Always", summary)
