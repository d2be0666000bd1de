"""Keeps callers to their own tenants, before anything is looked up or even validated."""

from typing import Any, Final

import structlog

from billing.api.access import TenantDenied
from billing.api.interceptors.method import Answer, AnswerInterceptor
from billing.api.request_context import Context, current_principal

_MAX_LOGGED_CHARACTERS: Final = 64


class TenantInterceptor(AnswerInterceptor):
    """Refuses requests for a tenant that the caller's token does not name."""

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""

        async def scoped(request: Any, context: Context) -> Any:
            tenant_id: str = request.tenant_id
            structlog.contextvars.bind_contextvars(tenant_id=tenant_id[:_MAX_LOGGED_CHARACTERS])
            if not current_principal().covers_tenant(tenant_id):
                raise TenantDenied(tenant_id=tenant_id)
            return await answer(request, context)

        return scoped
