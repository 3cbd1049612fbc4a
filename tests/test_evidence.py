"""How a long line is quoted: what is telling in it must be seen, and the time at which it was written."""

from kubectl_llmdoctor.evidence import quotation

_STATEMENT = (
    "INFO 11-20 09:55:30 metrics.py:334] Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 2136.3 tokens/s, "
    "Running: 247 reqs, Swapped: 0 reqs, Pending: 740 reqs, GPU KV cache usage: 99.7%, CPU KV cache usage: 0.0%"
)


def test_a_line_is_quoted_from_its_beginning() -> None:
    assert quotation(_STATEMENT, "metrics.py") == _STATEMENT
    assert quotation(_STATEMENT, "not there") == _STATEMENT
    assert quotation(_STATEMENT, "") == _STATEMENT


def test_what_is_telling_far_behind_the_beginning_stands_near_it() -> None:
    text = quotation(_STATEMENT, "GPU KV cache usage: ")
    assert text.startswith("INFO 11-20 09:55:30 metrics.py:334] ")
    assert text.index("GPU KV cache usage: 99.7%") < 130
    assert text.endswith("CPU KV cache usage: 0.0%")


def test_a_line_without_blanks_is_quoted_from_a_field_on() -> None:
    line = '{"a":"' + "x" * 300 + '","response_flags":"UT","b":"' + "y" * 100 + '"}'
    assert quotation(line, '"response_flags"').startswith('…"response_flags":"UT","b":"y')
    assert quotation("x" * 500 + "end", "end") == "…end"
