"""What calls the service by the clock calls RPCs that exist, with what they ask for."""

import re
from typing import Any, Final

import pytest
import typer
from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor import MethodDescriptor

from billing.auditor.command import EXIT_FINDINGS
from billing.cli import app
from billing.config import Settings, split_address
from billing.v1 import billing_run_pb2, credit_pb2, ledger_pb2, options_pb2
from tests.factories.deploy import (
    AUDIT,
    DEPLOY,
    MANIFESTS,
    MTLS_PORT,
    PATCHES,
    PODS,
    ROOT,
    TRIGGERS,
    manifest,
)

GRPC_PORT: Final = split_address(Settings().listen_address)[1]


def called(arguments: list[str]) -> tuple[MethodDescriptor, Any]:
    """The RPC that a trigger calls and what it sends, its variables as Kubernetes fills them in."""
    service, _, rpc = arguments[-1].partition("/")
    services = {
        descriptor.full_name: descriptor
        for file in (billing_run_pb2.DESCRIPTOR, credit_pb2.DESCRIPTOR)
        for descriptor in file.services_by_name.values()
    }
    method = services[service].methods_by_name[rpc]
    text = arguments[arguments.index("-d") + 1]
    for variable, value in (("TENANT_ID", "acme"), ("REQUEST_ID", "billing-scheduler-29400000")):
        text = text.replace(f"$({variable})", value)
    return method, json_format.Parse(text, message_factory.GetMessageClass(method.input_type)())


def trigger(name: str, among: list[dict[str, Any]]) -> dict[str, Any]:
    """The container of a trigger's pod."""
    job = manifest("CronJob", name, among)["spec"]["jobTemplate"]["spec"]
    container: dict[str, Any]
    [container] = job["template"]["spec"]["containers"]
    return container


@pytest.mark.parametrize("among", [MANIFESTS, PATCHES], ids=["plaintext", "mtls"])
def test_the_scheduler_calls_an_rpc_that_exists_under_a_name_that_repeats(
    among: list[dict[str, Any]],
) -> None:
    method, request = called(trigger("billing-scheduler", among)["args"])
    assert method.full_name == "billing.v1.BillingRunService.RunBilling"
    assert request.tenant_id == "acme"
    assert request.run_type == billing_run_pb2.BILLING_RUN_TYPE_SCHEDULED
    assert request.request_id == "billing-scheduler-29400000"
    [env] = [e for e in PODS["billing-scheduler"].container["env"] if e["name"] == "REQUEST_ID"]
    assert "job-name" in env["valueFrom"]["fieldRef"]["fieldPath"]


@pytest.mark.parametrize("among", [MANIFESTS, PATCHES], ids=["plaintext", "mtls"])
def test_the_expiry_of_credits_is_of_the_whole_tenant_and_may_be_repeated(
    among: list[dict[str, Any]],
) -> None:
    method, request = called(trigger("billing-credit-expiry", among)["args"])
    assert method.full_name == "billing.v1.CreditService.ExpireCredits"
    assert request == credit_pb2.ExpireCreditsRequest(tenant_id="acme")
    options = method.GetOptions()
    assert options.idempotency_level == descriptor_pb2.MethodOptions.IDEMPOTENT


@pytest.mark.parametrize("name", TRIGGERS)
def test_a_trigger_reaches_the_server_with_the_scheduler_s_credentials(name: str) -> None:
    for among, port in ((MANIFESTS, GRPC_PORT), (PATCHES, MTLS_PORT)):
        [*_, target, _] = trigger(name, among)["args"]
        host, target_port = split_address(target)
        assert host.split(".")[0] == manifest("Service", "billing-server")["metadata"]["name"]
        assert target_port == port
    assert PODS[name].labels == PODS["billing-scheduler"].labels
    environ = {entry["name"]: entry for entry in PODS[name].container["env"]}
    assert environ["TENANT_ID"]["value"] == "acme"
    secret = environ["TOKEN"]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "billing-scheduler", "key": "token"}
    spec = manifest("CronJob", name)["spec"]
    minute, *rest = spec["schedule"].split()
    assert rest == ["*"] * 4, "every hour"
    assert 0 <= int(minute) < 60
    assert spec["concurrencyPolicy"] == "Forbid"


@pytest.mark.parametrize("directory", ["kubernetes", "kubernetes-mtls"])
def test_the_scheduler_s_capabilities_are_those_of_the_rpcs_that_it_calls(directory: str) -> None:
    needed = {
        called(trigger(name, MANIFESTS)["args"])[0]
        .GetOptions()
        .Extensions[options_pb2.required_capability]
        for name in TRIGGERS
    }
    audit = ledger_pb2.DESCRIPTOR.services_by_name["LedgerService"].methods_by_name["AuditLedger"]
    needed.add(audit.GetOptions().Extensions[options_pb2.required_capability])
    told = (DEPLOY / directory / "kustomization.yaml").read_text("utf-8")
    assert set(re.findall(r"billing\.\w+:\w+", told)) == needed


@pytest.mark.parametrize(
    ("among", "port"), [(MANIFESTS, GRPC_PORT), (PATCHES, MTLS_PORT)], ids=["plaintext", "mtls"]
)
def test_the_audit_is_a_command_that_exists_with_the_scheduler_s_credentials(
    among: list[dict[str, Any]], port: int
) -> None:
    command: Any = typer.main.get_command(app)
    name, *arguments = trigger(AUDIT, among)["args"]
    given = command.commands[name].make_context(name, list(arguments)).params
    assert given["tenant"] == "acme"
    host, target_port = split_address(given["address"])
    assert host.split(".")[0] == manifest("Service", "billing-server")["metadata"]["name"]
    assert target_port == port
    # In clear text with a token, or with a certificate.
    credentials = [given[option] for option in ("token_file", "client_certificate")]
    assert (given["tls"] is False, bool(credentials[0])) == (among is MANIFESTS,) * 2
    [file] = [str(path) for path in credentials if path is not None]
    assert file.startswith("/run/secrets/scheduler/")
    assert PODS[AUDIT].labels == PODS["billing-scheduler"].labels


def test_an_audit_that_found_something_is_not_repeated() -> None:
    job = manifest("CronJob", AUDIT)["spec"]["jobTemplate"]["spec"]
    [rule] = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    codes = {"containerName": "audit", "operator": "In", "values": [EXIT_FINDINGS]}
    assert rule["onExitCodes"] == codes


def test_the_cron_lines_of_the_readme_call_the_same_rpcs() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    [block] = re.findall(r"```cron\n(.*?)```", readme, re.DOTALL)
    assert re.findall(r"(billing\.v1\.\w+/\w+)$", block, re.MULTILINE) == [
        trigger(name, MANIFESTS)["args"][-1] for name in TRIGGERS
    ]
