"""An endpoint picker that speaks TLS, asked by a gateway that speaks none.

Sources: `pkg/epp/server/options.go` of the inference extension and llm-d's router (`--secure-serving`, true by default, with a certificate
of its own where none is given); a gateway of Istio asks a Service in plain text unless a DestinationRule says otherwise, as the
extension's guide has it.
"""

import re
from collections.abc import Iterator

from kubectl_llmdoctor.api import (
    Container,
    Finding,
    Fix,
    Item,
    Line,
    Log,
    Pod,
    dig,
    fixes,
    log_evidence,
    object_evidence,
    pickers_of,
    pod_evidence,
    rows,
)
from llmdoctor_checks.start._picker_ports import NOT_ASKED

#: The picker ended the connection, or answered no HTTP/2.
_ENDED = r"_reset_reason:_(?:connection_termination|remote_reset|protocol_error)"
_FLAG = r"--?secure-?[sS]erving\b(?:[= ](?P<value>\w+))?"
_OF_A_PICKER = r"--?pool-?[nN]ame\b"
#: What a gateway of Istio's is called in its pod; a sidecar beside a server is called the same.
_GATEWAY, _OF_A_GATEWAY = "istio-proxy", "gateway.networking.k8s.io/gateway-name"
#: How Istio calls the Service that it makes for a pool.
_OF_A_POOL = "-ip-"


def picker_with_tls(pod: Pod) -> Iterator[Finding]:
    """Requests that fail since no gateway gets an answer of the picker, whether the model or the picker itself is looked at."""
    if not (pod.exists and pod.ready):
        return
    lines = pod.cluster.once(f"{NOT_ASKED} ended", lambda: _said(pod))
    for pool, picker in _pickers(pod) if lines else ():
        of_pool = re.compile(rf"(?<![\w.-]){re.escape(pool.name)}{_OF_A_POOL}\w{{1,20}}\.{re.escape(pool.namespace)}\.")
        said = next((x for x in lines if _OF_A_POOL not in x.text or of_pool.search(x.text[:4000])), None)
        told, named = _told(picker), list(pickers_of(pool).items())
        rule = next((r for r in pod.cluster.items("DestinationRule") if _is_of(r, pool)), None)
        if (
            said is None
            or told is None
            or not named
            or (rule is not None and _with_tls(rule))
            or _answers(said, of_pool)
        ):
            continue
        field, name = named[0]
        yield Finding(
            severity="warning",
            summary=f"{picker.pod.name}, the endpoint picker of InferencePool {pool.name}, serves TLS ({told}), and the gateway asks it in "
            "plain text: each request is answered with 500.",
            evidence=(
                log_evidence(said, NOT_ASKED),
                pod_evidence(picker, "args", told),
                object_evidence(pool, "spec", f"{field}: {name}"),
            ),
            fixes=(
                _plain(picker),
                fixes.advice(
                    f"Where TLS is to stay: a DestinationRule for {name}.{pool.namespace}.svc.cluster.local with "
                    "trafficPolicy.tls mode SIMPLE and insecureSkipVerify: true"
                ),
            ),
            order=said.order,
        )
        return


def _answers(said: Line, of_pool: re.Pattern[str]) -> bool:
    """Whether the gateway has got requests through to servers of the pool: then the picker answers it, and was away for a while."""
    through = (line.text[:4000] for line in said.log.find(_OF_A_POOL))
    return any(re.search(r'HTTP/[\d.]{1,3}" [12]\d\d ', text) and of_pool.search(text) for text in through)


def _with_tls(rule: Item) -> bool:
    """Whether a rule says for some port whether the gateway speaks TLS."""
    policy = dig(rule.raw, "spec.trafficPolicy")
    return bool(dig(policy, "tls")) or any(row.get("tls") for row in rows(policy, "portLevelSettings"))


def _said(pod: Pod) -> list[Line]:
    lines = (x for text in pod.cluster.snapshot.logs if text.container == _GATEWAY for x in Log(text).find(NOT_ASKED))
    return [line for line in lines if re.search(_ENDED, line.text[:4000])]


def _pickers(pod: Pod) -> Iterator[tuple[Item, Container]]:
    """The pools that the pod belongs to or picks for, or has routes to as a gateway, each with the container of a picker that names it."""
    gateway = pod.container(_GATEWAY) is not None and _OF_A_GATEWAY in pod.labels
    for item in pod.cluster.items("Pod", pod.namespace):
        other = pod if item is pod.item else Pod.of(item, pod.cluster)
        for container in other.containers if other.ready else ():
            named = re.search(rf"{_OF_A_PICKER}[= ](\S{{1,253}})", " ".join(container.spec.argv)[:20_000])
            pool = pod.cluster.item("InferencePool", pod.namespace, named[1]) if named else None
            meshed = any(beside.name == _GATEWAY for beside in other.containers)
            if pool is not None and not meshed and (other is pod or pool in pod.pools or gateway):
                yield pool, container


def _told(picker: Container) -> str | None:
    """How a picker was told to serve TLS; None where it was told not to."""
    said = re.search(_FLAG, " ".join(picker.spec.argv)[:20_000])
    if said is None:
        return "--secure-serving is not given, and is true by itself"
    return None if (said["value"] or "").lower() in ("false", "f", "0") else said[0]


def _is_of(rule: Item, pool: Item) -> bool:
    host = str(dig(rule.raw, "spec.host") or "")
    return host.split(".")[0] in (*pickers_of(pool).values(), "*")


def _plain(picker: Container) -> Fix:
    at = next((n for n, word in enumerate(picker.spec.args) if re.fullmatch(_FLAG, str(word))), None)
    camel = any(re.match(r"--?poolName\b", str(word)) for word in picker.spec.args)
    flag = "--secureServing=false" if camel else "--secure-serving=false"
    where = f"{picker.pointer}/args"
    operation: dict[str, object] = {"op": "add", "path": where, "value": [flag]}
    if picker.spec.args:
        place, op = (str(at), "replace") if at is not None else ("-", "add")
        operation = {"op": op, "path": f"{where}/{place}", "value": flag}
    summary = (
        f"Have {picker.name} of {picker.pod.name} serve plain gRPC, unless a DestinationRule asks it with TLS: {flag}"
    )
    return fixes.patch(picker.pod, summary, [operation])
