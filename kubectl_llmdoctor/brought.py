"""What a container has its files and its variables from, and how it gets one that it lacks.

A message names a file or a variable; the object behind it (a key of a ConfigMap or Secret, a volume) is what a person edits.
"""

from __future__ import annotations

import difflib
import re
import shlex
from collections.abc import Iterable, Iterator

import msgspec

from kubectl_llmdoctor import fixes
from kubectl_llmdoctor.expressions import expression
from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.container import Container
from kubectl_llmdoctor.facts.subject import workload_of
from kubectl_llmdoctor.managed import keeper
from kubectl_llmdoctor.report.document import Fix
from kubectl_llmdoctor.stating import given, holding

#: Names of variables whose values nobody writes into a manifest.
_SECRET = expression(r"(?:^|_)(?:API|KEY|KEYS|TOKEN|SECRET|PASSWORD|PASSWD|PASS|CREDENTIALS|LICEN[CS]E)(?:_|$)")

#: Of which workloads the pods are made anew by `rollout restart`.
RESTARTED = frozenset({"Deployment", "StatefulSet", "DaemonSet"})

#: Files that hold a certificate or its key, which no ConfigMap is for.
_OF_TLS = expression(r"\.(?:crt|cert|key|pem|p12|pfx|jks)$")

#: The path of a file in a message, and a line in it.
_PATH = expression(
    r"(?<![\w.:/])(?:/[\w.+-]{1,100}){1,12}|(?<![\w/])[\w-]{1,60}\.(?:ya?ml|json|toml|conf|cfg|ini|py|pbtxt|xml|properties)\b"
)
_LINE = expression(r"(?:^[\]:, (]{1,3}|\blines?:? )(\d{1,6})\b")

#: What a line of settings begins with.
_KEY = expression(r"[ \t-]{0,60}[\"']?([\w-]{1,80})[\"']?[ \t]{0,9}[:=]")

#: A line of fewer characters may stand in any file.
_SHORT = 8
_QUOTE = expression(r"['\"`]([\w.-]{2,60})['\"`]")
_SETS = expression(r"\s{0,20}([\w.-]{2,60})[ \t]{0,9}[=:]")

#: A line of a file that is quoted in a fix has so many characters at most.
_QUOTED = 100


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """The key of a ConfigMap or Secret that stands in a container as a file."""

    kind: str
    name: str
    #: empty where the object has no key for that file
    key: str
    keys: tuple[str, ...]
    mount: k8s.VolumeMount

    @property
    def ref(self) -> str:
        return f"{self.kind} {self.name}"

    def path_of(self, key: str) -> str:
        """Where a key of it stands in the container."""
        root = self.mount.mount_path.rstrip("/")
        return root if self.mount.sub_path else f"{root}/{key}"


def source_of(container: Container, path: str) -> Source | None:
    """What brings a file, or should bring it as it lies in its folder; None where no ConfigMap or Secret is mounted there."""
    mount = container.mount_over(path)
    volume = container.pod.volume(mount.name) if mount else None
    if mount is None or volume is None:
        return None
    if volume.config_map:
        kind, name, items = "ConfigMap", volume.config_map.name, volume.config_map.items
    elif volume.secret:
        kind, name, items = "Secret", volume.secret.secret_name, volume.secret.items
    else:
        return None
    keys = _keys(container, kind, name)
    inside = path.removeprefix(mount.mount_path.rstrip("/")).strip("/") or mount.sub_path
    shown = {item.path: item.key for item in items} or {key: key for key in keys}
    key = shown.get(inside, "") if keys or items else inside
    return Source(kind=kind, name=name, key=key, keys=keys, mount=mount)


def _keys(container: Container, kind: str, name: str) -> tuple[str, ...]:
    """The keys of a ConfigMap or Secret, as far as they are known."""
    pod = container.pod
    if kind == "ConfigMap":
        return tuple(map(str, pod.config_data(name)))
    item = pod.cluster.item(kind, pod.namespace, name)
    found = item.typed() if item else None
    return (*found.data, *found.string_data) if isinstance(found, k8s.Secret) else ()


def edits(container: Container, message: str, what: str) -> Fix | None:
    """The file that a message finds fault with is corrected where it comes from; None where that is not known."""
    path, at = _place(container, message)
    source = source_of(container, path) if path else None
    if source is None or not source.key:
        return None
    text = (container.files.get(path) or "").splitlines()
    stands = text[at - 1].strip()[:_QUOTED] if 0 < at <= len(text) else ""
    if _SECRET.search(re.split("[:=]", stands)[0].strip("\"' ").upper()):
        stands = ""
    where = f"the key {source.key} of {source.ref}" + (f", line {at}: `{stands}`" if stands else "")
    item = container.pod.config_map(source.name) if source.kind == "ConfigMap" else None
    kept = keeper(item.raw) if item else None
    told = f"{what} in {where}{f' ({kept.sentence(None)})' if kept else ''}"
    if item and item.raw.get("immutable") is True:
        return fixes.advice(
            f"{told}: it is immutable, so make it again under another name, for {fixes.edited(container.pod)}"
        )
    return Fix(summary=told, commands=(_edit(container, source), *restart(container)))


