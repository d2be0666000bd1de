"""Lets in callers who prove who they are, and no one else."""

from typing import Any, Final

from billing.api.authentication import Authenticator, CredentialsInvalid, bearer_token
from billing.api.interceptors.unary import Answer, UnaryInterceptor
from billing.api.request_context import Context, set_principal

_KEY: Final = "authorization"


class AuthenticationInterceptor(UnaryInterceptor):
    """Verifies the bearer token; ``current_principal`` then returns its bearer."""

    def __init__(self, authenticator: Authenticator) -> None:
        super().__init__()
        self._authenticator = authenticator

    def around(self, path: str, answer: Answer) -> Answer:
        """See UnaryInterceptor."""

        async def authenticated(request: Any, context: Context) -> Any:
            token = bearer_token(_authorization_of(context))
            set_principal(await self._authenticator.authenticate(token))
            return await answer(request, context)

        return authenticated


def _authorization_of(context: Context) -> str | None:
    metadata = context.invocation_metadata() or ()
    values = [value for key, value in metadata if key == _KEY and isinstance(value, str)]
    if len(values) > 1:
        # A proxy may have looked at another one of them than we would.
        raise CredentialsInvalid("the call has more than one authorization")
    return values[0] if values else None
