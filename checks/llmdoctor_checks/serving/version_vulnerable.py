"""A version with a published vulnerability, in a configuration that opens it."""

import re
from collections.abc import Callable, Iterator, Mapping

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Engine,
    Evidence,
    Finding,
    Logs,
    Pod,
    Subject,
    check,
    dig,
    expression,
    log_evidence,
    object_evidence,
    pod_evidence,
    releases,
    setting_evidence,
)
from kubectl_llmdoctor.catalog.vulnerabilities import VULNERABILITIES, Need, Vulnerability
from llmdoctor_checks.serving._exposure import restricted, ways

#: Families of models that take videos, and those that take pictures at least.
_VIDEO = expression(r"qwen[\d.]*-?(vl|omni)|internvl|llava|minicpm-[vo]|glm-4(\.\d)?v|smolvlm2|kimi-vl|keye-vl|ovis")
_PICTURES = expression(
    _VIDEO.pattern
    + r"|pixtral|phi-[\d.]+-(vision|multimodal)|llama-3\.2-\d+b-vision|smolvlm|paligemma|molmo|aya-vision|deepseek-vl"
)
#: From this CVSS score on it is a risk; below it is only noted.
_GRAVE = 8.0

_IDEFICS = expression(r"idefics3|smolvlm")


class Place(msgspec.Struct, frozen=True):
    """Where a precondition is looked for."""

    engine: Engine
    subject: Subject
    cluster: Cluster


class Blow(msgspec.Struct, frozen=True):
    """A request that ends a server of some releases, and the error that the log then shows."""

    id: str
    first: str
    fixed: str
    what: str
    words: str


#: vLLM's advisories GHSA-9hcf-v7m4-6m2j and GHSA-6qc9-v4r8-22xg: the grammar of a request is compiled in the engine's own process,
#: which ends with the error. Texts: xgrammar's `regex_converter.cc` and `json_schema_converter.cc`.
_BLOWS = (
    Blow("CVE-2025-48943", "0.8.0", "0.9.0", "A request with an invalid regular expression", "Regex parsing error at"),
    Blow("CVE-2025-48942", "0.8.0", "0.9.0", "A request with an invalid JSON schema", "json_schema_converter.cc"),
)
#: In whose frames that error stands.
_GRAMMAR = "xgrammar"


@check(
    "version-vulnerable",
    since="0.1",
    severity="warning",
    literals=("EngineDeadError", *(blow.words for blow in _BLOWS)),
)
def version_vulnerable(
    pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, logs: Logs | None
) -> Iterator[Finding]:
    """The engine's version has a known vulnerability, and the configuration opens it.

    Most advisories need something besides the version: a connector for KV transfer, several nodes, a certain tool
    parser, a model that takes videos, a port that everybody reaches. Only where the configuration shows that, it is said
    here; for the rest a scanner of images is the better tool. Where the log of a server that ended shows the request that an
    advisory speaks of, it is the cause. A key does not close all of these: some paths are open
    without it, and ports of the engine's own workers know none.

    ## Fix

    Take the version that the advisory names, or a later one. Until then take away what opens it, and let a NetworkPolicy
    admit only the gateway and the engine's own pods.

    ## References

    - https://github.com/vllm-project/vllm/security/advisories
    - https://osv.dev
    """
    if not engine.version:
        return
    if logs is not None and (struck := _struck(pod, engine, logs)):
        yield struck
        return
    place = Place(engine, subject, cluster)
    found: list[tuple[Vulnerability, Evidence]] = []
    for row in VULNERABILITIES:
        if row.engine != engine.name or engine.at_least(row.fixed) is not False:
            continue
        if row.first and not engine.at_least(row.first):
            continue
        proof = _PROOFS[row.needs](place)
        if proof is not None:
            found.append((row, proof))
    if not found:
        return
    found.sort(key=lambda pair: -pair[0].score)
    worst, newest = found[0][0], found[0][0].fixed
    for row, _ in found:
        if _key(row.fixed) > _key(newest):
            newest = row.fixed
    others = ", ".join(row.id for row, _ in found[1:])
    yield Finding(
        role="risk" if worst.score >= _GRAVE else "note",
        severity="critical" if worst.score >= 9 else "warning" if worst.score >= _GRAVE else "info",
        summary=f"{engine.label} has {worst.id} (CVSS {worst.score}), fixed in {worst.fixed}: {worst.what}."
        + (f" Also: {others}." if others else ""),
        evidence=(
            pod_evidence(engine.container, "image", engine.container.spec.image),
            *dict.fromkeys(proof for _, proof in found),
        ),
        fix=releases.released(engine, newest, exact=True),
    )


