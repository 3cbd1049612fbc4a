"""The node agents: where they run, and what they say of the nodes of the pods that are explained.

They are asked through the API server (`pods/proxy`), so RBAC decides who may. What one says is text from a cluster like
any other: bounded, masked, and taken for a report only where it says that it is one of that very node.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

import msgspec

from kubectl_llmdoctor.gather import related, slim
from kubectl_llmdoctor.gather.collector import PAGE, Collector
from kubectl_llmdoctor.gather.failure import RequestError, Why, one_line
from kubectl_llmdoctor.gather.transport import Client, query
from kubectl_llmdoctor.snapshot import Json, NodeData

NAMESPACE = "llmdoctor"
SELECTOR = "app.kubernetes.io/name=llmdoctor-agent"
READER = "llmdoctor-agent-reader"
SCHEMA = "llmdoctor.agent/v1"
_PORT = 9479

_INSTALL = "kubectl llmdoctor agent manifests"

#: Agents that are asked for the nodes of pods, and for nodes that a Pending pod could get.
_NODES, CANDIDATES = 16, 8

#: Pages of a list of agents: one agent per node.
_PAGES = 10

#: Seconds for one answer, and for all of them together.
_SECONDS, _BUDGET = 3.0, 5.0

_MOST_BYTES = 8 * 2**20

#: A reading that is older than this, in seconds, says nothing of now; the agent reads every 30 s.
_STALE = 300


@dataclass(frozen=True, kw_only=True)
class AgentPod:
    namespace: str
    name: str
    node: str
    port: int
    #: why it cannot answer; empty where it can
    trouble: str = ""

    @property
    def ref(self) -> str:
        """`llmdoctor/llmdoctor-agent-x2v4q`."""
        return f"{self.namespace}/{self.name}"


class ReportError(Exception):
    """Why an agent's report cannot be had, in one line with what to do."""


def find(client: Client) -> list[AgentPod]:
    """All agents: those of the namespace `llmdoctor`, else those of any other one. Raises ReportError without any."""
    refusals: list[str] = []
    for namespace in (NAMESPACE, ""):
        try:
            if found := list(_listed(client, namespace)):
                return found
        except RequestError as error:
            if error.why != Why.FORBIDDEN:
                raise ReportError(f"its pods cannot be listed: {error.reason}") from None
            refusals.append(error.reason)
    if len(refusals) == 2:  # else one list says that there are none where they should be
        raise ReportError(f"{refusals[0]}; where it is installed, the Role {READER} of its namespace permits it")
    raise ReportError(f"not installed ({_INSTALL})")


def _listed(client: Client, namespace: str) -> Iterable[AgentPod]:
    path = f"/api/v1/namespaces/{namespace}/pods" if namespace else "/api/v1/pods"
    proceed = ""
    for _ in range(_PAGES):
        asked = query(labelSelector=SELECTOR, limit=PAGE, **{"continue": proceed})
        page = client.get(path, asked, decode=slim.decode_pod_page)
        for raw in page.items or ():
            pod = slim.decode_pod(raw)
            if pod is not None and pod.spec.node_name and not pod.metadata.deletion_timestamp:
                yield _agent_pod(pod, pod.spec.node_name)
        proceed = page.metadata.continue_
        if not proceed:
            return


def _agent_pod(pod: slim.Pod, node: str) -> AgentPod:
    ports = [port.container_port for container in pod.spec.containers for port in container.ports or ()]
    rows = (pod.status.container_statuses if pod.status else None) or []
    why = [row.state.waiting.reason for row in rows if row.state and row.state.waiting and row.state.waiting.reason]
    running = any(row.state and row.state.running is not None for row in rows)
    phase = (pod.status.phase if pod.status else None) or "Pending"
    return AgentPod(
        namespace=pod.metadata.namespace,
        name=pod.metadata.name,
        node=node,
        port=next((port for port in ports if port), _PORT),
        trouble="" if running else (why[0] if why else phase),
    )


