"""Xids, the error numbers of NVIDIA's driver: what each means, whose fault it is, and what to do at once.

Source: NVIDIA's Xid catalogue (docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html), with its mnemonics and its
bucket for the immediate action. The class is ours: it says who is to act. Numbers that the catalogue calls unused are
not listed: an unknown number has no meaning.
"""

from __future__ import annotations

from functools import cache
from typing import Literal

import msgspec

#: `application`: a program or one of its kernels. `driver`: the driver or its firmware. `memory`: the GPU's memory.
#: `link`: PCIe, NVLink or C2C. `board`: another part of the GPU. `info`: nothing failed.
XidClass = Literal["application", "driver", "memory", "link", "board", "fallen off", "info"]


class XidMeaning(msgspec.Struct, frozen=True, kw_only=True):
    """One number of the catalogue; `bucket` is empty where NVIDIA names none."""

    mnemonic: str
    meaning: str
    kind: XidClass
    bucket: str

    @property
    def action(self) -> str:
        """What to do at once, as an order."""
        return _ACTIONS.get(self.bucket, "Take the GPU out of service and have it looked at")

    @property
    def disables(self) -> bool:
        """Whether the GPU cannot be used before a reset or a reboot."""
        return self.bucket in ("RESET_GPU", "RESTART_BM")


#: Numbers that follow another error or the end of a process, and say nothing by themselves.
AFTEREFFECTS = frozenset({43, 45})

_ACTIONS = {
    "IGNORE": "Nothing needs to be done at once",
    "RESTART_APP": "Restart the program",
    "RESET_GPU": "Reset the GPU once nothing runs on it",
    "RESTART_BM": "Reboot the node",
    "RESTART_VM": "Restart the virtual machine",
    "CHECK_MECHANICALS": "Check the power cables and the seat of the GPU",
    "CHECK_UVM": "Look for errors of the driver's memory manager beside it",
    "UPDATE_SWFW": "Update driver and firmware",
    "CONTACT_SUPPORT": "Hand the node to the vendor",
    "WORKFLOW_XID_45": "Look for the error before it",
    "WORKFLOW_XID_48": "Drain the node and reset the GPU",
    "WORKFLOW_NVLINK_ERR": "Reset the GPU, and look at the GPU or switch at the other end of the link",
    "WORKFLOW_NVLINK5_ERR": "Reset the GPU, and look at the GPU or switch at the other end of the link",
    "XID_154": "Do what the message says",
}


@cache
def xid_meaning(number: int) -> XidMeaning | None:
    """What an Xid means; None where the catalogue does not say."""
    return next((XidMeaning(mnemonic=m, meaning=t, kind=k, bucket=b) for n, m, t, k, b in _ROWS if n == number), None)


