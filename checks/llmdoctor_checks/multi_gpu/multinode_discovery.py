"""A leader whose name is published only when it is ready, and which waits for those who ask for it by that name."""

import re
import shlex
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise

from kubectl_llmdoctor.api import (
    DYNAMO_GRAPH,
    RAY_CLUSTER,
    WORKER_SET,
    Cluster,
    Container,
    Evidence,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    check,
    dig,
    ending_of,
    endings,
    expression,
    fixes,
    in_order,
    k8s,
    last_traceback,
    log_evidence,
    log_of,
    object_evidence,
    parse_time,
    pod_evidence,
    reach,
    say_seconds,
    selector_of,
)
from llmdoctor_checks._connections import REFUSED
from llmdoctor_checks._consequences import FAILED_START
from llmdoctor_checks._standstill import ends_with
from llmdoctor_checks._unreached import asked_in
from llmdoctor_checks.multi_gpu._own_addresses import NOT_HERE, listens_at_anothers
from llmdoctor_checks.multi_gpu._ranks import (
    AWAITS_ENGINES,
    CONNECTED,
    JOINS,
    waits_for_other_engines,
    waits_for_other_nodes,
)

#: What a rank says when it has met the others: vLLM and NCCL, SGLang, vLLM's loader. Most of it rank 0 alone says; where it stands
#: among the others each rank does.
_MET = (
    "vLLM is using nccl", "sglang is using nccl", "NCCL version ", "is assigned as DP rank", "Load weight begin",
    "Starting to load model",
)  # fmt: skip

#: What exceptions over a name or a connection speak of.
_OF_A_WAY = expression(
    r"(?i)\baddress|resolv|resolution|connect|time[ds]?[ -]?out|name or service|hostname|tcpstore|rendezvous|socket|\bpeer\b"
    r"|distnetwork|diststore|gaierror"
)
#: PyTorch's words for a master that it does not reach and will ask again (socket.cpp, TCPStore.cpp). One such line may be of an address
#: family that the master does not have.
_ASKS_AGAIN = (
    ") cannot be retrieved (gai error",
    "The client socket has failed to connect to",
    "TCP client failed to connect/validate to host",
)
_MASTER = expression(
    r"(?:addresses of \(|connect to \[|validate to host )(?P<host>[\w.-]{1,253})(?:, |\]:|:)(?P<port>\d{2,5})"
)
#: Said of each connection where the container has no IPv6: the other family follows.
_OTHER_FAMILY = "errno: 97 "
#: PyTorch begins its warnings with the day and the time of day.
_TIME_OF_DAY = expression(r"\b([01]\d|2[0-3]):([0-5]\d):([0-5]\d)\.\d")
#: So often and for so long; each of many ranks may say so once, at the same moment.
_ASKED_OFTEN, _APART_SECONDS, _ASKED_SINCE_SECONDS, _SILENT_SECONDS = 4, 60, 120, 900
#: Who asks for a name that is not there asks for minutes.
_ASKED_SECONDS = 20

#: A script that asks again and again; who does so for so long, of a leader that is ready, is not answered.
_LOOPS = expression(r"\b(?:until|while)\b")
#: One that looks into the answer waits for what stands in it, as for a model among those that are served.
_READS = expression(r"\|\s{0,20}(?:[ef]?grep|jq|awk|sed|python3?)\b")
_IN_VAIN_SECONDS = 600
#: Labels that the pods of one server share.
_GROUPS = (RAY_CLUSTER, WORKER_SET, DYNAMO_GRAPH)
#: Who redirects the network before a proxy is up has a check of his own.
_MESH = ("istio-init", "istio-proxy", "linkerd-init", "linkerd-proxy")


#: How engines and launchers are told where their ranks meet. `KEY=`, `--key value`, or two words that follow each other.
_LEADER = expression(
    r"(?:--(?:dist-init-addr|nccl-init-addr|master[-_]addr|rdzv[-_]endpoint|data-parallel-address|ray[-_]address|address)[= \t]{1,3}"
    r"|\b(?:MASTER_ADDR|RAY_ADDRESS|RAY_HEAD_ADDRESS|LEADER_ADDRESS)=)[\"']?"
    r"(?P<host>\$[({]?[A-Z_]{3,40}[)}]?|[a-z0-9][a-z0-9.-]{0,200})"
)
#: The variable in which a LeaderWorkerSet gives the leader's name.
_GIVEN = expression(r"\$[({]?LWS_LEADER_ADDRESS[)}]?")

