"""When a line of a log was written, by the forms that programs print."""

from datetime import UTC, datetime

import msgspec
import pytest

from kubectl_llmdoctor.facts.cluster import Cluster
from kubectl_llmdoctor.facts.logs import Log
from kubectl_llmdoctor.facts.written import seconds_ago
from kubectl_llmdoctor.snapshot import LogText, Snapshot

_NOW = datetime(2026, 6, 2, 8, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "line",
    [
        "E0602 08:09:50.120384       1 router.go:412] proxy failed",
        "INFO 06-02 08:09:50 [loggers.py:116] Engine 000: Running: 1 reqs",
        "[2026-06-02 08:09:50 TP0] Decode batch. #running-req: 1",
        "2026/06/02 08:09:50 [error] 29#29: *7 upstream timed out",
        '[GIN] 2026/06/02 - 08:09:50 | 200 |  4.5s |       10.0.0.7 | POST     "/api/chat"',
        "[1] 2026/06/02 08:09:50.120384 [ERR] 10.0.0.7:51234 - cid:12 - maximum payload violation",
    ],
)
def test_the_time_that_a_program_prints_is_read(line: str) -> None:
    """Of klog (Go), vLLM, SGLang, nginx, Gin and NATS."""
    assert seconds_ago(Log(LogText(text=line)).line(1), _NOW) == 10


@pytest.mark.parametrize(
    "line", ["E0232 08:09:50.120384       1 router.go:412] proxy failed", "ready", "code 0602 08:09:50.1"]
)
def test_what_is_no_time_is_none(line: str) -> None:
    """The 32nd day of February, no time at all, and numbers that stand elsewhere than klog's."""
    assert seconds_ago(Log(LogText(text=line)).line(1), _NOW) is None


def _snapshot(*logs: LogText, started: str = "2026-06-02T07:00:00Z") -> Snapshot:
    status = {"containerStatuses": [{"name": "server", "state": {"running": {"startedAt": started}}}]}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "llm-0", "namespace": "serving"},
        "spec": {"containers": [{"name": "server"}]},
        "status": status,
    }
    return Snapshot(taken_at="2026-06-02T08:10:00Z", objects=(pod,), logs=logs)


def _ages(snapshot: Snapshot) -> list[float | None]:
    """How long ago each log's first line was written."""
    cluster = Cluster(snapshot)
    return [seconds_ago(Log(log).line(1), cluster.now) for log in cluster.snapshot.logs]


_FIRST = (
    "INFO 03-07 21:14:00 [loggers.py:116] Engine 000: Running: 1 reqs\nINFO 03-07 21:14:50 [loggers.py:116] Engine 000"
)
_SERVER = LogText(text=_FIRST, namespace="serving", pod="llm-0", container="server")


def test_a_log_older_than_its_container_ends_with_the_snapshot() -> None:
    assert _ages(_snapshot(_SERVER)) == [50]


def test_logs_of_one_foreign_clock_keep_their_distance() -> None:
    other = LogText(
        text="E0307 21:15:10.120384       1 router.go:412] proxy failed", namespace="serving", pod="router-0"
    )

    assert _ages(_snapshot(_SERVER, other)) == [70, 0]


def test_times_that_are_yet_to_come_are_of_another_clock() -> None:
    coming = LogText(text="INFO 09-01 10:00:00 [loggers.py:116] Engine 000", namespace="serving", pod="gone-0")

    assert _ages(_snapshot(coming)) == [0]


@pytest.mark.parametrize(
    ("text", "started"),
    [
        (_FIRST, "2026-03-01T00:00:00Z"),
        ("INFO 06-01 20:00:00 a zone twelve hours behind", "2026-06-02T07:00:00Z"),
        ("INFO 06-02 08:09:00 Loading\nthe certificate expires 2026-09-01 00:00:00", "2026-06-02T07:00:00Z"),
    ],
    ids=["a container as old", "time zone", "another date in a line"],
)
def test_times_that_can_be_the_clusters_stay(text: str, started: str) -> None:
    source = LogText(text=text, namespace="serving", pod="llm-0", container="server")
    snapshot = _snapshot(source, started=started)

    assert Cluster(snapshot).snapshot is snapshot


def _over_new_year(text: str, *, started: str, pod: str = "llm-0") -> list[float | None]:
    log = LogText(text=text, namespace="serving", pod=pod, container="server")
    return _ages(msgspec.structs.replace(_snapshot(log, started=started), taken_at="2027-01-03T08:00:00Z"))


def test_a_time_of_last_year_is_read_over_new_year() -> None:
    """A server of December that has said nothing since, seen in January: its log is old, and of no other clock."""
    assert _over_new_year("INFO 12-31 08:00:00 [loggers.py:116] Engine 000", started="2026-12-20T07:00:00Z") == [
        3 * 86400
    ]


def test_a_log_of_a_year_ago_is_of_another_clock() -> None:
    """Its container was not there on that day of last year."""
    assert _over_new_year("INFO 12-31 08:00:00 [loggers.py:116] Engine 000", started="2027-01-02T07:00:00Z") == [0]
