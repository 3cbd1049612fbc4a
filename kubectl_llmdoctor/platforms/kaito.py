"""KAITO: Workspace and InferenceSet (api/v1beta1, pkg/workspace/inference): a template, or a preset that vLLM serves."""

from __future__ import annotations

from typing import Any

from kubectl_llmdoctor.tree import dig, say, table
from kubectl_llmdoctor.yamltext import load_yaml

from .pointer import Json, pointer_to
from .template import Finder, Template, Told, namespace_of


def workspace(raw: Json, find: Finder) -> list[Template]:
    """KAITO: the template as it stands, or the preset's pod, which runs vLLM unless an annotation wants transformers."""
    return _kaito(raw, "inference", table(dig(raw, "metadata.annotations")), find)


def inference_set(raw: Json, find: Finder) -> list[Template]:
    """KAITO: the Workspace that each replica of a set is."""
    own, inner = (dig(raw, f"{path}.annotations") for path in ("metadata", "spec.template.metadata"))
    return _kaito(raw, "spec.template.inference", {**table(own), **table(inner)}, find)


def _kaito(raw: Json, at: str, annotations: Json, find: Finder) -> list[Template]:
    inference = table(dig(raw, at))
    template = inference.get("template")
    if isinstance(template, dict):
        places = (("", f"{pointer_to(at)}/template/spec"),)
        return [Template(raw=raw, pod=template, places=places, nodes=None)]
    preset = dig(inference, "preset.name")
    if not isinstance(preset, str) or annotations.get("kaito.sh/runtime") == "transformers":
        return []
    words, texts, places_of = _kaito_config(raw, inference.get("config"), find)
    told = Told(
        container="inference",
        argv=("vllm", "serve", preset, *words),
        skip=2,
        texts=(f"preset: {preset}", *texts),
        places=(f"{at}.preset.name", *places_of),
        path=f"{at}.preset",
    )
    pod = {"metadata": {}, "spec": {"containers": [{"name": "inference"}]}}
    return [Template(raw=raw, pod=pod, places=(("", ""),), base=f"{at}.preset", nodes=None, partial=True, told=(told,))]


def _kaito_config(raw: Json, name: Any, find: Finder) -> tuple[list[str], list[str], list[str]]:
    """The options of vLLM in the ConfigMap that a preset names: words, how each stands there, and where.

    presets/workspace/inference/vllm/inference_api.py makes an option of each key under `vllm`.
    """
    item = find("ConfigMap", namespace_of(raw), name) if isinstance(name, str) and name else None
    text = table(dig(item, "data")).get("inference_config.yaml")
    if not isinstance(text, str):
        return [], [], []
    tree = load_yaml(text)
    given = {
        str(key): say(value)
        for key, value in table(dig(tree, "vllm")).items()
        if isinstance(value, str | int | float) and not isinstance(value, bool)
    }
    words = [f"--{key}={value}" for key, value in given.items()]
    texts = [f"{key}: {value}" for key, value in given.items()]
    return words, texts, [f"ConfigMap/{name} data[inference_config.yaml]"] * len(words)
