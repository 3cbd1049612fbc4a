"""The report as a value, schema `llmdoctor.report/v1`; every format is written from this and nothing else."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

SCHEMA = "llmdoctor.report/v1"

Role = Literal["cause", "symptom", "risk", "note"]
Severity = Literal["critical", "warning", "info"]
Confidence = Literal["certain", "likely", "possible"]
Verdict = Literal["cause-found", "at-risk", "healthy", "undetermined"]
EvidenceSource = Literal["pod", "workload", "event", "log", "node", "agent", "kernel-log", "metric", "manifest"]

ROLES: tuple[Role, ...] = ("cause", "symptom", "risk", "note")
SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")
CONFIDENCES: tuple[Confidence, ...] = ("certain", "likely", "possible")


class _Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Common settings: camelCase names, defaults (empty, null) left out."""


class Evidence(_Part, frozen=True):
    """A quotation with its place.

    `ref` is the place as a person would look it up: `serving/llama-0 containers[vllm] (previous)` for a log,
    `spec.containers[vllm].args` for a pod, `Node/gpu-1`; `text` is what stands there, word for word.
    """

    source: EvidenceSource
    ref: str
    text: str
    #: manifest file and 1-based line, or the 1-based line of a log
    file: str | None = None
    line: int | None = None
    #: for events: how long before `takenAt` it was last seen, in seconds, and how often
    age_seconds: int | None = None
    count: int | None = None


class Patch(_Part, frozen=True):
    """A change of one object: `target` is `apps/v1 Deployment/llama`, `namespace` that of one that is not the report's target."""

    target: str
    type: Literal["strategic", "merge", "json"]
    body: Any
    #: what it takes away and puts in: `- spec.replicas: 2`, `+ spec.replicas: 1`
    diff: tuple[str, ...] = ()
    namespace: str = ""


class Verification(_Part, frozen=True):
    """What a server-side dry run of a patch gave, and what the checks say of the object that it returned."""

    accepted: bool
    #: the API server's words where it refuses
    said: str = ""
    #: whether the finding is gone; None where only a restarted pod can tell
    gone: bool | None = None


class Fix(_Part, frozen=True):
    """What to do; `owner` says who can: the model's owner or the platform team."""

    summary: str
    owner: Literal["model", "platform"] = "model"
    commands: tuple[str, ...] = ()
    patch: Patch | None = None
    verified: Verification | None = None


class Finding(_Part, frozen=True):
    """One cause, symptom, risk or note of a target; `title` has no numbers, `summary` has those of this case."""

    id: str
    role: Role
    severity: Severity
    confidence: Confidence
    title: str
    summary: str
    evidence: tuple[Evidence, ...] = ()
    explains: tuple[str, ...] = ()
    fixes: tuple[Fix, ...] = ()
    docs: str = ""
    #: names of the pods it was found on, when not all pods of the target
    pods: tuple[str, ...] = ()
    #: of a finding about the cluster: the kubeconfig's context, where there are several
    context: str = ""


class EngineInfo(_Part, frozen=True, omit_defaults=False):
    """One inference server of the target; `config` holds what was set explicitly, after expansion."""

    name: str
    version: str | None
    container: str
    config: dict[str, Any]


class Bytes(_Part, frozen=True, omit_defaults=False):
    """Bytes on one GPU, lowest and highest, and where they come from."""

    low: int
    high: int
    source: str


class Memory(_Part, frozen=True):
    """What one GPU of an engine holds, as far as it is known; `fit` says more.

    Of the GPU's `total` the engine may use `usable` for weights, working memory and KV cache. `context` is the longest
    request that it must hold, `tokens` how many the cache holds, lowest and highest.
    """

    container: str
    gpu: str
    verdict: Literal["fits", "does-not-fit", "too-close", "unknown"]
    total: Bytes
    usable: Bytes | None = None
    weights: Bytes | None = None
    working: Bytes | None = None
    cache: Bytes | None = None
    context: int | None = None
    tokens: tuple[int, int] | None = None


class Change(_Part, frozen=True):
    """Something that changed before it broke: a rollout, a node event, the first fatal line. `at` is RFC 3339."""

    at: str | None
    what: str
    text: str


class Placement(_Part, frozen=True):
    """What the scheduler would say of a group of nodes that share one verdict."""

    nodes: tuple[str, ...]
    fits: bool
    #: their accelerators, free and in all
    devices: str = ""
    reasons: tuple[str, ...] = ()


class Suppressed(_Part, frozen=True):
    """A finding that somebody chose not to see, why, where they said so, and until when."""

    id: str
    reason: str
    where: str = ""
    until: str = ""
    role: Role | None = None
    severity: Severity | None = None
    summary: str = ""


class UnusedSuppression(_Part, frozen=True):
    """A suppression or another rule of severity that had no effect, and why; `where` it stands."""

    id: str
    where: str
    reason: str
    file: str | None = None
    line: int | None = None


class Known(_Part, frozen=True):
    """A finding that the baseline has already."""

    id: str
    role: Role
    severity: Severity


class NotChecked(_Part, frozen=True):
    """A check that could not judge, and what it lacked."""

    id: str
    reason: str

    @property
    def broken(self) -> bool:
        """Whether it lacked nothing: it, or a fact that it needs, failed by a fault of the program."""
        return self.reason.startswith(("broken check: ", "broken fact: "))


