"""OME: InferenceService and its runtimes (pkg/apis/ome/v1beta1): an engine and a decoder with a runner each."""

from __future__ import annotations

from kubectl_llmdoctor.tree import dig, rows, table

from .pointer import Json
from .template import Finder, Template


def ome_service(raw: Json, _find: Finder) -> list[Template]:
    """OME: what the service says of its engine and decoder; the rest comes from a runtime."""
    return _ome(raw, (("engine", "engine"), ("decoder", "decoder"), ("predictor", "predictor")), context=False)


def ome_runtime(raw: Json, _find: Finder) -> list[Template]:
    """OME: what services are made from."""
    return _ome(raw, (("engineConfig", "engine"), ("decoderConfig", "decoder")), context=True)


def _ome(raw: Json, fields: tuple[tuple[str, str], ...], *, context: bool) -> list[Template]:
    found = []
    for field, part in fields:
        whole = table(dig(raw, f"spec.{field}"))
        for inner, suffix in (("", ""), ("leader", " leader"), ("worker", " worker")):
            spec = table(whole.get(inner)) if inner else whole
            runner = spec.get("runner")
            if not isinstance(runner, dict):
                continue
            at = f"/spec/{field}/{inner}".rstrip("/")
            own = [c for c in rows(spec.get("containers")) if c.get("name") != runner.get("name")]
            keep = ("runner", "leader", "worker", "containers", "minReplicas", "maxReplicas", "size")
            pod = {key: value for key, value in spec.items() if key not in keep}
            pod["containers"] = [{"name": "ome-container", **runner}, *own]
            places = (("", at), ("/containers", ""), ("/containers/0", f"{at}/runner"))
            nodes = None if inner else 1
            template = {"metadata": {}, "spec": pod}
            found.append(
                Template(
                    raw=raw, pod=template, places=places, part=part + suffix, nodes=nodes, partial=True, context=context
                )
            )
    return found
