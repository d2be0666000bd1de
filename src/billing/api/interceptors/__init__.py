"""What every RPC passes through on its way to a servicer and back."""

from billing.api.access import AccessPolicy
from billing.api.authentication import Authenticator
from billing.api.client_access import ClientAccessFile
from billing.api.interceptors.authentication import AuthenticationInterceptor
from billing.api.interceptors.capability import CapabilityInterceptor
from billing.api.interceptors.errors import ErrorInterceptor
from billing.api.interceptors.message import MessageInterceptor
from billing.api.interceptors.metering import MeteringInterceptor
from billing.api.interceptors.method import MethodInterceptor
from billing.api.interceptors.request_id import RequestIdInterceptor
from billing.api.interceptors.tenant import TenantInterceptor
from billing.api.interceptors.tracing import TracingInterceptor
from billing.api.interceptors.validation import ValidationInterceptor
from billing.observability.metrics import Metrics


def all_interceptors(
    *,
    authenticator: Authenticator,
    client_access: ClientAccessFile | None,
    policy: AccessPolicy,
    metrics: Metrics,
    max_message_bytes: int,
) -> tuple[MethodInterceptor, ...]:
    """Return the interceptors, outermost first.

    The request is bytes as far as ``MessageInterceptor``, and a message from there on.
    """
    return (
        RequestIdInterceptor(),
        TracingInterceptor(),
        MeteringInterceptor(metrics),
        ErrorInterceptor(),
        AuthenticationInterceptor(authenticator, client_access),
        CapabilityInterceptor(policy),
        MessageInterceptor(max_message_bytes=max_message_bytes),
        TenantInterceptor(),
        ValidationInterceptor(),
    )
