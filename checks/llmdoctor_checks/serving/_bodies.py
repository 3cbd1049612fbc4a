"""Requests that a gateway refuses for the size of their body, before any server sees them."""

import re
from collections.abc import Iterator
from itertools import islice
from typing import Literal

from kubectl_llmdoctor.api import (
    Cluster,
    Container,
    Finding,
    Item,
    Line,
    Log,
    Pod,
    backends_of,
    current_logs,
    in_order,
    leads_here,
    log_evidence,
    often,
    written_before,
)
from llmdoctor_checks._clients import asking
from llmdoctor_checks.serving._gateways import GENERATES
from llmdoctor_checks.serving._patience import takes_more
from llmdoctor_checks.serving._round_ages import asks_nothing_else

#: nginx says so in its error log. Envoy has the status and its own detail in an access log of text; in one of JSON, that no server was
#: asked says that it answered by itself.
_OF_NGINX, _OF_ENVOY = "client intended to send too large body: ", "request_payload_too_large"
_IN_JSON = ('"response_code":413', '"response_code":"413"', '"response_code": 413', '"status":413', '"status":"413"')
LITERALS = (_OF_NGINX, _OF_ENVOY, *_IN_JSON, '"statusCode":413', "status=413", '" 413')
_STATUS = r'"(?:response_code|status)": ?"?413"?[,}]'
#: As programs in front of a server log a request that they refused themselves.
_BY_A_FRONT = r'"(?:status(?:_?code)?|response_code)": ?"?413\b|\bstatus(?:_?code)?=413\b|HTTP/[\d.]{1,3}" 413\b'
#: With the address of another it is a request that it made itself, and whoever answers there refused it.
_ASKED_ANOTHER = rf"https?://[^\s\"']{{1,300}}(?:{GENERATES}|/v1/)"
_ASKED_SOMEBODY = r'"?(?:upstream_?(?:host|addr|status)|upstreamAddr|OriginStatus)"?[:=] ?"?(?!null|-|"|0\b)[\w\[]'
_ASKED_NOBODY = r'"upstream_host": ?(?:null|"-?")'

#: Express' morgan, in its short formats, and how Python's clients say that another refused it.
_OF_MORGAN, _FOR_URL = r"\bPOST /\S{1,300} 413 [\d.]{1,12} ms\b", " for url"

#: Access logs that have a request's size and its status; limits that programs have by themselves or are given, in bytes.
_SIZED = (
    '"content_length"', '"contentLength"', "content_length=", '"bytes_received"', '"request_length"',
    "request_length=",
)  # fmt: skip
_SIZE = r'"?(?:content_?[lL]ength|bytes_received|request_length)"?[:=] ?"?(\d{1,12})\b'
_ANY_STATUS = r'"?\b(?:status(?:_?code)?|response_code)"?[:=] ?"?(\d{3})\b'
_LIMITS = sorted(
    size * unit for size in (1, 2, 4, 5, 8, 10, 16, 20, 25, 32, 50, 64, 100) for unit in (1000**2, 1024**2)
)
#: What a program answers that does not read a body to its end: too large, or the answer for a route that it lacks. A server of models
#: answers 400 or 422 to a prompt that is too long, a client that waited too long leaves (408, 499), and the large ones meet limits first.
_OF_A_LIMIT = ("404", "413", "431")
#: What is looked for in a gateway's own log besides.
#: Envoy's detail of an answer (500) that a filter wants whole and that is larger than it buffers: the server had answered.
_ANSWER = "response_payload_too_large"
OWN = (*_SIZED, "413", "PayloadTooLargeError", "request entity too large", _ANSWER)
_OWN_WORDS = (_OF_NGINX, _OF_ENVOY, "PayloadTooLargeError", "request entity too large")
#: So many that failed, each above all that did not, are no chance; of the last lines.
_FEWEST_FAILED, _FEWEST_GOOD, _MOST = 5, 10, 20_000

#: How large it was.
_BYTES = r'too large body: (\d{1,15}) bytes|"(?:bytes_received|content_?[lL]ength)": ?"?(\d{1,15})"?'

#: Which host was asked, as they print it: nginx, Envoy's fields, and what an access log of text has in quotation marks.
_HOST = r'\bhost: "([\w.-]{1,253})|"(?::?authority|host)": ?"([\w.-]{1,253})|"([\w-]{1,63}(?:\.[\w-]{1,63}){1,10})(?::\d{1,5})?"'
#: The last part of the path of a request.
_POSTED = r'\bPOST /(?:[^\s?"/]{1,80}/){0,10}([^\s?"/]{1,80})/?(?=[\s?"])'
_PATHS = rf"{GENERATES}|/v1/(?:embeddings|rerank|audio/\w+)\b|/(?:embed|rerank)\b"


