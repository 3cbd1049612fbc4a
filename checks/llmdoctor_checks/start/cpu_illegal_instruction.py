"""A container that ended by SIGILL, whatever its log says."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Finding, Node, Pod, check, endings, fixes, node_evidence, pod_evidence
from llmdoctor_checks._consequences import FAILED_START

#: 128 + SIGILL, as the runtime and shells report it.
_CODE = 132


@check("cpu-illegal-instruction", since="0.1")
def cpu_illegal_instruction(pod: Pod, node: Node | None) -> Iterator[Finding]:
    """The processor lacks instructions that the image was built for.

    The image's programs or libraries use vector instructions (AVX, AVX2, AVX-512, AMX) that the node's processor does not
    have, or that its virtual machine hides. The process dies of SIGILL, exit code 132, usually within the first second and
    often without a line in its log. vLLM's CPU images want AVX-512, llama.cpp builds follow the machine that built them. An
    illegal instruction on the GPU, which CUDA reports, is something else.

    ## Fix

    Use an image built for a lower level, or select nodes whose processor has the instructions; let the hypervisor pass the
    processor's features through (CPU model `host`).

    ## References

    - https://docs.vllm.ai/en/latest/getting_started/installation/cpu/
    - https://github.com/ggml-org/llama.cpp/blob/master/docs/build.md
    """
    for ending in endings(pod):
        if ending.code != _CODE or ending.container.role == "init":
            continue
        where = pod.spec.node_name or "its node"
        labels = node.labels if node else {}
        known = sorted(key for key in labels if key.startswith("feature.node.kubernetes.io/cpu-cpuid.AVX"))
        yield Finding(
            summary=f"{ending.container.name} ended by SIGILL (exit code {_CODE}): it used an instruction that the processor of "
            f"{where} does not have.",
            evidence=(
                pod_evidence(pod, ending.path, ending.text),
                *((node_evidence(node, f"labels: {', '.join(known)}"),) if node and known else ()),
            ),
            explains=(*FAILED_START, "engine-dead", "worker-lost"),
            fix=fixes.advice(
                f"Where {where} is a virtual machine, give it the processor of its host (cpu host or host-passthrough in place of "
                "kvm64 or qemu64), which has AVX2; else bind the pod to nodes with a newer processor, or use an image built for "
                "this one (AVX2, AVX-512 and AMX are the usual ones missing)"
            ),
        )
        return
