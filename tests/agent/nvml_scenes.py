"""Scenarios for the stand-in of NVML (`standin.c`): what some boards say, as lines."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path


def driver(version: str = "570.86.15", cuda: int = 12080) -> list[str]:
    return [f"system driver {version}", f"system cuda {cuda}", f"system nvml 12.{version}"]


def gpu(index: int | str, **values: object) -> list[str]:
    """Lines of one GPU; `_` of a key is `-`, `__` is `.`."""
    return [f"gpu {index} {key.replace('__', '.').replace('_', '-')} {value}" for key, value in values.items()]


def uuid(index: int) -> str:
    return f"GPU-{index:08x}-7d1c-4b42-9a3e-0123456789ab"


def bus(index: int) -> str:
    return f"00000000:{0x1B + 0x10 * index:02X}:00.0"


def _common(index: int) -> dict[str, object]:
    return {
        "uuid": uuid(index),
        "bus": bus(index),
        "minor": index,
        "utilization": 0,
        "temperature__0": 34,
        "clock__1": 345,
        "clock_reasons": "0x1",
        "pcie_width": 16,
        "pcie_max_width": 16,
        "pcie_replays": 0,
        "persistence": 1,
        "compute_mode": 0,
        "ecc": 1,
        "ecc__uncorrected__volatile": 0,
        "ecc__uncorrected__aggregate": 0,
    }


def h100(count: int = 8) -> list[str]:
    """HGX H100: 18 links per GPU to NVSwitches, registered with the fabric."""
    lines = driver()
    for index in range(count):
        lines += gpu(
            index,
            **_common(index),
            name="NVIDIA H100 80GB HBM3",
            memory_total=81559 << 20,
            memory_used=70000 << 20,
            memory_reserved=551 << 20,
            margin=51,
            power=121500,
            power_limit=700000,
            max_clock__1=1980,
            remapped="2 0 0 0",
            pcie_gen=5,
            pcie_max_gen=5,
            mig=0,
            links=18,
            field__91=18,
            field__161=0,
            field__162=0,
            field__163=0,
            field__230=0,
            fabric="3 0 0x5aaa 1",
        )
    return lines


def l40s(count: int = 4) -> list[str]:
    """L40S on PCIe: no NVLink, no fabric, no MIG; two CPUs, between which GPUs do not reach each other."""
    lines = driver("550.127.05", 12040)
    for index in range(count):
        lines += gpu(
            index,
            **_common(index),
            name="NVIDIA L40S",
            memory_total=46068 << 20,
            memory_used=0,
            memory_reserved=600 << 20,
            margin=58,
            power=31000,
            power_limit=350000,
            max_clock__1=2520,
            remapped="0 0 0 0",
            pcie_gen=1,
            pcie_max_gen=4,
            field__91=0,
        )
        for other in range(count):
            if other != index:
                lines += [f"gpu {index} p2p.{other} {0 if other // 2 == index // 2 else 1}"]
    return lines


def a100_mig() -> list[str]:
    """A100 with MIG devices 3g.40gb and 1g.10gb, of which the first is used; slot 1 is empty."""
    lines = driver("535.183.06", 12020) + gpu(
        0,
        **{key: value for key, value in _common(0).items() if key != "utilization"},
        name="NVIDIA A100-SXM4-80GB",
        memory_total=81920 << 20,
        memory_used=20000 << 20,
        memory_reserved=700 << 20,
        threshold__1=89,
        power=95000,
        power_limit=400000,
        max_clock__1=1410,
        remapped="0 1 1 0",
        pcie_gen=4,
        pcie_max_gen=4,
        mig=1,
        mig_max=7,
        links=12,
        field__91=12,
        field__161=0,
    )
    for slot, instance, profile, size, used in ((0, 2, "3g.40gb", 40192, 20000), (2, 9, "1g.10gb", 9728, 12)):
        lines += gpu(
            f"0.{slot}",
            uuid=f"MIG-{slot:08x}-1111-5222-8333-0123456789ab",
            name=f"NVIDIA A100-SXM4-80GB MIG {profile}",
            gpu_instance=instance,
            memory_total=size << 20,
            memory_used=used << 20,
        )
    return [*lines, f"process 0.0 compute 4711 {19000 << 20}"]


def t4() -> list[str]:
    """T4: retires pages; no MIG, NVLink, fabric, remapped rows."""
    return driver("550.127.05", 12040) + gpu(
        0,
        **_common(0),
        name="Tesla T4",
        memory_total=15360 << 20,
        memory_used=0,
        memory_reserved=450 << 20,
        threshold__1=93,
        power=9870,
        power_limit=70000,
        max_clock__1=1590,
        pcie_gen=1,
        pcie_max_gen=3,
        field__29=1,
        field__30=2,
        field__31=1,
    )


class Scene:
    """A scenario file that can be changed while it is used."""

    def __init__(self, path: Path, lines: Iterable[str] = ()) -> None:
        self.path = path
        self._lines = list(lines)
        self._write()

    def add(self, *lines: str) -> None:
        self._lines += lines
        self._write()

    def remove(self, *lines: str) -> None:
        self._lines = [line for line in self._lines if line not in lines]
        self._write()

    def replace(self, lines: Iterable[str]) -> None:
        self._lines = list(lines)
        self._write()

    def _write(self) -> None:
        new = self.path.with_suffix(".new")
        new.write_text("\n".join(self._lines) + "\n", errors="surrogateescape")
        new.replace(self.path)
