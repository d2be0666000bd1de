"""Lets in callers who have the capability that the contract asks for."""

from typing import Any

from billing.api.access import AccessPolicy, CapabilityMissing
from billing.api.interceptors.method import Answer, AnswerInterceptor
from billing.api.request_context import Context, current_principal


class CapabilityInterceptor(AnswerInterceptor):
    """Refuses callers without the RPC's capability, and everyone where it declares none."""

    def __init__(self, policy: AccessPolicy) -> None:
        super().__init__()
        self._policy = policy

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""

        async def permitted(request: Any, context: Context) -> Any:
            capability = self._policy.required_capability(path)
            if not current_principal().has_capability(capability):
                raise CapabilityMissing(capability=capability)
            return await answer(request, context)

        return permitted
