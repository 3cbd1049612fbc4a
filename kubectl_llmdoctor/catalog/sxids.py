"""SXids, the error numbers of NVIDIA's NVSwitch driver, and how far each reaches.

Source: the tables of NVSwitch errors in NVIDIA's Fabric Manager User Guide
(docs.nvidia.com/datacenter/tesla/fabric-manager-user-guide/). A number that they do not list has no class.
"""

from __future__ import annotations

from typing import Literal

#: `harmless`: corrected or only counted. `care`: one partition or connection is affected. `fatal`: CUDA programs on the
#: fabric are ended, mostly with the Xid 74 of a GPU beside it. `switch`: the switch itself is out until a reset.
#: `heat`: a thermal event of the switch began or ended.
SxidClass = Literal["harmless", "care", "fatal", "switch", "heat"]


def sxid_class(number: int) -> SxidClass | None:
    """The class of an SXid; None where the guide does not list it."""
    return next((kind for kind, numbers in _NUMBERS.items() if number in numbers), None)


_NUMBERS: dict[SxidClass, frozenset[int]] = {
    "harmless": frozenset(
        {11012, 11021, 11022, 11023, 12021, 12023, 15008, 15011, 19049, 19055, 19057, 19059, 19062, 19065, 19068, 19071}
        | {20001, 20009, 22013, 24001, 24002, 24003}
    ),
    "care": frozenset({11004, 12028, 19084, 20012}),
    "fatal": frozenset(
        {11001, 11009, 11013, 11018, 11019, 11020, 12001, 12002, 12022, 12024, 12025, 12026, 12027, 12030, 12031, 12032}
        | {14017, 15001, 15006, 15009, 15010, 15012, 15013, 19047, 19048, 19054, 19056, 19058, 19060, 19061, 19063}
        | {19064, 19066, 19067, 19069, 19070, 20034, 22012, 24004, 24005, 24006, 24007}
    ),
    "switch": frozenset({10001, 10002, 10003, 12020, 22003, 22011, *range(23001, 23018)}),
    "heat": frozenset({10004, 10005}),
}
