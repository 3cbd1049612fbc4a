"""Server-side dry runs of patches: whether the API server takes them, and the object as it would be. Nothing is changed.

Admission plugins and webhooks run, as they would for the real patch; the API server keeps nothing (`dryRun=All`). The
user needs the right to patch the object.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kubectl_llmdoctor.gather import kinds
from kubectl_llmdoctor.gather.failure import RequestError
from kubectl_llmdoctor.gather.kinds import Kind
from kubectl_llmdoctor.gather.session import Cluster
from kubectl_llmdoctor.snapshot import MASK, Json

_TYPES = {
    "json": "application/json-patch+json",
    "merge": "application/merge-patch+json",
    "strategic": "application/strategic-merge-patch+json",
}


def dry_run(cluster: Cluster, target: str, namespace: str, patch_type: str, body: Any) -> tuple[Json | None, str]:
    """The object after a patch, masked; None, and why, where the API server refuses it.

    `target` is `apps/v1 Deployment/llama`.
    """
    from kubectl_llmdoctor.redact import mask_object

    api_version, _, ref = target.partition(" ")
    kind_name, _, name = ref.partition("/")
    kind = kinds.by_type(api_version, kind_name) or _guessed(api_version, kind_name)
    data = msgspec.json.encode(body)
    if MASK.encode() in data:
        return None, "it would write back a value that is masked here"
    path = next(kind.paths(namespace, name))
    try:
        found = cluster.client.patch(path, {"dryRun": "All"}, data, _TYPES[patch_type], decode=msgspec.json.decode)
    except RequestError as error:
        return None, error.reason
    return (mask_object(found), "") if isinstance(found, dict) else (None, "the answer is no object")


def _guessed(api_version: str, kind: str) -> Kind:
    """A kind that no table has, in the plural that most custom resources use."""
    group, _, version = api_version.rpartition("/")
    return Kind(kind, f"{kind.lower()}s", group, (version,))
