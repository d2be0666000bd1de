"""Figures that the demonstration foresees, and compares with the service's."""

from billing.sandbox.processes import SandboxFailed


class FigureDiffers(SandboxFailed):
    """The service tells another figure than was foreseen."""


def require_figure(name: str, found: object, expected: object) -> None:
    """Raise FigureDiffers unless what was found is what was foreseen."""
    if found != expected:
        raise FigureDiffers(f"{name}: found {found}, expected {expected}")
