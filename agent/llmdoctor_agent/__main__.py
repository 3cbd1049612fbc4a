"""Starts the agent: `llmdoctor-agent [--with PART,…]`. Needs no GPU, no socket and no kernel log to start."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from llmdoctor_agent import __version__
from llmdoctor_agent.collect import Sources, collect
from llmdoctor_agent.loop import Loop
from llmdoctor_agent.nvml import Nvml
from llmdoctor_agent.server import Server

if TYPE_CHECKING:
    from llmdoctor_agent.kernel_log import KernelLog

PORT = 9479

#: What `--with` takes: all that is read beside NVML.
PARTS = ("pod-resources", "processes", "cgroup", "kernel-log")

#: Seconds for one source of one reading.
_DEADLINE = 5.0

#: Seconds after which the server looks for connections that take too long, and whether it is to end: each look wakes the node.
_LOOK_ROUND = 2.0

#: Seconds for the reading that runs when the agent is told to end.
_LAST_READING = 2.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Serves until SIGTERM or SIGINT. Returns 0, or 2 where the port cannot be had."""
    given = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    log = logging.getLogger("llmdoctor_agent")
    node = os.environ.get("NODE_NAME") or None
    sources = _sources(given)
    loop = Loop(partial(collect, sources, node), given.interval)
    try:
        server = Server((given.listen or _anywhere(), given.port), loop, given.interval)
    except OSError as error:
        log.error("cannot listen on port %d: %s", given.port, error)
        return 2
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    sources.nvml.start()
    loop.start()
    threading.Thread(target=server.serve_forever, args=(_LOOK_ROUND,), name="server", daemon=True).start()
    log.info(
        "version %s on node %s, port %d, reads %s", __version__, node, server.server_port, ", ".join(sources.profile)
    )
    ended.wait()
    server.shutdown()
    server.server_close()
    loop.stop(_LAST_READING)
    sources.nvml.stop()
    return 0


def _anywhere() -> str:
    """All addresses of the pod, of both families where the kernel has both."""
    return "::" if socket.has_dualstack_ipv6() else "0.0.0.0"  # noqa: S104 # a NetworkPolicy and RBAC decide who asks


def _sources(given: argparse.Namespace) -> Sources:
    """What is read. Modules of parts that nobody asked for are not loaded."""
    parts = set(given.parts)
    # a container's cgroup is found by the processes that hold a GPU
    parts |= {"processes"} if "cgroup" in parts else set()
    pod_resources = processes = cgroup = None
    kernel_log: KernelLog | None = None
    if "pod-resources" in parts:
        from llmdoctor_agent.podresources import PodResources

        pod_resources = PodResources(given.pod_resources, _DEADLINE)
    if "processes" in parts:
        from llmdoctor_agent.processes import Processes

        processes = Processes(given.proc)
    if "cgroup" in parts:
        from llmdoctor_agent.cgroups import Cgroups

        cgroup = Cgroups(given.cgroup, given.proc)
    if "kernel-log" in parts:
        from llmdoctor_agent.kernel_log import KernelLog
        from llmdoctor_agent.kernel_ring import KernelRing

        kernel_log = KernelRing() if given.kmsg is None else KernelLog(given.kmsg)
    return Sources(
        nvml=Nvml(_DEADLINE),
        pod_resources=pod_resources,
        processes=processes,
        cgroup=cgroup,
        kernel_log=kernel_log,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llmdoctor-agent", description="Serves what only this node knows of its GPUs."
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument(
        "--with",
        dest="parts",
        type=_parts,
        action="extend",
        default=[],
        metavar="PART,…",
        help=f"what to read beside NVML: {', '.join(PARTS)}",
    )
    parser.add_argument("--listen", default="", metavar="ADDRESS", help="address to listen on; default: all of the pod")
    parser.add_argument("--port", type=int, default=PORT, help="port to listen on; default: %(default)s")
    parser.add_argument("--interval", type=_interval, default=30.0, help="seconds between readings; default: 30")
    parser.add_argument(
        "--pod-resources",
        type=Path,
        default=Path("/var/lib/kubelet/pod-resources/kubelet.sock"),
        metavar="SOCKET",
        help="the kubelet's pod-resources socket; default: %(default)s",
    )
    parser.add_argument(
        "--proc",
        type=Path,
        default=Path("/host/proc"),
        metavar="FOLDER",
        help="/proc of the host; default: %(default)s",
    )
    parser.add_argument(
        "--kmsg", type=Path, metavar="FILE", help="read the kernel's log from this device instead of by syslog(2)"
    )
    parser.add_argument(
        "--cgroup",
        type=Path,
        default=Path("/host/sys/fs/cgroup"),
        metavar="FOLDER",
        help="/sys/fs/cgroup of the host; default: %(default)s",
    )
    return parser


def _parts(text: str) -> tuple[str, ...]:
    named = tuple(part for part in text.split(",") if part)
    for part in named:
        if part not in PARTS:
            raise argparse.ArgumentTypeError(f"{part} is none of {', '.join(PARTS)}")
    return named


def _interval(text: str) -> float:
    seconds = float(text)
    if not 1 <= seconds <= 3600:
        raise argparse.ArgumentTypeError("between 1 and 3600 seconds")
    return seconds


if __name__ == "__main__":
    sys.exit(main())
