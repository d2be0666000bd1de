"""The only place where objects are wired: settings in, a running service out."""

from billing.bootstrap.running import (
    RunningService,
    data_directory,
    database_url,
    running_service,
    system_clock,
)
from billing.bootstrap.wiring import Stores, wire_execution, wire_use_cases

__all__ = [
    "RunningService",
    "Stores",
    "data_directory",
    "database_url",
    "running_service",
    "system_clock",
    "wire_execution",
    "wire_use_cases",
]
