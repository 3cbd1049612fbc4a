"""Prefill and decode that serve different models."""

from collections.abc import Iterator

from kubectl_llmdoctor.api import Engine, Finding, Subject, check, fixes, setting_evidence


@check("kv-transfer-failed", since="0.1")
def kv_transfer_failed(subject: Subject) -> Iterator[Finding]:
    """The KV cache does not get from prefill to decode.

    In disaggregated serving one engine reads the prompt and hands its KV cache to another that generates. The hand-over
    fails: the peer crashed, its address or side-channel port is wrong (the default address is the loopback), versions or
    settings differ, or the transport (UCX, RDMA, Mooncake) does not work between these pods. Requests then time out, or
    the decode engine computes everything again.

    In a manifest it is a risk where the two sides of one object serve different models: the KV cache of one means nothing
    to the other.

    ## Fix

    Look first whether the peer is alive. Set the side channel's host to the pod's address, use one image and one model on
    both sides, and test the transport with TCP (`UCX_TLS=tcp,cuda_copy`) before RDMA.

    ## References

    - https://docs.vllm.ai/en/latest/features/nixl_connector_usage/
    - https://docs.sglang.ai/advanced_features/pd_disaggregation.html
    """
    sides: dict[str, Engine] = {}
    for pod in subject.pods:
        for engine in subject.engines(pod):
            side = _side(engine)
            if side and engine.explicit("model"):
                sides.setdefault(side, engine)
    if subject.exists or set(sides) != {"prefill", "decode"}:
        return
    prefill, decode = sides["prefill"], sides["decode"]
    ours, theirs = decode.explicit("model"), prefill.explicit("model")
    if ours is None or theirs is None or _bare(ours.value) == _bare(theirs.value):
        return
    yield Finding(
        role="risk",
        severity="critical",
        confidence="likely",
        summary=f"The prefill side serves {theirs.value} and the decode side {ours.value}: "
        "the KV cache of one is of no use to the other.",
        evidence=(setting_evidence(prefill.container, theirs), setting_evidence(decode.container, ours)),
        fixes=(fixes.set_flag(prefill, "model", theirs.flag, str(ours.value), f"Serve {ours.value} on both sides"),),
    )


def _side(engine: Engine) -> str:
    """Which side of disaggregated serving an engine is, by its own settings."""
    mode = engine.value("disaggregation_mode")
    if mode in ("prefill", "decode"):
        return str(mode)
    config = engine.value("kv_transfer_config")
    role = config.get("kv_role") if isinstance(config, dict) else None
    return {"kv_producer": "prefill", "kv_consumer": "decode"}.get(str(role), "")


def _bare(model: object) -> str:
    """A model's name without what differs between copies of it: the path, capitals."""
    return str(model).rstrip("/").rpartition("/")[2].lower()