def _place(container: Container, message: str) -> tuple[str, int]:
    """The file, and the line in it, that a message speaks of: by its path, by what stands in it, or the one that the program is told of."""
    files = container.files
    for path, text in files.items():
        lines = [line.strip() for line in text.splitlines()]
        if len(message) > _SHORT and message.strip() in lines:
            return path, lines.index(message.strip()) + 1
    found = _PATH.search(message)
    line = _LINE.search(message[found.end() :] if found else message)
    at = int(line[1]) if line else 0
    if found:
        path, name = found[0], found[0].rpartition("/")[2]
        same = [p for p in files if p.rpartition("/")[2] == name]
        return (path if path.startswith("/") else same[0] if len(same) == 1 else ""), at
    words = " ".join([*map(str, container.spec.argv), *(str(v.value) for v in container.env.values() if v.value)])
    told = [path for path in files if path in words] or list(files)
    if len(told) != 1:
        return "", at
    return told[0], at or _set_at(files[told[0]], message)


def _set_at(text: str, message: str) -> int:
    """The one line of a file that sets what a message quotes; 0 where none does, or more than one."""
    quoted = {m[1] for m in _QUOTE.finditer(message)}
    places = [
        number for number, line in enumerate(text.splitlines(), 1) if (key := _SETS.match(line)) and key[1] in quoted
    ]
    return places[0] if len(places) == 1 else 0


def field(container: Container, names: Iterable[str], summary: str) -> Fix | None:
    """A setting that stands in a file of the container; None where none of these names does, or more than one."""
    places: dict[str, list[str]] = {}
    for path, text in container.files.items():
        for number, line in enumerate(text.splitlines(), 1):
            if key := _KEY.match(line):
                places.setdefault(key[1].lstrip("-").replace("-", "_"), []).append(f"{path}:{number}")
    for name in names:
        at = places.get(name.lstrip("-").replace("-", "_"), [])
        if len(at) == 1:
            return edits(container, at[0], summary.format(name=name))
    return None


def _edit(container: Container, source: Source) -> str:
    return f"kubectl -n {shlex.quote(container.pod.namespace)} edit {source.kind.lower()} {shlex.quote(source.name)}"


def restart(container: Container) -> Iterator[str]:
    """The command that makes the pods anew, so that they read what they have mounted."""
    workload = workload_of(container.pod)
    if workload and workload.kind in RESTARTED and not fixes.unread(container.pod):
        where = shlex.quote(container.pod.namespace)
        yield f"kubectl -n {where} rollout restart {workload.resource}/{shlex.quote(workload.name)}"


def brings(container: Container, path: str) -> Fix | None:
    """How a file of settings comes to where the program looks for it; None where nothing tells."""
    if "." not in path.rpartition("/")[2]:  # the beginning of it
        path = next((word for _, word in container.words if word.startswith(f"{path}.")), "")
    pod, name = container.pod, path.rpartition("/")[2]
    if not path.startswith("/") or not name:
        return None
    alike = [p for p in container.files if p.rpartition("/")[2] == name and p != path]
    if len(alike) == 1:
        source = source_of(container, alike[0])
        return _named(container, path, alike[0], f", which {source.ref} brings" if source else "")
    if source := source_of(container, path):
        if source.key or not source.keys:
            return None
        if len(source.keys) == 1:
            return _named(container, path, source.path_of(source.keys[0]), f", the one file of {source.ref}")
        listed = ", ".join(source.keys[:6])
        text = f"Give {source.ref} the key {name} (it has {listed}), or name one of those instead of {path}"
        return Fix(summary=text, commands=(_edit(container, source), *restart(container)))
    if (mount := container.mount_over(path)) is not None:
        volume = pod.volume(mount.name)
        claim = volume.persistent_volume_claim if volume else None
        what = f"the claim {claim.claim_name}" if claim else f"the volume {mount.name}"
        return fixes.advice(
            f"Put {path.removeprefix(mount.mount_path).strip('/')} into {what}, which is mounted at {mount.mount_path}"
        )
    return _mounted(container, path, name)


def _named(container: Container, old: str, new: str, why: str) -> Fix:
    """Another path where the container states the one that is not there."""
    place = holding(container, old)
    if place is None or place.value is None:
        return fixes.advice(f"Name {new}{why} instead of {old}, in {fixes.edited(container.pod)}")
    return given(container, place, place.value.replace(old, new), f"Set {place.name} to {new}{why}")


def _pair(container: Container, path: str) -> Fix | None:
    """A Secret with a certificate and its key is mounted in the folder where the two are looked for under its own names."""
    pod, folder = container.pod, path.rpartition("/")[0]
    # a mount hides what the image has in its folder
    if not path.endswith(("/tls.crt", "/tls.key")) or folder in ("", "/etc", "/etc/ssl/certs"):
        return None
    secret = f"{container.name}-tls"
    operations = fixes.mounted(container, {"name": secret, "secret": {"secretName": secret}}, folder)
    summary = f"Make a Secret {secret} of the certificate and its key and mount it at {folder}"
    fix = fixes.patch(pod, summary, operations)
    create = (
        f"kubectl -n {shlex.quote(pod.namespace)} create secret tls {shlex.quote(secret)} --cert=tls.crt --key=tls.key"
    )
    return msgspec.structs.replace(fix, commands=(create, *fix.commands))


