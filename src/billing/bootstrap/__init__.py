"""The only place where objects are wired: settings in, a running service out."""

from billing.bootstrap.running import (
    RunningService,
    data_directory,
    database_url,
    running_service,
    system_clock,
)
from billing.bootstrap.stores import Stores
from billing.bootstrap.wiring import wire_delivery, wire_execution, wire_use_cases

__all__ = [
    "RunningService",
    "Stores",
    "data_directory",
    "database_url",
    "running_service",
    "system_clock",
    "wire_delivery",
    "wire_execution",
    "wire_use_cases",
]