def read(client: Client, agent: AgentPod, seconds: float = _SECONDS) -> NodeData:
    """What one agent says, masked. Raises ReportError."""
    path = f"/api/v1/namespaces/{agent.namespace}/pods/{agent.name}:{agent.port}/proxy/v1/report"
    if agent.trouble:
        logs = f"kubectl -n {agent.namespace} describe pod {agent.name}"
        raise ReportError(f"its pod {agent.ref} does not run: {agent.trouble} ({logs})")
    try:
        body, date = client.get_once(path, seconds=seconds, most_bytes=_MOST_BYTES)
    except RequestError as error:
        raise ReportError(_refusal(agent, error, seconds)) from None
    try:
        tree = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        tree = None
    schema = tree.get("schema") if isinstance(tree, dict) else None
    if not isinstance(schema, str) or not schema.startswith(SCHEMA.rstrip("1")):
        raise ReportError(f"what {agent.ref} answers is no report of an agent")
    if schema != SCHEMA:
        raise ReportError(
            f"its report has the schema {one_line(schema)}, and this program reads {SCHEMA}: use the same version"
        )
    return _checked(agent, tree, date)


def _checked(agent: AgentPod, tree: Json, date: str) -> NodeData:
    """The report of the right node, as fresh as it should be."""
    from kubectl_llmdoctor.redact import mask_object, mask_text

    if tree.get("node") not in (None, agent.node):
        raise ReportError(f"{agent.ref} says that it is of another node: {one_line(str(tree['node']))}")
    log = tree.pop("kernelLog", None)
    age = _age(tree.get("takenAt"), date)
    if age is not None and age > _STALE:
        raise ReportError(
            f"its last reading is {age / 60:.0f} min old: it does not get through to the driver or is starved "
            f"(kubectl -n {agent.namespace} logs {agent.name})"
        )
    return NodeData(agent=mask_object(tree), kernel_log=mask_text(log) if isinstance(log, str) else "")


def _age(taken_at: object, date: str) -> float | None:
    """Seconds between a reading and the answer, both by the node's clock; None where one is no time."""
    from email.utils import parsedate_to_datetime

    try:
        answered = parsedate_to_datetime(date) if date else datetime.now(UTC)
        return (answered - datetime.fromisoformat(str(taken_at))).total_seconds()
    except (ValueError, TypeError):
        return None


def _refusal(agent: AgentPod, error: RequestError, seconds: float) -> str:
    """Why there is no answer, and what to do about it."""
    match error.why:
        case Why.FORBIDDEN:
            return f"{error.reason}; the Role {READER} of the namespace {agent.namespace} permits it"
        case Why.TIMEOUT:
            return (
                f"no answer from {agent.ref} in {seconds:g} s: where a NetworkPolicy keeps the API server out, "
                f"{_INSTALL} --allow-from lets it in"
            )
        case Why.SERVER if "no reading yet" in error.reason:
            return f"{agent.ref} has not finished its first reading; try again"
        case Why.SERVER:
            return (
                f"the API server does not reach {agent.ref} ({error.reason}); where a NetworkPolicy keeps it out, "
                f"{_INSTALL} --allow-from lets it in"
            )
        case Why.NOT_FOUND | Why.NO_SUCH_KIND:
            return f"the pod {agent.ref} is gone or serves no report"
        case _:
            return f"{agent.ref}: {error.reason}"


