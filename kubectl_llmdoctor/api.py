"""All that the author of a check imports; what is not here may change without notice."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.check import Abstain, Check, Finding, check
from kubectl_llmdoctor.driver import branch_for, driver_cuda, image_cuda, say_cuda, suffices
from kubectl_llmdoctor.engines.config import Problem, Setting
from kubectl_llmdoctor.engines.launch import EnvVar
from kubectl_llmdoctor.engines.recognise import simulates
from kubectl_llmdoctor.evidence import (
    condition_evidence,
    device_evidence,
    event_evidence,
    limits_evidence,
    log_evidence,
    node_evidence,
    object_evidence,
    pod_evidence,
    problem_evidence,
    setting_evidence,
    variable_evidence,
    workload_evidence,
)
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.accelerator import Accelerator, given_shares, is_accelerator, say_devices, shares_of
from kubectl_llmdoctor.facts.agent import ContainerUse, Device, Process, bus_of, letters
from kubectl_llmdoctor.facts.clients import (
    addresses,
    askers,
    clients,
    host_of,
    leads_here,
    sought,
    speaks_of_one,
    told_by,
)
from kubectl_llmdoctor.facts.cluster import Cluster, Item
from kubectl_llmdoctor.facts.constraints import (
    HOSTNAME,
    NO_PROVISIONER,
    Mismatch,
    holds,
    is_state_taint,
    mismatches,
    selected,
    show_taint,
    tolerated,
    untolerated,
)
from kubectl_llmdoctor.facts.container import Container, Shm, served_until, written_before
from kubectl_llmdoctor.facts.destinations import (
    Destination,
    current_logs,
    engines_in,
    follow,
    has_namespace,
    idle_workload,
    is_headless,
    logs_of,
    named,
    of_a_machine,
    selector_of,
    service_at,
    takes_telemetry,
)
from kubectl_llmdoctor.facts.endings import Ending, ended_logs, ending_of, endings, log_of, probe_kills
from kubectl_llmdoctor.facts.engine import Engine, engines_of
from kubectl_llmdoctor.facts.events import Event, Events, awaited_reservation, came_further, events_of
from kubectl_llmdoctor.facts.failed_models import (
    BY_SPAN,
    COMPLETED,
    ended_runner,
    failing_routes,
    fails_often,
    lacks_model,
    often_failing_routes,
    raised_alike,
)
from kubectl_llmdoctor.facts.gpu_conditions import GpuCondition
from kubectl_llmdoctor.facts.hardware import Hardware, holder_of, is_gone
from kubectl_llmdoctor.facts.kernel_log import BusError, OutOfMemory, SwitchError, Xid
from kubectl_llmdoctor.facts.last_words import contradicted, last_words
from kubectl_llmdoctor.facts.lengths import length_of
from kubectl_llmdoctor.facts.logs import Line, Log, Logs, in_order
from kubectl_llmdoctor.facts.metrics import Metrics
from kubectl_llmdoctor.facts.node_hardware import NodeHardware, node_hardware
from kubectl_llmdoctor.facts.nodes import GKE_GPU, GPU_PRODUCT, MACHINE, RDMA, Node, Nodes
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.facts.processes import (
    Traceback,
    ended_itself,
    last_traceback,
    looks_like_error,
    said,
    tracebacks,
)
from kubectl_llmdoctor.facts.requests import answered, gone, long_past, served, stray
from kubectl_llmdoctor.facts.routes import Backend, backends_of, parents_of, pickers_of, rules_of
from kubectl_llmdoctor.facts.scheduling.message import STAGES, Count, Kind, Said, is_provisioner, is_unfit, parse
from kubectl_llmdoctor.facts.scheduling.pending import Pending
from kubectl_llmdoctor.facts.scheduling.verdict import NodeVerdict, Reason, names_of, say_amount
from kubectl_llmdoctor.facts.series import Histogram, Increase, Span
from kubectl_llmdoctor.facts.sizing import Sizing, file_bytes_of
from kubectl_llmdoctor.facts.starts import Phase, phase_at, phase_of, signs_of_life, stopped_at, superseded
from kubectl_llmdoctor.facts.subject import Subject, told_elsewhere
from kubectl_llmdoctor.facts.troubles import Trouble
from kubectl_llmdoctor.facts.units import (
    GIB,
    MIB,
    count_of,
    duration,
    few,
    milli,
    often,
    parse_time,
    say_bytes,
    say_cores,
    say_seconds,
    units,
)
from kubectl_llmdoctor.facts.usage import Holder, Usage, requests_of, usage_of
from kubectl_llmdoctor.facts.workload import Workload, top_of
from kubectl_llmdoctor.facts.written import (
    MOMENT,
    seconds_ago,
    seconds_between,
    written_ago,
)
from kubectl_llmdoctor.platforms.labels import (
    APP_NAME,
    DYNAMO_GRAPH,
    INFERENCE_SERVICE,
    KNATIVE_REVISION,
    KNATIVE_SERVICE,
    KUEUE_QUEUE,
    PART_OF,
    RAY_CLUSTER,
    RAY_NODE_TYPE,
    WORKER_GROUP,
    WORKER_INDEX,
    WORKER_SET,
)
from kubectl_llmdoctor.platforms.pointer import escaped, pointer_to
from kubectl_llmdoctor.report.document import Confidence, Evidence, Fix, Patch
from kubectl_llmdoctor.report.words import sentence
from kubectl_llmdoctor.snapshot import MASK
from kubectl_llmdoctor.tree import dig, rows, say_flow, say_pairs, say_selector, table, words

if TYPE_CHECKING:
    from kubectl_llmdoctor import releases, settling, stating
    from kubectl_llmdoctor.reach import of_pod, other_side, reach
    from kubectl_llmdoctor.room.gpus import most_gpus
    from kubectl_llmdoctor.room.kernels import own_kernels
else:

    class _Later:
        """A module that few fixes need, or a function of one: 10 ms, when it is first used."""

        def __init__(self, module: str, name: str = "") -> None:
            self._of = module, name

        def _found(self) -> Any:
            module, name = self._of
            found = import_module(f"kubectl_llmdoctor.{module}")
            return getattr(found, name) if name else found

        def __call__(self, *given: Any, **named: Any) -> Any:
            return self._found()(*given, **named)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._found(), name)

    releases, settling, stating = map(_Later, ("releases", "settling", "stating"))
    of_pod, other_side, reach = (_Later("reach", name) for name in ("of_pod", "other_side", "reach"))
    most_gpus, own_kernels = _Later("room.gpus", "most_gpus"), _Later("room.kernels", "own_kernels")

__all__ = [
    "APP_NAME",
    "BY_SPAN",
    "COMPLETED",
    "DYNAMO_GRAPH",
    "GIB",
    "GKE_GPU",
    "GPU_PRODUCT",
    "HOSTNAME",
    "INFERENCE_SERVICE",
    "KNATIVE_REVISION",
    "KNATIVE_SERVICE",
    "KUEUE_QUEUE",
    "MACHINE",
    "MASK",
    "MIB",
    "MOMENT",
    "NO_PROVISIONER",
    "PART_OF",
    "RAY_CLUSTER",
    "RAY_NODE_TYPE",
    "RDMA",
    "STAGES",
    "WORKER_GROUP",
    "WORKER_INDEX",
    "WORKER_SET",
    "Abstain",
    "Accelerator",
    "Backend",
    "BusError",
    "Check",
    "Cluster",
    "Confidence",
    "Container",
    "ContainerUse",
    "Count",
    "Destination",
    "Device",
    "Ending",
    "Engine",
    "EnvVar",
    "Event",
    "Events",
    "Evidence",
    "Finding",
    "Fix",
    "GpuCondition",
    "Hardware",
    "Histogram",
    "Holder",
    "Increase",
    "Item",
    "Kind",
    "Line",
    "Log",
    "Logs",
    "Metrics",
    "Mismatch",
    "Node",
    "NodeHardware",
    "NodeVerdict",
    "Nodes",
    "OutOfMemory",
    "Patch",
    "Pending",
    "Phase",
    "Pod",
    "Problem",
    "Process",
    "Reason",
    "Said",
    "Setting",
    "Shm",
    "Sizing",
    "Span",
    "Subject",
    "SwitchError",
    "Traceback",
    "Trouble",
    "Usage",
    "Workload",
    "Xid",
    "addresses",
    "answered",
    "askers",
    "awaited_reservation",
    "backends_of",
    "branch_for",
    "bus_of",
    "came_further",
    "check",
    "clients",
    "condition_evidence",
    "contradicted",
    "count_of",
    "current_logs",
    "device_evidence",
    "dig",
    "driver_cuda",
    "duration",
    "ended_itself",
    "ended_logs",
    "ended_runner",
    "ending_of",
    "endings",
    "engines_in",
    "engines_of",
    "escaped",
    "event_evidence",
    "events_of",
    "expression",
    "failing_routes",
    "fails_often",
    "few",
    "file_bytes_of",
    "fixes",
    "follow",
    "given_shares",
    "gone",
    "has_namespace",
    "holder_of",
    "holds",
    "host_of",
    "idle_workload",
    "image_cuda",
    "in_order",
    "is_accelerator",
    "is_gone",
    "is_headless",
    "is_provisioner",
    "is_state_taint",
    "is_unfit",
    "k8s",
    "lacks_model",
    "last_traceback",
    "last_words",
    "leads_here",
    "length_of",
    "letters",
    "limits_evidence",
    "log_evidence",
    "log_of",
    "logs_of",
    "long_past",
    "looks_like_error",
    "milli",
    "mismatches",
    "most_gpus",
    "named",
    "names_of",
    "node_evidence",
    "node_hardware",
    "object_evidence",
    "of_a_machine",
    "of_pod",
    "often",
    "often_failing_routes",
    "other_side",
    "own_kernels",
    "parents_of",
    "parse",
    "parse_time",
    "phase_at",
    "phase_of",
    "pickers_of",
    "pod_evidence",
    "pointer_to",
    "probe_kills",
    "problem_evidence",
    "raised_alike",
    "reach",
    "releases",
    "requests_of",
    "rows",
    "rules_of",
    "said",
    "say_amount",
    "say_bytes",
    "say_cores",
    "say_cuda",
    "say_devices",
    "say_flow",
    "say_pairs",
    "say_seconds",
    "say_selector",
    "seconds_ago",
    "seconds_between",
    "selected",
    "selector_of",
    "sentence",
    "served",
    "served_until",
    "service_at",
    "setting_evidence",
    "settling",
    "shares_of",
    "show_taint",
    "signs_of_life",
    "simulates",
    "sought",
    "speaks_of_one",
    "stating",
    "stopped_at",
    "stray",
    "suffices",
    "superseded",
    "table",
    "takes_telemetry",
    "told_by",
    "told_elsewhere",
    "tolerated",
    "top_of",
    "tracebacks",
    "units",
    "untolerated",
    "usage_of",
    "variable_evidence",
    "words",
    "workload_evidence",
    "written_ago",
    "written_before",
]  # fmt: skip
