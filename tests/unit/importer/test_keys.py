"""Keys: what makes two lines the same event."""

import random

from hypothesis import given
from hypothesis import strategies as st

from billing.importer.keys import ContentKeys, OccurrenceCounter, content_digest


def test_equal_lines_are_counted() -> None:
    keys = ContentKeys()
    first, second = keys.key_of({"a": "1"}), keys.key_of({"a": "1"})
    assert first != second
    assert first.rpartition(":")[0] == second.rpartition(":")[0]
    assert [key.rpartition(":")[2] for key in (first, second)] == ["1", "2"]


def test_another_import_of_the_same_lines_makes_the_same_keys() -> None:
    lines = [{"a": str(n % 7)} for n in range(50)]
    first, second = ContentKeys(), ContentKeys()
    keys = [first.key_of(line) for line in lines]
    assert keys == [second.key_of(line) for line in lines]
    assert len(set(keys)) == len(lines)


def test_the_order_of_columns_does_not_matter_and_their_names_do() -> None:
    assert content_digest({"a": "1", "b": "2"}) == content_digest({"b": "2", "a": "1"})
    assert content_digest({"a": "1", "b": "2"}) != content_digest({"a": "2", "b": "1"})
    assert content_digest({"a": "1,2"}) != content_digest({"a": "1", "b": "2"})


@given(st.lists(st.integers(min_value=0, max_value=40)))
def test_the_counter_counts(numbers: list[int]) -> None:
    counter = OccurrenceCounter()
    seen: dict[int, int] = {}
    for number in numbers:
        digest = content_digest({"n": str(number)})
        seen[number] = seen.get(number, 0) + 1
        assert counter.count(digest) == seen[number]


def test_the_counter_counts_while_it_grows() -> None:
    chooser = random.Random(7)
    digests = [chooser.randbytes(16) for _ in range(60_000)]
    digests += [bytes(16), bytes(15) + b"\x01"]  # zero marks a free slot inside
    counter = OccurrenceCounter()
    assert [counter.count(digest) for digest in digests[:-1]] == [1] * (len(digests) - 1)
    assert [counter.count(digest) for digest in digests[:-1]] == [2] * (len(digests) - 1)
