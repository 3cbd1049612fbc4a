"""A ServingRuntime that an InferenceService needs and that is not there, or does not serve its format."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Cluster,
    Confidence,
    Evidence,
    Finding,
    Fix,
    Item,
    Subject,
    Workload,
    check,
    dig,
    fixes,
    pointer_to,
    rows,
)

#: Why KServe takes no runtime, as its status says (`FailureReason` of its API).
_REASONS = frozenset({"RuntimeNotRecognized", "NoSupportingRuntime", "RuntimeDisabled"})


@check("isvc-runtime-missing", since="0.1")
def isvc_runtime_missing(subject: Subject, workload: Workload, cluster: Cluster) -> Iterator[Finding]:
    """No ServingRuntime fits the InferenceService.

    KServe looks for a ServingRuntime (of the namespace) or ClusterServingRuntime of the name that the InferenceService
    gives. Where it gives none, it takes one that lists the model's format with `autoSelect: true`. There is none, so it
    makes no Deployment and no pod: the InferenceService stays not ready, and only its events, its status and the
    controller's log say why. The runtimes come with a chart or manifest of their own. In a manifest it is a risk, too, where the
    runtime is one of KServe's own and serves other formats (`kserve-tritonserver` and `huggingface`).

    ## Fix

    Install KServe's runtimes, or correct `modelFormat` or `runtime` in the InferenceService.

    ## References

    - https://kserve.github.io/website/docs/concepts/resources/servingruntime
    """
    want = workload.runtime_wanted
    if want is None or subject.exists or _ready(workload):
        return
    elsewhere = _elsewhere(workload, cluster)
    if (told := _told(workload)) is not None:
        text = f"KServe says of the runtime of {workload.ref}: {told.text}."
        yield _finding(subject, workload, text, _unoffered(workload, cluster), told, elsewhere=elsewhere)
        return
    # it chooses runtimes in another way
    if workload.item.annotations.get("serving.kserve.io/deploymentMode") == "ModelMesh":
        return
    namespace = workload.namespace
    listed = [*cluster.items("ServingRuntime", namespace), *cluster.items("ClusterServingRuntime")]
    form = f"{want.format} {want.version}".strip()
    if want.name:
        named = [item for item in listed if item.name == want.name]
        if named and not workload.fits(named[0]):
            yield _finding(subject, workload, f"{_ref(named[0])} does not serve {_why_not(named[0], form)}.", named)
        places = (("ServingRuntime", namespace), ("ClusterServingRuntime", ""))
        if not named and all(cluster.exists(kind, where, want.name) is False for kind, where in places):
            text = f"{workload.ref} asks for the runtime {want.name}, and there is none of that name."
            yield _finding(subject, workload, text, listed, elsewhere=elsewhere)
        own = workload.formats_of_kserves_own
        if not named and subject.static and own and want.format and want.format not in own:
            text = f"{want.name}, which comes with KServe, does not serve the model format {form}: it has {', '.join(own)}."
            yield _finding(subject, workload, text, [], sure="likely")
        return
    known = cluster.complete("ServingRuntime", namespace) and cluster.complete("ClusterServingRuntime")
    if known and not any(workload.fits(item) for item in listed):
        text = f"No runtime offers itself for the model format {form}."
        yield _finding(subject, workload, text, listed, elsewhere=elsewhere)


def _elsewhere(workload: Workload, cluster: Cluster) -> Item | None:
    """A ServingRuntime that would do, of one model as the service is, in a namespace where KServe does not look for it."""
    want = workload.runtime_wanted
    if want is None:
        return None
    for item in cluster.items("ServingRuntime"):
        if item.namespace == workload.namespace or (want.name and item.name != want.name):
            continue
        if dig(item.raw, "spec.multiModel") is True:
            continue
        if workload.fits(item) if want.name else _serves(item, want.format, want.version) and want.format:
            return item
    return None


def _unoffered(workload: Workload, cluster: Cluster) -> list[Item]:
    """The runtimes that would serve the service, and are taken by their names alone, where it names none: they lack `autoSelect`."""
    want = workload.runtime_wanted
    if want is None or want.name or not want.format:
        return []
    spoken = dig(workload.raw, f"{want.path}.protocolVersion")
    listed = [*cluster.items("ServingRuntime", workload.namespace), *cluster.items("ClusterServingRuntime")]
    return [
        item
        for item in listed
        if _serves(item, want.format, want.version)
        and not workload.fits(item)
        and dig(item.raw, "spec.multiModel") is not True
        and dig(item.raw, "spec.disabled") is not True
        and (not spoken or spoken in _protocols(item, spoken))
    ]


def _protocols(item: Item, other: object) -> list[object]:
    """The protocols that a runtime says that it speaks; the `other` one where it says none."""
    said = dig(item.raw, "spec.protocolVersions")
    return said if isinstance(said, list) and said else [] if said else [other]


def _told(workload: Workload) -> Evidence | None:
    """What KServe's status says of a runtime that is not there, is disabled or does not fit."""
    info = dig(workload.raw, "status.modelStatus.lastFailureInfo")
    if not isinstance(info, dict) or str(info.get("reason")) not in _REASONS:
        return None
    text = f"{info['reason']}: {info.get('message') or ''}".rstrip(": .")
    return Evidence(source="workload", ref=f"{workload.ref} status.modelStatus.lastFailureInfo", text=text)


