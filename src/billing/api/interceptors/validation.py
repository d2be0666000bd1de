"""Refuses requests that break the contract's rules."""

from typing import Any

from billing.api.interceptors.method import Answer, AnswerInterceptor
from billing.api.request_context import Context
from billing.api.violations import require_valid


class ValidationInterceptor(AnswerInterceptor):
    """Checks the protovalidate rules of the request, all of them, and names each broken field."""

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""

        async def valid(request: Any, context: Context) -> Any:
            require_valid(request)
            return await answer(request, context)

        return valid