class Agents:
    """Asks the agents of nodes as the nodes become known."""

    def __init__(self, pot: Collector) -> None:
        self._pot = pot
        self._lock = threading.Lock()
        #: nodes that wait for the list of agents, and whether the absence of one is worth a word
        self._waiting: dict[str, bool] = {}
        self._found: dict[str, list[AgentPod]] | None = None
        #: why there is none to be asked
        self._trouble = ""
        self._asked = 0
        self._until: float | None = None

    def of(self, node: str, *, expected: bool) -> None:
        """Asks the agent of a node, once. `expected`: the node has GPUs, so that an agent should be there."""
        if not self._pot.once("agent", node, expected):
            return
        with self._lock:
            found = self._found
            if found is None:
                self._waiting[node] = expected or self._waiting.get(node, False)
        if found is not None:
            self._ask(node, found.get(node, []), expected=expected)
        elif self._pot.once("agents"):
            self._pot.task("agent", "", self._find)

    def of_candidates(self, nodes: Iterable[slim.Node]) -> None:
        """Asks the agents of nodes that a Pending pod could get a GPU of; of many only those that offer too few."""
        having = [node for node in nodes if _gpus(node)]
        # a GPU that is not offered the device plugin holds for unhealthy, or does not see
        fewer = [node for node in having if any(offers < has for has, offers in _gpus(node).values())]
        chosen = having if len(having) <= CANDIDATES else fewer
        for node in sorted(chosen, key=lambda node: node.metadata.name)[:CANDIDATES]:
            self.of(node.metadata.name, expected=True)
        if len(having) > CANDIDATES:
            asked = min(len(chosen), CANDIDATES)
            self._pot.miss(
                "agent", "", f"of {len(having)} nodes with GPUs {asked} that offer fewer than they have were asked"
            )

    def _find(self) -> None:
        try:
            pods = find(self._pot.client)
        except ReportError as error:
            self._trouble, pods = str(error), []
        found: dict[str, list[AgentPod]] = {}
        for pod in pods:
            found.setdefault(pod.node, []).append(pod)
        with self._lock:
            self._found = found
            waiting = dict(self._waiting)
        for node, expected in waiting.items():
            self._ask(node, found.get(node, []), expected=expected)

    def _ask(self, node: str, pods: list[AgentPod], *, expected: bool) -> None:
        if not pods:
            if expected and self._trouble:
                self._pot.miss("agent", "", self._trouble)
            elif expected:
                label = f"kubectl label node {node} llmdoctor-agent=true"
                self._pot.miss("agent", node, f"no agent runs there ({label} brings one)")
            return
        if not self._pot.once("agent of", node):
            return
        if len({pod.namespace for pod in pods}) > 1:
            names = ", ".join(sorted(pod.ref for pod in pods))
            self._pot.miss("agent", node, f"several pods say that they are its agent: {names}")
            return
        with self._lock:
            self._asked += 1
            if self._asked > _NODES:
                self._pot.miss("agent", "", f"only {_NODES} nodes were asked")
                return
        # the one that runs, where an old pod has not gone yet
        pod = min(pods, key=lambda pod: (bool(pod.trouble), pod.name))
        self._pot.task("agent", node, partial(self._read, pod))

    def _read(self, agent: AgentPod) -> None:
        with self._lock:
            now = time.monotonic()
            self._until = self._until or now + _BUDGET
            left = min(self._until - now, _SECONDS)
        if left <= 0:
            self._pot.miss("agent", agent.node, "not asked, since the agents of other nodes do not answer")
            return
        try:
            self._pot.nodes[agent.node] = read(self._pot.client, agent, left)
        except ReportError as error:
            self._pot.miss("agent", agent.node, str(error))


def _gpus(node: slim.Node) -> dict[str, tuple[float, float]]:
    """What a node has and offers of each resource that is a GPU."""
    status = node.status or slim.NodeStatus()
    has, offers = status.capacity or {}, status.allocatable or {}
    found = {name: (_number(has[name]), _number(offers.get(name))) for name in has if related.is_gpu(name)}
    if not found and (node.metadata.labels or {}).get("nvidia.com/gpu.present") == "true":
        return {"nvidia.com/gpu": (1, 0)}
    return {name: counts for name, counts in found.items() if counts[0]}


def _number(quantity: Any) -> float:
    try:
        return float(quantity)
    except (TypeError, ValueError):
        return 0.0
