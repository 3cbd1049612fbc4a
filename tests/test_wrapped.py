"""Logs as collectors store them become what the container printed; what an engine prints itself stays as it is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from kubectl_llmdoctor.gather import files
from kubectl_llmdoctor.gather.wrapped import by_program, form_of, unwrapped, unwrapped_pieces

_TIME = "2026-06-02T08:00:0{}.123456789Z"
PRINTED = (
    "INFO 06-02 08:00:00 [api_server.py:1805] vLLM API server version 0.11.0",
    "Traceback (most recent call last):",
    '  File "/opt/vllm/config/model.py", line 7, in check',
    '    raise ValueError("one\\ttwo")',
    "",
    "ValueError: the name 'x' is unknown",
)


def _docker(number: int, line: str) -> str:
    return json.dumps({"log": f"{line}\n", "stream": "stderr", "time": _TIME.format(number)})


def _fluent(_: int, line: str) -> str:
    return json.dumps({"log": line, "kubernetes": {"pod_name": "llama-0"}, "@timestamp": "2026-06-02T08:00:00.123Z"})


def _logcli(_: int, line: str) -> str:
    return json.dumps({"labels": {"pod": "llama-0"}, "line": line, "timestamp": "2026-06-02T08:00:00.123456789Z"})


FORMS: dict[str, Callable[[int, str], str]] = {
    "cri": lambda n, line: f"{_TIME.format(n)} stderr F {line}",
    "docker": _docker,
    "fluent-bit": _fluent,
    "logcli": _logcli,
    "prefix": lambda _, line: f"[pod/llama-0/vllm] {line}",
    "stern": lambda _, line: f"llama-0 vllm {line}",
    "compose": lambda _, line: f"vllm-1  | {line}",
    "compose in colours": lambda _, line: f"\x1b[36mvllm-1  | \x1b[0m{line}",
    "swarm": lambda _, line: f"llm_vllm.1.x8k2j3h4@gpu-1    | {line}",
    "pm2": lambda _, line: f"0|vllm  | {line}",
    "journal": lambda n, line: f"Jun 02 08:00:0{n} gpu-1 vllm[{317 + n // 3}]: {line}",
    "journal in Chinese": lambda n, line: f"6月 02 08:00:0{n} gpu-1 vllm[317]: {line}",
    "syslog": lambda n, line: f"2026-06-02T08:00:0{n}.123456+02:00 gpu-1 vllm[317]: {line}",
    "quoted": lambda _, line: f"> {line}",
    "code of Markdown": lambda _, line: f"    {line}",
    "a viewer's time": lambda n, line: f"2026-06-02 08:00:0{n} {line}",
}
TIMED = ("cri", "docker")


def _file(name: str) -> str:
    return "".join(f"{FORMS[name](n, line)}\n" for n, line in enumerate(PRINTED))


@pytest.mark.parametrize("name", FORMS)
def test_the_lines_are_those_that_the_container_printed(name: str) -> None:
    times = [f"{_TIME.format(n)} " for n in range(len(PRINTED))] if name in TIMED else [""] * len(PRINTED)
    expected = "".join(f"{time}{line}\n" for time, line in zip(times, PRINTED, strict=True))

    assert unwrapped(_file(name)) == expected
    assert unwrapped(expected) == expected


@pytest.mark.parametrize("name", FORMS)
def test_a_file_is_unwrapped_where_it_is_read_and_its_times_are_known(name: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text(_file(name), encoding="utf-8")
    log = files.load_log(str(path))

    assert log.timestamps is (name in TIMED)
    assert "ValueError: the name 'x' is unknown" in log.text
    assert '\\"' not in log.text


@pytest.mark.parametrize("size", [1, 7, 100_000])
def test_in_pieces_it_is_the_same(size: int) -> None:
    data = _file("docker").encode()
    found = form_of(data.decode())
    assert found

    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    assert b"".join(unwrapped_pieces(found, pieces)).decode() == unwrapped(data.decode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\n\n",
        # an engine that writes JSON, and a controller that does
        '{"timestamp":"2026-06-02T08:00:00Z","level":"ERROR","message":"Shard failed"}\n' * 9,
        '{"level":"error","msg":"Reconciler error","InferenceService":{"name":"x"}}\n' * 9,
        # lines of two containers: their prefixes tell them apart
        "[pod/llama-0/vllm] one\n[pod/llama-0/istio-proxy] two\n" * 9,
        # what only some lines have
        '{"log":"one","stream":"stderr"}\nplain\nplain\n',
        "INFO 06-02 08:00:00 [x.py:1] one\n" * 9,
        "load-time is 7 s\nload-time is 8 s\n",
        # two programs of one file of Compose, and loggers that put level or time before the message
        "vllm-1     | one\nlitellm-1  | two\n" * 9,
        "INFO     | loaded\n" * 9,
        "2026-06-02 08:00:00 INFO one\n" * 9,
        "2026-06-02T08:00:00.123456789Z Traceback (most recent call last):\n" * 9,
        # a traceback whose beginning is gone, and a prompt of Python
        '  File "/opt/x.py", line 7, in check\n    raise ValueError\n' * 9,
        ">>> import vllm\n" * 9,
    ],
)
def test_what_is_not_wrapped_stays_as_it_is(text: str) -> None:
    assert unwrapped(text) == text


def test_a_secret_in_a_wrapped_line_is_masked(tmp_path: Path) -> None:
    path = tmp_path / "log"
    token = "hf_" + "aBcDeFgHiJkLmNoPqRsTuVwXyZ0123456789"[:34]
    line = _docker(1, f'token="{token}"')
    path.write_text(f"{line}\n" * 3, encoding="utf-8")

    assert token not in files.load_log(str(path)).text


def test_several_programs_of_one_file_are_told_apart_and_keep_their_line_numbers(tmp_path: Path) -> None:
    lines = ["vllm-1     | one", "gateway-1  | two", "vllm-1     |   three", "of three", "gateway-1  | four"]
    text = "\n".join(lines)
    assert by_program(text) == {"vllm-1": "one\n\n  three\nof three\n", "gateway-1": "\ntwo\n\n\nfour"}
    assert by_program("\n".join(lines[:1])) == {}

    path = tmp_path / "log"
    path.write_text(text, encoding="utf-8")
    assert [log.container for log in files.load_logs(str(path))] == ["vllm-1", "gateway-1"]


@pytest.mark.parametrize(
    "text", ["", "one\ntwo\n", "".join(f"row{n} | 7\n" for n in range(40)), "a | 1\nb | 2\nc\nd\n"]
)
def test_what_is_of_one_program_stays_whole(text: str) -> None:
    assert by_program(text) == {}
