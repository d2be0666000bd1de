"""The stored answers of mutations."""

from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from sqlalchemy.dialects.postgresql import insert

from billing.store import tables
from billing.store.database import Transaction
from billing.store.statements import in_scope, scope_values

_table = tables.idempotent_requests


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What a request was, and what it was answered with (JSON)."""

    request_hash: bytes
    response: object


class IdempotentRequestStore:
    """Reads and writes ``idempotent_requests``."""

    async def find_answer(
        self, tx: Transaction, *, method: str, request_id: str
    ) -> StoredAnswer | None:
        """Return the answer that a request_id was given before."""
        row = (
            await tx.sa.execute(
                sa.select(_table.c.request_hash, _table.c.response).where(
                    in_scope(_table, tx.scope),
                    _table.c.method == method,
                    _table.c.request_id == request_id,
                )
            )
        ).one_or_none()
        return StoredAnswer(row.request_hash, row.response) if row else None

    async def insert_answer(
        self,
        tx: Transaction,
        *,
        method: str,
        request_id: str,
        answer: StoredAnswer,
        now: datetime,
    ) -> bool:
        """Store an answer; False if another transaction has stored one for the request_id."""
        result = await tx.sa.execute(
            insert(_table)
            .values(
                **scope_values(tx.scope),
                method=method,
                request_id=request_id,
                request_hash=answer.request_hash,
                response=answer.response,
                created_at=now,
            )
            .on_conflict_do_nothing()
            .returning(_table.c.request_id)
        )
        return result.one_or_none() is not None
