"""Names each RPC, so that its answer, its errors and its log lines can be brought together."""

import re
import secrets
from typing import Any, Final

from billing.api.interceptors.method import Answer, AnswerInterceptor
from billing.api.request_context import REQUEST_ID_KEY, Context, set_request_id

_ACCEPTABLE: Final = re.compile(r"[\x21-\x7e]{1,128}")


class RequestIdInterceptor(AnswerInterceptor):
    """Takes the caller's ``x-request-id``, or makes one, and sends it back as trailing metadata."""

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""

        async def named(request: Any, context: Context) -> Any:
            request_id = _request_id_of(context)
            set_request_id(request_id, method=path)
            context.set_trailing_metadata(((REQUEST_ID_KEY, request_id),))
            return await answer(request, context)

        return named


def _request_id_of(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        # Another form of id could break log lines, or the metadata that it goes back in.
        if key == REQUEST_ID_KEY and isinstance(value, str) and _ACCEPTABLE.fullmatch(value):
            return value
    return secrets.token_hex(16)