_ROWS: tuple[tuple[int, str, str, XidClass, str], ...] = (
    (8, "RC_FIFO_ERROR_IDLE_TIMEOUT", "GPU stopped processing", "driver", "RESTART_APP"),
    (11, "RC_GR_ERROR_MISSING_HW", "Invalid or corrupted push buffer stream", "application", "RESTART_APP"),
    (13, "RC_GR_EXCEPTION", "Graphics Engine Exception", "application", "RESTART_APP"),
    (25, "RC_GR_ILLEGAL_NOTIFY", "Invalid or illegal push buffer stream", "application", "RESTART_APP"),
    (31, "RC_FIFO_ERROR_MMU_ERR_FLT", "GPU memory page fault", "application", "RESTART_APP"),
    (32, "RC_PBDMA_ERROR", "Invalid or corrupted push buffer stream", "application", "RESTART_APP"),
    (37, "RC_FECS_ERR_UNIMP_FIRMWARE_METHOD", "Driver firmware error", "driver", "IGNORE"),
    (38, "RC_FECS_ERR_WATCHDOG_TIMEOUT", "Driver firmware error", "driver", "IGNORE"),
    (39, "RC_CE0_ERROR", "Copy Engine Exception", "driver", "RESTART_APP"),
    (40, "RC_CE1_ERROR", "Copy Engine Exception", "driver", "RESTART_APP"),
    (41, "RC_CE2_ERROR", "Copy Engine Exception", "driver", "RESTART_APP"),
    (43, "RC_RESETCHANNEL_VERIF_ERROR", "GPU stopped processing", "application", "IGNORE"),
    (44, "RC_GR_FAULT_DURING_CTXSW", "Graphics Engine fault during context switch", "driver", "IGNORE"),
    (45, "RC_PREEMPTIVE_REMOVAL", "Preemptive channel removal", "application", "WORKFLOW_XID_45"),
    (46, "RC_GPU_TIMEOUT_ERROR", "GPU stopped processing", "driver", "RESET_GPU"),
    (48, "RC_GPU_ECC_DBE", "Double Bit ECC Error", "memory", "WORKFLOW_XID_48"),
    (
        54,
        "SILENT_RUNNING_PWR_REDUCED_CLOCKING",
        "Auxiliary power is not connected to the GPU board",
        "board",
        "CHECK_MECHANICALS",
    ),
    (60, "RC_SEC2_ERROR", "Video processor exception", "driver", "RESTART_APP"),
    (62, "PMU_HALT_ERROR", "Internal micro-controller halt (newer drivers)", "board", "RESET_GPU"),
    (63, "INFOROM_DRAM_RETIREMENT_EVENT", "GPU memory remapping event", "memory", "IGNORE"),
    (64, "INFOROM_DRAM_RETIREMENT_FAILURE", "GPU memory remapping failure", "memory", "RESET_GPU"),
    (66, "RC_FECS_ERR_REG_ACCESS_VIOLATION", "Illegal access by driver", "driver", "IGNORE"),
    (67, "RC_FECS_ERR_VERIF_VIOLATION", "Illegal access by driver", "driver", "IGNORE"),
    (68, "RC_NVDEC0_ERROR", "NVDEC0 Exception", "driver", "RESTART_APP"),
    (69, "RC_GR_CLASS_ERROR", "Graphics Engine class error", "application", "RESTART_APP"),
    (70, "RC_CE3_ERROR", "Copy engine 3: unknown error", "driver", "RESTART_APP"),
    (71, "RC_CE4_ERROR", "Copy engine 4: unknown error", "driver", "RESTART_APP"),
    (72, "RC_CE5_ERROR", "Copy engine 5: unknown error", "driver", "RESTART_APP"),
    (74, "NVLINK_ERROR", "NVLINK Error", "link", "WORKFLOW_NVLINK_ERR"),
    (75, "RC_CE6_ERROR", "Copy engine 6: unknown error", "driver", "RESTART_APP"),
    (76, "RC_CE7_ERROR", "Copy engine 7: unknown error", "driver", "RESTART_APP"),
    (77, "RC_CE8_ERROR", "Copy engine 8: unknown error", "driver", "RESTART_APP"),
    (78, "VGPU_START_ERROR", "vGPU Start Error", "driver", "UPDATE_SWFW"),
    (79, "RC_GPU_HAS_FALLEN_OFF_THE_BUS", "GPU has fallen off the bus", "fallen off", "RESTART_BM"),
    (80, "PBDMA_PUSHBUFFER_CRC_MISMATCH", "Corrupted data sent to GPU", "link", "RESTART_APP"),
    (82, "RC_NVJPG0_ERROR", "NVJPG0 Error", "driver", "RESTART_APP"),
    (83, "RC_NVDEC1_ERROR", "NVDEC1 Error", "driver", "RESTART_APP"),
    (84, "RC_NVDEC2_ERROR", "NVDEC2 Error", "driver", "RESTART_APP"),
    (85, "RC_CE9_ERROR", "Copy engine 9: unknown error", "driver", "RESTART_APP"),
    (86, "RC_OFA0_ERROR", "OFA Exception", "driver", "RESTART_APP"),
    (88, "RC_NVDEC3_ERROR", "NVDEC3 Error", "driver", "RESTART_APP"),
    (89, "RC_NVDEC4_ERROR", "NVDEC4 Error", "driver", "RESTART_APP"),
    (92, "EXCESSIVE_SBE_INTERRUPTS", "High single-bit ECC error rate", "memory", "IGNORE"),
    (93, "INFOROM_ERASE_LIMIT_EXCEEDED", "Non-fatal violation of provisioned InfoROM wear limit", "info", "IGNORE"),
    (94, "RC_CONTAINED_ERROR", "Contained memory error", "memory", "RESTART_APP"),
    (95, "RC_UNCONTAINED_ERROR", "Uncontained memory error", "memory", "RESET_GPU"),
    (96, "RC_NVDEC5_ERROR", "NVDEC5 Error", "driver", "RESTART_APP"),
    (97, "RC_NVDEC6_ERROR", "NVDEC6 Error", "driver", "RESTART_APP"),
    (98, "RC_NVDEC7_ERROR", "NVDEC7 Error", "driver", "RESTART_APP"),
    (99, "RC_NVJPG1_ERROR", "NVJPG1 Error", "driver", "RESTART_APP"),
    (100, "RC_NVJPG2_ERROR", "NVJPG2 Error", "driver", "RESTART_APP"),
    (101, "RC_NVJPG3_ERROR", "NVJPG3 Error", "driver", "RESTART_APP"),
    (102, "RC_NVJPG4_ERROR", "NVJPG4 Error", "driver", "RESTART_APP"),
    (103, "RC_NVJPG5_ERROR", "NVJPG5 Error", "driver", "RESTART_APP"),
    (104, "RC_NVJPG6_ERROR", "NVJPG6 Error", "driver", "RESTART_APP"),
    (105, "RC_NVJPG7_ERROR", "NVJPG7 Error", "driver", "RESTART_APP"),
    (106, "SMBPBI_TEST_MESSAGE", "SMBPBI Test Message", "info", "IGNORE"),
    (107, "SMBPBI_TEST_MESSAGE_SILENT", "SMBPBI Test Message Silent", "info", "IGNORE"),
    (109, "RC_CTXSW_TIMEOUT_ERROR", "Context Switch Timeout Error", "driver", "RESET_GPU"),
    (110, "SEC_FAULT_ERROR", "Security Fault Error", "board", "RESET_GPU"),
    (119, "GSP_RPC_TIMEOUT", "GSP RPC Timeout", "driver", "RESET_GPU"),
    (120, "GSP_ERROR", "GSP Error", "driver", "RESET_GPU"),
    (121, "C2C_ERROR", "C2C Error", "link", "IGNORE"),
    (126, "RC_CE10_ERROR", "Copy engine 10: unknown error", "driver", "RESTART_APP"),
    (127, "RC_CE11_ERROR", "Copy engine 11: unknown error", "driver", "RESTART_APP"),
    (128, "RC_CE12_ERROR", "Copy engine 12: unknown error", "driver", "RESTART_APP"),
    (129, "RC_CE13_ERROR", "Copy engine 13: unknown error", "driver", "RESTART_APP"),
    (130, "RC_CE14_ERROR", "Copy engine 14: unknown error", "driver", "RESTART_APP"),
    (131, "RC_CE15_ERROR", "Copy engine 15: unknown error", "driver", "RESTART_APP"),
    (132, "RC_CE16_ERROR", "Copy engine 16: unknown error", "driver", "RESTART_APP"),
    (133, "RC_CE17_ERROR", "Copy engine 17: unknown error", "driver", "RESTART_APP"),
    (134, "RC_CE18_ERROR", "Copy engine 18: unknown error", "driver", "RESTART_APP"),
    (135, "RC_CE19_ERROR", "Copy engine 19: unknown error", "driver", "RESTART_APP"),
    (136, "ALI_TRAINING_FAIL", "Link Training Failed", "link", "RESET_GPU"),
    (137, "NVLINK_PRIV_ERR", "NVLink Privilege Error", "link", "IGNORE"),
    (139, "RC_OFA1_ERROR", "OFA1 Error", "driver", "RESTART_APP"),
    (140, "UNRECOVERABLE_ECC_ERROR_ESCAPE", "ECC Unrecovered Error", "memory", "RESET_GPU"),
    (141, "RC_FAST_PATH_ERROR", "CUDA Fast Path Error", "application", "IGNORE"),
    (142, "RC_NVENC3_ERROR", "NVENC3 Error", "driver", "CONTACT_SUPPORT"),
    (143, "GPU_INIT_ERROR", "GPU Initialization Error", "board", "RESET_GPU"),
    (144, "NVLINK_SAW_ERROR", "NVLINK: SAW Error", "link", "WORKFLOW_NVLINK5_ERR"),
    (145, "NVLINK_RLW_ERROR", "NVLINK: RLW Error", "link", "WORKFLOW_NVLINK5_ERR"),
    (146, "NVLINK_TLW_ERROR", "NVLINK: TLW Error", "link", "WORKFLOW_NVLINK5_ERR"),
    (147, "NVLINK_TREX_ERROR", "NVLINK: TREX Error", "link", "WORKFLOW_NVLINK5_ERR"),
    (148, "NVLINK_NVLPW_CTRL_ERROR", "NVLINK: NVLPW_CTRL Error", "link", "WORKFLOW_NVLINK5_ERR"),
    (149, "NVLINK_NETIR_ERROR", "NVLINK: NETIR Error", "link", "WORKFLOW_NVLINK5_ERR"),
    (150, "NVLINK_MSE_ERROR", "NVLINK: MSE Error", "link", "WORKFLOW_NVLINK5_ERR"),
    (151, "RC_KEY_ROTATION_ERROR", "Key rotation Error", "driver", "RESTART_VM"),
    (152, "RC_DLA_SMMU_ERROR", "DLA SMMU Error", "info", "IGNORE"),
    (153, "RC_DLA_TIMEOUT", "DLA timeout Error", "info", "IGNORE"),
    (154, "GPU_RECOVERY_ACTION_CHANGED", "GPU Recovery Action Changed", "info", "XID_154"),
    (155, "NVLINK_SW_DEFINED_ERROR", "NVLINK: SW Defined Error", "link", "RESET_GPU"),
    (156, "RESOURCE_RETIREMENT_EVENT", "Resource Retirement Event", "info", "RESET_GPU"),
    (157, "RESOURCE_RETIREMENT_FAILURE", "Resource Retirement Failure", "memory", "IGNORE"),
    (158, "GPU_FATAL_TIMEOUT", "GPU Fatal Timeout", "board", "RESET_GPU"),
    (159, "RC_CHI_NON_DATA_ERROR", "CHI Non-Data Error", "link", "CHECK_UVM"),
    (160, "CHANNEL_RETIREMENT_EVENT", "Channel Retirement Event", "info", "IGNORE"),
    (161, "CHANNEL_RETIREMENT_FAILURE", "Channel Retirement Failure", "info", "IGNORE"),
    (162, "PSHC_REENGAGED", "power-smoothing circuit capability reengaged", "info", ""),
    (163, "PSHC_DISENGAGED", "power-smoothing circuit capability disengaged", "info", ""),
    (164, "PSHC_LOW_LIFETIME", "power-smoothing circuit low lifetime reached", "info", ""),
    (165, "PSHC_ZERO_LIFETIME", "power-smoothing circuit lifetime exhausted", "info", ""),
    (166, "NVLINK_SECURE_CRYPTO_ERR", "Confidential-computing traffic before link was set for encryption", "link", ""),
    (167, "PCIE_FATAL_TIMEOUT", "PCIE_FATAL_TIMEOUT", "link", ""),
    (168, "REDUCED_GPU_MEMORY_CAPACITY", "Errors in write-protected region", "memory", ""),
    (169, "SEC2_HALT_ERROR", "Internal micro-controller halt", "board", ""),
    (170, "NVLINK_SECURE_OTHER", "Interrupt seen in CC mode", "link", ""),
    (171, "UNCORRECTABLE_DRAM_ERROR", "uncorrectable DRAM error", "memory", ""),
    (172, "UNCORRECTABLE_SRAM_ERROR", "uncorrectable SRAM error", "memory", ""),
)
