"""Requests that clients gave up, by what the engine, its proxy and the clients themselves print of them."""

import re
from collections.abc import Iterator
from itertools import pairwise

import msgspec

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Engine,
    Finding,
    Fix,
    Line,
    Log,
    Logs,
    Pod,
    Subject,
    addresses,
    clients,
    count_of,
    current_logs,
    dig,
    fixes,
    in_order,
    log_evidence,
    long_past,
    often,
    say_seconds,
    seconds_between,
    written_before,
)
from llmdoctor_checks._clients import asking
from llmdoctor_checks._told_where import prolonged
from llmdoctor_checks.serving._answers import answered
from llmdoctor_checks.serving._exposure import leads
from llmdoctor_checks.serving._gateways import CUT_SHORT, GENERATES, UNDICI, UNDICI_SECONDS, WAITED, waited
from llmdoctor_checks.serving._patience import STREAM, enough, writer_of
from llmdoctor_checks.serving._timeouts import longer, of_envoy, ports, timeouts

#: Knative's queue-proxy, where it logs requests: the template of config-observability, `logging.request-log-template`.
LATE_ANSWER, _LATENCY = '"status": 504', r'"latency": "(\d{1,6}(?:\.\d{1,9})?)s"'

#: How engines say that a request began, and that its client went away: vLLM, llama-server.
_BEGUN = (
    ("request ", r"\b(?:Added|Received) request ([\w-]{4,80})"),
    ("launch_slot_", r"\| task (\d{1,12}) \| processing task"),
)

#: Such lines in full, of which many are kept of a long log.
COUNTED = ("Added request ", " processing task")

GONE = (
    ("Aborted request", r"\bAborted request(?:\(s\))? ([\w-]{4,80})"),
    (" aborted", r"\bRequest ([\w-]{4,80}) aborted\b"),
    ("cancel task, id_task", r"id_task = (\d{1,12})"),
)

#: Ollama's, by status: of a request that waits, and of one that is not streamed and runs (`server/routes.go`), which is 500 as faults are,
#: which do not take so many seconds.
_GONE_OF_OLLAMA = (("| 499 |", 0), ("| 500 |", 5))

#: Or it logs 200 and says before that it stops (`runner.go`).
_STOPS = "aborting completion request due to client closing the connection"

#: It says in so many lines before, at most, what went wrong.
_BEFORE = 3

#: The runner that it then ends prints in between.
_BEFORE_OF_LOADS = 12

#: So far from the timeout a request may end that it ended: the gateway counts from before the engine's first word to before its
#: last, and logs have whole seconds. So many that did, and so large a share of all whose clients went away, are no chance.
_EARLIER, _LATER, _FEWEST_CUT, _CUT_OF_GONE = 3, 4, 2, 0.8

#: Ollama drops a load when the client of the request that wanted it goes away.
_LOADING = "client connection closed before "
_LOADS = r"client connection closed before (?:llama-)?server finished loading"

#: A client prints how long a request took so many lines before the end of its traceback at most.
_NEAR = 40

#: So few seconds streams of models often take.
_LIKELY = 300

#: Timeouts that people set are multiples of so many seconds, and no shorter; requests that one ends are as old to so much.
_ROUND, _OLD, _ALIKE = 5, 10, 1

#: So many that went at one such age, each at another time, are no chance, whatever the server did meanwhile.
_FEWEST_ALIKE = 3

#: So many answers for each request that was given up make it a note.
MANY = 10

#: A request to generate that was answered: uvicorn's access log, Gin's, llama-server's.
_ANSWERED_WELL = rf"POST [^\n]{{0,60}}(?:{GENERATES})[^\n]{{0,60}}\b200\b|\| 200 \|[^\n]{{0,80}}POST "


#: One of Ollama's that made the model answer.
_GENERATED = rf"\| 200 \|[^\n]{{0,80}}POST [^\n]{{0,20}}(?:{GENERATES}|/api/embed|/v1/embeddings)"


