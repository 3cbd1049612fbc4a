"""Requests that a client, a gateway or a proxy ended each time at the same round age, whatever words its log has for it.

A timeout that somebody set is a multiple of five seconds, and ends requests at that age to a fraction of a second; faults, answers
and people who close a page do not. So the words need only say that something was ended, and the line how long it took.
"""

import re
from collections import Counter
from collections.abc import Iterator, Set
from itertools import islice, pairwise

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Line,
    Pod,
    current_logs,
    duration,
    host_of,
    in_order,
    leads_here,
    seconds_between,
    told_by,
)
from llmdoctor_checks._clients import asking
from llmdoctor_checks.serving._gateways import GENERATES, STORES, asked_for

#: What a line that says so contains.
ENDED = (
    "imed out", "imeout", "bort", "ancel", "eadline", "roke off", "unexpected EOF", " 504", ":504", ": 504", "=504",
)  # fmt: skip
_ENDED = (
    r"(?i)timed[ -]?out|time-?out|\babort|\bcancel(?:l?ed|ling)\b|\bdeadline|\bbroke off|unexpected EOF"
    r"|\"status(?:_?code)?\": ?\"?504\b|\" 504 "
    r"|\bPOST /\S{1,300} (?:(?:->|=>|HTTP/[\d.]{1,3}) ){0,2}504\b|\bstatus(?:_?code)?=504\b|\b504: b?[\"'{]"
)

#: A line of a connection, of another store or of a probe tells of no request to a model; nor does one that ends well.
OF_ELSE = (
    rf"(?i){STORES}|database|\bdb\b|cache|session|web.?socket|inactiv|crawl|scrap|brows|\bsearch|\bspans?\b(?!=)|telemetry|\bexport|embed|rerank|retriev|\btool\b|upload|download|\bs3\b|smtp|\bdns\b|\blookup\b|\block\b|\bpool\b"
    r"|\bconnect(?:ing)?\b|connection (?:timed|timeout|refused|reset|attempt)|ECONN|\bdial\b|handshake|health|heartbeat|\bprobe|\bping\b"
    r"|\bpull|\bload(?:ing|ed)?\b"
    r"|/metrics\b|(?-i:\bGET\b)|\bstatus(?:_?code)?\\?\"?[=:] ?\\?\"?2\d\d\b|HTTP/[\d.]{1,3}\" 2\d\d\b"
    r"|\] 2\d\d POST /|\b(?:DEBUG|TRACE)\b(?!=)"
)
#: A statistic counts what was ended, over a time that is as round; and what a user or a page may have written is said of nothing.
NO_REQUEST = (
    r"(?i)\b(?:time-?outs|time-?outs?_total|timed[ _-]?out|abort(?:s|ed)|cancell?(?:s|ed|ations))\\?\"?(?:[=:] ?|: \\?\")\d"
    r"|\b\d{1,9} (?:requests? )?(?:were )?(?:time-?outs?|timed[ -]?out|abort(?:s|ed)|cancell?ed)\b"
    r"|\\?\"(?:role|content|messages|prompt)\\?\": ?|'(?:role|content|messages|prompt)': ?|\buser (?:asked|message|query)"
)
#: What a request to a model is called, in the line or beside it; and what any other is called as well.
_OF_AN_ANSWER = r"(?i)\bllm\b|model|complet|generat|infer|answer|prompt|\bchat\b"
_OF_ANY = r"(?i)stream|respon|request|upstream"
_BESIDE = 1
#: A request to a server of models, also by the path of those that serve any (LitServe, Cog, MLflow).
ASKED = rf"{GENERATES}|POST /(?:predict(?:ions)?|invocations)\b"
_URL = r"https?://[\w.-]{1,253}(?::\d{1,5})?"

#: A length of time: Go's, with a unit, or behind a name that has one. One that is still to come is none of a request.
_GO = r"(?:\d{1,3}h)?(?:\d{1,3}m)?\d{1,6}(?:\.\d{1,9})?s"
_AGE = (
    rf"(?<![\w.:+-])(?:(?P<go>{_GO})|(?P<number>\d{{1,9}}(?:\.\d{{1,9}})?) ?(?P<unit>ms|milliseconds?|secs?|seconds?|min|minutes?))"
    r"(?!\w|\.\d)|(?:_ms|Ms|[Mm]illis(?:econds)?)\\?\"?[=:] ?(?P<millis>\d{4,9})(?![\w.])"
)
_TO_COME = (
    r"(?i)(?:\b(?:retry(?:ing)?|again|sleep(?:ing)?|waiting|back-?off|next|every|limit|max|last|past|per|over the)(?: \w{1,10}){0,2}"
    r"|(?:time-?out|deadline|limit|\bmax|ttl|keep_?-?alive|interval|period|budget|window|allowed|uptime)\w{0,12})[ =:\\\"']{0,5}$"
)
_UNITS = {"m": 0.001, "s": 1.0, "min": 60.0}

#: Timeouts are multiples of so many seconds, and no shorter; so much later at most does a program see that one is over.
_ROUND, _SHORTEST, _LATER = 5, 10, 0.5
#: Younger ones are ended by people who stop them; they count among all that were ended, but for those that hardly began.
_COUNTED = 1
#: The last lines of a log, and the first times in a line, that are looked at.
_MOST, _MOST_AGES = 1000, 10
#: So many at one age, each at another time, and so large a share of all that were ended, are no chance.
_FEWEST, _SHARE, _APART = 3, 0.8, 2


