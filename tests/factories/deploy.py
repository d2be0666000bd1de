"""The manifests in deploy/, parsed."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).parents[2]
DEPLOY: Final = ROOT / "deploy"
TRIGGERS: Final = ("billing-scheduler", "billing-credit-expiry")
AUDIT: Final = "billing-audit"
MTLS_PORT: Final = 50061


def documents(directory: Path) -> list[dict[str, Any]]:
    """Every object of the directory's manifests."""
    return [
        document
        for path in sorted(directory.glob("*.yaml"))
        if path.name != "kustomization.yaml"
        for document in yaml.safe_load_all(path.read_text("utf-8"))
    ]


MANIFESTS: Final = documents(DEPLOY / "kubernetes")
PATCHES: Final = documents(DEPLOY / "kubernetes-mtls")


def manifest(kind: str, name: str, among: list[dict[str, Any]] = MANIFESTS) -> dict[str, Any]:
    """The object of a kind and name."""
    [found] = [m for m in among if m["kind"] == kind and m["metadata"]["name"] == name]
    return found


@dataclass(frozen=True)
class Pod:
    """The pods of one workload."""

    name: str
    template: dict[str, Any]

    @property
    def spec(self) -> dict[str, Any]:
        spec: dict[str, Any] = self.template["spec"]
        return spec

    @property
    def labels(self) -> dict[str, str]:
        labels: dict[str, str] = self.template["metadata"]["labels"]
        return labels

    @property
    def container(self) -> dict[str, Any]:
        container: dict[str, Any]
        [container] = self.spec["containers"]
        return container


def pods() -> Iterator[Pod]:
    """The pods of every workload."""
    for made in MANIFESTS:
        spec = made.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            yield Pod(made["metadata"]["name"], spec["template"])


PODS: Final = {pod.name: pod for pod in pods()}
