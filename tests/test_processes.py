"""Processes and tracebacks of a log: interleaved, chained, repeated, and marked in each engine's way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_llmdoctor.facts.logs import Log, Logs
from kubectl_llmdoctor.facts.processes import Said, first_errors, raised_at, said, said_why, tracebacks
from kubectl_llmdoctor.snapshot import LogText

CORE = "(EngineCore_DP0 pid=141) ERROR 06-02 07:57:02 [core.py:708] "
WORKER = "(Worker_TP1 pid=203) ERROR 06-02 07:57:01 [multiproc_executor.py:597] "

INTERLEAVED = f"""\
(APIServer pid=1) INFO 06-02 07:56:00 [api_server.py:1896] vLLM API server version 0.11.0
{WORKER}Traceback (most recent call last):
{CORE}EngineCore failed to start.
{WORKER}  File "/usr/lib/python3.12/pathlib.py", line 9, in open
{CORE}Traceback (most recent call last):
{WORKER}    return io.open(self, mode)
{WORKER}FileNotFoundError: [Errno 2] No such file or directory: '/adapters/sql/adapter_config.json'
{CORE}  File "/vllm/v1/engine/core.py", line 699, in run_engine_core
{WORKER}
{WORKER}The above exception was the direct cause of the following exception:
{WORKER}
{WORKER}Traceback (most recent call last):
{CORE}    engine_core = EngineCoreProc(*args, **kwargs)
{WORKER}  File "/vllm/lora/worker_manager.py", line 120, in _load_adapter
{WORKER}LoRAAdapterNotFoundError: Loading lora sql failed: No adapter found for /adapters/sql
{CORE}RuntimeError: Worker failed with error 'Loading lora sql failed: No adapter found for /adapters/sql'
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/usr/local/bin/vllm", line 10, in <module>
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {{}}
"""


def _log(text: str, *, previous: bool = False) -> Log:
    return Log(LogText(text=text, container="vllm", previous=previous))


@pytest.mark.parametrize(
    ("line", "process", "text"),
    [
        ("(EngineCore_DP0 pid=141) ERROR 06-02 07:57:02 [core.py:708] boom", "EngineCore_DP0 (pid 141)", "boom"),
        ("(VllmWorker rank=1 pid=203) INFO 05-02 07:57:02 [gpu_model_runner.py:1] x", "VllmWorker rank 1 (pid 203)", "x"),
        ("(RayWorkerWrapper pid=7, ip=10.0.0.4) boom", "RayWorkerWrapper (pid 7 on 10.0.0.4)", "boom"),
        ("\x1b[36m(RayWorkerWrapper pid=7, ip=10.0.0.4)\x1b[0m boom", "RayWorkerWrapper (pid 7 on 10.0.0.4)", "boom"),
        ("[rank3]:   File \"/x.py\", line 1", "rank 3", "  File \"/x.py\", line 1"),
        ("ERROR 03-01 10:00:00 engine.py:366] boom", "", "boom"),
        ("[2026-06-02 08:00:00 DP0 TP1] Scheduler hit an exception", "DP0 TP1", "Scheduler hit an exception"),
        ("(ServeReplica:llm pid=7) (Worker_TP1 pid=9) boom", "ServeReplica:llm (pid 7) Worker_TP1 (pid 9)", "boom"),
        ("[pod/llama-0/vllm] 2026-06-02T08:00:00.1Z (APIServer pid=1) boom", "llama-0/vllm APIServer (pid 1)", "boom"),
        ("RuntimeError: [address=0.0.0.0:55022, pid=28175] boom", "", "RuntimeError: boom"),
        ("plain", "", "plain"),
        ("", "", ""),
        (
            r'Mar 29 02:41:04 DEBUG GRPC stderr id="tts-127.0.0.1:40419" line="KeyError: \"speaker\""',
            "tts-127.0.0.1:40419",
            'KeyError: "speaker"',
        ),
        ("8:11PM DBG GRPC(llm.bin-127.0.0.1:38721): stderr CUDA error 35", "llm.bin-127.0.0.1:38721", "CUDA error 35"),
        (
            "2025-02-24T09:11:40.687902Z  WARN llama_cpp_server::supervisor: crates/llama-cpp-server/src/supervisor.rs:110: "
            "<chat>: error: unknown argument: --jinja",
            "<chat>",
            "error: unknown argument: --jinja",
        ),
        (
            "2026-06-02T08:00:00,552 [WARN ] W-9001-llm_1.0-stderr MODEL_LOG -   File \"x.py\", line 1",
            "W-9001-llm_1.0",
            '  File "x.py", line 1',
        ),
        ("[57329] srv  load_model: failed to load model", "port 57329", "srv  load_model: failed to load model"),
    ],
)  # fmt: skip
def test_who_wrote_a_line(line: str, process: str, text: str) -> None:
    assert said(line) == Said(process, text)


def test_interleaved_tracebacks_are_joined_with_their_chain() -> None:
    found = {(one.process, one.error): one for one in tracebacks(_log(INTERLEAVED))}
    adapter = found["Worker_TP1 (pid 203)", "LoRAAdapterNotFoundError"]

    assert len(found) == 4
    assert (adapter.first.number, adapter.last.number) == (12, 15)
    assert adapter.root.message == "[Errno 2] No such file or directory: '/adapters/sql/adapter_config.json'"
    assert found["EngineCore_DP0 (pid 141)", "RuntimeError"].cause is None


@pytest.mark.parametrize("pod", ["", "[pod/llm-0/server] "])
def test_a_message_of_several_lines_is_of_who_marked_its_first(pod: str) -> None:
    lines = (
        "[2026-06-02 08:00:00 TP2] Scheduler hit an exception: Traceback (most recent call last):",
        '  File "/sglang/srt/mem_cache/memory_pool.py", line 655, in get_cpu_copy',
        "    raise NotImplementedError()",
        "NotImplementedError",
        "",
        "[2026-06-02 08:00:01 TP0] Scheduler hit an exception: Traceback (most recent call last):",
        '  File "/torch/distributed/distributed_c10d.py", line 2974, in broadcast',
        "    work.wait()",
        "RuntimeError: [/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.9]:21040",
    )
    log = _log("\n".join(pod + line for line in lines))
    found = [(one.process.rpartition(" ")[2], one.error) for one in tracebacks(log)]
    assert found == [("TP2", "NotImplementedError"), ("TP0", "RuntimeError")]
    assert said_why(log.line(9), "", "10.0.0.9")


def test_a_rank_that_lost_another_one_does_not_say_why_that_went() -> None:
    lost = "RuntimeError: [/gloo/transport/tcp/pair.cc:534] Connection closed by peer [10.0.0.9]:"
    lines = [
        part
        for rank in (0, 1)
        for part in (
            f"[2026-06-02 08:00:00 TP{rank}] Scheduler hit an exception: Traceback (most recent call last):",
            '  File "/torch/distributed/distributed_c10d.py", line 2974, in broadcast',
            f"{lost}2104{rank}",
        )
    ]
    assert not said_why(_log("\n".join(lines)).line(6), "", "10.0.0.9")


def test_the_first_error_of_each_process_the_earliest_first() -> None:
    found = first_errors(Logs([_log(INTERLEAVED)]))

    assert [(one.process.partition(" ")[0], one.error) for one in found] == [
        ("Worker_TP1", "FileNotFoundError"),
        ("EngineCore_DP0", "RuntimeError"),
        ("APIServer", "RuntimeError"),
    ]


def test_what_every_rank_repeats_is_said_once() -> None:
    ranks = "".join(
        f"[rank{n}]: Traceback (most recent call last):\n[rank{n}]:   File \"/x.py\", line 1, in f\n"
        f"[rank{n}]: torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB\n"
        for n in range(8)
    )  # fmt: skip
    found = first_errors(Logs([_log(ranks)]))

    assert [(one.process, one.error) for one in found] == [("rank 0", "torch.OutOfMemoryError")]


def test_pydantic_says_what_is_wrong_below_its_first_line() -> None:
    text = (
        "Traceback (most recent call last):\n  File \"/x.py\", line 1, in f\n"
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
        "  Value error, User-specified max_model_len (131072) is greater than the derived max_model_len\n"
    )  # fmt: skip
    assert "User-specified max_model_len (131072)" in tracebacks(_log(text))[0].message


def test_what_wraps_the_error_of_another_is_read_with_it() -> None:
    text = (
        "Traceback (most recent call last):\n  File \"/x.py\", line 1, in f\n"
        "torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:\n"
        "AssertionError: no hash of the graph\n"
    )  # fmt: skip
    assert tracebacks(_log(text))[0].message == "backend='inductor' raised: AssertionError: no hash of the graph"


def test_the_error_stands_below_the_frame_that_rich_draws() -> None:
    text = """\
