"""Joins what was read of the node into one report: GPUs and their users, processes and their pods, errors.

The kubelet names the containers that it gave a device to, without the UIDs of their pods; a process has the UID of its
pod and the id of its container, without their names. `_names` says where both can only be the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from msgspec.structs import replace

from llmdoctor_agent import __version__
from llmdoctor_agent.podresources import users_of as given_to
from llmdoctor_agent.report import Container, Error, Gpu, Process, Report, User, clock, rfc3339

#: A device id that is the UUID of a GPU or a slice, or of a replica that time-slicing makes of one.
_BY_UUID = re.compile(r"(?P<uuid>(?:GPU|MIG)-[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12})(?:::\d+)?")

UserMap = Mapping[str, tuple[User, ...]]


class NvmlReading(Protocol):
    """What NVML said."""

    @property
    def driver_version(self) -> str | None: ...
    @property
    def cuda_version(self) -> str | None: ...
    @property
    def nvml_version(self) -> str | None: ...
    @property
    def gpus(self) -> tuple[Gpu, ...] | None: ...
    @property
    def errors(self) -> tuple[Error, ...]: ...


class Nvml(Protocol):
    """The GPUs."""

    def start(self) -> None: ...
    def read(self) -> NvmlReading: ...
    def stop(self) -> None: ...


class Kubelet(Protocol):
    """Which container has which device, by device id."""

    def read(self) -> tuple[UserMap, Error | None]: ...


class Owner(Protocol):
    """Whose a process is. Empty: of no pod or container; None: not known."""

    @property
    def name(self) -> str | None: ...
    @property
    def pod_uid(self) -> str | None: ...
    @property
    def container_id(self) -> str | None: ...
    @property
    def container(self) -> str | None: ...


class Owners(Protocol):
    """Whose the processes of the node are, by pid."""

    def read(self, pids: Iterable[int], /) -> tuple[Mapping[int, Owner], Error | None]: ...


class Groups(Protocol):
    """What the cgroups of containers say, by pod UID and container id, each with the pids that are known of it."""

    def read(
        self, wanted: Mapping[tuple[str, str], Collection[int]], /
    ) -> tuple[tuple[Container, ...], Error | None]: ...


class Kernel(Protocol):
    """Lines of the kernel's log, oldest first."""

    def read(self) -> tuple[str | None, Error | None]: ...


@dataclass(frozen=True, kw_only=True)
class Sources:
    """What is read; None is not part of the profile. Nothing here raises or blocks beyond its own deadline."""

    nvml: Nvml
    pod_resources: Kubelet | None = None
    processes: Owners | None = None
    cgroup: Groups | None = None
    kernel_log: Kernel | None = None

    @property
    def profile(self) -> tuple[str, ...]:
        """The names of what is read, as `errors` and `--with` have them."""
        parts = {
            "nvml": self.nvml,
            "pod-resources": self.pod_resources,
            "processes": self.processes,
            "cgroup": self.cgroup,
            "kernel-log": self.kernel_log,
        }
        return tuple(name for name, part in parts.items() if part is not None)


def collect(sources: Sources, node: str | None, at: Callable[[], datetime] = clock) -> Report:
    """One reading of everything."""
    reading = sources.nvml.read()
    gpus, errors = reading.gpus or (), list(reading.errors)
    if sources.processes is not None:
        owners, trouble = sources.processes.read({process.pid for gpu in gpus for process in processes_of(gpu)})
        errors += [trouble] if trouble is not None else []
        gpus = tuple(_owned(gpu, owners) for gpu in gpus)
    if sources.pod_resources is not None:
        users, trouble = sources.pod_resources.read()
        if trouble is None:
            errors += _unseen(gpus, users) if reading.gpus is not None else ()
            gpus = tuple(_given(gpu, users) for gpu in gpus)
        else:
            errors.append(trouble)
    gpus, containers = _named(gpus)
    if sources.cgroup is not None and containers:
        containers, trouble = _measured(containers, gpus, sources.cgroup)
        errors += [trouble] if trouble is not None else []
    text = None
    if sources.kernel_log is not None:
        text, trouble = sources.kernel_log.read()
        errors += [trouble] if trouble is not None else []
    return Report(
        node=node,
        agent_version=__version__,
        taken_at=rfc3339(at()),
        profile=sources.profile,
        driver_version=reading.driver_version,
        cuda_version=reading.cuda_version,
        nvml_version=reading.nvml_version,
        errors=tuple(errors),
        gpus=None if reading.gpus is None else gpus,
        containers=containers if sources.pod_resources or sources.processes else None,
        kernel_log=text,
    )


# -- processes and their pods -----------------------------------------------------------------------------------------


def _owned(gpu: Gpu, owners: Mapping[int, Owner]) -> Gpu:
    """A GPU whose processes say whose they are."""

    def one(process: Process) -> Process:
        owner = owners.get(process.pid)
        if owner is None:
            return process
        name = owner.name or process.name
        container_id = owner.container_id or None
        return replace(process, name=name, pod_uid=owner.pod_uid, container_id=container_id, container=owner.container)

    return _with_processes(gpu, one)


def _with_processes(gpu: Gpu, change: Callable[[Process], Process]) -> Gpu:
    """A GPU with all of its processes changed."""
    own = None if gpu.processes is None else tuple(map(change, gpu.processes))
    parts = tuple(replace(part, processes=tuple(map(change, part.processes))) for part in gpu.mig_devices)
    return replace(gpu, processes=own, mig_devices=parts)


def processes_of(gpu: Gpu) -> Iterator[Process]:
    """The processes on a GPU and on its slices."""
    yield from gpu.processes or ()
    for part in gpu.mig_devices:
        yield from part.processes


