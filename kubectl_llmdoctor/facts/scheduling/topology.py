"""The filters over other pods: PodTopologySpread and InterPodAffinity.

Both count pods by topology domain once (PreFilter) and compare with each node's domain after that.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec.structs import replace

from kubectl_llmdoctor.facts import k8s
from kubectl_llmdoctor.facts.constraints import HOSTNAME, mismatches, selected, untolerated
from kubectl_llmdoctor.facts.nodes import Node
from kubectl_llmdoctor.facts.scheduling.ask import Ask, Filter
from kubectl_llmdoctor.facts.scheduling.objects import Namespace
from kubectl_llmdoctor.facts.scheduling.verdict import Gap, Reason
from kubectl_llmdoctor.facts.units import few
from kubectl_llmdoctor.facts.usage import ref_of

#: The label that every namespace has: its name.
_NAME = "kubernetes.io/metadata.name"

#: Pods that a reason names; the rest is a number.
_MOST_NAMED = 3


def _with_keys(
    selector: k8s.LabelSelector | None, labels: Mapping[str, str], same: Iterable[str], other: Iterable[str] = ()
) -> k8s.LabelSelector | None:
    """A selector with what matchLabelKeys and mismatchLabelKeys add to it.

    The API server has added it when the pod was made; a template and older servers have not.
    """
    if selector is None:
        return None
    added: list[k8s.Requirement] = []
    for keys, operator in ((same, "In"), (other, "NotIn")):
        for key in keys:
            known = any(r.key == key and r.operator == operator for r in selector.match_expressions)
            if key in labels and not known:
                added.append(k8s.Requirement(key=key, operator=operator, values=(labels[key],)))
    return replace(selector, match_expressions=(*selector.match_expressions, *added)) if added else selector


def show_selector(selector: k8s.LabelSelector | None) -> str:
    """A label selector in words: `app=llama, tier in [a, b]`."""
    if selector is None:
        return "no pod"
    said = [f"{key}={value}" for key, value in selector.match_labels.items()]
    for r in selector.match_expressions:
        values = ", ".join(str(v) for v in r.values)
        words = {"In": f"{r.key} in [{values}]", "NotIn": f"{r.key} not in [{values}]", "Exists": r.key}
        said.append(words.get(r.operator, f"no {r.key}"))
    return ", ".join(said) or "any labels"


# --- PodTopologySpread ------------------------------------------------------------------------------------------------


class _Spread:
    """One constraint, with the pods that count by domain."""

    def __init__(self, ask: Ask, spec: k8s.SpreadConstraint, keyed: Iterable[Node]) -> None:
        self.key, self.most = spec.topology_key, spec.max_skew
        self.selector = _with_keys(spec.label_selector, ask.labels, spec.match_label_keys)
        self.self_match = selected(self.selector, ask.labels)
        self.pods: dict[str, list[str]] = {}
        eligible = set()
        for node in keyed:
            if spec.node_affinity_policy != "Ignore" and mismatches(ask.spec, node.name, node.labels):
                continue
            if spec.node_taints_policy == "Honor" and any(untolerated(node.taints, ask.spec.tolerations)):
                continue
            self.pods.setdefault(node.labels[self.key], [])
            eligible.add(node.name)
        selector = self.selector
        if selector and (selector.match_labels or selector.match_expressions):  # an empty one counts nothing
            for pod in ask.usage.by_namespace.get(ask.pod.namespace, ()):
                if pod.spec.node_name not in eligible or pod.metadata.deletion_timestamp:
                    continue
                if selected(selector, pod.metadata.label_texts):
                    self.pods[ask.by_name[pod.spec.node_name].labels[self.key]].append(ref_of(pod))
        domains = len(self.pods)
        self.short_of = spec.min_domains if spec.min_domains and domains < spec.min_domains else 0
        self.least = 0 if self.short_of or not domains else min(len(pods) for pods in self.pods.values())

    def against(self, node: Node) -> tuple[str, list[str]] | None:
        """Why the pod may not run there, and the pods that are too many already."""
        domain = node.labels.get(self.key)
        if domain is None:
            return f"no label {self.key}", []
        here = self.pods.get(domain, [])
        if len(here) + self.self_match - self.least <= self.most:
            return None
        least = f"another has {self.least}"
        if self.short_of:
            least = f"{len(self.pods)} of {self.short_of} domains (minDomains) are there, so the least counts as 0"
        word = "pod" if len(here) == 1 else "pods"
        return f"{self.key}={domain} has {len(here)} such {word}, {least} (maxSkew {self.most})", here


def spread(ask: Ask) -> Filter | Reason | None:
    """Topology spread constraints that must hold (`DoNotSchedule`)."""
    plugin = "PodTopologySpread"
    hard = [c for c in ask.spec.topology_spread_constraints if c.when_unsatisfiable == "DoNotSchedule"]
    if not hard:
        return None
    complete = ask.nodes_complete and ask.pods_complete(ask.pod.namespace)
    keyed = [node for node in ask.nodes if all(c.topology_key in node.labels for c in hard)]
    constraints = [_Spread(ask, c, keyed) for c in hard]

    def judge(node: Node) -> Iterator[Reason | Gap]:
        without = [c.key for c in constraints if c.key not in node.labels]
        if not complete and not without:
            yield Gap(plugin=plugin, why="not all nodes and pods were read")
            return
        found = [(c.key, *said) for c in constraints if (said := c.against(node))]
        if not found:
            return
        text = "node(s) didn't match pod topology spread constraints"
        yield Reason(
            plugin=plugin,
            kind="spread",
            text=text + ("" if found[0][0] in node.labels else " (missing required label)"),
            detail="; ".join(said for _, said, _ in found),
            pods=tuple(dict.fromkeys(ref for _, _, refs in found for ref in refs)),
        )

    return judge


# --- InterPodAffinity -------------------------------------------------------------------------------------------------


class _Term:
    """A required term of a pod's affinity or anti-affinity, as it selects pods.

    A selector of namespaces in the waiting pod's own terms that would do for a namespace without labels means all
    namespaces to the scheduler (`mergeAffinityTermNamespacesIfNotEmpty` keeps it, and it meets no labels later).
    """

    def __init__(self, term: k8s.PodAffinityTerm, owner: k8s.Pod, labels: Mapping[str, str], *, own: bool) -> None:
        self.own = own
        self.key = term.topology_key
        self.selector = _with_keys(term.label_selector, labels, term.match_label_keys, term.mismatch_label_keys)
        self.namespaces = set(term.namespaces)
        self.namespace_selector = term.namespace_selector
        if not term.namespaces and term.namespace_selector is None:
            self.namespaces.add(owner.metadata.namespace or "default")

    def spans(self, ask: Ask, namespace: str) -> bool | None:
        """Whether it means the pods of a namespace; None when the namespace's labels are not known."""
        if namespace in self.namespaces:
            return True
        wanted = self.namespace_selector
        if wanted is None:
            return False
        if self.own and selected(wanted, {}):
            return True
        found = ask.objects.get(Namespace, namespace)
        labels = {_NAME: namespace} | (found.metadata.label_texts if found else {})
        if found is None and not ({*wanted.match_labels} | {r.key for r in wanted.match_expressions} <= {_NAME}):
            return None
        return selected(wanted, labels)


