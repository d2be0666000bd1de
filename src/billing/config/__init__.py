"""Settings of the service, parsed once from environment variables ``BILLING_*``."""

from billing.config.formats import is_loopback, split_address
from billing.config.settings import (
    PREFIX,
    SETTINGS,
    ConfigurationInvalid,
    Setting,
    Settings,
    read_settings,
    variable_of,
)

__all__ = [
    "PREFIX",
    "SETTINGS",
    "ConfigurationInvalid",
    "Setting",
    "Settings",
    "is_loopback",
    "read_settings",
    "split_address",
    "variable_of",
]
