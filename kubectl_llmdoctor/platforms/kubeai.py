"""KubeAI: Model (internal/modelcontroller/engine_vllm.go, engine_ollama.go)."""

from __future__ import annotations

from kubectl_llmdoctor.platforms.labels import MANAGED_BY
from kubectl_llmdoctor.tree import say, table

from .built import Args, probe
from .pointer import Json
from .template import Finder, Template, name_of, with_shm

#: KubeAI's engines: the command, the image that stands for the one of its configuration, the first arguments.
_KUBEAI: dict[str, tuple[list[str], str]] = {
    "VLLM": (["python3", "-m", "vllm.entrypoints.openai.api_server"], "vllm"),
    "OLlama": ([], "ollama/ollama"),
}


def kubeai_model(raw: Json, _find: Finder) -> list[Template]:
    """KubeAI: a pod with the container `server`; image and resources come from the profile in KubeAI's own settings."""
    spec = table(raw.get("spec"))
    if str(spec.get("engine")) not in _KUBEAI:
        return []
    command, image = _KUBEAI[str(spec["engine"])]
    url, args = str(spec.get("url") or ""), Args()
    scheme, _, reference = url.partition("://")
    if command:
        served = {"pvc": "/model", "s3": url}.get(scheme, reference.partition("?")[0])
        args.words += [f"--model={served}", f"--served-model-name={name_of(raw)}"]
        args.places += [("/containers/0/args/0", "/spec/url"), ("/containers/0/args/1", "/metadata/name")]
        if scheme == "s3":
            args.words.append("--load-format=runai_streamer")
    args.rest(spec.get("args"), "/spec/args")
    env = [{"name": key, "value": say(value)} for key, value in sorted(table(spec.get("env")).items())]
    container: Json = {
        "name": "server",
        "image": str(spec.get("image") or image),
        "args": args.words,
        "env": env if command else [{"name": "OLLAMA_HOST", "value": "0.0.0.0:8000"}, *env],
        "ports": [{"name": "http", "containerPort": 8000}],
    }
    if command:
        container["command"] = command
        container["startupProbe"] = probe("/health", "http", 0, 2, 5400)
    else:  # a command pulls the model, for up to three hours
        container["startupProbe"] = {"exec": {"command": ["bash", "-c", "/bin/ollama pull"]}, "timeoutSeconds": 10800}
    container["readinessProbe"] = probe("/health" if command else "/", "http", 0, 10, 3)
    container["livenessProbe"] = probe("/health" if command else "/", "http", 0 if command else 900, 30, 3)
    pod = with_shm({"containers": [container]}, 0)
    places = (("", ""), ("/containers/0/args", ""), ("/containers/0/image", "/spec/image"), *args.places)
    labels = {"app": "model", "model": name_of(raw), MANAGED_BY: "kubeai"}
    return [Template(raw=raw, pod={"metadata": {"labels": labels}, "spec": pod}, places=places, partial=True)]
