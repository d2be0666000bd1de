"""What the invoicing service is asked for, as it is stored: every attempt sends the same."""

from typing import Final, Generic, TypeVar

from pydantic import TypeAdapter

from billing.domain.invoices import CreditNoteRequest, InvoiceRequest, VoidRequest

_Request = TypeVar("_Request", InvoiceRequest, CreditNoteRequest, VoidRequest)


class StoredRequests(Generic[_Request]):
    """Requests of one type, to and from the JSON of their column."""

    def __init__(self, request_type: type[_Request]) -> None:
        self._adapter: TypeAdapter[_Request] = TypeAdapter(request_type)

    def to_json(self, request: _Request) -> str:
        """Return the text to store."""
        return self._adapter.dump_json(request).decode()

    def from_json(self, text: str) -> _Request:
        """Return the request that was stored; raises ValueError if the text holds none."""
        return self._adapter.validate_json(text)


INVOICE_REQUESTS: Final = StoredRequests(InvoiceRequest)
CREDIT_NOTE_REQUESTS: Final = StoredRequests(CreditNoteRequest)
VOID_REQUESTS: Final = StoredRequests(VoidRequest)
