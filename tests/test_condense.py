"""Logs too large to keep: the same lines with the same numbers are found as in the whole log, and no secret passes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from kubectl_llmdoctor.diagnosis import diagnose, looked_for
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.gather import condense as module
from kubectl_llmdoctor.gather.condense import condense
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.redact import mask_text
from kubectl_llmdoctor.snapshot import LogText, Snapshot
from tests.sampling import some

LITERALS = ("CUDA out of memory", "out of memory. Tried", "max seq len (", "Bus error")
NOISE = 'INFO:     10.244.1.7:40100 - "POST /v1/chat/completions HTTP/1.1" 200 OK'


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bounds so small that short logs meet all of them."""
    monkeypatch.setattr(module, "_ENDS", 300)
    monkeypatch.setattr(module, "_BLOCK", 256)
    monkeypatch.setattr(module, "_LONG", 128)
    monkeypatch.setattr(module, "_FIRST", 8)
    monkeypatch.setattr(module, "_LAST", 4)
    monkeypatch.setattr(module, "_OFTEN", 10)


def _pieces(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _lines(log: LogText, literal: str) -> list[tuple[int, str]]:
    return [(line.number, line.text) for line in Log(log).find(literal)]


_LINE = st.sampled_from(
    [NOISE, "", "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB", "max seq len (131072), (16", "\r 5%",
     "Traceback (most recent call last):", "  File \"/x.py\", line 1, in load", "ValueError: x", "Bus error (core dumped)"]
)  # fmt: skip


@pytest.mark.usefixtures("small")
@given(st.lists(_LINE, max_size=120), st.integers(1, 700), st.booleans())
def test_hits_have_the_text_and_the_number_that_they_have_in_the_whole_log(
    lines: list[str], size: int, ended: bool
) -> None:
    data = "\n".join(lines) + "\n" * ended
    found = condense(_pieces(data.encode(), size), LITERALS)
    whole = LogText(text=mask_text(data))

    for literal in LITERALS:
        ours, theirs = _lines(found, literal), _lines(whole, literal)
        assert ours[:8] == theirs[:8]
        assert set(ours) <= set(theirs)
        assert ours[-4:] == theirs[-4:]
    assert len(Log(found)) == len(Log(whole))


@pytest.mark.usefixtures("small")
@given(st.lists(_LINE, min_size=40, max_size=120), st.integers(1, 130))
def test_lines_around_a_hit_are_those_of_the_whole_log(lines: list[str], number: int) -> None:
    data = "\n".join([*lines, "Bus error (core dumped)", *lines]) + "\n"
    found = Log(condense([data.encode()], LITERALS))
    whole = Log(LogText(text=data))
    hit = next(line for line in found.find("Bus error"))

    texts = {line.number: line.text for line in found.lines()}
    assert all(whole.line(at).text == text for at, text in texts.items())
    assert {at for at in range(hit.number, hit.number + 4) if at <= len(whole)} <= texts.keys()
    within = [line.number for line in found.lines(number, number + 20)]
    assert within == [at for at in texts if number <= at <= number + 20]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("size", [1 << 20, 200, 37])
def test_a_prompt_of_many_lines_is_never_kept(size: int) -> None:
    begin = (
        "2026-06-02T08:00:00.000000Z  INFO text_generation_router::server: router/src/server.rs:291: Input: private 0"
    )
    prompt = "\n".join(f"private {n}: why does CUDA out of memory happen?" for n in range(400))
    end = "2026-06-02T08:00:01.000000Z ERROR text_generation_launcher: CUDA out of memory"
    noise = "\n".join([NOISE] * 30)
    text = "\n".join([noise, begin, prompt, end, noise, begin, prompt])
    found = condense(_pieces(text.encode(), size), LITERALS)

    assert "private" not in found.text
    assert [number for number, _ in _lines(found, "CUDA out of memory")] == [432]


@pytest.mark.usefixtures("small")
def test_a_private_key_and_a_token_beside_a_hit_are_masked() -> None:
    key = "-----BEGIN PRIVATE KEY-----\n" + "MIIEvQIBADANBgkqhkiG9w0BAQEFAASC\n" * 30 + "-----END PRIVATE KEY-----"
    text = "\n".join([*[NOISE] * 40, key, "HF_TOKEN=hf_abcdefghijklmnopqrstuvwxyz012345 Bus error", *[NOISE] * 40])
    found = condense(_pieces(text.encode(), 100), LITERALS)

    assert "MIIE" not in found.text
    assert "hf_abc" not in found.text
    assert len(_lines(found, "Bus error")) == 1


def test_what_is_kept_of_a_hostile_log_is_bounded() -> None:
    noisy = condense((b"CUDA out of memory. Tried to allocate " * 25_000 for _ in range(20)), LITERALS)
    bytes_only = condense((bytes(range(256)) * 4000 for _ in range(20)), LITERALS)
    errors = condense((b"ERROR x\n" * 100_000 for _ in range(20)), LITERALS)

    assert len(noisy.text) < 26 << 20
    assert len(bytes_only.text) < 2 << 20
    assert len(errors.text) < 2 << 20
    assert len(Log(errors)) == 2_000_000
    assert Log(errors).line(2_000_000).text == "ERROR x"


def test_kubelet_times_are_told_and_cut_from_lines() -> None:
    line = "2026-06-02T08:00:00.123456789Z Bus error (core dumped)\n"
    found = condense([line.encode() * 20_000], LITERALS)

    assert found.timestamps
    assert next(Log(found).find("Bus error")).text == "Bus error (core dumped)"


#: What is judged by what an engine prints of its load, or of requests, all the time: the tail of a log has that.
_BY_LOAD = {
    "cpu-starved", "engine-stalled", "head-of-line-blocking", "hpa-wrong-metric", "kv-cache-saturated", "queue-growing",
    "kv-cache-below-max-len/fires_waits_for_ever", "kv-cache-below-max-len/fires_waits_for_ever_in_a_deployment",
    "request-too-long/fires_client_by_its_address",
    "request-too-long/fires_client_of_too_many_images", "request-too-long/fires_client_of_too_many_images_at_last",
    "weights-off-gpu/fires_cpu_offload_is_slow",
}  # fmt: skip
_CASES = Path(__file__).parents[1] / "checks" / "cases"
_CHECKS = installed()


@pytest.mark.parametrize("id", sorted({p.parent.name for p in _CASES.glob("*/fires_*.yaml")} - _BY_LOAD))
def test_the_cause_of_a_case_is_found_in_the_middle_of_a_long_log(id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_ENDS", 1500)
    known, lost = looked_for(_CHECKS), []
    for path in some(_CASES.glob(f"{id}/fires_*.yaml"), 3):
        if f"{id}/{path.stem}" in _BY_LOAD:
            continue
        snapshot = load(str(path))
        if not snapshot.logs:
            continue
        long = [replace(log, text=_amid(log)) for log in snapshot.logs]
        kept = [_reduced(log, known) for log in long]
        whole, reduced = (_first(replace(snapshot, logs=tuple(logs))) for logs in (long, kept))
        if whole != reduced:
            lost.append((path.stem, whole, reduced))

    assert lost == []


def _amid(log: LogText) -> str:
    """The log with so many lines before and after it that nothing of it is in the head or the tail that are kept."""
    at = "2026-06-02T07:00:00.000000000Z " if log.timestamps else ""
    noise = "".join(f"{at}heartbeat {number} of the node is fine\n" for number in range(100))
    return noise + log.text.removesuffix("\n") + "\n" + noise


def _reduced(log: LogText, known: tuple[str, ...]) -> LogText:
    found = condense([log.text.encode()], known)
    return replace(log, text=found.text, skips=found.skips, cut=found.cut)


def _first(snapshot: Snapshot) -> str:
    target = diagnose(snapshot, _CHECKS).targets[0]
    return next((f.id for f in target.findings if f.role == "cause"), target.verdict)
