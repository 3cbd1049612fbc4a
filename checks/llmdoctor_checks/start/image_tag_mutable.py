"""An image whose tag moves."""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Fix, Pod, Workload, check, fixes, pod_evidence

#: Tags that name another image after each release of their publisher.
_MOVES = (
    r"^(?:latest|nightly|main|master|dev|edge|stable|(?:server|full|light)(?:-(?:cuda|rocm|vulkan|intel|musa))?)$"
    r"|-latest$|^latest-"
)


@check("image-tag-mutable", since="0.2", severity="info")
def image_tag_mutable(pod: Pod, engine: Engine, workload: Workload | None) -> Iterator[Finding]:
    """The image's tag moves: what runs after the next restart may be another release.

    `latest`, `nightly` or no tag at all name whatever the publisher pushed last. A pod that is recreated, on another
    node or by an autoscaler, then runs another release than its siblings: flags that were removed end it at once, other
    defaults change how much memory it takes, and a rollback brings nothing back. For `latest` and for no tag Kubernetes
    asks the registry at every start.

    ## Fix

    Name a release, or pin the digest that runs now.

    ## References

    - https://kubernetes.io/docs/concepts/containers/images/#image-names
    """
    container = engine.container
    image = container.spec.image
    if not image or any(mark in image for mark in "@${<") or container.told or pod.partial:
        return  # a digest, a name that is yet to be filled in, or one that an operator chooses
    if engine.announced:
        return  # an image of somebody's own, who knows what moves
    tag = image.rpartition("/")[2].partition(":")[2]
    if tag and not re.search(_MOVES, tag):
        return
    replicas = workload.replicas if workload else None
    several = replicas is not None and replicas > 1
    effect = f"{replicas} replicas may run different releases" if several else "a recreated pod may run another release"
    yield Finding(
        role="note",
        confidence="certain",
        summary=f"{image} {'names' if tag else 'has no tag, which is latest, and names'} what its publisher pushed last: "
        f"{effect} of {engine.title}.",
        evidence=(pod_evidence(container, "image", image),),
        fix=_fix(pod, engine),
    )


def _fix(pod: Pod, engine: Engine) -> Fix:
    """The digest that runs now, where it is known."""
    container = engine.container
    digest = container.status.image_id.rpartition("@")[2]
    if digest.startswith("sha256:"):
        last = container.spec.image.rpartition("/")
        name = f"{last[0]}{last[1]}{last[2].partition(':')[0]}"
        return fixes.set_image(container, f"{name}@{digest}", "Pin the image that runs now")
    return fixes.advice(f"Name a release of {engine.title} as the tag in {fixes.edited(pod)}")
