"""A memory limit of a few MiB."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Container, Finding, check, expression, fixes, pod_evidence, say_bytes
from llmdoctor_checks.memory._killed import HOOK_BYTES

#: A number with no unit or with one that is a thousand times too small, as a slip leaves it: `8` and `8Mi` for `8Gi`.
_SLIP = expression(r"(\d{1,3})(?:Mi?)?")


@check("hook-oomkilled", since="0.1")
def hook_oomkilled(container: Container) -> Iterator[Finding]:
    """The runtime's hook was killed for memory.

    The runtime starts a process inside the container's memory limit to set the container up, and NVIDIA's hook runs
    there, too. With a limit of a few MiB, often a slip in the unit (`512m` means half a byte), the kernel kills it
    before the engine's first instruction. The state shows StartError or RunContainerError and no log exists.

    In manifests this is said of a container with a GPU whose limit is below 64 MiB.

    ## Fix

    Correct the memory limit and its unit.

    ## References

    - https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/#meaning-of-memory
    """
    limit, written = container.limit("memory"), container.spec.resources.limits.get("memory")
    if container.pod.exists or container.pod.lent or limit is None or limit >= HOOK_BYTES or not container.gpus:
        return
    slip = _SLIP.fullmatch(str(written))
    unit = " (m is a thousandth)" if str(written).endswith("m") else ""
    summary = "Correct the unit of the memory limit"
    meant = f"{slip[1]}Gi" if slip and int(slip[1]) > 1 else None
    yield Finding(
        role="risk",
        severity="critical",
        summary=f"The memory limit of {container.name} is {written}, which is {say_bytes(limit)}{unit}: too little for the "
        "runtime's own process and the GPU hook, which are killed before the server starts.",
        evidence=(pod_evidence(container, "resources.limits.memory", str(written)),),
        fix=fixes.set_resource(container, "limits", "memory", meant, f"{summary}: {meant}")
        if meant
        else fixes.advice(f"{summary} of {container.name} in {fixes.edited(container.pod)}"),
    )
