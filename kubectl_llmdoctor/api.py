"""All that the author of a check imports; what is not here may change without notice."""

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.check import Abstain, Check, Finding, check
from kubectl_llmdoctor.engines.config import Problem, Setting
from kubectl_llmdoctor.evidence import (
    event_evidence,
    log_evidence,
    node_evidence,
    pod_evidence,
    setting_evidence,
    workload_evidence,
)
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.endings import Ending, Phase, endings, log_of, phase_of, probe_kills
from kubectl_llmdoctor.facts.engine import Engine
from kubectl_llmdoctor.facts.events import Event, Events
from kubectl_llmdoctor.facts.logs import Line, Log, Logs
from kubectl_llmdoctor.facts.nodes import Node, Nodes
from kubectl_llmdoctor.facts.pod import Container, Pod, Shm, Trouble, is_accelerator
from kubectl_llmdoctor.facts.scheduling import Pending
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.facts.units import (
    GIB,
    MIB,
    count_of,
    milli,
    parse_time,
    say_bytes,
    say_cores,
    say_seconds,
    units,
)
from kubectl_llmdoctor.facts.workload import Workload
from kubectl_llmdoctor.report.document import Evidence, Fix, Patch

__all__ = [
    "GIB",
    "MIB",
    "Abstain",
    "Check",
    "Cluster",
    "Container",
    "Ending",
    "Engine",
    "Event",
    "Events",
    "Evidence",
    "Finding",
    "Fix",
    "Line",
    "Log",
    "Logs",
    "Node",
    "Nodes",
    "Patch",
    "Pending",
    "Phase",
    "Pod",
    "Problem",
    "Setting",
    "Shm",
    "Subject",
    "Trouble",
    "Workload",
    "check",
    "count_of",
    "endings",
    "event_evidence",
    "fixes",
    "is_accelerator",
    "k8s",
    "log_evidence",
    "log_of",
    "milli",
    "node_evidence",
    "parse_time",
    "phase_of",
    "pod_evidence",
    "probe_kills",
    "say_bytes",
    "say_cores",
    "say_seconds",
    "setting_evidence",
    "units",
    "workload_evidence",
]
