"""What all end-to-end tests share: one control plane for the session, and the ways to use it."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from . import network, program
from .controlplane import ControlPlane, programs_of_environment
from .faultproxy import FaultProxy
from .kubelet import Kubelet
from .play import Object, Player, read_snapshot

# Without the network namespace of run.py there is nothing to run: these files are not even collected.
if "LLMDOCTOR_E2E" not in os.environ:
    collect_ignore_glob = ["test_*.py"]


def pytest_configure(config: pytest.Config) -> None:
    """A process beside another needs a network of its own, because the ports are fixed."""
    if "LLMDOCTOR_E2E" in os.environ and hasattr(config, "workerinput"):
        network.leave()


CRASHED = Path(__file__).with_name("crashed.yaml")


class Doctor(Protocol):
    """Runs ``kubectl llmdoctor`` with these arguments."""

    def __call__(self, *arguments: str, kubeconfig: Path | None = None, **variables: str) -> program.Result: ...


Play = Callable[[Object], list[tuple[str, Object]]]
Kubectl = Callable[..., program.Result]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane, without scheduler and controller manager."""
    plane = ControlPlane(programs_of_environment(), tmp_path_factory.mktemp("cluster"))
    try:
        plane.start()
        yield plane
    finally:
        plane.stop()


@pytest.fixture(scope="session")
def kubelet(cluster: ControlPlane) -> Iterator[Kubelet]:
    """The stand-in kubelet of every node."""
    server = Kubelet(cluster.authority.issue("kubelet", hosts=[network.ADDRESS]))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def player(cluster: ControlPlane, kubelet: Kubelet) -> Player:
    """One for all, because it knows which custom resources the API server serves already."""
    return Player(cluster, kubelet)


@pytest.fixture
def play(player: Player) -> Iterator[Play]:
    """Loads a snapshot; it is gone after the test."""
    yield player.load
    player.unload()


@pytest.fixture
def crashed(play: Play) -> Object:
    """A played pod that crashes again and again, and all that stands around it: ``serving/llama-0``."""
    snapshot = read_snapshot(CRASHED)
    play(snapshot)
    return snapshot


@pytest.fixture
def proxy(cluster: ControlPlane) -> Iterator[FaultProxy]:
    """A proxy without faults; ``Doctor`` reaches it with the kubeconfig ``proxied``."""
    certificate = cluster.authority.issue("proxy", hosts=[network.ADDRESS])
    server = FaultProxy(certificate, cluster.authority.certificate, cluster.admin_pair)
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def controllers(cluster: ControlPlane) -> Iterator[ControlPlane]:
    """The control plane with scheduler and controller manager."""
    cluster.start_controllers()
    yield cluster
    cluster.stop_controllers()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty home directory."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def doctor(cluster: ControlPlane, home: Path) -> Doctor:
    """Runs the program, as the administrator unless told otherwise."""

    def run(*arguments: str, kubeconfig: Path | None = None, **variables: str) -> program.Result:
        extra = {"KUBECONFIG": str(kubeconfig or cluster.admin)} | variables
        return program.run(["kubectl", "llmdoctor", *arguments], home, extra)

    return run


@pytest.fixture
def kubectl(cluster: ControlPlane, home: Path) -> Kubectl:
    """Runs plain kubectl as the administrator."""

    def run(*arguments: str, kubeconfig: Path = cluster.admin) -> program.Result:
        return program.run(["kubectl", *arguments], home, {"KUBECONFIG": str(kubeconfig)})

    return run
