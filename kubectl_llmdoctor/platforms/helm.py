"""Releases of the chart app-template, whose values are the pods themselves (bjw-s-labs/helm-charts): Flux's HelmRelease, Argo CD's
Application (argoproj/argo-cd pkg/apis/application/v1alpha1/types.go), and the HelmChart of K3s (helm.cattle.io/v1).

Read by the form of the values, since a release may call its source as it likes: `controllers`, each with `containers` that
have an `image`. Values of other charts say what a pod is in words of their own, and lead to no template here.
"""

from __future__ import annotations

from typing import Any

import msgspec

from kubectl_llmdoctor.tree import dig, rows, say, table
from kubectl_llmdoctor.yamltext import load_yaml

from .pointer import Json, escaped, show
from .template import Finder, Template

_PROBES = {"liveness": "livenessProbe", "readiness": "readinessProbe", "startup": "startupProbe"}
_KEPT = ("workingDir", "lifecycle", "resources", "securityContext", "restartPolicy")
#: What of a container the values say in a form of their own, or elsewhere.
_OTHERWISE = ("name", "image", "env", "envFrom", "ports", "volumeMounts", "volumeDevices", *_PROBES.values())

#: What the library adds where the values say nothing (charts/library/common/values.yaml).
_POD_DEFAULTS: Json = {"enableServiceLinks": False, "automountServiceAccountToken": False}


def release(raw: Json, _find: Finder) -> list[Template]:
    """Flux."""
    return _templates(raw, table(dig(raw, "spec.values")), "/spec/values")


def application(raw: Json, _find: Finder) -> list[Template]:
    """Argo CD: of one source or of several, as an object, or as a text, which the object comes before."""
    sources = [("/spec/source", table(dig(raw, "spec.source")))]
    sources += [(f"/spec/sources/{index}", one) for index, one in enumerate(rows(raw, "spec.sources"))]
    found = []
    for at, source in sources:
        helm = table(source.get("helm"))
        if isinstance(helm.get("valuesObject"), dict):
            found += _templates(raw, helm["valuesObject"], f"{at}/helm/valuesObject")
        elif isinstance(helm.get("values"), str):
            found += _templates(raw, table(load_yaml(helm["values"])), f"{at}/helm/values", text=True)
    return found


def chart(raw: Json, _find: Finder) -> list[Template]:
    """K3s and RKE2, whose values are a text."""
    content = dig(raw, "spec.valuesContent")
    values = table(load_yaml(content)) if isinstance(content, str) else {}
    return _templates(raw, values, "/spec/valuesContent", text=True)


def _templates(raw: Json, values: Json, at: str, *, text: bool = False) -> list[Template]:
    """One template for each controller; `at` is where the values stand, of a text as a whole."""
    controllers = [
        (name, controller)
        for name, controller in table(values.get("controllers")).items()
        if isinstance(controller, dict) and controller.get("enabled") is not False and _containers(controller)
    ]
    found = [_template(raw, values, at, name, controller, len(controllers) > 1) for name, controller in controllers]
    # no patch reaches into a text
    return (
        [msgspec.structs.replace(one, places=(("", ""),), base=show(raw, at), text=True) for one in found]
        if text
        else found
    )


def _containers(controller: Json, field: str = "containers") -> dict[str, Json]:
    """Its containers by name, those that are switched on and say which image they run."""
    return {
        name: container
        for name, container in table(controller.get(field)).items()
        if isinstance(container, dict) and container.get("enabled") is not False and container.get("image")
    }


def _template(raw: Json, values: Json, root: str, name: str, controller: Json, several: bool) -> Template:
    at = f"{root}/controllers/{escaped(name)}"
    shared, own = table(values.get("defaultPodOptions")), table(controller.get("pod"))
    pod: Json = {**_POD_DEFAULTS, **shared, **own}
    places = [("", "")]
    for field in pod:
        inside = f"{at}/pod" if field in own else f"{root}/defaultPodOptions" if field in shared else ""
        places.append((f"/{field}", f"{inside}/{field}" if inside else ""))
    if "nodeSelector" not in pod:
        places.append(("/nodeSelector", f"{at}/pod/nodeSelector"))
    volumes, mounts = _persistence(values, name)
    for field in ("containers", "initContainers"):
        listed = []
        for index, (key, container) in enumerate(_containers(controller, field).items()):
            where = f"{at}/{field}/{escaped(key)}"
            listed.append(_container(key, container, [m for whose, m in mounts if whose in ("", key)]))
            places.append((f"/{field}/{index}", where))
            scripts = [word for word in ("args", "command") if not isinstance(container.get(word), list)]
            places += [(f"/{field}/{index}/{word}", "") for word in (*_OTHERWISE, *scripts)]
        pod[field] = listed
    pod["volumes"] = volumes
    return Template(
        raw=raw,
        pod={"metadata": {"labels": table(own.get("labels"))}, "spec": pod},
        places=tuple(places),
        part=name if several else "",
        base=f"{root.strip('/').replace('/', '.')}.controllers.{name}",
        completed=True,
        namespace=say(dig(raw, "spec.targetNamespace") or dig(raw, "spec.destination.namespace") or ""),
    )


