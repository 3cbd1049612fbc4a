"""The report for machines: JSON by contract, and the same as YAML."""

from __future__ import annotations

import msgspec

from kubectl_llmdoctor.report.document import Report, to_tree


def to_json(report: Report) -> bytes:
    """Indented JSON with a final newline."""
    return msgspec.json.format(msgspec.json.encode(to_tree(report)), indent=2) + b"\n"


def to_yaml(report: Report) -> bytes:
    """The same document as YAML."""
    import yaml

    dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
    plain = msgspec.json.decode(msgspec.json.encode(to_tree(report)))
    text: str = yaml.dump(plain, Dumper=dumper, sort_keys=False, allow_unicode=True, width=10_000)
    return text.encode()