def given_up(pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, logs: Logs) -> Finding | None:
    """Requests that somebody gave up when they were as old as a timeout on their way allows."""
    ages = list(_clients_gone(logs.current(engine.container.name)))
    late = [] if ages else list(_late_answers(logs.current("queue-proxy")))
    ages = ages or late
    if not ages:
        return None
    whose = "that Knative's proxy answered with 504" if late else "whose clients went away"
    names = {item.name for item in pod.services if leads(item, pod, ports(engine))}
    for timeout in (*of_envoy(names, pod.namespace, cluster), *timeouts(pod, engine, subject, cluster)):
        cut = [line for line, age in ages if timeout.seconds - _EARLIER <= age <= timeout.seconds + _LATER]
        if len(cut) < max(_FEWEST_CUT, _CUT_OF_GONE * len(ages)):
            continue
        return Finding(
            role="risk" if long_past(cut) else "cause",  # the next long one meets it, too
            severity="warning",
            summary=f"{len(cut)} of {len(ages)} requests {whose} were {say_seconds(timeout.seconds)} old, which is what "
            f"{timeout.where} allows{'' if timeout.whole else ' without a word of the answer'}.",
            evidence=(log_evidence(cut[-1]), timeout.evidence),
            fix=longer(timeout, 0),
            order=cut[0].order,
        )
    return None if late else _of_undici(pod, engine, cluster, ages) or _all_as_old(pod, engine, ages)


def _of_undici(pod: Pod, engine: Engine, cluster: Cluster, ages: list[tuple[Line, float]]) -> Finding | None:
    """Requests that ended at the age at which Node's fetch gives up, and a client of this server alone that says that its own did."""
    old = [line for line, age in ages if UNDICI_SECONDS - _EARLIER <= age <= UNDICI_SECONDS + _LATER]
    if not old or len(old) < _CUT_OF_GONE * len(ages):
        return None
    asking = clients(pod, {item.name for item in pod.services}, cluster)
    said = cluster.once(UNDICI, lambda: list(_words_of_clients(cluster, (UNDICI,))))
    line = next(
        (line for who, line in said if who in asking and not written_before(line, engine.container, cluster)), None
    )
    if line is None:
        return None
    return Finding(
        severity="warning",
        summary=f"{line.log.pod} gives up when no headers came for {say_seconds(UNDICI_SECONDS)}, Node's own limit; "
        f"{count_of(len(old), 'request')} of {engine.container.name} ended at that age.",
        evidence=(log_evidence(line), log_evidence(old[-1])),
        fix=_longer_fetch(line),
        order=old[0].order,
    )


def _longer_fetch(line: Line) -> Fix:
    """More patience for Node's fetch."""
    return fixes.advice(
        f"Have {line.log.pod} stream its answers, or give its fetch a dispatcher with a longer headersTimeout (undici's Agent)"
    )


def unbroken(pod: Pod, server: Container | None, logs: Logs | None) -> Log | None:
    """The log of a server that is ready, never ended and says of no fault."""
    own = server.own_log(logs) if server is not None else None
    if own is None or not _stands(pod, server):
        return None
    return None if next(own.find("Traceback (most"), None) else own


def _stands(pod: Pod, server: Container | None) -> bool:
    """Whether a server is ready and never ended."""
    return pod.ready and server is not None and server.status is not None and not server.status.restart_count