def _container(name: str, given: Json, mounts: list[Json]) -> Json:
    container: Json = {"name": name, "image": _image(given["image"]), "env": _variables(given.get("env"))}
    for field in ("command", "args"):
        value = given.get(field)
        if value is not None and not isinstance(value, dict):
            container[field] = value if isinstance(value, list) else [say(value)]
    for field in _KEPT:
        if field in given:
            container[field] = given[field]
    container["envFrom"] = [
        source for source in rows(given.get("envFrom")) if "secretRef" in source or "configMapRef" in source
    ]
    probes = table(given.get("probes"))
    for key, field in _PROBES.items():
        probe = table(probes.get(key))
        if probe.get("custom") is True and probe.get("enabled") is not False and isinstance(probe.get("spec"), dict):
            container[field] = probe["spec"]
    container["volumeMounts"] = mounts
    return container


def _image(image: Any) -> str:
    if not isinstance(image, dict):
        return say(image)
    digest = f"@{image['digest']}" if image.get("digest") else ""
    tag = f":{say(image['tag'])}" if image.get("tag") not in (None, "") else ""
    return f"{image.get('repository') or ''}{tag}{digest}"


def _variables(env: Any) -> list[Json]:
    """A list as Kubernetes has it, or a mapping from the name to a value, or to what a variable has besides its name."""
    if not isinstance(env, dict):
        return rows(env)
    found = []
    for name, value in env.items():
        if isinstance(value, dict):
            kept = {key: value[key] for key in ("value", "valueFrom") if key in value}
            found.append({"name": name, **kept})
        elif value is not None and not isinstance(value, list):
            found.append({"name": name, "value": say(value)})
    return found


def _persistence(values: Json, controller: str) -> tuple[list[Json], list[tuple[str, Json]]]:
    """The volumes of a controller, and their mounts, each with the container that has it; empty for all of them."""
    volumes, mounts = [], list[tuple[str, Json]]()
    for name, item in table(values.get("persistence")).items():
        if not isinstance(item, dict) or item.get("enabled") is False:
            continue
        advanced = table(item.get("advancedMounts"))
        if advanced and controller not in advanced and not item.get("globalMounts"):
            continue
        volumes.append({"name": name, **_volume(name, item)})
        given = rows(item.get("globalMounts"))
        if not given and not advanced:
            given = [{"path": item["hostPath"] if item.get("hostPath") else f"/{name}"}]
        placed = [("", mount) for mount in given]
        for container, listed in table(advanced.get(controller)).items():
            placed += [(container, mount) for mount in rows(listed)]
        for container, mount in placed:
            kept: Json = {key: mount[key] for key in ("readOnly", "subPath") if key in mount}
            path = mount.get("path") or f"/{name}"
            mounts.append((container, {"name": name, "mountPath": say(path), **kept}))
    return volumes, mounts


def _volume(name: str, item: Json) -> Json:
    kind = str(item.get("type") or "persistentVolumeClaim")
    if kind == "emptyDir":
        return {"emptyDir": {key: item[key] for key in ("medium", "sizeLimit") if key in item}}
    if kind == "hostPath":
        return {"hostPath": {"path": say(item.get("hostPath") or "")}}
    if kind == "nfs":
        return {"nfs": {key: item[key] for key in ("server", "path") if key in item}}
    if kind in ("configMap", "secret"):
        key = "name" if kind == "configMap" else "secretName"
        return {kind: {key: say(item.get("name") or item.get("identifier") or name), "optional": True}}
    if kind == "custom":
        return table(item.get("volumeSpec"))
    return {"persistentVolumeClaim": {"claimName": say(item.get("existingClaim") or name)}}