# -- devices and who has them -----------------------------------------------------------------------------------------


def users_of(gpu: Gpu) -> list[User]:
    """The containers that a GPU, or a slice of it, was given to, each once."""
    return _once((*(gpu.pods or ()), *(user for part in gpu.mig_devices for user in part.pods)))


def _given(gpu: Gpu, users: UserMap) -> Gpu:
    """A GPU with the containers that it and its slices were given to."""
    parts = tuple(
        replace(part, pods=given_to(users, uuid=part.uuid, minor=gpu.minor, instance=part.gpu_instance))
        for part in gpu.mig_devices
    )
    return replace(gpu, pods=given_to(users, uuid=gpu.uuid, minor=gpu.minor), mig_devices=parts)


def _once(users: Iterable[User]) -> list[User]:
    found: list[User] = []
    for user in users:
        if user not in found:
            found.append(user)
    return found


def _unseen(gpus: Sequence[Gpu], users: UserMap) -> Iterator[Error]:
    """Devices that containers have and NVML does not show."""
    seen = {gpu.uuid for gpu in gpus} | {part.uuid for gpu in gpus for part in gpu.mig_devices}
    for device, given in users.items():
        if (named := _BY_UUID.fullmatch(device)) and named["uuid"] not in seen:
            who = ", ".join(f"{user.namespace}/{user.name} ({user.container})" for user in given[:4])
            yield Error(source="pod-resources", gpu=named["uuid"], reason=f"NVML does not show this device of {who}")


# -- containers ---------------------------------------------------------------------------------------------


def _named(gpus: tuple[Gpu, ...]) -> tuple[tuple[Gpu, ...], tuple[Container, ...]]:
    """The GPUs whose processes have the names of their containers, and every container that has a GPU.

    A container has a GPU by the kubelet's word or by a process of its that holds one.
    """
    pods = _pods(gpus)
    users = _once(user for gpu in gpus for user in users_of(gpu))

    def user_of(process: Process) -> User | None:
        """The container that it is of, or the only one that it can be, of those that have a device."""
        of_pod = [user for user in users if pods.get(process.pod_uid or "") == (user.namespace, user.name)]
        mine = [user for user in of_pod if process.container in (None, user.container)]
        return mine[0] if len(mine) == 1 else None

    found: dict[tuple[str, str | None], Container] = {}
    for process in (process for gpu in gpus for process in processes_of(gpu) if process.pod_uid):
        uid, user = process.pod_uid or "", user_of(process)
        namespace, pod = pods.get(uid, (None, None))
        found[uid, process.container_id] = Container(
            namespace=namespace,
            pod=pod,
            container=user.container if user else process.container,
            pod_uid=uid,
            container_id=process.container_id,
        )
    known = {(one.namespace, one.pod, one.container) for one in found.values()}
    idle = [u for u in users if not {(u.namespace, u.name, u.container), (u.namespace, u.name, None)} & known]
    containers = (*found.values(), *(Container(namespace=u.namespace, pod=u.name, container=u.container) for u in idle))

    def named(process: Process) -> Process:
        user = user_of(process)
        return replace(process, container=user.container) if user else process

    return tuple(_with_processes(gpu, named) for gpu in gpus), containers


def _pods(gpus: Sequence[Gpu]) -> dict[str, tuple[str, str]]:
    """Namespace and name of the pods whose UIDs processes have.

    A pod that the kubelet gave devices to alone is the one whose processes are on them, if there is only one such pod,
    it has processes on no device of others, and one of its containers has such a name: a pod that was given no device can
    still see all of them (`NVIDIA_VISIBLE_DEVICES=all`).
    """
    given: dict[tuple[str, str], set[str]] = {}
    seen: dict[str | None, set[str]] = {}
    for gpu in gpus:
        for user in users_of(gpu):
            given.setdefault((user.namespace, user.name), set()).add(user.container)
        for process in processes_of(gpu):
            seen.setdefault(process.pod_uid, set()).update([process.container] if process.container else [])
    places: list[tuple[set[str | None], set[tuple[str, str]]]] = []
    for gpu in gpus:
        for processes, users in ((gpu.processes, gpu.pods), *((part.processes, part.pods) for part in gpu.mig_devices)):
            uids = {process.pod_uid for process in processes or () if process.pod_uid != ""}
            places.append((uids, {(user.namespace, user.name) for user in users or ()}))
    found: dict[str, tuple[str, str]] = {}
    for name in {name for _, names in places for name in names}:
        alone = set[str | None]().union(*(uids for uids, names in places if names == {name}))
        uid = next(iter(alone), None)
        only_here = all(name in names for uids, names in places if uid in uids)
        if len(alone) == 1 and uid and only_here and (not seen[uid] or seen[uid] & given[name]):
            found[uid] = name
    return found


def _measured(
    containers: tuple[Container, ...], gpus: Sequence[Gpu], groups: Groups
) -> tuple[tuple[Container, ...], Error | None]:
    """The containers with what their cgroups say, and why some do not."""
    pids: dict[tuple[str, str], list[int]] = {}
    for process in (process for gpu in gpus for process in processes_of(gpu) if process.pod_uid):
        pids.setdefault((process.pod_uid or "", process.container_id or ""), []).append(process.pid)
    if not pids:
        return containers, None
    found, trouble = groups.read(pids)
    read = {(one.pod_uid, one.container_id): one for one in found}

    def with_figures(one: Container) -> Container:
        figures = read.get((one.pod_uid, one.container_id))
        return one if figures is None else replace(one, cpu=figures.cpu, memory=figures.memory, shm=figures.shm)

    return tuple(map(with_figures, containers)), trouble
