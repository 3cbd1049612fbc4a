"""An error of the driver's own list, on a GPU of this pod."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Confidence,
    Evidence,
    Finding,
    Fix,
    Hardware,
    Logs,
    Pod,
    Xid,
    check,
    log_evidence,
    pod_evidence,
    signs_of_life,
)
from kubectl_llmdoctor.catalog.xids import AFTEREFFECTS, XidMeaning, xid_meaning
from llmdoctor_checks._consequences import CRASHED
from llmdoctor_checks.hardware._gpu import (
    CONSEQUENCES,
    ERRORS,
    OF_GPUS,
    Hit,
    by_others,
    elsewhere,
    hits,
    hitting,
    links_short,
    looked_at,
    once,
    or_elsewhere,
    out_of_service,
    quoted,
    reset,
    said_then,
    says_otherwise,
)

#: Kinds that have checks of their own, or say that nothing failed.
_OTHERS = ("application", "memory", "fallen off", "info")

_SYMPTOMS = ("engine-dead", "engine-stalled", *CRASHED)


#: NVIDIA's buckets after which the GPU is to be reset.
_RESETS = ("RESET_GPU", "WORKFLOW_XID_48", "WORKFLOW_NVLINK_ERR", "WORKFLOW_NVLINK5_ERR")

#: From so many restarts on one more does not help.
_IN_VAIN = 3

#: CUDA's words for a GPU that takes no new process (46), among others one that is to be reset.
_TURNED_AWAY = ("is/are busy or unavailable", "cudaErrorDevicesUnavailable", "CUDA_ERROR_DEVICE_UNAVAILABLE")

#: What NVIDIA's runtime prints, which looks at all GPUs of a node for each container, where one does not answer it in time.
_NO_ANSWER = "driver rpc error: timed out"

#: Programs of servers as the driver names them, by how their names begin, and what the images that run them are called.
_PROGRAMS = {
    "llama-server": ("llama", "ggml"),
    "ollama": ("ollama",),
    "VLLM::": ("vllm",),
    "sglang::": ("sglang",),
    "tritonserver": ("triton",),
}


@check("xid-error", since="0.2", literals=(*OF_GPUS, *ERRORS, *_TURNED_AWAY))
def xid_error(pod: Pod, hardware: Hardware, logs: Logs | None) -> Iterator[Finding]:
    """The driver reported an error of a GPU that the pod uses.

    NVIDIA's driver writes an Xid with a number into the kernel's log when something goes wrong on a GPU: its firmware
    does not answer (119, 120), a context switch hangs (109), a link fails (74, 144 to 150), a controller halts (62).
    The process on the GPU ends with some CUDA error or hangs; in a group of ranks the others wait for it.

    Xids of a program's own fault, of the GPU's memory, and of a GPU that is gone have ids of their own:
    `illegal-memory-access`, `ecc-uncorrectable`, `gpu-fallen-off`. A GPU whose own processor (GSP) misses its heartbeat may get no Xid
    but 154, which asks for a reset, and a GPU that is to be reset may have the driver turn programs away (`NV_ERR_RESET_REQUIRED`)
    long after the Xid that said why. Xid 43 and 45 only follow another error or the end of
    a process. A GPU for which the driver asks for a reset or a reboot, with no Xid left to be seen, is reported here too.

    Where the kernel's log was not read, the lines of it count that node-problem-detector passes on, by its events and conditions.

    A server may stay Ready on a GPU that failed: Ollama answers which models it has, and starts no model any more. After
    Xid 154 with another recovery action than none, nothing new starts on that GPU before it is reset.

    ## Fix

    Do what NVIDIA's catalogue says for the number: restart the program, reset the GPU with nothing running on it, or
    reboot the node. When the same number comes back, hand the node to the vendor.

    ## References

    - https://docs.nvidia.com/deploy/xid-errors/
    - https://docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html
    """
    other = says_otherwise(pod, logs)
    found = [
        hit
        for hit in hits(hardware, _wanted)
        if not _harmless(hardware, hit[0]) and not _link_is_down(hardware, hit[0])
    ]
    telling = [hit for hit in found if hardware.explains(hit[0]) and (hit[1] == "certain" or not other)]
    if not found:
        yield from [] if other else _silent_firmware(pod, hardware)
        yield from _refused(pod, hardware, logs)
        yield from _asked_for(pod, hardware)
    if telling:
        yield _reported(pod, hardware, logs, telling[0], found, telling=True)
    elif not pod.failing:
        named = [] if found else [*_of_its_program(pod, hardware, logs)]
        for hit in ([hit for hit in found if hit[1] == "certain"] or named)[:1]:
            yield _reported(pod, hardware, logs, hit, found, named)


def _reported(
    pod: Pod,
    hardware: Hardware,
    logs: Logs | None,
    hit: Hit,
    found: list[Hit],
    named: list[Hit] | None = None,
    *,
    telling: bool = False,
) -> Finding:
    """What an Xid is to this pod: why it fails (`telling`), a GPU on which nothing new starts, or something to know."""
    xid, sure = hit
    meaning = xid_meaning(xid.number)
    waited = _waited_for(pod) if meaning and "GSP" in meaning.mnemonic else ()
    disables = bool(meaning and meaning.disables)
    stuck = not telling and disables and _waits_for_reset(hardware, xid)
    minor = meaning is not None and meaning.bucket == "IGNORE"  # what asks for nothing seldom ends a program
    if minor:
        sureness: Confidence = "possible"
    elif (stuck and not named) or (waited and sure == "possible"):
        sureness = "likely"
    else:
        sureness = sure
    times = sum(other.number == xid.number for other, _ in found or named or ())
    return Finding(
        role="cause" if telling or stuck else "risk" if disables else "note",
        confidence=sureness,
        summary=f"The driver reported Xid {xid.number} on {hitting(hardware, xid, sure)}{_named(meaning)}"
        f"{f', {times} times' if times > 1 else ''}"
        f"{'; nothing starts on that GPU before it is reset' if stuck else ''}.",
        evidence=once(
            *quoted([hit, *found, *_reset_asked(hardware, xid)]),
            *said_then(pod, logs, xid),
            *waited,
            *_demands(hardware),
            *by_others(hardware, "xid-error"),
        ),
        explains=_SYMPTOMS if minor else ("illegal-memory-access", *_words_of(meaning), *CONSEQUENCES),
        fixes=tuple(_fixes(pod, hardware, meaning, xid)),
        order=xid.order,
    )


def _waited_for(pod: Pod) -> tuple[Evidence, ...]:
    """What the runtime says that waited in vain for a GPU of the node, whosever that is."""
    states = ((c, state) for c in pod.containers for state in (c.waiting, c.terminated) if state)
    said = ((c, state.message) for c, state in states if _NO_ANSWER in (state.message or ""))
    return tuple(pod_evidence(c, "state", message) for c, message in said)[:1]


def _of_its_program(pod: Pod, hardware: Hardware, logs: Logs | None) -> Iterator[Hit]:
    """Xids that name the program that a ready pod runs, where nothing tells how many GPUs its node has, and a reset is still due."""
    node = hardware.of_node
    if node.slots is not None or node.devices or not hardware.asks or not pod.ready:
        return
    images = _images(pod)
    beside = [
        image
        for item in pod.cluster.items("Pod")
        if (item.namespace, item.name) != (pod.namespace, pod.name)
        and (other := Pod.of(item, pod.cluster)).spec.node_name == pod.spec.node_name
        for image in _images(other)
    ]
    for xid in hardware.xids:
        words = next((words for begin, words in _PROGRAMS.items() if xid.process.startswith(begin)), ())
        own = any(word in image for word in words for image in images) and _wanted(xid.number, xid_meaning(xid.number))
        # another pod there may run the same program
        own = own and not any(word in image for word in words for image in beside)
        # without a date it may have been of an instance before, on a GPU that was reset since
        during = (
            hardware.during(xid.time) if xid.time else not any(signs_of_life(log) for log in (logs.all if logs else ()))
        )
        if own and during and _waits_for_reset(hardware, xid):
            yield xid, "likely" if xid.time else "possible"


def _images(pod: Pod) -> list[str]:
    """The images of the containers of a pod that ask for GPUs."""
    return [container.spec.image.lower() for container in pod.containers if container.accelerators]


def _reset_asked(hardware: Hardware, xid: Xid) -> list[Hit]:
    """Xid 154, for the pod's GPUs or that of an Xid."""
    told = hits(hardware, lambda number, _: number == 154)
    return told or [(x, "likely") for x in hardware.xids if x.number == 154 and x.bus == xid.bus]