def fewest(age: int, allowed: Set[float]) -> int:
    """How many requests that ended at an age tell of a timeout: one is enough where something on their way is said to allow that age."""
    return 1 if age in allowed else _FEWEST


def of_clients(pod: Pod, cluster: Cluster, allowed: Set[float]) -> tuple[list[Line], int] | None:
    """What clients of this server alone say, or gateways before it: the lines, and the age in seconds."""
    names = {item.name for item in pod.services}
    said = cluster.once("ended at an age", lambda: dict(_said(cluster)))
    if not said:
        return None
    for container in asking(pod, cluster):
        one = container.whose
        alone = one in said and asks_nothing_else(container, pod, names)
        lines = [
            (line, ages)
            for line, ages in said.get(one, ())
            if (alone or _speaks(line, _OF_AN_ANSWER))
            and all(leads_here(pod, names, url, one[0]) or _inside(url) for url in asked_for(line))
        ]
        # one line alone is of this server only where it says what was asked
        of_an_answer = [one for one in lines if _speaks(one[0], _OF_AN_ANSWER)]
        if (found := _alike(lines, frozenset()) or _alike(of_an_answer, allowed)) is not None:
            return found
    return None


def of_itself(pod: Pod, cluster: Cluster, engines: set[str], allowed: Set[float]) -> tuple[list[Line], int] | None:
    """What a proxy in the server's own pod says of requests to generate, or a server that nobody knows itself."""
    said = cluster.once("ended at an age", lambda: dict(_said(cluster)))
    for name in (c.name for c in pod.containers if c.name not in engines):
        lines = said.get((pod.namespace, pod.name, name), ())
        if (found := _alike([one for one in lines if _speaks(one[0], ASKED)], allowed)) is not None:
            return found
    return None


def asks_nothing_else(container: Container, pod: Pod, names: set[str]) -> bool:
    """Whether all addresses that a container is told are this server's, so that a request can be meant for no other."""
    told = (url for _, value in told_by(container) for url in re.findall(_URL, value))
    return all(leads_here(pod, names, url, container.pod.namespace) or _inside(url) for url in told)


def _inside(url: str) -> bool:
    """Whether it asks something in its own pod."""
    return host_of(url) in ("localhost", "127.0.0.1")


def _said(cluster: Cluster) -> Iterator[tuple[tuple[str, str, str], list[tuple[Line, set[float]]]]]:
    """The lines of each container's log by which something was ended that had taken some time, and how long."""
    for log in current_logs(cluster):
        lines = in_order(log.find(*ENDED))[-_MOST:] if log.pod else ()
        found = [(line, ages) for line in lines if (ages := _ages(line))]
        if found:
            yield log.whose, found


def _ages(line: Line) -> set[float]:
    """How many seconds a line says that something took which it says was ended; none where it is of something else."""
    text = line.text[:2000]
    if not re.search(_ENDED, text) or re.search(OF_ELSE, text) or re.search(NO_REQUEST, text):
        return set()
    if not _speaks(line, _OF_AN_ANSWER) and not _speaks(line, _OF_ANY):
        return set()
    return {
        age for age in map(_seconds, islice(re.finditer(_AGE, text), _MOST_AGES)) if age is not None and age >= _COUNTED
    }


def _speaks(line: Line, words: str) -> bool:
    """Whether a line, or one beside it, has such a word."""
    beside = line.log.lines(max(line.number - _BESIDE, 1), line.number + _BESIDE)
    return any(re.search(words, one.text[:2000]) for one in beside)


def _seconds(found: re.Match[str]) -> float | None:
    before = found.string[max(found.start() - 40, 0) : found.start()]
    if re.search(_TO_COME, before):
        return None
    if found["go"]:
        return duration(found["go"])
    if found["millis"]:
        return int(found["millis"]) / 1000
    unit = "min" if found["unit"].startswith("min") else found["unit"][0]
    return float(found["number"]) * _UNITS[unit]


def _alike(lines: list[tuple[Line, set[float]]], allowed: Set[float]) -> tuple[list[Line], int] | None:
    """Those that were all as old, where nearly all were, each at another time."""
    counted = Counter(age for _, ages in lines for age in {_round(one) for one in ages} if age)
    age, times = counted.most_common(1)[0] if counted else (0, 0)
    if times < max(fewest(age, allowed), _SHARE * len(lines)):
        return None
    alike = [line for line, ages in lines if age in map(_round, ages)]
    apart = [alike[0], *(other for one, other in pairwise(alike) if _apart(one, other))]
    return (apart, age) if len(apart) >= fewest(age, allowed) else None


def _apart(one: Line, other: Line) -> bool:
    """Whether two lines are of two requests: those that ended together may be those of a program that ended."""
    gap = seconds_between(one, other)
    return other.number - one.number > _BESIDE if gap is None else gap > _APART


def _round(age: float) -> int:
    """The round number of seconds that a request was old when it was ended; 0 where it was at none."""
    whole = int((age + 0.05) // _ROUND) * _ROUND
    return whole if whole >= _SHORTEST and -0.05 <= age - whole <= _LATER else 0