def _mounted(container: Container, path: str, name: str) -> Fix | None:
    """A ConfigMap with that file is mounted: one that the pod, or its namespace, has, or one that is made of it."""
    pod = container.pod
    if _OF_TLS.search(name):
        return _pair(container, path)
    volumes = [(v.name, v.config_map.name) for v in pod.spec.volumes if v.config_map]
    volume = next(((v, c) for v, c in volumes if name in _keys(container, "ConfigMap", c)), None)
    there = [
        item.name
        for item in pod.cluster.items("ConfigMap", pod.namespace)
        if name in _keys(container, "ConfigMap", item.name)
    ]
    if len(there) > 1 and not volume:
        listed = ", ".join(there[:6])
        return fixes.advice(
            f"Mount the file at {path}, in {fixes.edited(pod)}: ConfigMaps with a key {name} are {listed}"
        )
    made = not volume and not there
    config = volume[1] if volume else there[0] if there else f"{container.name}-config"
    operations = []
    mounted = volume[0] if volume else fixes.free_name(pod, re.sub(r"[^a-z0-9-]", "-", config)[:50].strip("-"))
    if not volume:
        entry = {"name": mounted, "configMap": {"name": config}}
        operations += fixes.appended("/volumes", entry, exists=bool(pod.spec.volumes))
    mount = {"name": mounted, "mountPath": path, "subPath": name}
    operations += fixes.appended(f"{container.pointer}/volumeMounts", mount, exists=bool(container.spec.volume_mounts))
    what = (
        f"Make a ConfigMap {config} of the file and mount it" if made else f"Mount the key {name} of ConfigMap {config}"
    )
    fix = fixes.patch(pod, f"{what} at {path}", operations)
    where = shlex.quote(pod.namespace)
    create = f"kubectl -n {where} create configmap {shlex.quote(config)} --from-file={shlex.quote(name)}"
    return msgspec.structs.replace(fix, commands=(create, *fix.commands)) if made else fix


def gives(container: Container, name: str) -> Fix | None:
    """How a variable comes into a container that lacks it; None where it is there, so that its value is at fault."""
    pod, own = container.pod, container.spec.env
    if name in container.env or not re.fullmatch(r"[A-Za-z_]\w{0,100}", name):
        return None
    names = [entry.name for entry in own]
    if near := _misspelt(name, names):
        operation = {"op": "replace", "path": f"{container.pointer}/env/{names.index(near)}/name", "value": name}
        return fixes.patch(pod, f"Call the variable {near} {name}", [operation])
    where = shlex.quote(pod.namespace)
    for kind, field in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        there = [i for i in pod.cluster.items(kind, pod.namespace) if name in _keys(container, kind, i.name)]
        if len(there) > 1:
            listed = ", ".join(item.name for item in there[:4])
            return fixes.advice(
                f"Set {name} in env of {container.name} from one of {kind} {listed}, in {fixes.edited(pod)}"
            )
        for item in there:
            entry = {"name": name, "valueFrom": {field: {"name": item.name, "key": name}}}
            operations = fixes.appended(f"{container.pointer}/env", entry, exists=bool(own))
            return fixes.patch(pod, f"Set {name} from the key {name} of {kind} {item.name}", operations)
    workload = workload_of(pod)
    text = f"Set {name} in env of {container.name}"
    if workload is None or workload.kind not in RESTARTED or fixes.unread(pod):
        return fixes.advice(
            f"{text}, in {fixes.edited(pod)}" + (", from a Secret" if _SECRET.search(name.upper()) else "")
        )
    to = f"kubectl -n {where} set env {workload.resource}/{shlex.quote(workload.name)} -c {shlex.quote(container.name)}"
    if not _SECRET.search(name.upper()):
        return fixes.advice(text, f"{to} {name}=VALUE")
    secret = f"{workload.name}-env"
    create = f"kubectl -n {where} create secret generic {shlex.quote(secret)} --from-literal={name}=VALUE"
    return fixes.advice(f"{text}, from a Secret", create, f"{to} --from=secret/{shlex.quote(secret)} --keys={name}")


def _misspelt(name: str, names: list[str]) -> str:
    """The variable that is there under almost the name that is wanted; one that other programs read as well is not it."""
    wanted = name.upper().split("_")
    for other in names:
        words = other.upper().replace("-", "_").split("_")
        if sorted(words) == sorted(wanted) or "".join(words) == "".join(wanted):
            return other
        differ = [pair for pair in zip(words, wanted, strict=False) if pair[0] != pair[1]]
        if (
            len(words) == len(wanted) > 1
            and len(differ) == 1
            and difflib.SequenceMatcher(None, *differ[0]).ratio() > 0.8
        ):
            return other
    return ""
