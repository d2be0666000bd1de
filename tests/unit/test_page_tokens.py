"""Page tokens: bound to the list, its filters and whose data it is."""

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from uuid import UUID

import pytest

from billing.api import request_context
from billing.api.authentication import Principal
from billing.api.page_tokens import next_page_token, page_request
from billing.domain.errors import PageTokenInvalid
from billing.domain.identifiers import new_id
from billing.domain.pages import Page, PageRequest
from billing.v1 import ledger_pb2, subscription_pb2, usage_pb2

ADA = Principal("ada", frozenset({"acme"}), livemode=True, capabilities=frozenset())
KEY = (new_id(), new_id())


@pytest.fixture(autouse=True)
def principal() -> Iterator[None]:
    token = request_context._principal.set(ADA)
    yield
    request_context._principal.reset(token)


def list_request(**fields: str | int) -> ledger_pb2.ListLedgerEntriesRequest:
    return ledger_pb2.ListLedgerEntriesRequest(
        **{"tenant_id": "acme", "subscription_id": "sub_1", **fields}  # type: ignore[arg-type]
    )


def page_ending_with(*key: UUID) -> Page[str]:
    return Page(("row",), key)


def token_of(request: ledger_pb2.ListLedgerEntriesRequest, *key: UUID) -> str:
    return next_page_token(page_ending_with(*key), request)


@pytest.mark.parametrize(("asked", "size"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000)])
def test_the_size_has_a_default_and_a_maximum(asked: int, size: int) -> None:
    assert page_request(list_request(page_size=asked)) == PageRequest(size)


def test_the_last_page_has_no_token() -> None:
    assert next_page_token(Page(("row",), None), list_request()) == ""


@pytest.mark.parametrize("key", [KEY, KEY[:1]], ids=["two", "one"])
def test_a_token_continues_after_the_last_row_at_any_size(key: tuple[UUID, ...]) -> None:
    token = token_of(list_request(page_size=10), *key)
    following = page_request(list_request(page_size=20, page_token=token), key_length=len(key))
    assert following == PageRequest(20, after=key)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")
    assert len(token) < 300


@pytest.mark.parametrize(
    "changed",
    [
        {"tenant_id": "umbrella"},
        {"subscription_id": "sub_2"},
        {"billing_period_id": "period_1"},
        {"entry_type": 1},
    ],
)
def test_a_token_of_other_filters_is_refused(changed: dict[str, str | int]) -> None:
    token = token_of(list_request(), *KEY)
    with pytest.raises(PageTokenInvalid):
        page_request(list_request(page_token=token, **changed), key_length=2)


def test_a_token_of_another_list_is_refused() -> None:
    token = next_page_token(
        page_ending_with(*KEY), usage_pb2.ListUsageEventsRequest(tenant_id="acme")
    )
    with pytest.raises(PageTokenInvalid):
        page_request(
            subscription_pb2.ListSubscriptionsRequest(tenant_id="acme", page_token=token),
            key_length=2,
        )


def test_a_token_of_live_data_is_refused_for_test_data() -> None:
    token = token_of(list_request(), *KEY)
    request_context._principal.set(replace(ADA, livemode=False))
    with pytest.raises(PageTokenInvalid):
        page_request(list_request(page_token=token), key_length=2)


def test_a_token_with_another_number_of_keys_is_refused() -> None:
    token = token_of(list_request(), *KEY, new_id())
    with pytest.raises(PageTokenInvalid):
        page_request(list_request(page_token=token), key_length=2)


def encoded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "not base64!",
        "é",
        "AAAA",
        encoded({}),
        encoded([]),
        encoded("text"),
        encoded([1, 2, 3]),
        encoded(["ListLedgerEntriesRequest", "digest", "no uuid"]),
        encoded(["ListLedgerEntriesRequest", "digest", None]),
        base64.b64encode(b"[" * 100_000).decode(),
    ],
)
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(PageTokenInvalid):
        page_request(list_request(page_token=token))