def _fixes(pod: Pod, hardware: Hardware, meaning: XidMeaning | None, xid: Xid) -> Iterator[Fix]:
    """What NVIDIA's list asks for; where it asks for nothing, the node stays in service."""
    if meaning and meaning.bucket == "IGNORE":
        yield looked_at(hardware, f"Look at the GPUs of {hardware.node}; NVIDIA's list asks for nothing after this Xid")
        return
    if meaning and meaning.bucket in _RESETS:
        device = hardware.device_of(xid)
        other = (
            "; look at the GPU or switch at the other end of the link" if meaning.mnemonic.startswith("NVLINK") else ""
        )
        yield reset(hardware, pod, f"{xid.bus}.0" if xid.bus else device.uuid if device else "", other)
    elif meaning and meaning.bucket == "RESTART_APP" and (starts := _restarts(pod)) >= _IN_VAIN:
        more = f": {starts} restarts of the program, which is all that NVIDIA's list asks for, did not help"
        yield reset(hardware, pod, f"{xid.bus}.0" if xid.bus else "", more)
    else:
        yield out_of_service(hardware, f"{meaning.action if meaning else 'Look at the GPU'}, on {hardware.node}")
    yield elsewhere(pod)


def _restarts(pod: Pod) -> int:
    """How often a container that asks for GPUs was started again, where that does not go on."""
    looping = (c for c in pod.containers if c.accelerators and c.waiting and c.waiting.reason == "CrashLoopBackOff")
    return max((container.restarts for container in looping), default=0)


