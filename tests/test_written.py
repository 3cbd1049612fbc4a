"""When a line of a log was written, by the forms that programs print."""

from datetime import UTC, datetime

import pytest

from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.facts.written import seconds_ago
from kubectl_llmdoctor.snapshot import LogText

_NOW = datetime(2026, 6, 2, 8, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "line",
    [
        "E0602 08:09:50.120384       1 router.go:412] proxy failed",
        "INFO 06-02 08:09:50 [loggers.py:116] Engine 000: Running: 1 reqs",
        "[2026-06-02 08:09:50 TP0] Decode batch. #running-req: 1",
    ],
)
def test_the_time_that_a_program_prints_is_read(line: str) -> None:
    """Of klog (Go), vLLM and SGLang."""
    assert seconds_ago(Log(LogText(text=line)).line(1), _NOW) == 10


@pytest.mark.parametrize(
    "line", ["E0232 08:09:50.120384       1 router.go:412] proxy failed", "ready", "code 0602 08:09:50.1"]
)
def test_what_is_no_time_is_none(line: str) -> None:
    """The 32nd day of February, no time at all, and numbers that stand elsewhere than klog's."""
    assert seconds_ago(Log(LogText(text=line)).line(1), _NOW) is None
