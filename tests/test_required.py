"""Texts that every match of an expression has: what is known of it, and that no match is lost by it."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_llmdoctor.packs import signature_of
from kubectl_llmdoctor.signatures.required import required_by, required_of

CHECKS = Path(__file__).parents[1] / "checks" / "llmdoctor_checks"


@pytest.mark.parametrize(
    ("expression", "texts"),
    [
        (r"No such file", ("No such file",)),
        (r"^(?:\[rank\d{1,5}\]: )?ValueError: (?P<why>.+)", ("ValueError: ",)),
        (r'/vllm/(?:config|envs)\.py", line \d+', ('/vllm/config.py", line ', '/vllm/envs.py", line ')),
        (r"(?:puppy|dogs?|kittens) sat", (" sat",)),
        (r"(?:puppy|doggies?|kittens) sat", ("doggie", "kittens sat", "puppy sat")),
        (r"(?:Head|Get) https?://", ("Get http", "Head http")),
        (r"(?!no )size mismatch(?<=match) for \w+", ("size mismatch for ",)),
        (r"(?:lost contact )+at \d", ("lost contact ",)),
        (r"(?:lost contact )?at \d", ()),  # too short to tell lines apart
        (r"(?i)no such file", ()),
        (r"(?i:no such) file here", (" file here",)),
        (r"\d+ of (?:many|\w+)", (" of ",)),
        (r"(\w+) and \1", (" and ",)),
        (r"[ab]{2}|never", ()),
        ("", ()),
    ],
)
def test_required(expression: str, texts: tuple[str, ...]) -> None:
    assert required_by(expression) == texts


def test_no_match_is_lost() -> None:
    """Of every signature, on every line that it is declared to match."""
    known = searched = 0
    for signature in map(signature_of, sorted(CHECKS.glob("[!_]*/[!_]*.yaml"))):
        lines = [line for example in signature.matches for line in example.splitlines()]
        for expression, texts in ((e, t) for pattern in signature.patterns for e, t in required_of(pattern).items()):
            known += 1
            for found in filter(None, (re.search(expression, line) for line in lines)):
                searched += 1
                assert any(one in found[0] for one in texts), (expression, found.string)
    assert known > 1000
    assert searched > 500


_PIECES = st.sampled_from(
    ["lost", "rank ", "(?:load|store)", r"\d+", "(?:x)?", "(?:abcd)*", "(ends){1,2}", "[a-c]", "^", "(?=l)", "|"]
)


@given(pieces=st.lists(_PIECES, min_size=1, max_size=7), data=st.data())
def test_whatever_matches_has_one(pieces: list[str], data: st.DataObject) -> None:
    expression = "".join(pieces)
    text = data.draw(st.from_regex(expression))
    found = re.search(expression, text)
    assert found is not None
    texts = required_by(expression)
    assert not texts or any(one in text for one in texts)
