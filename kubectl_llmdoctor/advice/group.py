"""The ranks of the engine: their GPUs and pods, how they reach each other, and which one is late."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from functools import cached_property
from typing import get_args

import msgspec

from kubectl_llmdoctor.advice.declared import Condition, OfGroup
from kubectl_llmdoctor.advice.occurrence import Topic
from kubectl_llmdoctor.advice.templates import Value
from kubectl_llmdoctor.engines.names import PARALLEL_SIZES
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.nodes import RDMA, rdma_offered
from kubectl_llmdoctor.facts.pod import Pod
from kubectl_llmdoctor.fixes import request_rdma
from kubectl_llmdoctor.platforms.labels import RAY_CLUSTER, RAY_NODE_TYPE
from kubectl_llmdoctor.reach import ADDRESS, IN_NUMBERS, sides, told
from kubectl_llmdoctor.snapshot import MASK
from kubectl_llmdoctor.template_values import template_value

#: More ranks than any engine has.
_MOST_RANKS = 4096

#: More GPUs than any node has: a list of as many as somebody wrote may have no end.
_MOST_DEVICES = 64

#: Numbers of more digits are none of a model's.
_DIGITS = 9

#: The release of vLLM that has --all2all-backend; before it VLLM_ALL2ALL_BACKEND alone is read.
_ALL_TO_ALL_OPTION, _ALL_TO_ALL = "0.12", "VLLM_ALL2ALL_BACKEND"

#: The first release that surely has no broadcasts of its own any more, and takes another exchange where it is told `naive` (#33728).
_WITHOUT_NAIVE = "0.21"

#: By which address vLLM tells others to ask for what NIXL needs to reach its memory, and addresses by which a peer asks itself.
_SIDE_CHANNEL, _LOOPBACK = "VLLM_NIXL_SIDE_CHANNEL_HOST", ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::")  # noqa: S104 - told
#: A program that may set variables before it starts the engine.
_SCRIPT = expression(r"\.(?:sh|bash|py)\b")

#: How a rank is told where its leader is.
_LEADER = r"(?:LWS_LEADER|MASTER|LEADER|RAY_HEAD|RAY)_ADDR(?:ESS)?|--(?:master[-_]addr|dist-init-addr|rdzv[-_]endpoint|ray[-_]address)"

#: What PyTorch says for a rank that waited in vain, and at which operation of the group.
_WATCHDOG = "Watchdog caught collective operation timeout"
_WAITS_AT = expression(
    r"\[Rank (?P<rank>\d{1,5})\] Watchdog caught collective operation timeout: WorkNCCL\(SeqNum=(?P<at>\d{1,18})"
)


#: The number of the first operation of a group: PyTorch sets up NCCL for it, which goes on only when all ranks have come to it.
_FIRST = 1


#: The name of one interface, without the signs by which NCCL excludes some or means the exact name; without a number at its end
#: it is mostly how several begin (eth, enp1s0f), which NCCL takes and gloo does not.
_INTERFACE = expression(r"[A-Za-z][\w.-]{0,13}\d")
#: The name of a Service with its namespace.
_OF_A_SERVICE = expression(r"[\w-]{1,63}\.[\w-]{1,63}\.svc(?:\.[\w.-]{1,200})?")
#: What NCCL_SOCKET_IFNAME says of interfaces that it leaves out.
_EXCLUDED = expression(r"\^[\w.,-]{1,200}")

#: A leader that is the container itself.
_HERE = expression(r"(?:localhost|127\.0\.0\.1|0\.0\.0\.0)(?::|$)")

#: Programs of the head whose words say all that they start; and what starts Ray, or may (a script).
_SAYS_ALL = expression(r"(?:\S{0,200}/)?(?:python[\d.]{0,6}|serve|vllm|sleep|tail|(?:ba|da|a)?sh)(?:\s|$)")
_MAY_START_RAY = expression(r"\bray start\b|KUBERAY_GEN_RAY_START_CMD|\.sh\b|\bray\.(?:init|scripts)\b")

#: What starts a node of Ray, up to the next command, and where it is told to look for the head.
_RAY_START = expression(r"\bray start\b(?:\\\n|[^;&|\n]){0,2000}")
_ASKS = expression(r"(?<![\w-])--address[= ][\"']?(?P<at>[\w.:-]{1,253})")

#: How accelerate, torchrun and DeepSpeed are told how many processes to start on a node.
_PROCESSES = expression(
    r"(?<![\w-])--?(?:num[_-]processes|nproc[_-]per[_-]node|num_gpus)[ =](?P<count>\d{1,3})(?![\w.])"
)

#: Where Multus writes which further addresses a pod has.
_NETWORKS = "k8s.v1.cni.cncf.io/network-status"

#: What TRL serves the model with for a trainer, up to the next command, on how many GPUs, and what starts the trainer.
_SERVES_TRAINER = expression(r"\btrl vllm-serve\b(?:\\\n|[^;&|\n]){0,2000}")
_SHARED_BY = expression(r"--(?:tensor|data)[-_]parallel[-_]size[= ](?P<size>\d{1,3})(?!\d)")
_TRAINER = expression(r"\b(?:accelerate launch|torchrun|deepspeed)\b")

#: How NCCL says its release as it starts (init.cc), rank 0 alone or all of them.
_VERSION = "NCCL version "
_VERSION_OF_NCCL = expression(r"\bNCCL version (?P<version>\d{1,3}(?:\.\d{1,3}){1,3})(?:\+\w|\s|$)")


class Group(Topic):
    """The ranks of the engine, and the pods that they are in."""

    decides = get_args(OfGroup)

    def values(self) -> dict[str, Value]:
        return super().values() | {
            "gpus_wanted": lambda: str(self._wanted),
            "gpus_at_least": lambda: str(max(self._wanted, 1)),
            "gpus_there": lambda: str(self._there),
            "fewer_gpus": lambda: str(self._fewer or "?"),
            "prefill_url": lambda: self._sides["prefill_url"],
            "decode_url": lambda: self._sides["decode_url"],
            "leader": lambda: self.leader or "the leader's name",
            "late_rank": lambda: self._late[1],
            "processes": lambda: self._processes[1],
            "processes_told": lambda: self._processes[0],
            **self._sizes,
        }

    @template_value
    def lone_gpu(self) -> str:
        """The resource of which the container asks for one, where its ranks have no pod beside it: `nvidia.com/gpu`."""
        container = self.container
        if container is None or self.log_only or container.gpus != 1 or len(self.subject.pods) > 1:
            return ""
        elsewhere = any(not _HERE.match(where) for where in told(_LEADER, container))
        return "" if elsewhere else next(iter(container.accelerators))

    @cached_property
    def _processes(self) -> tuple[str, str]:
        """How the launcher of the container is told to start so many processes on a node, more than one: `--num_processes=4` and `4`."""
        argv = " ".join(word for _, word in self.container.words) if self.container else ""
        found = {said["count"]: said[0] for said in _PROCESSES.finditer(argv[:20_000]) if int(said["count"]) > 1}
        return next(((text, count) for count, text in found.items()), ("", "")) if len(found) == 1 else ("", "")

    @template_value
    def told_interface(self) -> str:
        """The interface that the container tells NCCL, where it tells gloo none, and gloo took the one of the group `name` all the same."""
        env = self.container.env if self.container is not None else {}
        nccl, name = env.get("NCCL_SOCKET_IFNAME"), self.captured.get("name", "")
        first = str(nccl.value or "").partition(",")[0] if nccl is not None else ""
        fits = _INTERFACE.fullmatch(first) is not None and first != name
        words = self.container.words if self.container is not None else ()
        said = "GLOO_SOCKET_IFNAME" in env or any(
            "GLOO_SOCKET_IFNAME" in text for _, text in words
        )  # which a script sets anew
        return first if fits and not said else ""

    @template_value
    def unknown_to_node(self) -> str:
        """A Service that a pod of the node's network asks for, by a name of which the node's resolver, which it uses, knows nothing."""
        spec = self.pod.spec if self.pod is not None else None
        if spec is None or not spec.host_network or spec.dns_policy not in ("ClusterFirst", "Default"):
            return ""
        host = self.captured.get("address", "").partition(":")[0]
        return host if _OF_A_SERVICE.fullmatch(host) is not None else ""

    @template_value
    def excluded(self) -> str:
        """What the container excludes of NCCL's interfaces (`^lo,docker`)."""
        nccl = self.container.env.get("NCCL_SOCKET_IFNAME") if self.container is not None else None
        value = str(nccl.value or "") if nccl is not None else ""
        return value if _EXCLUDED.fullmatch(value) is not None else ""

    @template_value
    def naive_exchange(self) -> str:
        """Where vLLM is told to exchange the experts' tokens in its naive way, by broadcasts, and it is one that did not come about."""
        if self.captured.get("op") != "BROADCAST" or self.container is None or self.engine is None:
            return ""
        if self.engine.at_least(_WITHOUT_NAIVE):
            return ""
        told, option = self.container.env.get(_ALL_TO_ALL), self.engine.explicit("all2all_backend")
        if option is not None and option.value == "naive":
            return option.text
        return f"{_ALL_TO_ALL}=naive" if told is not None and told.value == "naive" and option is None else ""

    @cached_property
    def _sides(self) -> dict[str, str]:
        """The Services of disaggregated serving."""
        return sides(self.container)

    def _holds(self) -> Iterator[Condition]:
        yield self._late[0]
        whole = len(self.subject.pods) > 1 or self.subject.cluster.complete("Pod", self.subject.namespace)
        yield "group is short" if whole and 0 < self._there < self._wanted else "group is not short"
        yield "parallel size known" if self._fewer else "parallel size unknown"
        if self.images:
            yield "images differ"
        if self.nccl:
            yield "NCCL differs"
        yield "RDMA had" if self._has_rdma else "no RDMA had"
        if self.rdma:
            yield "RDMA offered"
        if self.engine is not None and self.engine.explicit("disaggregation_ib_device") is not None:
            yield "RDMA device named"
        if self.container is not None and "NCCL_IB_GID_INDEX" in self.container.env:
            yield "GID index set"
        if self._beside_itself:
            yield "side channel on localhost"
        if self.lone_gpu:
            yield "one GPU for counted ranks" if self._processes[0] else "one GPU"
        else:
            yield "several GPUs"
        older = self.engine is not None and self.engine.at_least(_ALL_TO_ALL_OPTION) is False
        yield "all-to-all by variable" if older else "all-to-all by option"
        yield "KV connector known" if self.recomputing else "KV connector not known"

    @property
    def _beside_itself(self) -> bool:
        """Whether a vLLM tells its peers localhost for NIXL's side channel, by which each of them meets itself: so it is by default.

        Dynamo's worker sets it, and a start script or variables from elsewhere may.
        """
        pod, container = self.pod, self.container
        if pod is None or container is None or self.engine is None or self.engine.name != "vllm":
            return False
        words, told = f"{container.spec.image} {' '.join(container.spec.argv)}", container.env.get(_SIDE_CHANNEL)
        if pod.log_only or pod.spec.host_network or container.spec.env_from or (told and told.value not in _LOOPBACK):
            return False
        return _SIDE_CHANNEL not in words and "dynamo" not in words and not _SCRIPT.search(words)

    @cached_property
    def _fewer(self) -> int:
        """The most GPUs, fewer than it has now, that can share the model evenly; 0 where that is not known."""
        size = self.engine.value("tensor_parallel_size") if self.engine else None
        if self.engine is None or not isinstance(size, int) or size < 2:
            return 0
        return self.subject.sizing(self.engine).splits(size - 1)

    @template_value
    def divides(self) -> str:
        """A number of GPUs below the captured `tp` that shares `have` evenly.

        A power of two, where one does: the other sizes of a model are mostly multiples of one.
        """
        have, tp = (self.captured.get(name, "") for name in ("have", "tp"))
        if not have.isdecimal() or not tp.isdecimal() or len(have) > _DIGITS or len(tp) > _DIGITS:
            return "1"
        fit = [n for n in range(1, min(int(tp), _MOST_DEVICES + 1)) if int(have) % n == 0] or [1]
        even = [n for n in fit if n & (n - 1) == 0]
        return str(even[-1] if len(even) > 1 else fit[-1])

    @property
    def _sizes(self) -> dict[str, Value]:
        """Of two sizes that must divide each other: the largest divisor of one below the other, and the least multiple above it."""
        one, other = self.captured.get("one", ""), self.captured.get("other", "")
        if not (
            one.isdecimal() and other.isdecimal() and 0 < int(one) <= _MOST_RANKS and 0 < int(other) <= _MOST_RANKS
        ):
            return {}
        whole, part = int(one), int(other)
        divisor = max(n for n in range(1, part + 1) if whole % n == 0)
        return {"divisor": str(divisor), "multiple": str(math.ceil(part / whole) * whole)}

    @cached_property
    def leader(self) -> str:
        """The host of the leader, by the line or by what the container is told; empty where neither says it."""
        container = self.container
        given = told(_LEADER, container) if container else ()
        said = (ADDRESS.match(one) for one in given)
        return self.captured.get("host") or next((one["host"] for one in said if one), "")

    @template_value
    def leader_needs(self) -> str:
        """What the host of the leader needs to be reached while it starts: an address has no name that a Service gives."""
        if ":" in self.leader or re.fullmatch(r"[\d.]{7,15}", self.leader):
            return "its port must be let through"
        return "its name needs a headless Service with publishNotReadyAddresses: true, and its port must be let through"

    @template_value
    def own_name(self) -> str:
        """The host of the line, where it is the name that the pod has by its headless Service."""
        host, spec = self.captured.get("host", ""), self.pod.spec if self.pod else None
        if spec is None or self.pod is None or not spec.subdomain:
            return ""
        own = f"{spec.hostname or self.pod.name}.{spec.subdomain}"
        return host if f"{host}.".startswith(f"{own}.") else ""

    @template_value
    def leader_at(self) -> str:
        """The address of the leader in numbers, where the container is told it so and is not the leader itself."""
        given = told(_LEADER, self.container) if self.container else ()
        said = (found["host"] for one in given if (found := ADDRESS.match(one)) and not _HERE.match(found["host"]))
        own = self.container.pod.status.pod_ip if self.container else ""
        return next((host for host in said if IN_NUMBERS.fullmatch(host) and host != own), "")

    @template_value
    def peer_elsewhere(self) -> str:
        """The address of the other rank that the line names, where that is none of this container's own pod: `10.0.0.9`."""
        said = ADDRESS.match(self.captured.get("peer", ""))
        if said is None or _HERE.match(said["host"]) or self.pod is None:
            return ""
        # a node has further addresses, and so has a pod of several networks
        alone = self.pod.spec.host_network or not self.pod.status.pod_ip
        several = not alone or len(self.subject.pods) > 1 or self.leader
        other = said["host"] not in self._own and said["host"] not in self.pod.annotations.get(_NETWORKS, "")
        return said["host"] if several and other else ""

    @property
    def _own(self) -> tuple[str, ...]:
        """By what others may reach this pod: its addresses, its names (a Job with indexes gives it a host's name) and its Services."""
        if (pod := self.pod) is None:
            return ()
        services = (one.name for one in pod.services)
        return (pod.status.pod_ip, pod.status.host_ip, pod.name, pod.spec.hostname, *services)

    @template_value
    def other_leader(self) -> str:
        """The host of the leader, where the container is told it and it is another pod of the group."""
        host = self.leader
        mine = host in self._own or host.partition(".")[0] in self._own
        return "" if self.pod is None or not host or _HERE.match(host) or mine else host

    @template_value
    def beside_server(self) -> str:
        """How TRL's server and a trainer that are started in one container, without GPUs of their own, share its GPUs."""
        words = " ".join(word for _, word in self.container.words)[:20_000] if self.container else ""
        serves, trains = _SERVES_TRAINER.search(words), _TRAINER.search(words)
        if self.container is None or serves is None or trains is None or "CUDA_VISIBLE_DEVICES" in words:
            return ""
        taken = math.prod(int(said["size"]) for said in _SHARED_BY.finditer(serves[0])) or 1
        if taken >= self.container.gpus or self.container.gpus > _MOST_DEVICES:
            return ""
        first, rest = (",".join(map(str, part)) for part in (range(taken), range(taken, self.container.gpus)))
        return f"CUDA_VISIBLE_DEVICES={first} trl vllm-serve, and CUDA_VISIBLE_DEVICES={rest} {trains[0]}"

    @template_value
    def asks_itself(self) -> str:
        """The address at which a worker of Ray is told to look for the head, where that is its own: `127.0.0.1:6379`."""
        words = " ".join(self.container.spec.argv)[:20_000] if self.container else ""
        if self.container is None or "--head" in words:
            return ""
        own = self.container.pod.status.pod_ip
        asked = [said["at"] for start in _RAY_START.finditer(words) if (said := _ASKS.search(start[0]))]
        return next((one for one in asked if _HERE.match(one) or (own and one.partition(":")[0] == own)), "")

    @template_value
    def instead_of_head(self) -> str:
        """What the container of Ray's head runs and is no `ray start`, as far as its words say: `python3 runner.py`.

        KubeRay puts its own `ray start` behind a command, unless an annotation keeps it from that; a script may have one in itself.
        """
        if self.pod is None or self.container is None or self.pod.labels.get(RAY_NODE_TYPE) != "head":
            return ""
        words = " ".join(self.container.spec.argv)[:20_000]
        if not _SAYS_ALL.match(words) or _MAY_START_RAY.search(words):
            return ""
        return " ".join(words.split())[:120]

    @template_value
    def late_head(self) -> str:
        """The pod of Ray's head, where it is the only one of the namespace, and began after this one had asked for it."""
        begun, cluster = self.container.started if self.container else None, self.subject.cluster
        if begun is None or self.pod is None:
            return ""
        others = (
            Pod.of(item, cluster)
            for item in cluster.items("Pod", self.pod.namespace)
            if item.name != self.pod.name and item.labels.get(RAY_CLUSTER) == self.pod.labels.get(RAY_CLUSTER)
        )
        heads = [c for one in others for c in one.containers if _starts_head(c)]
        late = heads[0].started if len(heads) == 1 else None
        return heads[0].pod.name if late is not None and late > begun else ""

    @template_value
    def images(self) -> str:
        """`llm-0 has A, llm-0-1 has B`: the images of the engine in the pods of its group, where they differ."""
        name = self.container.name if self.container else ""
        every = {one.name: c.spec.image for one in self.subject.pods for c in one.containers if c.name == name}
        first = {image: pod for pod, image in reversed(every.items())}
        return ", ".join(f"{pod} has {image}" for image, pod in list(first.items())[:3]) if len(first) > 1 else ""

    @template_value
    def nccl(self) -> str:
        """`llm-0 has NCCL 2.20.5, llm-0-1 has NCCL 2.19.3`: what NCCL says of itself in the pods of the group, where they differ."""
        every: dict[str, set[str]] = {}
        for one in self.subject.pods:
            for line in self.subject.logs(one).find(_VERSION):
                if (said := _VERSION_OF_NCCL.search(line.text[:2000])) is not None:
                    every.setdefault(one.name, set()).add(said["version"])
        # one with several, of two libraries or of an image before, says nothing of the others
        first = {next(iter(some)): pod for pod, some in reversed(every.items()) if len(some) == 1}
        said_of = [f"{pod} has NCCL {version}" for version, pod in list(first.items())[:3]]
        return ", ".join(reversed(said_of)) if len(first) > 1 else ""

    @cached_property
    def _late(self) -> tuple[OfGroup, str]:
        """Of the ranks of which others say that they waited in vain, the one that waited for nobody or at an earlier operation."""
        waits: dict[int, int] = {}
        lines = [line for one in self.subject.pods for line in self.subject.logs(one).find(_WATCHDOG)]
        for said in (_WAITS_AT.search(line.text[:2000]) for line in lines):
            if said is not None:
                waits[int(said["rank"])] = int(said["at"])
        ranks = self._wanted
        missing = [rank for rank in range(min(ranks, _MOST_RANKS)) if rank not in waits]
        # the first ranks to say so may end the others before these do; where all but one have, that one may be stuck or gone
        if set(waits.values()) == {_FIRST} and not (len(waits) > 1 and len(missing) == 1):
            return "all ranks wait", ""
        if waits and len(missing) == 1 and ranks > 1:
            return "one rank late", str(missing[0])
        first = [rank for rank, at in waits.items() if at == min(waits.values())]
        # a single rank that waits has others that the settings which were read do not tell of
        if not waits or missing or len(waits) != ranks or ranks < 2:
            return "late rank not known", ""
        return ("one rank late", str(first[0])) if len(first) == 1 else ("all ranks wait", "")

    @template_value
    def rdma(self) -> str:
        """`rdma/ib: 4`: the RDMA devices that nodes with GPUs offer and the container does not ask for."""
        offered = request_rdma(self.container, "{rdma}") if self.container and not self.log_only else None
        node = self.node_name
        found = rdma_offered(self.subject.cluster, self.container.gpus, node) if offered and self.container else None
        return f"{found[0]}: {found[1]}" if found else ""

    @property
    def _has_rdma(self) -> bool:
        """Whether the container may have an RDMA device: it asks for one, or sees those of the host."""
        container, pod = self.container, self.pod
        if container is None or pod is None or self.log_only or pod.spec.host_network or pod.spec.resource_claims:
            return True
        security = container.spec.security_context
        mounted = any(v.host_path and "infiniband" in v.host_path.path for v in pod.spec.volumes)
        asked = any(re.fullmatch(RDMA, name.lower()) for name in container.spec.resources.limits)
        return asked or mounted or bool(security and security.privileged)

    @template_value
    def recomputing(self) -> str:
        """The configuration of vLLM's KV connector with the policy to compute again what was not delivered; empty where it is not known."""
        told = self.engine.explicit("kv_transfer_config") if self.engine else None
        if told is None or not isinstance(told.value, dict):
            return ""
        config = msgspec.json.encode({**told.value, "kv_load_failure_policy": "recompute"}).decode()
        return "" if MASK in config else config

    @template_value
    def devices(self) -> str:
        """`0,1`: the numbers of the container's GPUs."""
        gpus = max(self.container.gpus if self.container else 0, 1)
        return ",".join(map(str, range(min(gpus, _MOST_DEVICES))))

    @cached_property
    def _there(self) -> int:
        """The GPUs that the pods of the group ask for."""
        return sum(one.gpus for one in self.subject.pods if one.exists)

    @cached_property
    def _wanted(self) -> int:
        """The GPUs that the engine's ranks need."""
        sizes = [self.engine.value(name, 1) for name in PARALLEL_SIZES] if self.engine else []
        return math.prod(size for size in sizes if isinstance(size, int)) if sizes else 0


def _starts_head(container: Container) -> bool:
    """Whether a container starts the head of a Ray cluster."""
    return any("--head" in start[0] for start in _RAY_START.finditer(" ".join(container.spec.argv)[:20_000]))