def refused(pod: Pod, server: Container, cluster: Cluster, own: Log | None) -> list[Line]:
    """Lines of gateways that refused a body that was meant for this server, by its name or by a host that leads to it alone.

    Of one that asks this server alone whatever the path is called, if the server was asked for one that ends so: a page in front of
    it may take files for itself.
    Only since it was started, as far as the time is known: what was refused before may have been mended with that.
    """
    said = cluster.once("too large bodies", lambda: list(_refusals(cluster))) if pod.ready else []
    names = {item.name for item in pod.services}
    if not names:
        return []
    if not said:
        return _by_a_front(pod, server, cluster, own) if pod.ready and own is not None else []
    either = "|".join(map(re.escape, sorted(names | _routes(pod, names, cluster))))
    ns = re.escape(pod.namespace)
    # with its namespace, since a Service may be called like a word of any path; as ingress-nginx joins them, with the port
    named = re.compile(
        rf"(?<![\w-])(?:{ns}/(?:{either})(?![\w-])|{ns}-(?:{either})-\d{{1,5}}(?![\w-])|(?:{either})\.{ns}(?![\w-]))"
    )
    asked = {one for _, hosts in said for one in hosts}
    here = {(host, space) for host, space in asked if leads_here(pod, names, f"http://{host}", space)}
    alone = {c.whose for c in asking(pod, cluster) if asks_nothing_else(c, pod, names)}
    ends = {one[1] for _, one in own.matching(_POSTED, "POST /", most=2000)} if own and alone else set()
    ours = (
        line
        for line, hosts in said
        if _of_one(line, ends, alone)
        or (re.search(_PATHS, line.text[:8000]) and (not here.isdisjoint(hosts) or named.search(line.text)))
    )
    return [line for line in ours if not written_before(line, server, cluster)]


def _of_one(line: Line, ends: set[str], alone: set[tuple[str, str, str]]) -> bool:
    """Whether a container that asks one server alone refused a path that ends as one for which that is asked."""
    if line.log.whose not in alone:
        return False
    posted = re.search(_POSTED, line.text[:8000])
    return re.search(_PATHS, line.text[:8000]) is not None or (posted is not None and posted[1] in ends)


def _by_a_front(pod: Pod, server: Container, cluster: Cluster, own: Log) -> list[Line]:
    """Lines of programs that ask this server alone and answered 413, which its own access log does not have."""
    lines = cluster.once("413 of fronts", lambda: list(_of_fronts(cluster)))
    if not lines or not any("POST /" in line.text[:2000] for line in own.find('" 200')):
        return []
    if any(re.search(_BY_A_FRONT, line.text[:2000]) for line in own.find("413")):
        return []
    who = {c.whose for c in asking(pod, cluster)}
    asked = (x.log.whose for x in lines)
    return [
        line for line, one in zip(lines, asked, strict=True) if one in who and not written_before(line, server, cluster)
    ]


def refused_itself(own: Log) -> list[Line]:
    """Lines by which a program that is no engine refused a body itself: 413 at a route of models, and nobody whom it asked said so."""
    lines = [x for x in in_order(own.find("413", _OF_NGINX)) if "POST" in x.text[:4000]]
    lines = max(([x for x in lines if (_OF_NGINX in x.text) is own_words] for own_words in (True, False)), key=len)
    if any(re.search(_ASKED_ANOTHER, x.text[:4000]) or _FOR_URL in x.text[:4000] for x in own.find("413")):
        return []
    return [
        x
        for x in lines
        if re.search(_PATHS, x.text[:4000])
        and not re.search(_ASKED_SOMEBODY, x.text[:4000])
        and (_OF_NGINX in x.text or re.search(_BY_A_FRONT, x.text[:4000]) or re.search(_OF_MORGAN, x.text[:2000]))
    ]


def answers_dropped(own: Log) -> list[Line]:
    """Lines of an Envoy that answered 500 in the place of a server's answer, which was larger than it buffers."""
    return [x for x in own.find(_ANSWER) if "POST" in x.text[:4000] and re.search(_PATHS, x.text[:4000])]


def in_own_words(own: Log) -> bool:
    """Whether a program says besides that it was itself who refused them: nginx, Express' parser, an Envoy that asked nobody."""
    return any(own.holds(words) for words in _OWN_WORDS) or any(
        re.search(_ASKED_NOBODY, x.text[:4000]) for x in own.find("413")
    )