def cut_short(pod: Pod, engine: Engine, subject: Subject, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Streams that ended in the middle, by the log of a client that asks this server alone, and a limit of the whole request on the way."""
    read = engine.container.own_log(logs) is not None
    if (unbroken(pod, engine.container, logs) is None) if read else not _stands(pod, engine.container):
        return None
    said = cluster.once("cut short", lambda: list(_words_of_clients(cluster, CUT_SHORT)))
    names = {item.name for item in pod.services if leads(item, pod, ports(engine))}
    asking = clients(pod, names, cluster) if said else set()
    lines = [line for who, line in said if who in asking and not written_before(line, engine.container, cluster)]
    if len(lines) < _FEWEST_CUT:
        return None
    limits = (*of_envoy(names, pod.namespace, cluster), *timeouts(pod, engine, subject, cluster))
    ages = [_ages(line) for line in lines]
    oldest = max((age for some in ages for age in some), default=None)
    for timeout in limits:
        as_old = [
            x for x, some in zip(lines, ages, strict=True) if any(-1 <= a - timeout.seconds <= _EARLIER for a in some)
        ]
        # one between two reads spares streams, but for the wait for their first token; so does a long one all but the longest
        may = timeout.whole and timeout.seconds <= _LIKELY and (oldest is None or oldest <= timeout.seconds + _EARLIER)
        if (may and read) or len(as_old) >= _FEWEST_CUT:
            break
    else:
        return None
    return Finding(
        severity="warning",
        confidence="likely" if len(as_old) >= _FEWEST_CUT else "possible",
        summary=f"{lines[0].log.pod} lost {count_of(len(lines), 'stream')} in the middle while {engine.container.name} ran on; "
        f"{timeout.where} ends every request after {say_seconds(timeout.seconds)}.",
        evidence=(*(log_evidence(line) for line in (as_old or lines)[:2]), timeout.evidence),
        fix=longer(timeout, 0),
        order=lines[0].order,
    )


def _words_of_clients(cluster: Cluster, words: tuple[str, ...]) -> Iterator[tuple[tuple[str, str, str], Line]]:
    """Whose log, by namespace, pod and container, has one of some words."""
    return ((log.whose, line) for log in current_logs(cluster) for line in in_order(log.find(*words)))


def _ages(line: Line) -> list[float]:
    """What a client says, some lines before or after at most, of how many seconds something took."""
    texts = [one.text[:2000] for one in line.log.lines(max(line.number - _NEAR, 1), line.number + 2)]
    return [float(age) for text in texts for age in re.findall(r"\b(\d{1,5}(?:\.\d{1,6})?) ?s(?:ec|econds)?\b", text)]


class _Alike(msgspec.Struct, frozen=True):
    """Requests whose clients went away when they were of one age, among all whose clients did."""

    lines: list[Line]
    ages: list[tuple[Line, float]]
    age: int
    #: Ollama was loading the model for each
    loading: bool

    @property
    def of_node(self) -> bool:
        """Whether it is the age at which Node's fetch ends all that it asked at once together."""
        return self.age == UNDICI_SECONDS and not self.loading

    @property
    def accused(self) -> bool:
        """Whether it is somebody's fault, rather than what a few of many requests met."""
        if self.loading and not long_past(self.lines):
            return True
        log, times = self.lines[0].log, len(self.lines)
        return not (_few(log, times) or _many(log, times))


def _alike(ages: list[tuple[Line, float]]) -> _Alike | None:
    """The requests of one age, mostly a round one, where they are enough of all, and of several times."""
    loading = all(any(_drops(one) for one in x.log.lines(x.number - _BEFORE_OF_LOADS, x.number)) for x, _ in ages)
    middle = sorted(age for _, age in ages)[len(ages) // 2]
    age = _ROUND * round(middle / _ROUND)
    timeout = age >= _OLD and abs(age - middle) <= _ALIKE
    # where the model was never loaded, whoever has too little patience for it shows at any age
    if not timeout and loading:
        if any(re.search(_GENERATED, one.text[:2000]) for one in ages[0][0].log.find("| 200 |")):
            return None
        age = max(round(middle), 1)
    found = _Alike([line for line, one in ages if abs(one - age) <= _ALIKE], ages, age, loading)
    if (age < _OLD and not loading) or len(found.lines) < (1 if loading else _CUT_OF_GONE) * len(ages):
        return None
    # those that went together may be those of a client that ended; Node tells the reason by the very age
    apart = found.lines if found.of_node else _at_their_own_times(found.lines)
    return found if len(apart) >= (_FEWEST_CUT if loading and timeout else _FEWEST_ALIKE) else None


def _at_their_own_times(lines: list[Line]) -> list[Line]:
    return [*lines[:1], *(y for x, y in pairwise(lines) if _apart(x, y))]


def _all_as_old(pod: Pod, engine: Engine, ages: list[tuple[Line, float]]) -> Finding | None:
    """Requests whose clients all went away at one age, mostly a round one: somebody has less patience than the server needs."""
    found = _alike(ages)
    if found is None:
        return None
    lines, age, name = found.lines, found.age, engine.container.name
    then = (
        f"and {name} then dropped the model that it was loading: a timeout of theirs, or of a gateway, is shorter than the load."
        if found.loading
        else f"while {name} ran on: that is a timeout of theirs, or of what stands before it."
    )
    return Finding(
        role="cause" if found.accused else "note",
        severity="warning",
        confidence="likely" if found.loading or _answers(ages) else "possible",
        summary=f"The clients of {count_of(len(lines), 'request')} went away when these were {say_seconds(age)} old, "
        f"{'all of them' if len(lines) == len(ages) else f'of {len(ages)} whose clients did'}, {then}",
        evidence=tuple(log_evidence(line) for line in lines[-2:]),
        explains=("slow-load",) if found.loading else (),
        fixes=(_more_patience(pod, found), _kept_loaded(engine.container) if found.loading else STREAM),
        order=lines[0].order,
    )


def _more_patience(pod: Pod, found: _Alike) -> Fix:
    """A longer timeout of a client that says which it has, else of them all."""
    wait = enough(found.age)
    known = (prolonged(client, found.age, wait) for client in asking(pod, pod.cluster))
    of_node = "; it is what fetch of Node has unless told (headersTimeout of undici)" if found.of_node else ""
    return next(filter(None, known), None) or fixes.advice(
        f"Raise the timeout of {say_seconds(found.age)} that clients of {fixes.edited(pod)}, or the gateway before it, have to "
        f"{say_seconds(wait)}{of_node}"
    )


def _kept_loaded(container: Container) -> Fix:
    return fixes.set_env(container, "OLLAMA_KEEP_ALIVE", "-1", "Keep the model once it is loaded: OLLAMA_KEEP_ALIVE=-1")


def _drops(line: Line) -> bool:
    """Whether Ollama drops a load since the client of its request went away."""
    return _LOADING in line.text and re.search(_LOADS, line.text[:2000]) is not None


def _apart(one: Line, other: Line) -> bool:
    """Whether two requests ended at different times; where no line has one they did."""
    mine, theirs = answered(one), answered(other)
    seconds = (theirs.at - mine.at).total_seconds() if mine and theirs else seconds_between(one, other)
    return seconds is None or abs(seconds) > _ALIKE


def _answers(ages: list[tuple[Line, float]]) -> bool:
    """Whether Ollama answered other requests between those whose clients went away."""
    first, last, gone = ages[0][0], ages[-1][0], {line.number for line, _ in ages}
    between = (one for one in first.log.find("| 200 |") if first.number < one.number < last.number)
    return any(answered(one) for one in between if one.number not in gone)


def impatient(pod: Pod, engine: Engine, cluster: Cluster, logs: Logs | None) -> Finding | None:
    """Clients that say after how many seconds they no longer waited for the answer of a server that runs without a break."""
    own = unbroken(pod, engine.container, logs)
    if own is None:
        return None
    said = cluster.once("waited", lambda: list(_waited(cluster)))
    names = {item.name for item in pod.services}
    if not said or not (names or pod.status.pod_ip):
        return None
    numbers = {pod.status.pod_ip, *(str(dig(item.raw, "spec.clusterIP")) for item in pod.services)}
    clients = {(c.pod.name, c.name) for c in asking(pod, cluster)}
    mine = [
        (line, seconds)
        for space, line, seconds, host in said
        if line.log.pod != pod.name
        # Ollama's own log tells how long each request took
        and not (UNDICI in line.text and engine.name == "ollama")
        and not written_before(line, engine.container, cluster)
        and (
            host in numbers or addresses(host, names, pod.namespace, space)
            if host
            else (line.log.pod, line.log.container) in clients
        )
    ]
    if len(mine) < _FEWEST_CUT:
        return None
    (line, seconds), alive = mine[0], answered_well(own) > 0
    long = f" of {say_seconds(seconds)}" if seconds else ""
    return Finding(
        role="note" if _few(own, len(mine)) else "cause",
        severity="warning",
        confidence="likely" if alive else "possible",
        summary=f"{line.log.pod} got no answer in time, {often(len(mine))} in its log: a timeout{long} of its own, or of what "
        f"it asks; {engine.container.name} runs on.",
        evidence=tuple(log_evidence(line) for line, _ in mine[:2]),
        fixes=(
            _longer_fetch(line)
            if UNDICI in line.text
            else prolonged(writer_of(line, cluster), seconds, enough(seconds))
            or fixes.advice(
                f"Raise the timeout{long} that {line.log.pod} has, or what it asks, to {say_seconds(enough(seconds))}"
            ),
            STREAM,
        ),
        order=line.order,
    )


def answered_well(log: Log) -> int:
    """How many requests to generate the server answered."""
    return sum(re.search(_ANSWERED_WELL, line.text[:2000]) is not None for line in log.find("POST "))


def _few(log: Log, times: int) -> bool:
    """Whether the server answered so many more that somebody's own requests may be to blame."""
    return answered_well(log) >= MANY * times


def _many(log: Log, times: int) -> bool:
    """Whether so many more requests began, where the access log is off."""
    begun = {name for words, pattern in _BEGUN for name, _ in _requests(log, words, pattern)}
    return len(begun) >= (MANY + 1) * times


def _waited(cluster: Cluster) -> Iterator[tuple[str, Line, float | None, str]]:
    """Who gave up, by its namespace and its line, after how many seconds, and which host it asked, where it says so."""
    for log in current_logs(cluster):
        for line in in_order(log.find(*WAITED, UNDICI)):
            said = (float(UNDICI_SECONDS), "") if UNDICI in line.text else waited(line)
            if said is not None and (said[0] is None or said[0] >= _OLD):
                yield log.source.namespace, line, *said


def _clients_gone(log: Log | None) -> Iterator[tuple[Line, float]]:
    """Requests whose client went away: the line that says so, and how old they were in seconds."""
    if log is None:
        return
    for status, least in _GONE_OF_OLLAMA:
        lost = [(x, y.seconds) for x in log.find(status) if (y := answered(x)) is not None and not _at_fault(x)]
        if lost := [one for one in lost if one[1] >= least]:
            yield from lost
            break
    else:
        yield from _gone_with_200(log)
    gone = [one for words, pattern in GONE for one in _requests(log, words, pattern)]
    if len(gone) < _FEWEST_CUT:
        return
    begun: dict[str, Line] = {}
    for words, pattern in _BEGUN:
        for name, line in _requests(log, words, pattern):
            begun.setdefault(name, line)
    for name, line in gone:
        first = begun.pop(name, None)
        if first is not None and (age := seconds_between(first, line)) is not None:
            yield line, age


def _gone_with_200(log: Log) -> Iterator[tuple[Line, float]]:
    """The same of Ollama's requests that it logs as well: it says before that it stops, or the longest are as long as Node waits."""
    ends = [one for line in log.find("| 200 |") if (one := answered(line)) is not None]
    for one in ends:
        before = one.line.log.lines(max(one.line.number - _BEFORE, 1), one.line.number)
        if any(_STOPS in line.text[:300] for line in before):
            yield one.line, one.seconds
            ends = []
    longest = max((one.seconds for one in ends), default=0)
    as_long = [one for one in ends if abs(one.seconds - UNDICI_SECONDS) <= _ALIKE]
    if len(as_long) >= _FEWEST_ALIKE and longest <= UNDICI_SECONDS + _ALIKE:
        yield from ((one.line, one.seconds) for one in as_long)


def _at_fault(line: Line) -> bool:
    """Whether Ollama says before its answer what went wrong, as it does of a model that does not load in time."""
    before = line.log.lines(line.number - _BEFORE, line.number)
    # a load that it ends because the client went away is an error, too
    return any(" level=ERROR " in one.text[:200] and "context canceled" not in one.text[:2000] for one in before)


def _late_answers(log: Log | None) -> Iterator[tuple[Line, float]]:
    """Requests that Knative's proxy ended itself: the line of its request log, and how old they were in seconds."""
    for line in log.find(LATE_ANSWER) if log is not None else ():
        after = line.text.partition(LATE_ANSWER)[2]
        if '"httpRequest"' in line.text and (said := re.search(_LATENCY, after)) is not None:
            yield line, float(said[1])


def _requests(log: Log, words: str, pattern: str) -> Iterator[tuple[str, Line]]:
    """What a wording calls requests by, and its lines."""
    yield from ((said[1], line) for line, said in log.matching(pattern, words, most=2000))
