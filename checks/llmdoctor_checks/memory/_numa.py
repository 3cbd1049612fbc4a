"""Weights that a build of KTransformers keeps once for each NUMA node (`USE_NUMA`, which its installation reads)."""

import re

from kubectl_llmdoctor.api import Container, fixes, pod_evidence
from llmdoctor_checks.memory._prompt_cache import Greed

_VARIABLE, _PROGRAM = "USE_NUMA", r"(?i)ktransformers"


def twice(container: Container) -> Greed | None:
    """What tells that a container of KTransformers is made for machines with several sockets, and so holds the experts in each."""
    variable = container.env.get(_VARIABLE)
    if variable is None or (variable.value or "").lower() not in ("1", "true", "on"):
        return None
    if not re.search(_PROGRAM, " ".join([container.spec.image, *map(str, container.spec.argv)])):
        return None
    return Greed(
        " Made with USE_NUMA=1, KTransformers holds the weights of the experts once for each NUMA node, on two sockets twice.",
        pod_evidence(container, f"env[{_VARIABLE}]", variable.value or ""),
        fixes.remove_env(
            container,
            _VARIABLE,
            "Leave USE_NUMA out where KTransformers is built, so that the weights are held once; with it the memory must do for the "
            "model's file once for each NUMA node",
        ),
    )