def _silent_firmware(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """The processor of a GPU that stopped answering as the pod went down, where the driver wrote no Xid but that it wants a reset."""
    said = [(line, gpu) for line, gpu in hardware.kernel.silent if line.time and hardware.during(line.time)]
    if not said or not hardware.asks or not hardware.near(said[-1][0].time) or not pod.failing:
        return
    line, gpu = said[-1]
    proof = hardware.kernel.evidence(line)
    yield Finding(
        confidence="likely" if hardware.whole_node else "possible",
        summary=f"The firmware of {f'{gpu}, as the driver counts,' if gpu else 'a GPU'} of {hardware.node} does not answer the driver any "
        "more (GSP): nothing runs on that GPU before it is reset.",
        evidence=once(proof, *quoted(hits(hardware, lambda number, _: number == 154))),
        explains=("illegal-memory-access", "driver-missing", *CONSEQUENCES),
        fixes=or_elsewhere(reset(hardware, pod), pod),
        order=line.order,
    )


def _refused(pod: Pod, hardware: Hardware, logs: Logs | None) -> Iterator[Finding]:
    """A GPU for which the driver took no work before a reset, with no Xid left to be seen, and a program that it turned away."""
    said = [line for line in hardware.kernel.refused if line.time is None or hardware.during(line.time)]
    told = next(logs.find(*_TURNED_AWAY), None) if logs else None
    if not said or told is None or not hardware.asks or not pod.failing:
        return
    yield Finding(
        summary=f"A GPU of {hardware.node} takes no work before it is reset, as the driver says, and turned this program away.",
        evidence=(hardware.kernel.evidence(said[-1]), log_evidence(told)),
        explains=("gpu-memory-shared", "illegal-memory-access", *CONSEQUENCES),
        fixes=or_elsewhere(reset(hardware, pod), pod),
        order=told.order,
    )


def _asked_for(pod: Pod, hardware: Hardware) -> Iterator[Finding]:
    """What the driver recommends where no Xid says why."""
    wanted = [device for device in hardware.mine if device.asks_for]
    if not wanted or any(xid.number not in AFTEREFFECTS for xid, _ in hardware.hits):
        return
    if any(d.ecc.remap_pending or d.ecc.remap_failed or d.ecc.volatile_uncorrected for d in wanted):
        return  # the memory is why
    unusable = any(device.lost for device in wanted)
    yield Finding(
        role="cause" if pod.failing else "risk",
        confidence="certain" if unusable and pod.failing else "likely",
        summary=f"The driver asks for {wanted[0].asks_for}: {', '.join(d.title for d in wanted[:3])} of {hardware.node}, "
        "which this pod uses.",
        evidence=tuple(_demands(hardware)),
        explains=("illegal-memory-access", *CONSEQUENCES) if pod.failing else (),
        fixes=(
            reset(hardware, pod, wanted[0].pci_bus_id or wanted[0].uuid)
            if "reset" in wanted[0].asks_for
            else out_of_service(
                hardware, f"Drain {hardware.node}, and do what the driver asks for: {wanted[0].asks_for}"
            ),
            elsewhere(pod),
        ),
    )


def _demands(hardware: Hardware) -> Iterator[Evidence]:
    """The driver's recommendations for the pod's GPUs."""
    for device in hardware.mine:
        if device.asks_for:
            field = "lost" if device.lost else "recoveryAction"
            yield hardware.evidence(device, field, f"{field}: {device.lost or device.recovery_action}")


def _waits_for_reset(hardware: Hardware, xid: Xid) -> bool:
    """Whether the driver's last recovery action for a GPU, since an Xid on it, is not `None`."""
    seen = hardware.kernel.xids
    since = seen[seen.index(xid) :] if xid in seen else ()
    said = [later.text for later in since if later.number == 154 and later.bus == xid.bus]
    return bool(said) and "None" not in said[-1].rpartition(" to ")[2]


def _wanted(number: int, meaning: XidMeaning | None) -> bool:
    return number not in AFTEREFFECTS and (meaning is None or meaning.kind not in _OTHERS)


def _harmless(hardware: Hardware, xid: Xid) -> bool:
    """NVLink's errors say themselves whether they are fatal; one for which the driver then ended a program was not harmless."""
    said = f"caused by previous Xid {xid.number}"
    ended = any(x.number == 45 and x.bus == xid.bus and x.text.endswith(said) for x, _ in hardware.hits)
    return "nonfatal" in xid.text.lower().replace("-", "") and not ended


def _link_is_down(hardware: Hardware, xid: Xid) -> bool:
    """An error of a link that the agent sees inactive: `nvlink-down` says more."""
    meaning, device = xid_meaning(xid.number), hardware.device_of(xid)
    return bool(meaning and meaning.mnemonic.startswith("NVLINK") and device and links_short(device))


def _words_of(meaning: XidMeaning | None) -> tuple[str, ...]:
    """What others say of the same error: CUDA of a link, that it failed; NVIDIA's runtime, that the driver does not answer."""
    if meaning and "GSP" in meaning.mnemonic:
        return ("driver-missing",)
    return ("nvlink-down",) if meaning and meaning.mnemonic.startswith("NVLINK") else ()


def _named(meaning: XidMeaning | None) -> str:
    if meaning is None:
        return ", which NVIDIA's catalogue does not explain"
    return f": {meaning.meaning} ({meaning.mnemonic}, {meaning.kind})"
