"""Prefill and decode of one image and model whose KV caches are laid out otherwise, since a connector of one side alone turns vLLM's hybrid
cache manager off (`vllm/config/vllm.py`): one that does not support it (`SupportsHMA`), itself or below MultiConnector."""

from __future__ import annotations

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Logs, Pod, engines_in, fixes, log_evidence, setting_evidence

#: vLLM's NIXL connector compares a hash of what must be alike (`nixl/metadata.py`), the hybrid manager among it.
MISMATCH = "compatibility hash mismatch"
_FLAG, _NAME = "--disable-hybrid-kv-cache-manager", "disable_hybrid_kv_cache_manager"
#: Before it each connector turned it off by itself.
_KEPT_SINCE = "0.22.0"
#: Those that turn it off, and those that keep it; MultiConnector does as all below it.
_TURN_OFF = frozenset(
    {
        "PdConnector",
        "DynamoConnector",
        "LMCacheConnector",
        "LMCacheConnectorV1",
        "FlexKVConnectorV1",
        "HF3FSKVConnector",
    }
    | {"ExampleConnector", "MoRIIOConnector", "P2pNcclConnector"}
)
_KEEP = frozenset(
    {"MultiConnector", "NixlConnector", "NixlPullConnector", "NixlPushConnector", "OffloadingConnector"}
    | {"SimpleCPUOffloadConnector", "MooncakeConnector", "MooncakeStoreConnector"}
)
#: What else the hash is made of, and may be told by a setting.
_LIKE = ("model", "dtype", "kv_cache_dtype", "attention_backend")
_CONNECTOR = r"['\"]kv_connector['\"] ?: ?['\"](\w{1,80})['\"]"


def other_layout(pod: Pod, engines: list[Engine], logs: Logs) -> Iterator[Finding]:
    """The side that keeps the hybrid manager, where the other has none by its connector, and all else is the same."""
    line = next(reversed(list(logs.find(MISMATCH))), None)
    own = next((e for e in engines if line is not None and e.container.name == line.log.container), None)
    if line is None or own is None or own.name != "vllm" or (off := _is_off(own)) is None:
        return
    for peer in _peers(pod, own):
        if _is_off(peer) is (not off) and _alike(own, peer):
            without, keeps = (own, peer) if off else (peer, own)
            config = without.explicit("kv_transfer_config")
            told = without.explicit(_NAME)
            by = told.text if told else "by its connector"
            yield Finding(
                confidence="certain",
                summary=f"{own.container.pod.name} and {peer.container.pod.name} lay their KV caches out otherwise: "
                f"{without.container.pod.name} turns vLLM's hybrid cache manager off ({by}), and {keeps.container.pod.name} keeps it.",
                evidence=(
                    log_evidence(line, MISMATCH),
                    *(setting_evidence(without.container, one) for one in (told, config) if one),
                ),
                explains=("http-5xx", "queue-growing", "gateway-timeout"),
                fix=fixes.set_flag(keeps, _NAME, _FLAG, "", f"Turn it off in {keeps.container.pod.name} as well"),
                order=line.order - 0.5,  # before what the line alone says
            )
            return


#: Connectors by which the side that decodes reads; the first is another name of the second.
_PULLS = frozenset({"NixlConnector", "NixlPullConnector"})


def unlike(pod: Pod, engines: list[Engine]) -> Iterator[Finding]:
    """A decode server whose prefill servers all have another connector, or another type of the cache: none of theirs is of use to it."""
    for own in engines if pod.exists else ():
        if own.name != "vllm" or own.side != "decode" or own.explicit("kv_transfer_config") is None:
            continue  # before all pods of the namespace are looked at
        peers = [e for e in _peers(pod, own) if e.side == "prefill" and e.value("model") == own.value("model")]
        apart = [(peer, told) for peer in peers if (told := _apart(own, peer))]
        if not peers or len(apart) < len(peers):
            continue
        peer, (name, ours, theirs) = apart[0]
        settings = [(e.container, one) for e in (own, peer) if (one := e.explicit(name))]
        yield Finding(
            role="risk",
            summary=f"{own.container.pod.name} decodes with {ours}, and {peer.container.pod.name} prefills with {theirs}: "
            "the KV cache of one is of no use to the other.",
            evidence=tuple(setting_evidence(container, one) for container, one in settings),
            fix=fixes.advice(
                f"Give both the same, in {fixes.edited(own.container.pod)} and {fixes.edited(peer.container.pod)}"
            ),
        )
        return


def _apart(own: Engine, peer: Engine) -> tuple[str, str, str] | None:
    """What the two have of a setting that must be the same, and differs."""
    config, there = own.explicit("kv_transfer_config"), peer.explicit("kv_transfer_config")
    ours, theirs = (set(re.findall(_CONNECTOR, str(one.value)[:20_000])) if one else set() for one in (config, there))
    if ours and theirs and not ours & theirs:
        return "kv_transfer_config", " and ".join(sorted(ours)), " and ".join(sorted(theirs))
    one, other = (str(e.value("kv_cache_dtype", "auto")) for e in (own, peer))
    told = "--kv-cache-dtype"
    return None if one == other or there is None else ("kv_cache_dtype", f"{told} {one}", f"{told} {other}")


def _is_off(engine: Engine) -> bool | None:
    """Whether a vLLM has no hybrid cache manager; None where that is not known."""
    config = engine.explicit("kv_transfer_config")
    if config is None:
        return None
    if (told := engine.explicit(_NAME)) is not None:
        return told.value is True
    if engine.at_least(_KEPT_SINCE) is False:
        return True
    names = set(re.findall(_CONNECTOR, str(config.value)[:20_000]))
    return True if names & _TURN_OFF else False if names and names <= _KEEP else None


def _peers(pod: Pod, own: Engine) -> Iterator[Engine]:
    for item in pod.cluster.items("Pod", pod.namespace):
        other = Pod.of(item, pod.cluster) if item is not pod.item else None
        for engine in engines_in(other) if other is not None and not other.leaving else ():
            if engine.name == own.name and (not own.side or engine.side != own.side):
                yield engine


def beside(pod: Pod, own: Engine) -> list[Engine]:
    """The servers of other workloads with the same model that pass on its cache by NIXL, too, where all of them are on the pod's node."""
    makers = {owner.name for owner in pod.obj.metadata.owner_references}
    others = [
        engine
        for engine in _peers(pod, own)
        if engine.value("model") == own.value("model")
        and _PULLS & _connectors(engine)
        and not makers & {owner.name for owner in engine.container.pod.obj.metadata.owner_references}
    ]
    here = all(engine.container.pod.spec.node_name == pod.spec.node_name for engine in others)
    return others if here and pod.spec.node_name and _PULLS & _connectors(own) else []


def _connectors(engine: Engine) -> set[str]:
    config = engine.explicit("kv_transfer_config")
    return set(re.findall(_CONNECTOR, str(config.value)[:20_000])) if config else set()


def _alike(one: Engine, other: Engine) -> bool:
    return one.container.spec.image == other.container.spec.image and all(
        one.value(name) == other.value(name) for name in _LIKE
    )
