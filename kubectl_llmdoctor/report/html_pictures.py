"""Pictures of the HTML report, as inline SVG with a text that says the same: the memory of a GPU, and the map of nodes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from kubectl_llmdoctor.report import html_parts as parts
from kubectl_llmdoctor.report import words
from kubectl_llmdoctor.report.document import Bytes, GpuNode, Holder, Memory
from kubectl_llmdoctor.report.markup import Html, element

#: Nodes on the map, and GPUs of one node.
MOST_NODES, MOST_GPUS = 1000, 64

_GIB = 1 << 30


def memory(budget: Memory) -> Html:
    """The memory of one GPU as a bar, to scale: weights, working memory, cache; the engine's limit as a line."""
    total = max(budget.total.high, 1)
    shares = [
        ("weights", "weights", budget.weights),
        ("working", "working memory", budget.working),
        ("cache", "KV cache", budget.cache),
    ]
    bars, at, said = list[Html](), 0.0, list[Html]()
    for kind, name, amount in shares:
        if amount is None:
            continue
        size = min(max((amount.low + amount.high) / 2 / total * 1000, 0), 1000 - at)
        bars.append(element("rect", class_=kind, x=f"{at:.1f}", y=0, width=f"{size:.1f}", height=20))
        at += size
        said.append(element("li", element("span", class_=f"key {kind}"), f"{name} {_gib(amount)} ({amount.source})"))
    usable = ""
    if budget.usable is not None:
        place = min(max(budget.usable.high / total * 1000, 0), 998)
        bars.append(element("rect", class_="limit", x=f"{place:.1f}", y=0, width=2, height=20))
        usable = f", the engine may use {_gib(budget.usable)}"
        said.append(
            element("li", element("span", class_="key limit"), f"limit {_gib(budget.usable)} ({budget.usable.source})")
        )
    words_of_it = {
        "fits": "fits",
        "does-not-fit": "does not fit",
        "too-close": "too close to say",
        "unknown": "not known whether it fits",
    }
    context = f"; {budget.context} tokens: {words_of_it[budget.verdict]}" if budget.context else ""
    whole = f"One {budget.gpu or 'GPU'} of container {budget.container}: {_gib(budget.total)}{usable}{context}"
    picture = element(
        "svg",
        element("title", f"{whole}: {', '.join(f'{name} {_gib(a)}' for _, name, a in shares if a)}"),
        element("rect", class_="rest", x=0, y=0, width=1000, height=20),
        *bars,
        class_="bar",
        viewBox="0 0 1000 20",
        preserveAspectRatio="none",
        role="img",
    )
    return parts.line("GPU memory", element("p", whole), picture, element("ul", *said, class_="keys"))


def _gib(amount: Bytes) -> str:
    low, high = (f"{max(size, 0) / _GIB:.1f}" for size in (amount.low, amount.high))
    return f"{low} GiB" if low == high else f"{low} to {high} GiB"


#: How one GPU looks, as a path in a square of 10: the shapes differ, not only the colours.
_SHAPES = {
    "held": ("in use", "M{x} {y}h10v10h-10z"),
    "idle": ("held, idle", "M{x} {y}h10v10h-10zm2 2v6h6v-6z"),
    "free": ("free", "M{x} {y}h10v10h-10zm1 1v8h8v-8z"),
    "stranded": ("free, not usable", "M{x} {y}h10v10h-10zm1 1.7v7.3h7.3zm.7-.7h7.3v7.3z"),
    "gone": ("not offered", "M{x} {y}m4 4h2v2h-2z"),
}


def node_map(nodes: Sequence[GpuNode]) -> Iterator[Html]:
    """Every node as its GPUs, product by product."""
    key = [
        element("li", _squares([kind]), f" {word}")
        for kind, (word, _) in _SHAPES.items()
        if any(kind in _states(node) for node in nodes)
    ]
    yield element("h3", "Map of nodes")
    yield element("ul", *key, class_="keys", aria_label="Key")
    shown = sorted(nodes[:MOST_NODES], key=_group)
    for (context, product), group in groupby(shown, key=_group):
        listed = list(group)
        yield element(
            "h4", words.within(context, product), " ", element("span", words.nodes(len(listed)), class_="dim")
        )
        yield element("ul", *map(_node, listed), class_="map")
    if len(nodes) > MOST_NODES:
        yield element("p", f"{len(nodes) - MOST_NODES} more nodes are not drawn: -o json", class_="dim")


def _group(node: GpuNode) -> tuple[str, str]:
    return node.context, node.product or node.resource


def _node(node: GpuNode) -> Html:
    states = _states(node)
    counts = [f"{states.count(kind)} {word}" for kind, (word, _) in _SHAPES.items() if kind in states]
    more = f", {node.total - len(states)} more not drawn" if node.total > len(states) else ""
    said = f"{node.name}: {node.total} GPUs, {', '.join(counts)}{more}"
    if node.stranded:
        said += f" ({node.stranded})"
    if node.holders:
        said += f"; held by {parts.few([_holder(h) for h in node.holders], 6)}"
    return element("li", element("span", node.name, class_="node"), _squares(states, said))


def _holder(holder: Holder) -> str:
    idle = f", {holder.idle} idle" if holder.idle else ""
    return f"{holder.namespace}/{holder.workload} ({holder.devices}{idle})"


def _states(node: GpuNode) -> list[str]:
    """One word for each GPU, at most `MOST_GPUS`."""
    held = sum(max(h.devices, 0) for h in node.holders)
    idle = min(sum(max(h.idle or 0, 0) for h in node.holders), held)
    counts = {
        "held": held - idle,
        "idle": idle,
        "stranded" if node.stranded else "free": node.free,
        "gone": node.total - node.allocatable,
    }
    return [kind for kind, count in counts.items() for _ in range(min(max(count, 0), MOST_GPUS))][:MOST_GPUS]


def _squares(states: Sequence[str], title: str = "") -> Html:
    """Rows of eight squares; with a `title` a picture that says it, else decoration."""
    paths: dict[str, str] = {}
    for number, kind in enumerate(states):
        shape = _SHAPES[kind][1].format(x=number % 8 * 12, y=number // 8 * 12)
        paths[kind] = paths.get(kind, "") + shape
    width, height = min(len(states), 8) * 12 - 2, (len(states) + 7) // 8 * 12 - 2
    drawn = [element("path", class_=kind, d=d) for kind, d in paths.items()]
    said = {"role": "img"} if title else {"aria_hidden": "true"}
    return element(
        "svg",
        element("title", title) if title else None,
        *drawn,
        viewBox=f"0 0 {max(width, 1)} {max(height, 1)}",
        width=max(width, 1),
        height=max(height, 1),
        **said,
    )