╭───────────────────── Traceback (most recent call last) ──────────────────────╮
│ /usr/src/server/text_generation_server/cli.py:119 in serve                   │
│ ❱ 119 │   server.serve(                                                      │
╰──────────────────────────────────────────────────────────────────────────────╯
RuntimeError: CUDA error: no kernel image is available for execution on the
device
"""
    (one,) = tracebacks(_log(text))

    assert (one.error, one.last.number) == ("RuntimeError", 5)
    assert one.message == "CUDA error: no kernel image is available for execution on the device"


def test_a_traceback_without_its_indentation_is_read_alike() -> None:
    text = """\
Traceback (most recent call last):
File "/transformers/auto/configuration_auto.py", line 989, in from_pretrained
config_class = CONFIG_MAPPING[config_dict["model_type"]]
^^^^^^^^^^^^^^^^^^^^^^^^
File "/transformers/auto/configuration_auto.py", line 691, in __getitem__
raise KeyError(key)
KeyError: 'mllama'
"""
    (one,) = tracebacks(_log(text))
    frame = raised_at(one.last)

    assert (one.error, one.message, one.last.number) == ("KeyError", "'mllama'", 7)
    assert frame is not None
    assert (frame.line.number, frame.refuses) == (5, True)


def test_a_line_below_other_text_is_raised_in_no_frame() -> None:
    text = 'File "/x.py", line 1, in f\nstarted\nserving\nready\nValueError: no\n'

    assert raised_at(_log(text).line(5)) is None


def test_a_traceback_that_breaks_off_is_none() -> None:
    cut = 'Traceback (most recent call last):\n  File "/x.py", line 1, in f\n'

    assert tracebacks(_log(cut)) == []
    assert tracebacks(_log("Traceback (most recent call last):")) == []


def test_the_instance_that_died_comes_before_the_one_that_runs() -> None:
    boom = 'Traceback (most recent call last):\n  File "/x.py", line 1, in f\nValueError: {}\n'
    logs = Logs([_log(boom.format("now")), _log("\n" * 500 + boom.format("then"), previous=True)])

    assert [one.message for one in first_errors(logs)] == ["then", "now"]


@pytest.mark.parametrize("prefix", ["[pod/a/b] ", "(a pid=1) ", "[rank1]: ", "2026-06-02T08:00:00Z "])
def test_a_line_of_nothing_but_prefixes_is_a_line(prefix: str) -> None:
    assert said(prefix * 5000).text.startswith(prefix)


@given(
    st.lists(
        st.sampled_from(
            [*INTERLEAVED.splitlines(), "", "\x1b[31m", "(a pid=1) ", "[rank1]: ", "Traceback (most recent call last)"]
        ),
        max_size=60,
    )
)
def test_any_order_of_lines_is_read_in_bounded_time(lines: list[str]) -> None:
    log = _log("\n".join(lines))
    for one in tracebacks(log):
        assert one.first.number < one.last.number
        assert one.root.last.number <= one.last.number


@pytest.mark.parametrize(("between", "told"), [(10, True), (3000, False)])
def test_an_exception_that_a_process_outlived_is_not_what_it_ended_of(between: int, told: bool) -> None:
    own = "(EngineCore_DP0 pid=60) ERROR 11-20 09:58:40 [core.py:700] "
    text = f"{own}Traceback (most recent call last):\n{own}    raise ValueError(adapter)\n{own}ValueError: no such adapter\n"
    text += "(APIServer pid=1) INFO 11-20 09:59:00 [loggers.py:127] Engine 000: Running: 3 reqs\n" * between
    log = _log(
        f"{text}(APIServer pid=1) ERROR Engine core proc EngineCore_DP0 died unexpectedly, shutting down client.\n"
    )
    assert said_why(log.line(len(log)), "EngineCore_DP0") is told


@pytest.mark.parametrize(
    ("above", "told"),
    [
        ("(EngineCore pid=9) INFO 11-20 09:58:40 [core.py:133] Initializing a V1 LLM engine\n", False),
        (
            "WARNING 11-20 09:58:40 [x.py:2] this can cause errors like `OSError: [Errno 24] Too many open files`\n",
            False,
        ),
        ("(EngineCore pid=9) ERROR 11-20 09:58:40 [core.py:700] no such plugin\n", True),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n", True),
    ],
)
def test_a_process_without_a_name_ended_without_a_word_where_nobody_says_what_went_wrong(
    above: str, told: bool
) -> None:
    own = 'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise RuntimeError(\nRuntimeError: core failed: {}\n'
    log = _log(above + own)
    assert said_why(log.line(len(log)), "{}") is told