class Target(_Part, frozen=True):
    """One pod, or one replica group whose pods live and die together."""

    api_version: str
    kind: str
    namespace: str
    name: str
    verdict: Verdict
    workload: str = ""
    #: the kubeconfig's context, where there are several
    context: str = ""
    #: manifest file and 1-based line of the object
    file: str | None = None
    line: int | None = None
    pods: tuple[str, ...] = ()
    #: one line of what it is doing, as kubectl would put it: `CrashLoopBackOff, 7 restarts in 21 min`
    status: str = ""
    engine: EngineInfo | None = None
    engines: tuple[EngineInfo, ...] = ()
    memory: tuple[Memory, ...] = ()
    impact: str = ""
    changes: tuple[Change, ...] = ()
    findings: tuple[Finding, ...] = ()
    placement: tuple[Placement, ...] = ()
    suppressed: tuple[Suppressed, ...] = ()
    known: tuple[Known, ...] = ()
    not_checked: tuple[NotChecked, ...] = ()
    #: what to look at next when nothing was found for certain: log lines, commands
    next_steps: tuple[str, ...] = ()

    def having(self, role: Role) -> list[Finding]:
        """Its findings of one role."""
        return [finding for finding in self.findings if finding.role == role]

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as msgpack: a default is left out of reports by its identity, which only msgspec's decoding keeps."""
        return _target, (msgspec.msgpack.encode(self),)


def _target(packed: bytes) -> Target:
    return msgspec.msgpack.decode(packed, type=Target)


class NotRead(_Part, frozen=True):
    """A source that could not be read, and why."""

    source: str
    reason: str
    ref: str = ""


class Holder(_Part, frozen=True):
    """Who holds devices: `workload` is `Deployment/llama`, or `Pod/llama-0` where nothing owns the pod."""

    namespace: str
    workload: str
    devices: int
    #: of these, on how many nothing runs; None where no source says
    idle: int | None = None


class GpuNode(_Part, frozen=True):
    """A node with accelerators: what it has, what it offers, who holds it, and what keeps the rest from being used."""

    name: str
    product: str
    resource: str
    total: int
    allocatable: int
    free: int
    holders: tuple[Holder, ...] = ()
    #: why its free devices cannot be used now: `cordoned`, `NotReady`, `0.5 of 8 CPU free`
    stranded: str = ""
    #: the same by kind of reason, with the devices that it concerns
    reasons: dict[str, int] = {}
    #: the kubeconfig's context, where there are several
    context: str = ""


class Capacity(_Part, frozen=True):
    """The devices of one product, over all nodes. `chunks` says how many nodes have so many free: `{"1": 3, "8": 1}`."""

    product: str
    resource: str
    nodes: int
    total: int
    allocatable: int
    allocated: int
    free: int
    chunks: dict[str, int] = {}
    #: free, but not to be had: reason to devices
    stranded: dict[str, int] = {}
    #: held by pods on which nothing runs; None where no source says
    idle: int | None = None
    #: most first
    holders: tuple[Holder, ...] = ()
    #: the kubeconfig's context, where there are several
    context: str = ""


class EngineVersion(_Part, frozen=True):
    """An engine in one version, the workloads that run it, and what is known against it."""

    name: str
    version: str | None
    workloads: tuple[str, ...]
    #: ids of vulnerabilities that this version has
    vulnerabilities: tuple[str, ...] = ()


class Cluster(_Part, frozen=True, omit_defaults=False):
    """What holds for the cluster rather than for one target."""

    capacity: tuple[Capacity, ...] = ()
    findings: tuple[Finding, ...] = ()
    nodes: tuple[GpuNode, ...] = ()
    engines: tuple[EngineVersion, ...] = ()


class Changed(_Part, frozen=True):
    """A finding that only one of two reports has: `target` is `Deployment serving/llama`."""

    target: str
    id: str
    role: Role
    severity: Severity
    summary: str = ""


class Comparison(_Part, frozen=True, omit_defaults=False):
    """What is different from an earlier report."""

    taken_at: str | None
    new: tuple[Changed, ...] = ()
    fixed: tuple[Changed, ...] = ()
    unchanged: int = 0


class Report(_Part, frozen=True):
    """The whole answer. `taken_at` is null when the input does not say when it was taken."""

    tool_version: str
    taken_at: str | None
    targets: tuple[Target, ...]
    cluster: Cluster = Cluster()
    comparison: Comparison | None = None
    not_read: tuple[NotRead, ...] = ()
    #: checks that nothing in the input could answer, whatever the target
    not_checked: tuple[NotChecked, ...] = ()
    unused_suppressions: tuple[UnusedSuppression, ...] = ()

    @property
    def broken(self) -> tuple[NotChecked, ...]:
        """The checks that failed by a fault of the program, of whatever target, each fault once."""
        unjudged = (*self.not_checked, *(item for target in self.targets for item in target.not_checked))
        return tuple(dict.fromkeys(item for item in unjudged if item.broken))


def to_tree(report: Report) -> dict[str, Any]:
    """The report as plain data, in the key order of the contract."""
    tree: dict[str, Any] = {
        "schema": SCHEMA,
        "tool": {"name": "kubectl-llmdoctor", "version": report.tool_version},
        "takenAt": report.taken_at,
    }
    always = ("engines", "changes", "findings", "placement", "suppressed", "notChecked")
    targets = []
    for target in report.targets:
        built = msgspec.to_builtins(target)
        targets.append(built | {key: built.get(key, []) for key in always} | {"engine": built.get("engine")})
    tree["targets"] = targets
    tree["cluster"] = {"capacity": [], "findings": []} | {
        key: value for key, value in msgspec.to_builtins(report.cluster).items() if value
    }
    if report.comparison:
        tree["comparison"] = msgspec.to_builtins(report.comparison)
    tree["notRead"] = [msgspec.to_builtins(item) for item in report.not_read]
    for key, items in (("notChecked", report.not_checked), ("unusedSuppressions", report.unused_suppressions)):
        if items:
            tree[key] = [msgspec.to_builtins(item) for item in items]
    return tree
