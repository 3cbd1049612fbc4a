"""How the pods do right now: Prometheus where there is one, the engines' own ports where it says nothing of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from kubectl_llmdoctor.gather.collector import Collector
from kubectl_llmdoctor.gather.wanted import WantedPorts, WantedPrometheus
from kubectl_llmdoctor.snapshot import Json

if TYPE_CHECKING:
    from kubectl_llmdoctor.gather.prometheus.reading import Prometheus
    from kubectl_llmdoctor.gather.scrape import Ports


class Live:
    """One gathering's metrics. Nothing is imported that is not wanted."""

    def __init__(self, pot: Collector, prometheus: WantedPrometheus, ports: WantedPorts, namespace: str) -> None:
        self._pot = pot
        self._prometheus: Prometheus | None = None
        self._ports: Ports | None = None
        if prometheus.where != "off":
            from kubectl_llmdoctor.gather.prometheus.reading import Prometheus

            self._prometheus = Prometheus(pot, prometheus, [namespace] if namespace else [])
        if ports.metrics:
            from kubectl_llmdoctor.gather.scrape import Ports

            self._ports = Ports(pot, ports)

    def begin(self) -> None:
        """Looks for Prometheus while the pods are read."""
        if self._prometheus is not None:
            self._prometheus.look()

    def read(self, pods: list[Json], objects: Iterable[Json]) -> None:
        """Asks about these pods, once all of them are known; `objects` tell what they run and which are their replicas."""
        if self._prometheus is None and self._ports is None:
            return
        from kubectl_llmdoctor.gather import serving

        cluster = serving.cluster_of(objects)
        ports = self._ports
        engines = serving.served(cluster, pods) if ports is not None else []
        if ports is not None:
            ports.ask(engines)
        if self._prometheus is not None:
            self._prometheus.ask(
                serving.refs(cluster, pods), lambda lacking: ports.scrape(engines, lacking) if ports else None
            )
        elif ports is not None:
            ports.scrape(engines, {(one.namespace, one.pod) for one in engines})

    def again(self) -> None:
        """Takes the second sample, where one is wanted."""
        if self._ports is not None:
            self._ports.again()

    def close(self) -> None:
        """Closes the connections."""
        for source in (self._prometheus, self._ports):
            if source is not None:
                source.close()