def refused_by_size(own: Log) -> tuple[list[Line], int] | None:
    """Lines of requests that a program refused (413, 404) at a route, each larger than all that were answered there; and the limit between.

    A limit of bodies that is answered with another status than 413, or falls through to the answer for an unknown route.
    """
    good: dict[str, list[int]] = {}
    bad: dict[str, list[tuple[int, Line]]] = {}
    for line in islice(own.find(*_SIZED), _MOST):
        text = line.text[:4000]
        size, status, path = (re.search(pattern, text) for pattern in (_SIZE, _ANY_STATUS, _PATHS))
        if size is None or status is None or path is None or "POST" not in text:
            continue
        if status[1][0] == "2":
            good.setdefault(path[0], []).append(int(size[1]))
        elif status[1] in _OF_A_LIMIT and not re.search(_ASKED_SOMEBODY, text):
            bad.setdefault(path[0], []).append((int(size[1]), line))
    for route, failed in bad.items():
        taken = good.get(route, [])
        least, most = min(size for size, _ in failed), max(taken, default=0)
        limit = next((one for one in _LIMITS if most < one <= least), 0)
        if limit and len(failed) >= _FEWEST_FAILED and len(taken) >= _FEWEST_GOOD:
            return [line for _, line in failed], limit
    return None


def _of_fronts(cluster: Cluster) -> Iterator[Line]:
    for log in current_logs(cluster):
        for line in log.find("413") if log.pod else ():
            said = line.text[:4000]
            if "POST" not in said or not re.search(_BY_A_FRONT, said) or not re.search(_PATHS, said):
                continue
            if not re.search(_ASKED_ANOTHER, said):
                yield line


def _refusals(cluster: Cluster) -> Iterator[tuple[Line, set[tuple[str, str]]]]:
    """Lines of gateways that refused a body, and the hosts that were asked, each with the namespace in which that is said."""
    lines = (line for log in current_logs(cluster) if log.pod for line in in_order(log.find(*LITERALS)))
    return ((line, _hosts(line)) for line in lines if _says_so(line.text[:8000]))


def _says_so(text: str) -> bool:
    if "POST" not in text:
        return False
    if _OF_NGINX in text or _OF_ENVOY in text:
        return True
    return bool(re.search(_STATUS, text) and re.search(_ASKED_NOBODY, text))


def _hosts(line: Line) -> set[tuple[str, str]]:
    return {(one[1] or one[2] or one[3], line.log.source.namespace) for one in re.finditer(_HOST, line.text[:8000])}


def _routes(pod: Pod, names: set[str], cluster: Cluster) -> set[str]:
    """Routes of the server's namespace that lead to it alone."""
    return {item.name for item in cluster.items("HTTPRoute") if item.namespace == pod.namespace and _only(item, names)}


def _only(route: Item, names: set[str]) -> bool:
    places = {backend.place for backend in backends_of(route)}
    return bool(places) and places <= {(route.namespace, name) for name in names}


def finding(pod: Pod, lines: list[Line], *, cause: bool) -> Finding:
    """What is said of these lines."""
    line = lines[-1]
    sizes = _sizes(lines)
    of = f" of {min(sizes)} bytes and more" if sizes else ""
    whose = "that is its own limit, and the server never saw them"
    if not _of_a_gateway(line):
        whose = f"the log of {pod.name} has no such answer, so the limit is that of {line.log.pod} or of what stands between"
    return Finding(
        role="cause" if cause else "note",
        severity="warning",
        summary=f"{line.log.pod} refused requests to {pod.name} for the size of their body{of} (413), {often(len(lines))} in its log: "
        f"{whose}.",
        evidence=(log_evidence(line, next((words for words in LITERALS if words in line.text), "")),),
        fix=takes_more(line, max(sizes, default=0), pod.cluster),
        order=line.order,
    )


def own_finding(pod: Pod, lines: list[Line], more: str, confidence: Literal["likely", "possible"]) -> Finding:
    """What is said of a program that refused them itself."""
    line = lines[-1]
    return Finding(
        severity="warning",
        confidence=confidence,
        summary=f"{line.log.container} of {pod.name} refused requests for the size of their body, {often(len(lines))} in its log{more}: "
        + (
            "that is a limit of its own."
            if confidence == "likely"
            else "that is a limit of its own, or of what it passes them on to."
        ),
        evidence=tuple(log_evidence(one) for one in lines[-2:]),
        fix=takes_more(line, max(_sizes(lines), default=0), pod.cluster),
        order=line.order,
    )


def dropped_finding(pod: Pod, lines: list[Line]) -> Finding:
    """What is said of answers that a gateway did not pass on."""
    line = lines[-1]
    return Finding(
        severity="warning",
        summary=f"{line.log.container} of {pod.name} answered 500 in the place of answers that are larger than it buffers, "
        f"{often(len(lines))} in its log: the server had answered.",
        evidence=(log_evidence(line, _ANSWER),),
        explains=("http-5xx",),
        fix=takes_more(line, 0, pod.cluster),
        order=line.order,
    )


def _of_a_gateway(line: Line) -> bool:
    """Whether it says in words of its own that it refused the request itself."""
    return _OF_NGINX in line.text or _OF_ENVOY in line.text or re.search(_ASKED_NOBODY, line.text) is not None


def _sizes(lines: list[Line]) -> list[int]:
    """How many bytes the bodies had, where the lines say it."""
    return [int(one[1] or one[2]) for x in lines if (one := re.search(_BYTES, x.text[:8000])) is not None]
