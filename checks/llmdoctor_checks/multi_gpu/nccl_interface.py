"""A network interface by name that the pod does not have."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Logs, Pod, Subject, check, fixes, variable_evidence
from llmdoctor_checks.multi_gpu import _message_queue
from llmdoctor_checks.multi_gpu._network import further_networks

#: The interfaces of a pod on the cluster's network: container runtimes name the first one so.
_INTERFACES = ("eth0", "lo")

_VARIABLES = ("NCCL_SOCKET_IFNAME", "GLOO_SOCKET_IFNAME")


@check("nccl-interface", since="0.1", literals=(_message_queue.USES, _message_queue.COMPLETE, _message_queue.WAITS))
def nccl_interface(pod: Pod, engine: Engine, subject: Subject, logs: Logs | None) -> Iterator[Finding]:
    """NCCL or gloo does not find the right network interface.

    The ranks tell each other an address to connect to. NCCL takes the first interface that `NCCL_SOCKET_IFNAME` allows; a value copied from
    another cluster (`ens3`, `=enp90s0np0`, a bond of the host) matches nothing in a pod, whose interface is usually `eth0`. gloo
    asks for the address of the host's name and falls back to 127.0.0.1, which no other node can reach. On one node this fallback
    is harmless.

    SGLang sends messages between its nodes beside NCCL, and heeds neither variable for them: it names the address of the default route,
    unless SGLANG_HOST_IP says another. On nodes with a network of their own for NCCL (two DGX Spark, with Wi-Fi beside it) the start
    may stand still there forever.

    ## Fix

    Set both variables to the pod's interface, or unset them. With a second network (Multus) name that interface in all pods.

    ## References

    - https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html
    - https://docs.vllm.ai/en/latest/usage/troubleshooting/
    """
    if pod.exists and not pod.ready and (found := _message_queue.of_another_network(pod, engine, subject, logs)):
        yield found
        return
    workers = engine.workers_at_least
    if (workers < 2 and (pod.nodes or 1) < 2) or pod.ready or further_networks(pod):
        return
    for name in _VARIABLES:
        variable = engine.container.env.get(name)
        if variable is None or not variable.value or "$" in variable.value or _fits(name, variable.value):
            continue
        gloo = name.startswith("GLOO")
        words = f"Unable to find address for: {variable.value}" if gloo else "no socket interface found"
        count = f"{workers} GPU workers" if workers > 1 else f"{pod.nodes} pods"
        yield Finding(
            role="risk",
            summary=f"{name}={variable.value} names no interface of the pod, which has {' and '.join(_INTERFACES)}: the "
            f"ranks of {engine.label} ({count}) end when they connect, with '{words}'.",
            evidence=(variable_evidence(variable),),
            fix=fixes.set_env(engine.container, name, "eth0", f"Set {name} to eth0"),
        )
        return


def _fits(name: str, value: str) -> bool:
    """Whether a value allows an interface: NCCL takes beginnings, `=` exact names, `^` all but these; gloo names."""
    if name.startswith("NCCL"):
        if value.startswith("^"):
            return True
        if not value.startswith("="):
            return any(one.startswith(part.strip()) for part in value.split(",") for one in _INTERFACES)
    return any(part.strip() in _INTERFACES for part in value.lstrip("=").split(","))