def _struck(pod: Pod, engine: Engine, logs: Logs) -> Finding | None:
    """An instance that a request ended in the way of an advisory."""
    if engine.name != "vllm" or not pod.failing:
        return None
    for blow in _BLOWS:
        if engine.at_least(blow.fixed) is not False or not engine.at_least(blow.first):
            continue
        for log in logs.of(engine.container.name):
            line = next(log.find(blow.words), None)
            dead = next(log.find("EngineDeadError"), None)
            frame = line and any(_GRAMMAR in one.text for one in log.lines(max(line.number - 12, 1), line.number))
            if line is None or dead is None or not frame or dead.number < line.number:
                continue
            return Finding(
                severity="critical",
                summary=f"{blow.what} ended {engine.label}: {blow.id}, fixed in {blow.fixed}.",
                evidence=(
                    log_evidence(line),
                    log_evidence(dead),
                    pod_evidence(engine.container, "image", engine.container.spec.image),
                ),
                explains=("engine-dead", "crash-loop", "not-ready", "pod-failed"),
                fix=releases.released(engine, blow.fixed, exact=True),
                order=line.order,
            )
    return None


def _key(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version))


def _flag(name: str, accept: Callable[[str], bool] = lambda value: value not in ("false", "none", "")) -> "_Proof":
    def proof(place: Place) -> Evidence | None:
        setting = place.engine.explicit(name)
        found = setting is not None and accept(str(setting.value).lower())
        return setting_evidence(place.engine.container, setting) if setting is not None and found else None

    return proof


def _parser(name: str) -> "_Proof":
    inner = _flag("tool_call_parser", lambda value: value == name)

    def proof(place: Place) -> Evidence | None:
        return inner(place) if place.engine.value("enable_auto_tool_choice") is True else None

    return proof


def _model(pattern: re.Pattern[str]) -> "_Proof":
    return _flag("model", lambda value: pattern.search(value.rpartition("/")[2]) is not None)


def _media(place: Place) -> Evidence | None:
    """A model that takes pictures, and no list of domains that they may come from."""
    return None if place.engine.explicit("allowed_media_domains") else _model(_PICTURES)(place)


def _nodes(place: Place) -> Evidence | None:
    if nodes := _flag("nnodes", lambda value: value.isdecimal() and int(value) > 1)(place):
        return nodes
    raw = place.subject.workload.raw if place.subject.workload else {}
    size = dig(raw, "spec.leaderWorkerTemplate.size")
    if isinstance(size, int) and size > 1 and (place.engine.workers or 1) > place.engine.container.gpus > 0:
        return Evidence(
            source="workload",
            ref=f"{place.subject.workload.ref if place.subject.workload else ''} spec",
            text=f"size: {size}",
        )
    return None


def _optimize(place: Place) -> Evidence | None:
    found = place.engine.container.env.get("PYTHONOPTIMIZE")
    if found is None or found.value in (None, "", "0"):
        return None
    return pod_evidence(place.engine.container, "env[PYTHONOPTIMIZE]", f"PYTHONOPTIMIZE={found.value}")


def _public(place: Place) -> Evidence | None:
    port = place.engine.value("port")
    if not isinstance(port, int) or restricted(place.engine.pod, place.cluster):
        return None
    for way in ways(place.engine.pod, {port}, place.cluster):
        if way.kind == "LoadBalancer":
            return object_evidence(way.item, way.path, way.text)
    return None


_Proof = Callable[[Place], Evidence | None]

_PROOFS: Mapping[Need, _Proof] = {
    "mooncake": _flag("kv_transfer_config", lambda value: "mooncake" in value),
    "pynccl": _flag("kv_transfer_config", lambda value: "pyncclconnector" in value),
    "multi-node": _nodes,
    "qwen3-coder-parser": _parser("qwen3_coder"),
    "pythonic-parser": _parser("pythonic"),
    "api-key": _flag("api_key"),
    "prompt-embeds": _flag("enable_prompt_embeds"),
    "video": _model(_VIDEO),
    "media": _media,
    "media-domains": _flag("allowed_media_domains"),
    "idefics": _model(_IDEFICS),
    "optimize": _optimize,
    "revision": _flag("revision"),
    "public": _public,
}
