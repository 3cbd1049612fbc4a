"""Commands for a node with Talos, whose host has no shell."""

from dataclasses import replace
from pathlib import Path

import msgspec

from kubectl_llmdoctor.report.document import Target
from kubectl_llmdoctor.testing import diagnose_case, load_case

CASES = Path(__file__).parents[1] / "checks" / "cases"


def _commands(target: Target) -> list[str]:
    return [command for finding in target.findings for fix in finding.fixes for command in fix.commands]


def test_what_is_run_on_a_node_is_asked_of_its_api() -> None:
    commands = _commands(diagnose_case(load_case(CASES / "fabric-manager-down" / "fires_talos.yaml")).targets[0])
    assert "talosctl -n gpu-1 logs ext-nvidia-fabricmanager" in commands
    assert not [command for command in commands if "chroot /host" in command]


def test_the_kernels_log_is_read_there() -> None:
    case = load_case(CASES / "gpu-fallen-off" / "fires_vulkan_device_lost.yaml")
    assert [command for command in _commands(diagnose_case(case).targets[0]) if " chroot /host sh -c 'dmesg" in command]
    name = next(item["spec"]["nodeName"] for item in case.snapshot.objects if item["kind"] == "Pod")
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"nodeInfo": {"osImage": "Talos (v1.12.0)"}},
    }
    objects = [item for item in case.snapshot.objects if item["kind"] != "Node"]
    case = replace(case, snapshot=msgspec.structs.replace(case.snapshot, objects=[*objects, node]))
    commands = _commands(diagnose_case(case).targets[0])
    assert [command for command in commands if command.startswith(f"talosctl -n {name} dmesg | grep ")]
    assert not [command for command in commands if "chroot /host" in command]
