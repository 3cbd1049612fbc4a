"""A process that should listen at an address of its own, and was told that of another pod."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Logs, Pod, endings, expression, fixes, log_evidence, log_of, pod_evidence

#: Where vLLM listens for other ranks and for the other side (`vllm/envs.py`).
_LISTENS_AT = ("VLLM_NIXL_SIDE_CHANNEL_HOST", "VLLM_HOST_IP")
#: ZeroMQ's exception where it does not name the address: an older pyzmq, or a log that was quoted.
NOT_HERE = "ZMQError: Cannot assign requested address"
_NAMELESS = expression(r"ZMQError: Cannot assign requested address\s*$")
#: Of one that every pod has, or none: it says nothing of another pod.
_ANOTHERS = expression(r"(?!0\.0\.0\.0$|127\.)\d{1,3}(?:\.\d{1,3}){3}")


def listens_at_anothers(pod: Pod, logs: Logs, explains: tuple[str, ...]) -> Iterator[Finding]:
    """A container that ended as it could not listen, and whose setting names an address that is not its pod's."""
    for ended in endings(pod):
        log = log_of(ended, logs)
        line = (
            next((x for x in log.find(NOT_HERE) if _NAMELESS.search(x.text[-200:])), None) if log is not None else None
        )
        told = {name: one.value or "" for name in _LISTENS_AT if (one := ended.container.env.get(name))}
        other = [(name, at) for name, at in told.items() if _ANOTHERS.fullmatch(at) and at != pod.status.pod_ip]
        if line is None or not other or not pod.status.pod_ip:
            continue
        name, value = other[0]
        summary = (
            f"Set {name} to each pod's own address in place of {value}, and take its export out of the start script"
        )
        yield Finding(
            summary=f"{ended.container.name} should listen for others at {value} ({name}), and its pod has {pod.status.pod_ip}: "
            "that is the address of another.",
            evidence=(log_evidence(line), pod_evidence(ended.container, f"env[{name}]", value)),
            explains=explains,
            fix=fixes.set_variables(ended.container, {name: fixes.FromField("status.podIP")}, summary),
            order=line.order,
        )
        return
