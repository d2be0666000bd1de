"""One mechanism for every mutation: the same request_id is answered with the same answer."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

from pydantic import TypeAdapter

from billing.domain.errors import RequestIdReused
from billing.store.database import LostRace, Transaction
from billing.store.idempotent_requests import IdempotentRequestStore, StoredAnswer

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class IdempotentRequest:
    """A caller's request: its id, unique in the tenant and method, and a digest of its content."""

    method: str
    request_id: str
    request_hash: bytes


class Idempotency:
    """Finds and stores answers in the transaction of the mutation: only successes are stored."""

    def __init__(self, store: IdempotentRequestStore) -> None:
        self._store = store

    async def find_answer(
        self, tx: Transaction, request: IdempotentRequest | None, answer_type: type[T]
    ) -> T | None:
        """Return the answer given before, if any; raises RequestIdReused for other content.

        Asked under the locks of what the mutation changes, it waits for a concurrent repeat, and
        does not find that one's change instead of its answer.
        """
        if request is None:
            return None
        stored = await self._store.find_answer(
            tx, method=request.method, request_id=request.request_id
        )
        if stored is None:
            return None
        if stored.request_hash != request.request_hash:
            raise RequestIdReused(request_id=request.request_id, method=request.method)
        answer: T = _adapter(answer_type).validate_python(stored.response)
        return answer

    async def store_answer(
        self, tx: Transaction, request: IdempotentRequest | None, answer: object, *, now: datetime
    ) -> None:
        """Store the answer; raises LostRace if a concurrent call was faster."""
        if request is None:
            return
        response = _adapter(type(answer)).dump_python(answer, mode="json")
        stored = await self._store.insert_answer(
            tx,
            method=request.method,
            request_id=request.request_id,
            answer=StoredAnswer(request.request_hash, response),
            now=now,
        )
        if not stored:
            raise LostRace


# Building one costs as much as a small mutation.
_adapters: dict[object, TypeAdapter[Any]] = {}


def _adapter(answer_type: Any) -> TypeAdapter[Any]:
    if answer_type not in _adapters:
        _adapters[answer_type] = TypeAdapter(answer_type)
    return _adapters[answer_type]
