"""Long lists, object by object, however the answer is cut into pieces."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubectl_llmdoctor.gather.failure import RequestError, Why
from kubectl_llmdoctor.gather.listing import items

_TREES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from(['},{"metadata":', '"items":[', "]}", '\\"', "ü"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["metadata", "items", "spec"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_OBJECTS = st.builds(lambda name, tree: {"metadata": {"name": name}, "spec": tree}, st.text(max_size=4), _TREES)


def _body(rows: list[Any], *, custom: bool = False, spaces: bool = False, token: str = "") -> bytes:
    meta = {"resourceVersion": "1"} | ({"continue": token} if token else {})
    tree = {"apiVersion": "v1", "items": rows, "kind": "PodList", "metadata": meta}
    if not custom:
        tree = {"kind": "PodList", "apiVersion": "v1", "metadata": meta, "items": rows}
    return json.dumps(tree, separators=(", ", ": ") if spaces else (",", ":")).encode() + b"\n"


def _pieces(body: bytes, size: int) -> list[bytes]:
    return [body[at : at + size] for at in range(0, len(body), size)]


@given(st.lists(_OBJECTS, max_size=6), st.integers(1, 200), st.booleans(), st.booleans())
def test_every_object_comes_out_as_it_went_in(rows: list[Any], size: int, custom: bool, spaces: bool) -> None:
    body = _body(rows, custom=custom, spaces=spaces)

    found = list(items(_pieces(body, size), msgspec.json.decode))

    assert [tree for _, tree in found] == rows
    assert [json.loads(text) for text, _ in found] == rows


@given(st.lists(_OBJECTS, min_size=1, max_size=4), st.integers(1, 60), st.data())
def test_an_answer_that_ends_too_early_is_never_taken_for_a_whole_one(
    rows: list[Any], size: int, data: st.DataObject
) -> None:
    body = _body(rows)
    cut = data.draw(st.integers(0, len(body) - 4))

    with pytest.raises(RequestError) as failure:
        list(items(_pieces(body[:cut], size), msgspec.json.decode))

    assert failure.value.why == Why.BROKEN


def test_an_object_of_another_shape_costs_itself_only() -> None:
    decode = msgspec.json.Decoder(dict[str, dict[str, str]]).decode
    rows = [{"metadata": {"name": "a"}}, {"metadata": {"name": 7}}, {"metadata": {"name": "c"}}]

    assert [tree for _, tree in items([_body(rows)], decode)] == [rows[0], None, rows[2]]


@pytest.mark.parametrize("body", [b'{"kind":"PodList","items":null}', b'{"kind":"PodList","metadata":{}}'])
def test_a_list_without_items_is_empty(body: bytes) -> None:
    assert list(items([body], msgspec.json.decode)) == []


@pytest.mark.parametrize("body", [b"", b'{"kind":"Status"}', b"x" * 100_000])
def test_what_is_no_list_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(RequestError, match="no list"):
        list(items([body], msgspec.json.decode))


@pytest.mark.parametrize("body", [b"<html>", b"\n<!DOCTYPE html><title>Sign in</title>"])
def test_a_web_page_in_the_place_of_a_list_is_called_so(body: bytes) -> None:
    with pytest.raises(RequestError, match="a web page instead of an answer"):
        list(items([body], msgspec.json.decode))


@pytest.mark.parametrize("custom", [False, True])
def test_a_part_of_a_list_is_not_taken_for_the_whole(custom: bool) -> None:
    with pytest.raises(RequestError, match="only a part"):
        list(items([_body([{"metadata": {}}], custom=custom, token="next")], msgspec.json.decode))
