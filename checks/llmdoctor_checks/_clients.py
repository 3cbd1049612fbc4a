"""Pods that ask a server: their environment names one of its Services."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from kubectl_llmdoctor.api import Cluster, Container, Pod, k8s


def askers(pod: Pod, names: set[str], cluster: Cluster) -> Iterator[tuple[Container, str, str]]:
    """Containers of other pods, and the variable and the address by which each names a Service of this pod."""
    for item in cluster.items("Pod") if names else ():
        if item is pod.item:
            continue
        other = Pod(cast(k8s.Pod, item.typed()), cluster, item=item)
        if other.completed or other.leaving:
            continue
        for container in other.containers:
            for name, variable in container.env.items():
                if variable.value and addresses(variable.value, names, pod.namespace, other.namespace):
                    yield container, name, variable.value


def addresses(url: str, names: set[str], namespace: str, here: str) -> bool:
    """Whether an address, written in the namespace `here`, is that of a Service of these names."""
    host = re.split(r"[:/?#]", url.partition("://")[2] or url, maxsplit=1)[0]
    name, _, rest = host.partition(".")
    return name in names and (rest.split(".")[0] or here) == namespace