#: How near its end a program says why it ends.
_LAST = 20
#: Images that only hold a language or a library: two pods of them need not be parts of one server.
_BASE = (
    r"^(?:docker\.io/)?(?:library/)?[\w.-]+$"
    r"|(?:^|/)(?:nvidia/(?:cuda|pytorch|tritonserver)|pytorch/pytorch|(?:continuumio|rayproject)/[\w.-]+)$"
)


@check("multinode-discovery", since="0.1", literals=(*_MET, *_ASKS_AGAIN, *JOINS, CONNECTED, AWAITS_ENGINES, NOT_HERE))
def multinode_discovery(pod: Pod, subject: Subject, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """The processes of a multi-node engine do not find each other.

    Workers must reach the leader under a name and port. The name does not resolve (no headless Service, a Service that publishes only
    ready pods while the leader becomes ready last, a mistyped name), a variable that should hold it is empty, a placeholder was left
    in the command, a port is closed by a NetworkPolicy, or the leader never started. PyTorch says little while it tries: a
    warning that an address cannot be retrieved, for minutes, while the pod counts as ready where no probe asks. A worker that was
    told no address of its controller asks localhost, which is its own pod; one that has the address of another pod as its own cannot listen
    there. Rank 0 itself, or a part of a server on several nodes,
    prints where its ranks meet the others, and nothing more while those do not come; a data-parallel engine of vLLM says that it
    waits for the coordinator. An init container that waits for a leader which has long been ready asks for a name under another
    cluster domain, or is not let through. A pod on the host's network asks the node's resolver, which knows no Service and no pod,
    unless its `dnsPolicy` is `ClusterFirstWithHostNet`.

    ## Fix

    Use the address that the operator provides (`LWS_LEADER_ADDRESS`), a headless Service with `publishNotReadyAddresses: true`, and the
    same port on both sides. If the leader itself crashes, fix that first.

    ## References

    - https://lws.sigs.k8s.io/docs/
    - https://docs.vllm.ai/en/latest/serving/parallelism_scaling/
    - https://kubernetes.io/docs/concepts/services-networking/service/#headless-services
    """
    if not pod.exists:
        yield from _by_the_nodes_resolver(pod, subject, cluster)
    if pod.exists and pod.ready and logs is not None:
        yield from _still_asks(pod, cluster, logs)
        yield from _waits(pod, subject, logs)
    if not pod.exists or pod.ready or not pod.failing:
        return
    if logs:
        yield from _waits(pod, subject, logs)
        yield from listens_at_anothers(pod, logs, _EXPLAINS)
    if logs and _met(logs):
        return
    if not any(c.name in _MESH for c in pod.containers):
        yield from _in_vain(pod, cluster)
    yield from _at_itself(pod, subject, logs)
    yield from _of_a_hidden_leader(pod, cluster, logs)


def _of_a_hidden_leader(pod: Pod, cluster: Cluster, logs: Logs | None) -> Iterator[Finding]:
    """A leader whose Service publishes ready pods only, while it waits for this one."""
    hidden = cluster.once(f"leaders without a name in {pod.namespace}", lambda: list(_hidden(pod.namespace, cluster)))
    for leader, service in hidden:
        if leader.metadata.name == pod.name or not _selects(service, pod.obj) or not (asked := _asked(pod, leader)):
            continue
        container, name, place = asked
        if not _waited(container, logs):
            continue
        yield Finding(
            confidence="likely" if logs else "possible",
            summary=f"It asks for {name}, which has no address: Service {service.name} publishes ready pods only, and "
            f"{leader.metadata.name} runs and is not ready, while it waits for the others.",
            evidence=(
                place,
                object_evidence(service, "spec", "clusterIP: None, publishNotReadyAddresses: false"),
                Evidence(source="pod", ref=f"{pod.namespace}/{leader.metadata.name} status", text="Running, not ready"),
            ),
            explains=_EXPLAINS,
            fix=fixes.set_field(
                service,
                "/spec/publishNotReadyAddresses",
                True,
                f"Have Service {service.name} publish pods before they are ready",
                op="add",
            ),
        )
        return


def _waits(pod: Pod, subject: Subject, logs: Logs) -> Iterator[Finding]:
    """Parts of a server on several nodes that are up as far as they can be alone."""
    met = _met(logs)
    for engine in subject.engines(pod):
        yield from waits_for_other_engines(pod, engine, subject, logs, _EXPLAINS)
        if not met:
            yield from waits_for_other_nodes(pod, engine, subject, logs, _EXPLAINS)


def _met(logs: Logs) -> bool:
    """Whether a rank of the pod says that it has met the others."""
    return any(True for log in logs for _ in log.find(*_MET))


def _still_asks(pod: Pod, cluster: Cluster, logs: Logs) -> Iterator[Finding]:
    """A rank that has asked for its master since it started, and does so still: ready only since no probe asks it."""
    for log in logs:
        container = pod.container(log.container)
        ran = cluster.seconds_since(container.started) if container is not None else None
        if log.previous or container is None or container.spec.readiness_probe is not None or ran is None:
            continue
        line = ends_with(log, _ASKS_AGAIN)
        asked = _MASTER.search(line.text) if line is not None else None
        if line is None or asked is None or ran < _ASKED_SINCE_SECONDS or _OTHER_FAMILY in line.text:
            continue
        if (cluster.seconds_since(line.time) or 0) > _SILENT_SECONDS:
            continue  # it goes on without a word, or stands still over something else
        same = [one for one in log.find(*_ASKS_AGAIN) if asked["host"] in one.text]
        same = [one for one in same if _OTHER_FAMILY not in one.text]
        if len(same) < _ASKED_OFTEN or _between(min(same, key=lambda one: one.number), line) < _APART_SECONDS:
            continue
        yield Finding(
            confidence="possible",
            summary=f"{container.name} asks again and again for its master at {asked['host']}:{asked['port']} and says nothing else since: "
            "it does not serve, and counts as ready only since it has no readiness probe.",
            evidence=(log_evidence(line),),
            explains=_EXPLAINS,
            fix=reach(f"{asked['host']}:{asked['port']}", pod, container)
            or fixes.advice(
                "See that the pod of rank 0 runs, that its name resolves here (a headless Service with publishNotReadyAddresses: true) "
                "and that its port is let through",
                f"kubectl -n {pod.namespace} get pods,services,endpointslices -o wide",
                f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- getent hosts {asked['host']}",
            ),
            order=line.order,
        )
        return


def _between(first: Line, last: Line) -> float:
    """How many seconds lie between two of PyTorch's warnings; 0 where nothing tells."""
    if first.time and last.time:
        return (last.time - first.time).total_seconds()
    said = [_TIME_OF_DAY.search(line.text[:200]) for line in (first, last)]
    at = [int(one[1]) * 3600 + int(one[2]) * 60 + int(one[3]) for one in said if one is not None]
    return (at[1] - at[0]) % 86400 if len(at) == len(said) else 0


def _by_the_nodes_resolver(pod: Pod, subject: Subject, cluster: Cluster) -> Iterator[Finding]:
    """An engine on the host's network that is told its leader by a name which only the cluster's DNS has."""
    if not pod.spec.host_network or pod.spec.dns_policy not in ("ClusterFirst", "Default") or pod.completed:
        return
    if pod.spec.dns_config.get("nameservers"):
        return  # which may be the cluster's
    known = {str(name) for row in pod.spec.host_aliases for name in row.get("hostnames") or ()}
    engines = {engine.container.name for engine in subject.engines(pod)}
    services = {item.name for item in cluster.items("Service", pod.namespace)}
    for container in pod.containers:
        if container.name not in engines:
            continue
        words = list(container.words)
        # an option and its value may be two words
        pairs = [(path, f"{before} {word}") for (_, before), (path, word) in pairwise(words) if before[:2] == "--"]
        told = [(f"env[{v.name}]", f"{v.name}={v.value}") for v in container.spec.env if v.value]
        for path, text in [*words, *pairs, *told]:
            found = _LEADER.search(text)
            if found is None or found["host"] in known:
                continue
            if not (_GIVEN.fullmatch(found["host"]) or _of_the_cluster(found["host"], pod.namespace, services)):
                continue
            policy = pod.spec.dns_policy
            yield Finding(
                role="risk",
                summary=f"{container.name} should meet its leader at {found['host']}, a name of the cluster, and uses the host's network "
                f"with dnsPolicy {policy}: it asks the node's resolver, which has no such name.",
                evidence=(
                    pod_evidence(container, path, found[0][:200]),
                    pod_evidence(pod, "hostNetwork", "true"),
                    pod_evidence(pod, "dnsPolicy", policy),
                ),
                fix=fixes.set_spec(
                    pod,
                    "/dnsPolicy",
                    "ClusterFirstWithHostNet",
                    "Have the pod ask the cluster's DNS although it uses the host's network",
                ),
            )
            return


def _of_the_cluster(host: str, namespace: str, services: set[str]) -> bool:
    """Whether only the cluster's DNS has a name: of a Service, or of a pod behind one, alone or with its namespace and `svc`."""
    labels = host.split(".")
    if "svc" in labels[2:4]:
        return True
    return any(label in services and labels[at + 1 :] in ([], [namespace]) for at, label in enumerate(labels[:2]))


def _in_vain(pod: Pod, cluster: Cluster) -> Iterator[Finding]:
    """An init container that waits for the leader's Service, and does so long after the leader is ready."""
    for container in pod.containers:
        ran = cluster.seconds_since(container.started)
        if container.role != "init" or ran is None:
            continue
        words = " ".join(container.spec.argv)
        if not _LOOPS.search(words) or _READS.search(words):
            continue
        for service in cluster.items("Service", pod.namespace):
            asked = _host(service.name, words)
            led = _led(service, cluster) if asked else ()
            leader = next((one for one in led if _of_one_group(one, pod)), None)
            up = cluster.seconds_since(_ready_since(leader)) if leader else None
            if asked is None or leader is None or up is None:
                continue
            waited = min(ran, up)
            if waited < _IN_VAIN_SECONDS:
                continue
            yield Finding(
                summary=f"{container.name} has waited {say_seconds(waited)} for {asked[0]}, although {leader.metadata.name} behind that "
                "Service is ready: the name does not resolve in this cluster, or the connection is stopped on the way.",
                evidence=(
                    pod_evidence(container, "command", words[:200]),
                    Evidence(source="pod", ref=f"{pod.namespace}/{leader.metadata.name} status", text="Ready=True"),
                ),
                explains=_EXPLAINS,
                fixes=(
                    *_in_its_domain(pod, container, asked[0]),
                    fixes.advice(
                        "See whether the name resolves (a cluster whose domain is not cluster.local needs CLUSTER_DOMAIN on KubeRay's "
                        "operator), and whether a NetworkPolicy lets this pod reach the port",
                        f"kubectl -n {pod.namespace} exec {pod.name} -c {container.name} -- cat /etc/resolv.conf",
                        f"kubectl -n {pod.namespace} get networkpolicies,endpointslices",
                    ),
                ),
            )
            return


#: The domain that nearly all clusters have, and the zones of Services in CoreDNS's own configuration.
_USUAL_DOMAIN = ".svc.cluster.local"
_ZONE = expression(r"(?m)^[ \t]{0,20}kubernetes[ \t]{1,8}(?P<zones>[a-z0-9][a-z0-9. \t-]{0,300})")


def _in_its_domain(pod: Pod, container: Container, host: str) -> Iterator[Fix]:
    """What helps where a name is asked for in the usual domain, and the cluster's DNS serves another one."""
    if not host.rstrip(".").endswith(_USUAL_DOMAIN):
        return
    corefile = next((c for i in pod.cluster.items("ConfigMap") if (c := dig(i.raw, "data.Corefile"))), "")
    zone = _ZONE.search(str(corefile)[:20_000])
    zones = [one.rstrip(".") for one in zone["zones"].split()] if zone else []
    domain = next((one for one in zones if not one.endswith(".arpa")), "")
    if not domain or "cluster.local" in zones:
        return
    if RAY_CLUSTER not in pod.labels:
        short = host.rstrip(".").removesuffix(".cluster.local")
        yield fixes.advice(
            f"Ask for {short}.{domain} in {container.name} of {fixes.edited(pod)}, or for {short} alone: the cluster's DNS serves "
            f"{domain}, and no name that ends in cluster.local"
        )
        return
    operator = next((i for i in pod.cluster.items("Deployment") if "kuberay-operator" in i.name), None)
    named = (
        f"-n {shlex.quote(operator.namespace)} {shlex.quote(f'deployment/{operator.name}')}"
        if operator
        else "-n NAMESPACE deployment/kuberay-operator"
    )
    yield fixes.platform(
        f"Set CLUSTER_DOMAIN={domain} on KubeRay's operator: this cluster's DNS serves {domain}, and the operator wrote cluster.local into "
        "the names by which workers look for the head; then delete the RayCluster's pods, which it makes again",
        *(() if operator else ("kubectl get deployments -A | grep kuberay-operator",)),
        f"kubectl set env {named} CLUSTER_DOMAIN={domain}",
    )


def _at_itself(pod: Pod, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """A part of a server that ends because nobody listens in its own pod: what it asks for runs in another pod, of the same image."""
    if pod.spec.host_network or logs is None:
        return
    cluster = subject.cluster
    for ending in endings(pod):
        container, log = ending.container, log_of(ending, logs)
        found = _asked_itself(container, log, cluster) if log is not None and container.role == "main" else None
        others = [c for c in container.beside if c.name not in _MESH]
        if found is None or others or ending.oom_killed or re.search(_BASE, container.repository):
            continue
        line, port = found
        own = (engine for engine in subject.engines(pod) if engine.container is container)
        if _listens(container.spec, port) or any(engine.value("port") == port for engine in own):
            continue  # it is meant to serve itself there, and did not
        running = cluster.once(f"running pods by image in {pod.namespace}", lambda: _by_image(pod.namespace, cluster))
        alike = running.get(container.repository, ())
        there = next((one for one in alike if _serves(one, pod, container, port)), None)
        if there is None:
            continue
        services = cluster.items("Service", pod.namespace)
        name = next((s.name for s in services if _selects(s, there.obj)), "")
        by = f"Service {name}" if name else f"a Service in front of {there.name}"
        yield Finding(
            summary=f"{container.name} asks its own pod at port {port}, where nothing listens; {there.name}, of the same image, "
            "is told to listen there.",
            evidence=(
                log_evidence(line),
                Evidence(source="pod", ref=f"{pod.namespace}/{there.name} spec", text=f"port {port}"),
            ),
            explains=_EXPLAINS,
            fix=fixes.advice(
                f"Tell {container.name} to ask {by}, port {port}, in place of localhost (an argument or a variable for that address), "
                f"in {fixes.edited(pod)}"
            ),
            order=line.order,
        )
        return


def _asked_itself(container: Container, log: Log, cluster: Cluster) -> tuple[Line, int] | None:
    """The last line at the end of a log that says that nobody took a connection to the pod itself, and the port."""
    for line in reversed(in_order(x for x in log.find(*REFUSED) if len(log) - x.number <= _LAST)):
        for to in asked_in(line.text[:4000], container, cluster, or_told=False):
            if to.itself and to.port:
                return line, to.port
    return None


def _listens(container: k8s.Container, port: int) -> bool:
    """Whether a container is told to listen on a port: by its declared ports, or by an option for one."""
    words = " ".join(container.argv)
    declared = any(p.container_port == port for p in container.ports)
    return declared or re.search(rf"(?<!\S)--?(?:[\w-]{{0,40}}[-_])?port[ =]{port}(?!\d)", words) is not None


def _by_image(namespace: str, cluster: Cluster) -> dict[str, list[Pod]]:
    """The pods of a namespace of which a container runs, by their images without tag and digest."""
    found: dict[str, list[Pod]] = {}
    for one in cluster.all(k8s.Pod, "Pod", namespace):
        if any(s.state.running for s in one.status.container_statuses):
            running = Pod(one, cluster)
            for image in {c.repository for c in running.containers}:
                found.setdefault(image, []).append(running)
    return found


def _serves(one: Pod, pod: Pod, container: Container, port: int) -> bool:
    """Whether another pod is told to listen on the port in a container of the same image."""
    same = (c for c in one.containers if c.repository == container.repository)
    return one.name != pod.name and any(_listens(c.spec, port) for c in same)


def _host(name: str, words: str) -> re.Match[str] | None:
    """The name of a Service where a command has it as a host, and not as a folder of a path."""
    if name not in words:
        return None
    return re.search(rf"(?<![\w.-])(?<![^/]/){re.escape(name)}(?:\.[\w-]{{1,63}}){{0,8}}(?![\w-])", words)


def _led(service: Item, cluster: Cluster) -> list[k8s.Pod]:
    """The pods that a Service leads to."""
    return cluster.once(
        f"typed pods behind {service.namespace}/{service.name}",
        lambda: [one for one in cluster.all(k8s.Pod, "Pod", service.namespace) if _selects(service, one)],
    )


def _of_one_group(leader: k8s.Pod, pod: Pod) -> bool:
    """Whether another pod is of the same server."""
    mine, theirs = pod.labels, leader.metadata.labels
    return leader.metadata.name != pod.name and any(
        mine.get(key) and mine.get(key) == theirs.get(key) for key in _GROUPS
    )


def _ready_since(leader: k8s.Pod) -> datetime | None:
    ready = leader.status.ready
    return parse_time(ready.last_transition_time) if ready else None


#: As the signature of the same id.
_EXPLAINS = ("ray-cluster", "nccl-timeout", "worker-lost", *FAILED_START, "engine-dead", "rollout-stuck")


def _hidden(namespace: str, cluster: Cluster) -> Iterator[tuple[k8s.Pod, Item]]:
    """The pods of a namespace whose names are not published, each with the Service that would."""
    for pod in cluster.all(k8s.Pod, "Pod", namespace):
        if service := _hidden_by(pod, cluster):
            yield pod, service


def _hidden_by(leader: k8s.Pod, cluster: Cluster) -> Item | None:
    """The headless Service that gives a pod its name, where it has none now: it runs, and is not ready.

    A leader that fails is another matter: its name is missing because of that.
    """
    statuses = leader.status.container_statuses
    if not leader.spec.subdomain or not statuses or any(s.state.running is None for s in statuses):
        return None
    if leader.status.ready:
        return None
    service = cluster.item("Service", leader.metadata.namespace or "default", leader.spec.subdomain)
    spec = dig(service.raw, "spec") if service else None
    if service is None or dig(spec, "clusterIP") != "None" or dig(spec, "publishNotReadyAddresses") is True:
        return None
    return service if _selects(service, leader) else None


def _selects(service: Item, pod: k8s.Pod) -> bool:
    """Whether a Service is one of the pod's group."""
    wanted = selector_of(service)
    return bool(wanted) and all(str(pod.metadata.labels.get(key)) == value for key, value in wanted.items())


def _waited(container: Container, logs: Logs | None) -> bool:
    """Whether a container runs, or ended after a while and over nothing else: who never ran has asked nobody."""
    ending = ending_of(container)
    if ending is None:
        return container.running
    killed = ending.oom_killed or ending.signal not in ("", "SIGKILL", "SIGTERM")
    if killed or (ending.seconds is not None and ending.seconds < _ASKED_SECONDS):
        return False
    log = log_of(ending, logs)
    last = last_traceback(log) if log else None
    return last is None or bool(_OF_A_WAY.search(f"{last.root.error} {last.root.message[:2000]}"))


def _asked(pod: Pod, leader: k8s.Pod) -> tuple[Container, str, Evidence] | None:
    """Which container has the leader's name in its command, arguments or variables, and where."""
    name = f"{leader.spec.hostname or leader.metadata.name}.{leader.spec.subdomain}"
    pattern = re.compile(rf"(?<![\w.-]){re.escape(name)}(?![\w-])")
    for container in pod.containers:
        for words, path in ((container.spec.command, "command"), (container.spec.args, "args")):
            for word in map(str, words):
                if pattern.search(word):
                    return container, name, pod_evidence(container, path, word[:200])
        for variable in container.spec.env:
            if pattern.search(str(variable.value or "")):
                return container, name, pod_evidence(container, f"env {variable.name}", str(variable.value))
    return None
