"""Evidence from each kind of fact: a quotation with its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from kubectl_llmdoctor.engines.config import Problem, Setting
from kubectl_llmdoctor.engines.launch import EnvVar
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import Accelerator
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.events import Event
from kubectl_llmdoctor.facts.logs import Line
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.report.document import Evidence

#: A line is quoted from its start unless what matters in it stands farther away than this: a terminal shows as much of it.
_FAR_CHARS = 140

#: Of such a line this much of the beginning, where the time stands, is quoted too.
_HEAD_CHARS = 40


def log_evidence(line: Line, telling: str = "") -> Evidence:
    """A log line, with container, instance and line number.

    Of a line that holds a whole traceback (JSON logs) the quotation begins shortly before `telling`.
    """
    log = line.log
    ref = f"{log.pod} {log.place}" if log.pod else log.place
    return Evidence(source="log", ref=ref, text=quotation(line.text.strip(), telling), line=line.number)


def quotation(text: str, telling: str) -> str:
    """A text from shortly before what is telling in it, where that stands far from its beginning, which is quoted too."""
    at = text.find(telling) if telling else 0
    if at <= _FAR_CHARS:
        return text
    head = text[:_HEAD_CHARS].rpartition(" ")[0]
    head += " " * bool(head)
    start = text.find(" ", at - _FAR_CHARS // 2)
    if 0 <= start < at:
        return f"{head}… {text[start + 1 :]}"
    # one long word, such as a line of JSON: from the field before
    return f"{head}…" + text[max(text.rfind(mark, at - _FAR_CHARS // 2, at) for mark in ",;{&|") + 1 or at :]


def event_evidence(event: Event, cluster: Cluster) -> Evidence:
    """An event, with its age and count."""
    age = cluster.seconds_since(event.last)
    return Evidence(
        source="event",
        ref=f"{event.kind}/{event.name}",
        text=f"{event.reason}: {event.message}",
        age_seconds=None if age is None else max(int(age), 0),
        count=event.count,
    )


def pod_evidence(where: Pod | Container, path: str, text: str) -> Evidence:
    """A value of a pod or container; `path` is relative to it: `resources.limits.memory`, `status.phase`.

    A path that starts with `status` or `metadata` is the pod's own. A pod that exists only as a template is quoted from
    its manifest, with file and line.
    """
    pod = where.pod if isinstance(where, Container) else where
    if path.startswith(("status", "metadata")):
        ref = path
    else:
        ref = f"{where.path if isinstance(where, Container) else pod.spec_path}.{path}"
    return _stated(pod, ref, text)


def variable_evidence(variable: EnvVar) -> Evidence:
    """A variable of a container, as its pod states it."""
    return Evidence(source="pod", ref=variable.path, text=f"{variable.name}={variable.value}")


def limits_evidence(container: Container, asked: Mapping[str, object]) -> Iterator[Evidence]:
    """How many of some resources a container may have."""
    return (pod_evidence(container, f"resources.limits[{name}]", str(number)) for name, number in asked.items())


def _stated(pod: Pod, ref: str, text: str) -> Evidence:
    """What a pod's object states, of one that does not exist yet with file and line."""
    origin = pod.template_of.origin if pod.template_of else pod.item.origin if pod.item else None
    if pod.exists or origin is None:
        return Evidence(source="pod", ref=ref, text=text)
    return Evidence(source="manifest", ref=ref, text=text, file=origin.file, line=origin.line)


def setting_evidence(where: Container, setting: Setting) -> Evidence:
    """An engine setting, quoted as it was written where it was written."""
    if setting.path.startswith("log line "):
        line = int(setting.path.rpartition(" ")[2])
        return Evidence(source="log", ref=_log_read(where), text=setting.text, line=line)
    ref = where.shown(setting.path) if setting.path else f"{where.path}.args"
    return _stated(where.pod, ref, setting.text)


def problem_evidence(pod: Pod, problem: Problem) -> Evidence:
    """What an engine's parser would refuse or pass over, where it was written."""
    origin = pod.template_of.origin if pod.template_of else None
    if origin and not pod.exists:
        return Evidence(source="manifest", ref=problem.path, text=problem.text, file=origin.file, line=origin.line)
    return Evidence(source="pod", ref=problem.path, text=problem.text)


def _log_read(where: Container) -> str:
    """The log that settings of a container are read from, as `log_evidence` names it: the previous instance's, if it is there."""
    pod = where.pod
    before = pod.cluster.once("previous logs", lambda: _previous(pod.cluster))
    place = (where.name or "log") + (" (previous)" if (pod.namespace, pod.name, where.name) in before else "")
    return f"{pod.name} {place}" if where.name else place


def _previous(cluster: Cluster) -> set[tuple[str, str, str]]:
    logs = cluster.snapshot.logs
    return {(log.namespace or "default", log.pod, log.container) for log in logs if log.previous and log.text}


def workload_evidence(workload: Workload, path: str, text: str) -> Evidence:
    """A value of the workload; of one in a manifest with file and line."""
    return object_evidence(workload.item, path, text)


def object_evidence(item: Item, path: str, text: str) -> Evidence:
    """A value of an object that is neither pod nor workload: a Service, an autoscaler, a claim; with file and line."""
    ref = f"{item.raw.get('kind')}/{item.name} {path}".rstrip()
    if item.origin:
        return Evidence(source="manifest", ref=ref, text=text, file=item.origin.file, line=item.origin.line)
    return Evidence(source="workload", ref=ref, text=text)


def condition_evidence(where: Pod | Item, condition: k8s.Condition) -> Evidence:
    """What a condition of a pod, or of another object, says."""
    path = f"status.conditions[{condition.type}]"
    if isinstance(where, Pod):
        return pod_evidence(where, path, condition.text)
    return object_evidence(where, path, condition.text)


def device_evidence(where: Container, device: Accelerator) -> Evidence:
    """What says which GPU a container has."""
    if device.line is not None:
        return log_evidence(device.line)
    if device.source == "selector":
        return pod_evidence(where.pod, device.ref.removeprefix(f"{where.pod.spec_path}."), device.text)
    return Evidence(source="agent" if device.source == "agent" else "node", ref=device.ref, text=device.text)


def node_evidence(node: Node, text: str) -> Evidence:
    """Something about a node."""
    return Evidence(source="node", ref=f"Node/{node.name}", text=text)
