"""Pods that ask a server: their environment, their arguments or a ConfigMap that they mount names one of its Services."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import cast

from kubectl_llmdoctor.api import Cluster, Container, Pod, dig, k8s

#: An address in a text; configurations of gateways and front ends are a few kilobytes.
_URL, _LONGEST = r"https?://[\w.-]{1,253}", 200_000
#: One of OpenAI's API, or of Ollama.
_OF_MODELS = r"https?://[\w.-]{1,253}(?=(?::\d{1,5})?(?:/[\w/-]{0,100})?/v\d\b|:11434\b)"


def askers(pod: Pod, names: set[str], cluster: Cluster) -> Iterator[tuple[Container, str, str]]:
    """Containers of other pods, and by what (a variable, `args`, a ConfigMap) and which address each names a Service of this pod."""
    for item in cluster.items("Pod") if names else ():
        if item is pod.item:
            continue
        other = Pod(cast(k8s.Pod, item.typed()), cluster, item=item)
        if other.completed or other.leaving:
            continue
        for container in other.containers:
            for name, variable in container.env.items():
                value = variable.value or ""
                urls = re.findall(_URL, value[:_LONGEST]) or [value]
                if value and all(addresses(url, names, pod.namespace, other.namespace) for url in urls):
                    yield container, name, value
            for where, text in _written(container, cluster):
                urls = re.findall(_URL, text[:_LONGEST])
                # one that asks several servers does not say of which it speaks
                if urls and all(addresses(url, names, pod.namespace, other.namespace) for url in urls):
                    yield container, where, urls[0]


def speaks_of_one(container: Container, pod: Pod, names: set[str]) -> bool:
    """Whether the environment of a container that asks this pod names no other server of models."""
    here = container.pod.namespace
    values = [variable.value[:_LONGEST] for variable in container.env.values() if variable.value]
    urls = (url for value in values for url in re.findall(_OF_MODELS, value))
    return all(addresses(url, names, pod.namespace, here) for url in urls)


def _written(container: Container, cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Where else an address of a server stands: the arguments, and the ConfigMaps that are mounted (LiteLLM's `config.yaml`)."""
    yield "args", " ".join(map(str, (*container.spec.command, *container.spec.args)))
    mounted = {mount.name for mount in container.spec.volume_mounts}
    for volume in container.pod.spec.volumes:
        if volume.config_map is None or volume.name not in mounted:
            continue
        item = cluster.item("ConfigMap", container.pod.namespace, volume.config_map.name)
        data = dig(item.raw, "data") if item is not None else None
        for text in data.values() if isinstance(data, dict) else ():
            yield f"ConfigMap/{volume.config_map.name}", str(text)


def addresses(url: str, names: set[str], namespace: str, here: str) -> bool:
    """Whether an address, written in the namespace `here`, is that of a Service of these names."""
    host = re.split(r"[:/?#]", url.partition("://")[2] or url, maxsplit=1)[0]
    name, _, rest = host.partition(".")
    return name in names and (rest.split(".")[0] or here) == namespace
