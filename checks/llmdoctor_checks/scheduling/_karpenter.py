"""What Karpenter says of the pools that do not make a node for a pod, one after the other in one event.

Sources: kubernetes-sigs/karpenter pkg/controllers/provisioning/scheduling (scheduler.go, nodeclaim.go) and pkg/scheduling. Until
1.5 a pool's part begins with `incompatible with nodepool "gpu", daemonset overhead={…}`; since then a part names its pool only
among the requirements, or as `(NodePool=gpu)`, and a taint or a label that does not fit names none. Taints come first, then labels,
then instance types: a part tells how far its pool came.
"""

import re

import msgspec

from kubectl_llmdoctor.api import MACHINE

_BEGINS = r"^(?:Failed to schedule pod|Could not schedule pod|Failed to provision new node),\s*"
_NAMED = r'incompatible with (?:nodepool|provisioner)(?: \\?"(?P<pool>[^",\\]+)\\?")?,\s*'
_OVERHEAD = r"daemonset overhead=\{([^}]{0,2000})\},?\s*"
_POOL = (
    r"karpenter\.sh/(?:nodepool|provisioner-name) In \[(?P<of>[^\] ]+)\]"
    r'|\bNodePool="?(?P<is>[^",)\s]+)|for (?:nodepool|provisioner) \\?"(?P<for>[^"\\]+)'
)
_TAINT = r"did not tolerate (?:taint \(taint=)?(?P<taint>[^;,)\s]+)"
_DEMAND = r"incompatible (?:(?P<of>volume) )?requirements, (?P<demand>.+)"

#: A label of the pod that no pool sets and no cloud knows, as a demand.
UNKNOWN = r'label "(?P<key>[^"]{1,253})" does not have known values'
FAMILIES = (
    "karpenter.k8s.aws/instance-family",
    "eks.amazonaws.com/instance-family",
    "karpenter.k8s.aws/instance-category",
    "eks.amazonaws.com/instance-category",
    "karpenter.azure.com/sku-family",
)
#: Families and categories of machines with accelerators: EC2's, and Azure's NC, ND and NV.
ACCELERATED = r"(?:p|gr?|inf|trn|dl)(?:\d\w*)?|N[CDV]?\w{0,20}"
_LIMIT = r"exceed limits for|limits have been exhausted"

#: An event has 1,024 characters; what is longer is not Karpenter's.
_LONGEST, _MOST = 20_000, 100

#: Pools for what the cluster itself needs mark their nodes so: nothing else is meant to run there.
_OF_SYSTEM = ("CriticalAddonsOnly",)


class Pool(msgspec.Struct, frozen=True, kw_only=True):
    """What one pool lacks for the pod."""

    #: empty where Karpenter does not name it
    name: str
    text: str
    taint: str = ""
    #: a label or requirement of the pod that it does not meet
    demand: str = ""
    #: where the volume of the pod is, and the pool makes no nodes
    volume: str = ""
    #: whether it was down to the choice of an instance type
    typed: bool = False
    #: whether it may not grow
    full: bool = False
    #: what the DaemonSets of a node ask for
    overhead: str = ""

    @property
    def of_system(self) -> bool:
        """Whether it is kept for the cluster's own pods."""
        return self.taint.startswith(_OF_SYSTEM)

    @property
    def title(self) -> str:
        """`nodepool gpu`, or what stands for it."""
        return f"nodepool {self.name}" if self.name else "nodepool (Karpenter does not name it)"

    @property
    def verdict(self) -> str:
        """What Karpenter says of its instance types (InstanceTypeFilterError); until 1.5 in brackets at the end."""
        old = re.search(r"\((no instance type[^()]+)\)$", self.text)
        return old[1] if old else re.split(r", requirements=| \{", self.text, maxsplit=1)[0]

    @property
    def asked(self) -> str:
        """What the pod and the DaemonSets of a node ask for together; the least of it where machines differ."""
        found = re.search(r"resources[ =](?:min=)?\{([^}]{0,500})\}", self.text)
        return _amounts(found[1]) if found else ""

    @property
    def words(self) -> str:
        """What it lacks, shorter than Karpenter says it: its machines, the verdict on them, what they would have to hold."""
        keys = (MACHINE, "karpenter.k8s.aws/instance-family")
        types = " and ".join(f"{key.partition('/')[2]} {', '.join(of)}" for key in keys if (of := self.allows(key)))
        holds = f"; with its DaemonSets the pod takes {self.asked}" if self.asked else ""
        return f"{self.title}{f' ({types})' if types else ''}: {self.verdict}{holds}"

    @property
    def accelerated(self) -> bool:
        """Whether it is for families of machines with accelerators only."""
        families = [one for key in FAMILIES for one in self.allows(key)]
        return bool(families) and all(re.fullmatch(ACCELERATED, one) for one in families)

    def allows(self, key: str) -> list[str]:
        """The values that its requirements allow, as Karpenter prints them: `key In [a b]`."""
        return self.text.partition(f"{key} In [")[2].partition("]")[0].split()


def _amounts(said: str) -> str:
    """`cpu 150m, pods 5` of `"cpu":"150m","pods":"5"`."""
    return re.sub(r'\\?"', "", said.replace(",", ", ").replace(":", " "))


def pools(message: str) -> list[Pool]:
    """The pools of an event, those for the cluster's own pods left out; empty where it speaks of none."""
    said = [_pool(part.strip()) for part in re.sub(_BEGINS, "", message[:_LONGEST].strip()).split(";")[:_MOST]]
    return [pool for pool in said if pool and not pool.of_system]


def _pool(part: str) -> Pool | None:
    begins = re.match(_NAMED, part)
    text = part[begins.end() :] if begins else part
    overhead, text = re.search(_OVERHEAD, text), re.sub(_OVERHEAD, "", text)
    taint, demand = re.match(_TAINT, text), re.match(_DEMAND, text, re.DOTALL)
    typed, full = text.startswith(("no instance type", "minValues")), re.search(_LIMIT, text) is not None
    if not (begins or taint or demand or typed or full):
        return None
    found = re.search(_POOL, text)
    named = found["of"] or found["is"] or found["for"] if found else ""
    return Pool(
        name=(begins["pool"] if begins else "") or named,
        text=text,
        taint=taint["taint"] if taint else "",
        demand=" ".join(demand["demand"].split()) if demand and not demand["of"] else "",
        volume=" ".join(demand["demand"].split()) if demand and demand["of"] else "",
        typed=typed,
        full=full,
        overhead=_amounts(overhead[1]) if overhead else "",
    )