def _terms(affinity: k8s.PodAffinity | None, owner: k8s.Pod, *, own: bool = False) -> list[_Term]:
    required = affinity.required_during_scheduling_ignored_during_execution if affinity else ()
    labels = owner.metadata.label_texts if required else {}
    return [_Term(term, owner, labels, own=own) for term in required]


class _Domains:
    """The pods that terms mean, by topology key and domain."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.pods: dict[tuple[str, str], list[str]] = {}
        #: what is not known, so that there may be more
        self.unknown = ""

    def add(self, pod: k8s.Pod, key: str) -> None:
        node = self.ask.by_name.get(pod.spec.node_name)
        if node is None:
            if key != HOSTNAME and not self.ask.nodes_complete:
                self.unknown = f"node {pod.spec.node_name}, which {ref_of(pod)} is on, was not read"
            return
        domain = node.labels.get(key)
        if domain is not None:
            self.pods.setdefault((key, domain), []).append(ref_of(pod))

    def spanned(self, term: _Term) -> set[str]:
        """The namespaces that a term means."""
        found = set()
        for namespace in self.ask.usage.by_namespace:
            answer = term.spans(self.ask, namespace)
            if answer:
                found.add(namespace)
            elif answer is None:
                self.unknown = f"the labels of namespace {namespace} were not read"
        return found

    def on(self, node: Node, key: str) -> list[str]:
        """The pods in a node's domain."""
        domain = node.labels.get(key)
        return [] if domain is None else self.pods.get((key, domain), [])


