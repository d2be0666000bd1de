"""TypeIDs, held against the vectors of the specification (jetify-com/typeid, spec/*.yml)."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.domain import identifiers
from billing.domain.identifiers import (
    MalformedId,
    earliest_id,
    from_typeid,
    made_at,
    new_id,
    to_typeid,
)

VALID = [
    ("00000000-0000-0000-0000-000000000000", "00000000000000000000000000"),
    ("00000000-0000-0000-0000-000000000001", "00000000000000000000000001"),
    ("00000000-0000-0000-0000-00000000000a", "0000000000000000000000000a"),
    ("00000000-0000-0000-0000-000000000010", "0000000000000000000000000g"),
    ("00000000-0000-0000-0000-000000000020", "00000000000000000000000010"),
    ("ffffffff-ffff-ffff-ffff-ffffffffffff", "7zzzzzzzzzzzzzzzzzzzzzzzzz"),
    ("0110c853-1d09-52d8-d73e-1194e95b5f19", "0123456789abcdefghjkmnpqrs"),
    ("01890a5d-ac96-774b-bcce-b302099a8057", "01h455vb4pex5vsknk084sn02q"),
]
PREFIXES = sorted(
    value
    for name, value in vars(identifiers).items()
    if name.isupper() and name[0] != "_" and isinstance(value, str)
)


@pytest.mark.parametrize(("value", "suffix"), VALID)
def test_the_vectors_of_the_specification(value: str, suffix: str) -> None:
    assert to_typeid("prefix", uuid.UUID(value)) == f"prefix_{suffix}"
    assert from_typeid("prefix", f"prefix_{suffix}") == uuid.UUID(value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sub",
        "sub_",
        "_01h455vb4pex5vsknk084sn02q",
        "01h455vb4pex5vsknk084sn02q",
        "plan_01h455vb4pex5vsknk084sn02q",
        "SUB_01h455vb4pex5vsknk084sn02q",
        "sub__01h455vb4pex5vsknk084sn02q",
        "sub-01h455vb4pex5vsknk084sn02q",
        "sub_01H455VB4PEX5VSKNK084SN02Q",
        "sub_01h455vb4pex5vsknk084sn02",
        "sub_01h455vb4pex5vsknk084sn02q0",
        "sub_01h455vb4pex5vsknk084sn02q\n",
        " sub_01h455vb4pex5vsknk084sn02q",
        "sub_8zzzzzzzzzzzzzzzzzzzzzzzzz",
        "sub_/zzzzzzzzzzzzzzzzzzzzzzzzz",
        "sub_ooooooooooooooooooooooooooo",
        "sub_01h455vb4pex5vsknk084sn02i",
        "sub_01h455vb4pex5vsknk084sn02l",
        "sub_01h455vb4pex5vsknk084sn02o",
        "sub_01h455vb4pex5vsknk084sn02u",
        "sub_01h455vb4pex5vsknk084-sn0q",
        "sub_01890a5dac96774bbcceb302099a8057",
        "sub_01h455vb4pex5vsknk084sn02\u0662",
    ],
)
def test_what_is_no_typeid_of_the_prefix_is_refused(text: str) -> None:
    with pytest.raises(MalformedId):
        from_typeid("sub", text)


@given(st.uuids())
def test_every_uuid_comes_back(value: uuid.UUID) -> None:
    text = to_typeid("sub", value)
    assert len(text) == len("sub_") + 26
    assert from_typeid("sub", text) == value


@given(st.lists(st.uuids(), min_size=2, max_size=10))
def test_texts_sort_as_their_uuids(values: list[uuid.UUID]) -> None:
    texts = [to_typeid("sub", value) for value in sorted(values)]
    assert texts == sorted(texts)


@given(st.text(max_size=40))
def test_a_text_is_refused_or_is_the_one_text_of_its_uuid(text: str) -> None:
    for candidate in (text, f"sub_{text}"):
        try:
            value = from_typeid("sub", candidate)
        except MalformedId:
            continue
        assert to_typeid("sub", value) == candidate


def test_prefixes_differ_and_keep_to_the_specification() -> None:
    assert len(PREFIXES) == len(set(PREFIXES)) >= 22
    assert all(prefix.isascii() and prefix.isalpha() and prefix.islower() for prefix in PREFIXES)


def test_new_ids_are_uuid_v7_and_sort_by_the_order_they_were_made() -> None:
    made = [new_id() for _ in range(20_000)]
    assert {value.version for value in made} == {7}
    assert {value.variant for value in made} == {uuid.RFC_4122}
    assert made == sorted(set(made))


def test_a_new_id_tells_when_it_was_made() -> None:
    before = datetime.now(UTC)
    made = made_at(new_id())
    assert before - timedelta(milliseconds=1) <= made <= datetime.now(UTC)


def test_ids_sort_by_the_moments_that_they_were_made_at() -> None:
    made = new_id()
    moment = made_at(made)
    assert made_at(earliest_id(moment)) == moment
    assert earliest_id(moment) < made < earliest_id(moment + timedelta(milliseconds=1))
    assert earliest_id(datetime(1960, 1, 1, tzinfo=UTC)) == uuid.UUID(int=0)
