"""Whether the containers of a pod ended as one, with their sandbox."""

from kubectl_llmdoctor.api import Container, parse_time

#: So many seconds lie between their ends at most.
_TOGETHER = 5


def ended_together(container: Container) -> bool:
    """Whether all containers ended at about the same time, as they do where the node or its container runtime restarts."""
    every = [one for one in container.pod.containers if one.role == "main"]
    ends = [parse_time(one.terminated.finished_at) for one in every if one.terminated]
    known = [end.timestamp() for end in ends if end is not None]
    return len(known) == len(every) > 1 and max(known) - min(known) <= _TOGETHER