def affinity(ask: Ask) -> Filter | Reason | None:
    """Required affinity and anti-affinity of the pod, and required anti-affinity of the pods that run."""
    own, me = ask.spec.affinity, ask.pod.obj
    wanted = _terms(own.pod_affinity if own else None, me, own=True)
    unwanted = _terms(own.pod_anti_affinity if own else None, me, own=True)
    beside, against, repelled = _all_of(ask, wanted), _each_of(ask, unwanted), _repelling(ask)
    if not (wanted or unwanted or repelled.pods or repelled.unknown):
        return None
    if not (ask.nodes_complete and ask.usage.complete):
        beside.unknown = beside.unknown or "not all nodes and pods were read"

    def judge(node: Node) -> Iterator[Reason | Gap]:
        yield from _beside(node, wanted, beside)
        yield from _apart(node, [t.key for t in unwanted], against, "node(s) didn't match pod anti-affinity rules")
        text = "node(s) didn't satisfy existing pods anti-affinity rules"
        yield from _apart(node, node.labels, repelled, text)

    return judge


def _all_of(ask: Ask, terms: list[_Term]) -> _Domains:
    """The domains of pods that match all terms of an affinity."""
    found = _Domains(ask)
    spanned = [found.spanned(term) for term in terms]
    for namespace in sorted(set.intersection(*spanned)) if spanned else ():
        for pod in ask.usage.by_namespace[namespace]:
            labels = pod.metadata.label_texts
            if all(selected(term.selector, labels) for term in terms):
                for term in terms:
                    found.add(pod, term.key)
    return found


def _each_of(ask: Ask, terms: list[_Term]) -> _Domains:
    """The domains of pods that match any term of an anti-affinity."""
    found = _Domains(ask)
    for term in terms:
        for namespace in sorted(found.spanned(term)):
            for pod in ask.usage.by_namespace[namespace]:
                if selected(term.selector, pod.metadata.label_texts):
                    found.add(pod, term.key)
    return found


def _repelling(ask: Ask) -> _Domains:
    """The domains of pods whose own anti-affinity means this pod."""
    found, namespace = _Domains(ask), ask.pod.namespace
    for pod in ask.usage.repelling:
        for term in _terms(pod.spec.affinity.pod_anti_affinity if pod.spec.affinity else None, pod):
            if not selected(term.selector, ask.labels):
                continue
            spans = term.spans(ask, namespace)
            if spans:
                found.add(pod, term.key)
            elif spans is None:
                found.unknown = f"the labels of namespace {namespace} were not read"
    return found


def _beside(node: Node, terms: list[_Term], beside: _Domains) -> Iterator[Reason | Gap]:
    """Affinity: on a node that has all its labels a pod must be in each domain, or this pod is the first of its kind."""
    plugin, ask = "InterPodAffinity", beside.ask
    said = [f"no label {term.key}" for term in terms if term.key not in node.labels]
    alone = [term for term in terms if not beside.on(node, term.key)]
    if not alone:
        return
    if not said:
        itself = all(selected(t.selector, ask.labels) and t.spans(ask, ask.pod.namespace) for t in terms)
        if beside.unknown:
            yield Gap(plugin=plugin, why=beside.unknown)
            return
        if itself and not beside.pods:
            return
    said += [
        f"no pod with {show_selector(term.selector)} in {term.key}={node.labels[term.key]}"
        for term in alone
        if term.key in node.labels
    ]
    text = "node(s) didn't match pod affinity rules"
    yield Reason(plugin=plugin, kind="pod-affinity", text=text, detail="; ".join(said))


def _apart(node: Node, keys: Iterable[str], against: _Domains, text: str) -> Iterator[Reason | Gap]:
    """Anti-affinity: no pod may be in the node's domain."""
    plugin = "InterPodAffinity"
    found = {key: list(dict.fromkeys(refs)) for key in keys if (refs := against.on(node, key))}
    if found:
        said = "; ".join(f"{few(refs, _MOST_NAMED)} in {key}={node.labels[key]}" for key, refs in found.items())
        yield Reason(
            plugin=plugin,
            kind="anti-affinity",
            text=text,
            detail=f"{'held off by' if 'existing' in text else 'kept apart from'} {said}",
            pods=tuple(dict.fromkeys(ref for refs in found.values() for ref in refs)),
        )
    elif against.unknown:
        yield Gap(plugin=plugin, why=against.unknown)
