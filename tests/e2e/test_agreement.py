"""Our filters and the real scheduler agree; ``python -m tests.e2e.agreement`` tries more of the same."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from .agreement import tally
from .controlplane import ControlPlane

PAIRS = 100


@pytest.fixture(scope="module")
def scheduler(cluster: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane with the scheduler alone: nothing but it and the test changes the cluster."""
    before = cluster.etcd.read("/registry/events/")
    cluster.start_scheduler()
    yield cluster
    cluster.stop_scheduler()
    cluster.etcd.write(dict.fromkeys(cluster.etcd.read("/registry/events/").keys() - before.keys()))


def test_pods_on_random_clusters(scheduler: ControlPlane) -> None:
    arguments = SimpleNamespace(
        pairs=PAIRS, seed="e2e", world=None, pod=None, only=None, without="", keep=None, simulate=0, live=0
    )
    said: list[str] = []
    found = tally.pairs(scheduler, arguments, said.append)
    print("\n".join(found.lines()))

    assert not said
    assert min(found.outcomes["bound"], found.outcomes["unschedulable"]) > PAIRS / 5
