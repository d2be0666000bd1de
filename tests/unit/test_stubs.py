"""The stubs' wheel: what sibling services install."""

import json
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import grpc
import pytest
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions

from billing.v1 import (
    billing_run_pb2,
    calculation_pb2,
    catalog_pb2,
    credit_pb2,
    ledger_pb2,
    payment_pb2,
    subscription_pb2,
    usage_pb2,
)

ROOT = Path(__file__).parents[2]
STUBS = ROOT / "stubs"
FILES = (
    billing_run_pb2,
    calculation_pb2,
    catalog_pb2,
    credit_pb2,
    ledger_pb2,
    payment_pb2,
    subscription_pb2,
    usage_pb2,
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, as `make stubs` builds it."""
    directory = tmp_path_factory.mktemp("stubs")
    hatchling = Path(sys.executable).parent / "hatchling"
    subprocess.run(
        [str(hatchling), "build", "--target", "wheel", "--directory", str(directory)],
        cwd=STUBS,
        check=True,
        capture_output=True,
    )
    (built,) = directory.glob("*.whl")
    return built


def methods() -> list[MethodDescriptor]:
    """Every RPC of billing.v1."""
    return [
        method
        for file in FILES
        for service in file.DESCRIPTOR.services_by_name.values()
        for method in service.methods
    ]


def test_the_service_config_retries_exactly_the_idempotent_methods() -> None:
    """As the contract declares them; and nothing is hedged."""
    (config,) = json.loads((STUBS / "service_config.json").read_text())["methodConfig"]
    retried = {f"{name['service']}.{name['method']}" for name in config["name"]}
    declared = {
        method.full_name
        for method in methods()
        if method.GetOptions().idempotency_level != MethodOptions.IDEMPOTENCY_UNKNOWN
    }
    assert retried == declared
    assert config["retryPolicy"]["retryableStatusCodes"] == ["UNAVAILABLE"]
    assert "hedgingPolicy" not in config


def test_every_read_declares_that_it_has_no_side_effects() -> None:
    """By its name, Audit, Explain, Export, Get or List."""
    for method in methods():
        reads = method.name.startswith(("Audit", "Explain", "Export", "Get", "List"))
        level = method.GetOptions().idempotency_level
        assert reads == (level == MethodOptions.NO_SIDE_EFFECTS), method.full_name


def test_the_stubs_have_the_services_version() -> None:
    """One number for the contract and its server."""
    versions = {
        tomllib.loads((folder / "pyproject.toml").read_text())["project"]["version"]
        for folder in (ROOT, STUBS)
    }
    assert len(versions) == 1


def test_the_wheel_holds_typed_stubs_and_nothing_of_the_server(wheel: Path) -> None:
    """Messages, stubs, types, the service config; importing them needs no server module."""
    names = zipfile.ZipFile(wheel).namelist()
    assert {
        "billing/v1/py.typed",
        "billing/v1/usage_pb2.pyi",
        "billing/v1/service_config.json",
    } <= {*names}
    packages = {name.rpartition("/")[0] for name in names if not name.startswith("billing_service")}
    assert packages == {"billing/v1", "buf", "buf/validate"}


def test_the_wheel_works_by_itself(wheel: Path, tmp_path: Path) -> None:
    """Imported from the wheel alone, beside its declared dependencies."""
    zipfile.ZipFile(wheel).extractall(tmp_path)
    installed = Path(grpc.__file__).parents[1]
    program = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(installed)!r}];"
        "from billing.v1 import usage_pb2, usage_pb2_grpc;"
        "from importlib.resources import files;"
        "assert files('billing.v1').joinpath('service_config.json').is_file();"
        f"assert usage_pb2.__file__.startswith({str(tmp_path)!r}), usage_pb2.__file__;"
        "assert not any(name.startswith(('billing.api', 'asyncpg')) for name in sys.modules)"
    )
    # Without site: its path files would put this checkout before the wheel.
    subprocess.run([sys.executable, "-I", "-S", "-c", program], check=True, cwd=tmp_path)
