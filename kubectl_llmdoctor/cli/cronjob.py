"""The manifests that run an audit in the cluster: who it is, what it may read, when it runs, where its report stays."""

from __future__ import annotations

from pathlib import Path

from kubectl_llmdoctor.errors import UsageError
from kubectl_llmdoctor.expressions import expression

#: What container runtimes take as the name of an image.
_IMAGE = expression(r"[a-zA-Z0-9][\w.:/@-]{0,400}")
_NAMESPACE = expression(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


def manifests(image: str, namespace: str) -> str:
    """YAML of a Namespace's worth of objects that runs `image` every night. Raises UsageError for names that are none."""
    if not _IMAGE.fullmatch(image):
        raise UsageError(f"--print-cronjob {image}: not the name of an image")
    if not _NAMESPACE.fullmatch(namespace):
        raise UsageError(f"-n {namespace}: not the name of a namespace")
    text = Path(__file__).with_name("cronjob.yaml").read_text(encoding="utf-8")
    return text.replace("IMAGE", image).replace("NAMESPACE", namespace)
