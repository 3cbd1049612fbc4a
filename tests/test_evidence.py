"""How a long line is quoted: what is telling in it must be seen, and the time at which it was written."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import msgspec

from kubectl_llmdoctor.check import Check, Finding
from kubectl_llmdoctor.diagnosis import _merge, diagnose
from kubectl_llmdoctor.evidence import log_evidence, quotation, setting_evidence
from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.gather.files import load
from kubectl_llmdoctor.packs import installed
from kubectl_llmdoctor.report.document import Evidence
from kubectl_llmdoctor.snapshot import LogText, Snapshot
from kubectl_llmdoctor.target import subjects

_STATEMENT = (
    "INFO 11-20 09:55:30 metrics.py:334] Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 2136.3 tokens/s, "
    "Running: 247 reqs, Swapped: 0 reqs, Pending: 740 reqs, GPU KV cache usage: 99.7%, CPU KV cache usage: 0.0%"
)


def test_a_line_is_quoted_from_its_beginning() -> None:
    assert quotation(_STATEMENT, "metrics.py") == _STATEMENT
    assert quotation(_STATEMENT, "not there") == _STATEMENT
    assert quotation(_STATEMENT, "") == _STATEMENT


def test_what_is_telling_far_behind_the_beginning_stands_near_it() -> None:
    text = quotation(_STATEMENT, "GPU KV cache usage: ")
    assert text.startswith("INFO 11-20 09:55:30 metrics.py:334] ")
    assert text.index("GPU KV cache usage: 99.7%") < 130
    assert text.endswith("CPU KV cache usage: 0.0%")


def test_a_line_without_blanks_is_quoted_from_a_field_on() -> None:
    line = '{"a":"' + "x" * 300 + '","response_flags":"UT","b":"' + "y" * 100 + '"}'
    assert quotation(line, '"response_flags"').startswith('…"response_flags":"UT","b":"y')
    assert quotation("x" * 500 + "end", "end") == "…end"


_SETTINGS = "INFO 06-02 07:56:00 [utils.py:233] non-default args: {'model': 'Qwen/Qwen3-8B', 'max_model_len': 4096}\n"


def test_a_setting_from_a_log_names_the_log_as_its_lines_do() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llama-0", "namespace": "serving"},
        "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0", "command": ["/start.sh"]}]},
    }
    running = LogText(namespace="serving", pod="llama-0", container="vllm", text=_SETTINGS)
    ended = msgspec.structs.replace(running, previous=True)
    of_pod = Snapshot(taken_at="2026-11-20T10:00:00Z", objects=(pod,))
    for snapshot, ref in (
        (msgspec.structs.replace(of_pod, logs=(running,)), "llama-0 vllm"),
        (msgspec.structs.replace(of_pod, logs=(ended, running)), "llama-0 vllm (previous)"),
        (Snapshot(logs=(LogText(text=_SETTINGS),)), "log"),
    ):
        (subject,) = subjects(Cluster(snapshot))
        (engine,) = subject.engines(subject.pods[0])
        setting = engine.explicit("max_model_len")
        assert setting is not None
        said = setting_evidence(engine.container, setting)
        assert (said.ref, said.line, said.text) == (ref, 1, "'max_model_len': 4096")
        line = next(iter(subject.logs(engine.pod).find("non-default args")))
        assert log_evidence(line).ref == ref


def test_two_settings_of_one_line_are_two_quotations_and_a_line_is_one() -> None:
    def quoted(text: str) -> Evidence:
        return Evidence(source="log", ref="llama-0 vllm", text=text, line=2)

    check = cast("Check", SimpleNamespace(id="kv-cache-no-room"))
    whole, rest, one, other = map(
        quoted, (_STATEMENT, quotation(_STATEMENT, "GPU KV cache"), "'model': 'x'", "'dtype': 'half'")
    )
    first = Finding(role="cause", severity="critical", confidence="likely", summary="x", evidence=(whole, one))
    second = msgspec.structs.replace(first, evidence=(rest, other))
    ((_, merged),) = _merge([(check, first), (check, second)])
    assert merged.evidence == (whole, one, other)


def test_of_two_kills_by_the_kernel_the_one_of_the_engine_is_quoted() -> None:
    case = Path(__file__).parents[1] / "checks/cases/oomkilled-node/fires_system_oom_beside_another.yaml"
    report = diagnose(load(str(case)), installed())
    said = [e.text for f in report.targets[0].findings if f.id == "oomkilled-node" for e in f.evidence]
    assert any("victim process: python3" in text for text in said)
    assert not any("victim process: postgres" in text for text in said)
