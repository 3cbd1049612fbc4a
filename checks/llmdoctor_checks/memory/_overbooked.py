"""A GPU that HAMi's scheduler has given out twice."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Evidence, Finding, Fix, Logs, Pod, Subject, dig, endings, expression, fixes, k8s
from llmdoctor_checks.hardware._gpu import CONSEQUENCES

#: What HAMi's scheduler writes at a pod: of each container the devices, each with its maker, MiB of memory and percents of its cores.
GIVEN = "hami.io/vgpu-devices-allocated"
_DEVICE = expression(r"(?P<uuid>GPU-[\w-]{8,60}),NVIDIA,(?P<mib>\d{1,9}),(?P<cores>\d{1,3}):")
_CORES = expression(r'(?:",[^{}]{0,300}?"devcore":(?P<json>\d{1,6})\b|(?:,\d{1,9}){2},(?P<plain>\d{1,6}),)')
#: What is said of a GPU that has no memory left.
FULL = ("out of memory", "OutOfMemory")
#: It never gives more of a card than this, as long as it knows to whom it gave it; unless its device plugin, which writes at the node what
#: each card has, is told of more (deviceCoreScaling).
_WHOLE, CARDS = 100, "hami.io/node-nvidia-register"
#: Older releases of Kubernetes than this one its scheduler does not keep to (HAMi-core's issue 170).
_KUBELET, _MINOR = expression(r"v1\.(\d{1,3})\."), 23


def overbooked(pod: Pod, subject: Subject, logs: Logs | None, consequences: tuple[str, ...]) -> Iterator[Finding]:
    """Pods of one node to which HAMi has given the cores of a card, which together are more than the card has."""
    mine, text = _cores(pod.obj), str(pod.annotations.get(GIVEN))
    if not mine or not any(endings(pod)):
        return
    others = [
        (other, cores)
        for other in subject.cluster.all(k8s.Pod, "Pod")
        if other.metadata.uid != pod.obj.metadata.uid
        and other.spec.node_name == pod.spec.node_name
        and other.status.phase not in ("Succeeded", "Failed")
        and (cores := _cores(other))
    ]
    node = subject.cluster.item("Node", "", pod.spec.node_name or "")
    cards = str(node.annotations.get(CARDS) or "")[:20000] if node else ""
    for uuid, own in mine.items():
        sharing = [(other, cores[uuid]) for other, cores in others if uuid in cores]
        if not sharing or own + sum(share for _, share in sharing) <= _whole(uuid, cards):
            continue
        names = [f"{other.metadata.namespace}/{other.metadata.name}" for other, _ in sharing]
        yield Finding(
            confidence="likely" if logs is not None and next(logs.find(*FULL), None) else "possible",
            summary=f"HAMi has given one GPU ({uuid}) of {pod.spec.node_name} to {pod.name}, {own} % of its cores, and to "
            + ", ".join(f"{name}, {share} %" for name, (_, share) in zip(names, sharing, strict=True))
            + ": its scheduler has lost count, and they fill its memory together.",
            evidence=(
                Evidence(source="pod", ref=f"metadata.annotations[{GIVEN}]", text=text[:200]),
                *(
                    Evidence(
                        source="pod",
                        ref=f"Pod/{other.metadata.name} metadata.annotations[{GIVEN}]",
                        text=str(other.metadata.annotations.get(GIVEN))[:200],
                    )
                    for other, _ in sharing[:3]
                ),
            ),
            explains=("vgpu-shim", *consequences, *CONSEQUENCES),
            fix=_placed_apart(pod, subject, names[0]),
        )
        return


def _whole(uuid: str, cards: str) -> int:
    """How many percents of its cores a card has to give: by its JSON, or in older releases by the fourth of its fields."""
    _, _, of_card = cards.partition(uuid)
    told = _CORES.match(of_card[:400])
    return max(_WHOLE, int(told["json"] or told["plain"])) if told else _WHOLE


def _cores(pod: k8s.Pod) -> dict[str, int]:
    """Of each card that a pod was given, how many percents of its cores."""
    text = str(pod.metadata.annotations.get(GIVEN) or "")[:4000]
    found: dict[str, int] = {}
    for device in _DEVICE.finditer(text):
        found[device["uuid"]] = found.get(device["uuid"], 0) + int(device["cores"])
    return found


def _placed_apart(pod: Pod, subject: Subject, other: str) -> Fix:
    item = subject.cluster.item("Node", "", pod.spec.node_name or "")
    version = str(dig(item.raw, "status.nodeInfo.kubeletVersion") or "") if item else ""
    old = _KUBELET.match(version)
    pin = f"pin it and {other} to two cards by the annotation nvidia.com/use-gpuuuid (nvidia-smi -L on {pod.spec.node_name} lists them)"
    if old is not None and int(old[1]) < _MINOR:
        return fixes.platform(
            f"Upgrade Kubernetes ({version} on {pod.spec.node_name}) to v1.{_MINOR} or later, which HAMi's scheduler needs to keep count, "
            f"and delete {pod.name}, so that it gets a card of its own; until then {pin}"
        )
    return fixes.platform(
        f"Delete {pod.name}, so that HAMi gives it a card of its own{fixes.lone(pod)}, where that gives it the same one again restart "
        f"hami-scheduler or {pin}",
        f"kubectl -n {pod.namespace} delete pod {pod.name}",
    )