def _finding(
    subject: Subject,
    workload: Workload,
    summary: str,
    runtimes: list[Item],
    told: Evidence | None = None,
    sure: Confidence = "certain",
    elsewhere: Item | None = None,
) -> Finding:
    there = (
        Evidence(source="workload", ref=f"{ref} spec.supportedModelFormats", text=_formats(item))
        for ref, item in (
            *((_ref(item), item) for item in runtimes[:6]),
            *(((f"{elsewhere.kind} {elsewhere.namespace}/{elsewhere.name}", elsewhere),) if elsewhere else ()),
        )
    )
    return Finding(
        role="risk" if subject.static else "cause",
        confidence=sure,
        summary=summary,
        evidence=(*((told,) if told else ()), _asked(subject, workload), *there),
        explains=() if subject.static else ("rollout-stuck", "not-ready", "pod-pending"),
        fixes=tuple(_fixes(workload, runtimes, told, elsewhere)),
    )


def _asked(subject: Subject, workload: Workload) -> Evidence:
    """What the service asks for, as it stands there."""
    want = workload.runtime_wanted
    fields = (("modelFormat", want.format), ("version", want.version), ("runtime", want.name)) if want else ()
    text = ", ".join(f"{key}: {value}" for key, value in fields if value)
    ref, origin = f"{workload.ref} {want.path if want else ''}", workload.item.origin
    if subject.static and origin:
        return Evidence(source="manifest", ref=ref, text=text, file=origin.file, line=origin.line)
    return Evidence(source="workload", ref=ref, text=text)


def _fixes(workload: Workload, runtimes: list[Item], told: Evidence | None, elsewhere: Item | None) -> Iterator[Fix]:
    want = workload.runtime_wanted
    if told and want and want.name and told.text.startswith("RuntimeDisabled"):
        yield fixes.platform(
            f"Set disabled: false in the runtime {want.name}, or name another one in {workload.ref}",
            "kubectl get clusterservingruntimes",
            f"kubectl -n {workload.namespace} get servingruntimes",
        )
        return
    serving = sorted(
        {item.name for item in runtimes if want and item.name != want.name and _serves(item, want.format, want.version)}
    )
    at = pointer_to(want.path) if want and want.path.endswith(".model") else ""
    if want and len(serving) == 1 and at:
        summary = f"Have {workload.ref} name the runtime {serving[0]}, which serves the format {want.format}"
        form = {"op": "replace", "path": f"{at}/modelFormat/name", "value": _spelt(runtimes, serving[0], want.format)}
        operations = [{"op": "add", "path": f"{at}/runtime", "value": serving[0]}]
        yield fixes.patch_object(workload.item, summary, operations + ([form] if form["value"] != want.format else []))
        return
    if elsewhere is not None:
        # one that does not offer itself is taken by name
        named = "" if workload.fits(elsewhere) else f", and let {workload.ref} name it"
        yield fixes.platform(
            f"Put ServingRuntime {elsewhere.name}, which serves the format and is in the namespace {elsewhere.namespace}, into "
            f"{workload.namespace} as well (KServe takes those of the InferenceService's own namespace), or make a "
            f"ClusterServingRuntime of it{named}",
            f"kubectl -n {elsewhere.namespace} get servingruntime {elsewhere.name} -o yaml",
        )
        return
    formats = sorted({name for item in runtimes for name in _names(item)})
    yield fixes.platform(
        f"Have {workload.ref} name a runtime and a format that are there"
        + (f": the runtimes {', '.join(sorted({item.name for item in runtimes})[:6])}" if runtimes else "")
        + (f" serve {', '.join(formats[:12])}" if formats else "")
        + (f"; else install one that serves {want.format}" if want and want.format else "; else install one"),
        "kubectl get clusterservingruntimes",
        f"kubectl -n {workload.namespace} get servingruntimes",
    )


def _serves(item: Item, form: str, version: str) -> bool:
    """Whether a runtime that is not disabled serves a format, and this version of it."""
    listed = [] if dig(item.raw, "spec.disabled") else rows(item.raw, "spec.supportedModelFormats")
    mine = (row for row in listed if str(row.get("name") or "").lower() == form.lower())
    return any(not version or str(row.get("version") or version) == version for row in mine)


def _names(item: Item) -> list[str]:
    """The names of the formats that a runtime serves, in small letters."""
    return [str(row.get("name") or "").lower() for row in rows(item.raw, "spec.supportedModelFormats")]


def _spelt(runtimes: list[Item], name: str, form: str) -> str:
    """A format as the runtime of a name writes it."""
    listed = [row for item in runtimes if item.name == name for row in rows(item.raw, "spec.supportedModelFormats")]
    return next((str(row["name"]) for row in listed if str(row.get("name") or "").lower() == form.lower()), form)


def _ref(item: Item) -> str:
    return f"{item.kind}/{item.name}"


def _why_not(runtime: Item, form: str) -> str:
    return "anything: it is disabled" if dig(runtime.raw, "spec.disabled") is True else f"the model format {form}"


def _formats(runtime: Item) -> str:
    found = (
        f"{row.get('name')} {row.get('version') or ''}".strip()
        + (" (autoSelect)" if row.get("autoSelect") is True else "")
        for row in rows(runtime.raw, "spec.supportedModelFormats")
    )
    return ", ".join(found) or "none"


def _ready(workload: Workload) -> bool:
    """Whether it is ready: scaled to zero, say."""
    return workload.item.condition("Ready", "True") is not None
