"""Commands that run on a node, for one with Talos: its host has no shell, and only its API reaches it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts.subject import Subject
from kubectl_llmdoctor.report import document as doc

_ON_NODE = expression(
    r"kubectl debug node/(?P<node>[^\s]{1,253}) [^|;&]{0,200}? -- chroot /host (?P<command>.{1,2000})"
)
_KERNEL_LOG = expression(r"sh -c 'dmesg(?: -T)?(?P<rest>(?: \|[^'|;&]{1,200}){0,2})'")


def reachable(finding: doc.Finding, subject: Subject) -> doc.Finding:
    """The finding with the commands that can be run: those for the host of such a node say the same to its API, or are left out."""
    if not any(" chroot /host " in command for fix in finding.fixes for command in fix.commands):
        return finding
    fixes = (msgspec.structs.replace(fix, commands=tuple(_for_node(fix, subject))) for fix in finding.fixes)
    return msgspec.structs.replace(finding, fixes=tuple(fixes))


def _for_node(fix: doc.Fix, subject: Subject) -> Iterator[str]:
    for command in fix.commands:
        said = _ON_NODE.fullmatch(command)
        node = subject.nodes.get(said["node"]) if said else None
        if said is None or node is None or not node.talos:
            yield command
        elif (log := _KERNEL_LOG.fullmatch(said["command"])) is not None:
            yield f"talosctl -n {said['node']} dmesg{log['rest']}"
