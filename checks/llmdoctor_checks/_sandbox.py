"""Whether the containers of a pod ended as one, with their sandbox, or with their node."""

from kubectl_llmdoctor.api import Container, Ending, dig, parse_time, rows

#: So many seconds lie between their ends at most; and between an end and the node's return.
_TOGETHER, _REBOOT = 5, 1800


def ended_together(container: Container) -> bool:
    """Whether all containers ended at about the same time, as they do where the node or its container runtime restarts."""
    every = [one for one in container.pod.containers if one.role == "main"]
    ends = [parse_time(one.terminated.finished_at) for one in every if one.terminated]
    known = [end.timestamp() for end in ends if end is not None]
    return len(known) == len(every) > 1 and max(known) - min(known) <= _TOGETHER


def node_came_back(ending: Ending) -> str:
    """Since when the pod's node is ready again, where it became so right after an end; empty elsewhere."""
    pod, end = ending.container.pod, ending.finished
    node = pod.cluster.item("Node", "", pod.spec.node_name or "")
    for row in rows(node.raw, "status.conditions") if node is not None and end is not None else ():
        since = parse_time(row.get("lastTransitionTime"))
        if row.get("type") == "Ready" and row.get("status") == "True" and since is not None and end is not None:
            return str(dig(row, "lastTransitionTime")) if 0 <= (since - end).total_seconds() <= _REBOOT else ""
    return ""
