"""Lets in callers who prove who they are, and no one else."""

from typing import Any, Final

from billing.api.authentication import (
    Authenticator,
    CredentialsInvalid,
    Principal,
    bearer_token,
)
from billing.api.client_access import ClientAccessFile, names_in_certificate
from billing.api.interceptors.method import Answer, AnswerInterceptor
from billing.api.request_context import Context, set_principal

_KEY: Final = "authorization"


class AuthenticationInterceptor(AnswerInterceptor):
    """Verifies the bearer token; ``current_principal`` then returns its bearer.

    A call without one is of the bearer of its connection's client certificate, if it has any.
    """

    def __init__(
        self, authenticator: Authenticator, client_access: ClientAccessFile | None
    ) -> None:
        super().__init__()
        self._authenticator = authenticator
        self._client_access = client_access

    def around(self, path: str, answer: Answer) -> Answer:
        """See AnswerInterceptor."""

        async def authenticated(request: Any, context: Context) -> Any:
            set_principal(await self._principal_of(context))
            return await answer(request, context)

        return authenticated

    async def _principal_of(self, context: Context) -> Principal:
        authorization = _authorization_of(context)
        if not authorization and self._client_access is not None:
            names = names_in_certificate(context.auth_context())
            if names is not None:
                return self._client_access.principal_named(names)
        return await self._authenticator.authenticate(bearer_token(authorization))


def _authorization_of(context: Context) -> str | None:
    metadata = context.invocation_metadata() or ()
    values = [value for key, value in metadata if key == _KEY and isinstance(value, str)]
    if len(values) > 1:
        # A proxy may have looked at another one of them than we would.
        raise CredentialsInvalid("the call has more than one authorization")
    return values[0] if values else None
