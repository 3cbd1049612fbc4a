"""Which pod and container a process of the node belongs to, by the host's /proc mounted read-only somewhere.

Only `cgroup`, `comm` and `mountinfo` of a process are read: they are open to everybody, and none takes the lock of its
memory, on which a read of `cmdline` can hang.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

import msgspec

from llmdoctor_agent.report import Error

#: `kubepods-burstable-pod6f1d2c3b_8a90_….slice` by the systemd driver, `pod6f1d2c3b-8a90-…` by cgroupfs. The UID of a
#: static pod is the hash of its manifest: 32 digits.
_POD = re.compile(r"(?:^|-)pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32})(?:\.slice)?$")
#: `cri-containerd-ID.scope`, `crio-ID.scope`, `docker-ID.scope`, `crio-ID`, `ID`; `crio-conmon-ID.scope` only watches
_CONTAINER = re.compile(r"(?:^|-)([0-9a-f]{64})(?:\.scope)?$")

#: The kubelet mounts `/var/lib/kubelet/pods/UID/containers/NAME/1a2b3c4d` into each container, at the path of its
#: termination message.
_NAME = re.compile(r"/pods/(?P<uid>[0-9a-f-]{32,36})/containers/(?P<name>[a-z0-9-]{1,63})/[0-9a-f]{8}$")


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """Whose a process is. Empty: of no pod or container; None: not known."""

    name: str | None = None
    pod_uid: str | None = None
    container_id: str | None = None
    #: the container's name in the pod's spec; None where it does not show
    container: str | None = None


def pod_in(segment: str) -> str:
    """The pod UID, with dashes, that one segment of a cgroup's path names; empty if it names none."""
    found = _POD.search(segment)
    return found[1].replace("_", "-") if found else ""


def container_in(segment: str) -> str:
    """The id of the container that one segment of a cgroup's path names; empty if it names none."""
    found = None if "conmon" in segment else _CONTAINER.search(segment)
    return found[1] if found else ""


def owner_of(cgroup: str, *, nested: bool = False) -> Owner:
    """The pod and container that the content of a `/proc/PID/cgroup` names, whatever lies above them.

    `nested`: the paths are relative to the reader's own cgroup (`/../../kubepods-….slice/…`), so that what the
    reader shares with the process is not seen.
    """
    paths = [line.split(":", 2)[2].removesuffix(" (deleted)") for line in cgroup.splitlines() if line.count(":") >= 2]
    owners = [_owner(path, nested=nested) for path in paths]
    # with version 1 each controller has a path of its own, and not all of them have to be the pod's
    for pick in (lambda o: o.pod_uid, lambda o: o.container_id, lambda o: o.pod_uid is None):
        if found := next((owner for owner in owners if pick(owner)), None):
            return found
    return Owner(pod_uid="", container_id="") if owners else Owner()


def _owner(path: str, *, nested: bool) -> Owner:
    """From the right: a kubelet may itself run in a container, or below a slice of its own."""
    segments = [segment for segment in path.split("/") if segment]
    container, at = "", 0
    for i in reversed(range(len(segments))):
        if uid := pod_in(segments[i]):
            return Owner(pod_uid=uid, container_id=container)
        if found := container_in(segments[i]):
            container, at = found, i
    if nested and (segments[at - 1] == ".." if container and at else set(segments) <= {".."}):
        # a container of the reader's own pod, or the reader itself: the pod's segment is above what is shown
        return Owner(container_id=container or None)
    return Owner(pod_uid="", container_id=container)


def container_of(mountinfo: str, uid: str) -> str | None:
    """The name of the container of a pod whose mounts a `/proc/PID/mountinfo` lists.

    None where no mount says it, or mounts of several containers of the pod are there.
    """
    roots = (fields[3] for line in mountinfo.splitlines() if len(fields := line.split(" ", 4)) == 5)
    names = {found["name"] for root in roots if (found := _NAME.search(root)) and found["uid"] == uid}
    return names.pop() if len(names) == 1 else None


class Processes:
    """The processes of a node, by the mount point of the host's /proc."""

    def __init__(self, proc: Path) -> None:
        self.proc = proc

    def read(self, pids: Iterable[int]) -> tuple[dict[int, Owner], Error | None]:
        """The owners of processes by their host pids, and why they are not known if that is so for all of them."""
        wanted = sorted(set(pids))
        if (first := self._text("2/comm")) is None or first != "kthreadd":
            # pid 2 is kthreadd in the kernel's first pid namespace, and NVML's pids are of that one: in another one
            # they would lead to processes that have nothing to do with them
            reason = (
                f"no process 2 in {self.proc}: not mounted, hidden (hidepid) or not permitted"
                if first is None
                else f"{self.proc} does not list the host's processes: process 2 is {first!r}, not 'kthreadd'"
            )
            return {pid: Owner() for pid in wanted}, Error(
                source="processes", reason=reason, fields=("processes.podUid",)
            )
        nested = "/.." in (self._text("1/cgroup") or "/..")
        return {pid: self._one(pid, nested=nested) for pid in wanted}, None

    def _one(self, pid: int, *, nested: bool) -> Owner:
        cgroup = self._text(f"{pid}/cgroup")
        owner = Owner() if cgroup is None else owner_of(cgroup, nested=nested)
        container = container_of(self._text(f"{pid}/mountinfo") or "", owner.pod_uid) if owner.pod_uid else None
        name = self._text(f"{pid}/comm")  # the process sets it itself
        name = name and "".join(c if c.isprintable() else "?" for c in name)
        return msgspec.structs.replace(owner, name=name, container=container)

    def _text(self, name: str) -> str | None:
        try:
            with (self.proc / name).open("rb") as file:
                return file.read(1 << 20).decode("utf-8", "replace").rstrip("\n")
        except OSError:
            return None
