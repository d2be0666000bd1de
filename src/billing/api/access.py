"""What a caller may do: the capabilities that the contract asks for, and its tenants."""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor, ServiceDescriptor

from billing.domain.errors import BillingError
from billing.v1 import options_pb2


class AccessDenied(BillingError):
    """Family: the caller is known, and may not do this."""


class CapabilityMissing(AccessDenied):
    """The caller's credentials lack the capability that the RPC requires."""

    def __init__(self, *, capability: str) -> None:
        super().__init__(
            f"this needs the capability {capability!r}, which the credentials do not have",
            capability=capability,
        )


class TenantDenied(AccessDenied):
    """The caller's credentials are for other tenants."""

    def __init__(self, *, tenant_id: str) -> None:
        super().__init__(
            f"the credentials do not cover the tenant {tenant_id!r}", tenant_id=tenant_id
        )


class MethodClosed(AccessDenied):
    """The contract says of nobody that they may call the RPC."""

    def __init__(self, *, method: str) -> None:
        super().__init__(f"{method} declares no capability, so nobody may call it", method=method)


class ContractIncomplete(Exception):
    """RPCs cannot be guarded, because the contract lacks something; the text lists them all."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("the server cannot guard its RPCs:\n" + "\n".join(self.problems))


class AccessPolicy:
    """The capability that each RPC requires, by its path ``/package.Service/Method``."""

    def __init__(self, capabilities: Mapping[str, str]) -> None:
        self._capabilities = MappingProxyType(dict(capabilities))

    @classmethod
    def of(cls, services: Iterable[ServiceDescriptor]) -> "AccessPolicy":
        """Read the policy from the contract; raises ContractIncomplete.

        Every RPC must take a single request, declare its capability and name its tenant.
        """
        methods = [method for service in services for method in service.methods]
        problems = [problem for method in methods for problem in _problems_of(method)]
        if problems:
            raise ContractIncomplete(problems)
        return cls({_path_of(method): _capability_of(method) for method in methods})

    def required_capability(self, method: str) -> str:
        """Return the capability that the RPC requires; raises MethodClosed."""
        capability = self._capabilities.get(method)
        if not capability:
            raise MethodClosed(method=method)
        return capability


def _path_of(method: MethodDescriptor) -> str:
    return f"/{method.containing_service.full_name}/{method.name}"


def _capability_of(method: MethodDescriptor) -> str:
    return method.GetOptions().Extensions[options_pb2.required_capability]


def _problems_of(method: MethodDescriptor) -> Iterable[str]:
    if not _capability_of(method):
        yield f"{method.full_name} has no required_capability"
    if method.client_streaming:
        yield f"{method.full_name} takes a stream, and only single requests are guarded"
    tenant_id = method.input_type.fields_by_name.get("tenant_id")
    if tenant_id is None or tenant_id.type != FieldDescriptor.TYPE_STRING:
        yield f"{method.input_type.full_name} has no string tenant_id"
