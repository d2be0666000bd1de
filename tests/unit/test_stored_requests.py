"""What is asked of the invoicing service comes out of its column as it went in."""

import dataclasses
import json
from typing import Any

import pytest

from billing.store.stored_requests import (
    CREDIT_NOTE_REQUESTS,
    INVOICE_REQUESTS,
    VOID_REQUESTS,
    StoredRequests,
)
from tests.factories.invoicing import CREDIT_NOTE_REQUEST, INVOICE_REQUEST, VOID_REQUEST

STORED = [
    pytest.param(INVOICE_REQUESTS, INVOICE_REQUEST, id="invoice"),
    pytest.param(CREDIT_NOTE_REQUESTS, CREDIT_NOTE_REQUEST, id="credit note"),
    pytest.param(VOID_REQUESTS, VOID_REQUEST, id="void"),
]


@pytest.mark.parametrize(("requests", "request_"), STORED)
def test_a_request_is_read_as_it_was_stored(requests: StoredRequests[Any], request_: Any) -> None:
    text = requests.to_json(request_)
    read = requests.from_json(text)
    assert read == request_
    assert requests.to_json(read) == text


@pytest.mark.parametrize(("requests", "request_"), STORED)
def test_every_field_is_stored_under_its_name(requests: StoredRequests[Any], request_: Any) -> None:
    names = {field.name for field in dataclasses.fields(request_)}
    assert set(json.loads(requests.to_json(request_))) == names


@pytest.mark.parametrize(("requests", "request_"), STORED)
def test_a_text_that_lacks_a_field_is_no_request(
    requests: StoredRequests[Any], request_: Any
) -> None:
    fields = json.loads(requests.to_json(request_))
    del fields["idempotency_key"]
    with pytest.raises(ValueError, match="idempotency_key"):
        requests.from_json(json.dumps(fields))


def test_a_stored_amount_is_never_a_float() -> None:
    fields = json.loads(CREDIT_NOTE_REQUESTS.to_json(CREDIT_NOTE_REQUEST))
    assert fields["total_minor"] == -50
    assert fields["line_items"][0] == {
        "description": "API Calls: 4,000 fewer",
        "quantity": "4000",
        "unit_price": "-0.015",
        "amount_minor": -60,
    }
