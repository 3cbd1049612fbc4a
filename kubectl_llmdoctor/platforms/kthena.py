"""kthena: ModelBooster (pkg/model-booster-controller/convert/model_serving.go)."""

from __future__ import annotations

from kubectl_llmdoctor.tree import rows, say, table

from .built import Args, probe
from .pointer import Json
from .template import Finder, Template, named


def model_booster(raw: Json, _find: Finder) -> list[Template]:
    """kthena: a ModelServing with one role per worker of the backend; `config` holds vLLM's arguments."""
    spec = table(raw.get("spec"))
    listed = spec.get("backend")
    backends = [("/spec/backend", listed)] if isinstance(listed, dict) else []
    backends += [(f"/spec/backends/{i}", b) for i, b in enumerate(rows(spec.get("backends")))]
    found = []
    for at, backend in backends:
        if not str(backend.get("type") or "").startswith("vLLM"):
            continue
        for index, worker in enumerate(rows(backend.get("workers"))):
            found.append(_booster(raw, backend, worker, f"{at}/workers/{index}"))
    return found


def _booster(raw: Json, backend: Json, worker: Json, at: str) -> Template:
    uri, args = str(backend.get("modelURI") or ""), Args()
    base = at.rpartition("/workers/")[0]
    args.words += ["-m", "vllm.entrypoints.openai.api_server", "--model", uri]
    args.places.append(("/containers/0/args/3", f"{base}/modelURI"))
    for key, value in sorted(table(worker.get("config")).items()):
        flag = "--" + key.replace("_", "-")
        kebab = "".join(f"-{c.lower()}" if c.isupper() else c for c in flag)
        if isinstance(value, dict | list):
            continue
        args.words += [kebab, say(value)]
        args.places.append((f"/containers/0/args/{len(args.words) - 1}", f"{at}/config/{key}"))
    pods = worker.get("pods")
    container: Json = {
        "name": "engine",
        "image": str(worker.get("image") or ""),
        "command": ["python3"],
        "args": args.words,
        "env": named(backend.get("env"), []),
        "resources": table(worker.get("resources")),
        "readinessProbe": probe("/health", 8000, 180, 5, 3),
    }
    places = [("", ""), ("/containers/0/resources", f"{at}/resources"), ("/containers/0/image", f"{at}/image")]
    places += [("/containers/0/env", f"{base}/env"), *args.places]
    places += [("/tolerations", f"{at}/tolerations"), ("/affinity", f"{at}/affinity")]
    kind = str(worker.get("type") or "server")
    pod = {k: worker[k] for k in ("tolerations", "affinity") if worker.get(k)} | {"containers": [container]}
    nodes = pods if isinstance(pods, int) and pods > 1 else 1
    return Template(
        raw=raw, pod={"metadata": {}, "spec": pod}, places=tuple(places), part=kind, nodes=nodes, completed=True
    )
