"""The files in deploy/ fit each other, the Dockerfile, and what the service's settings say."""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any, Final

import pytest
import yaml

from billing.api.health import LIVENESS
from billing.config import SETTINGS, Settings, read_settings, split_address
from tests.factories.deploy import (
    AUDIT,
    DEPLOY,
    MANIFESTS,
    MTLS_PORT,
    PATCHES,
    PODS,
    ROOT,
    TRIGGERS,
    Pod,
    manifest,
)

DOCKERFILE: Final = (ROOT / "Dockerfile").read_text("utf-8")
VARIABLES: Final = {setting.variable for setting in SETTINGS}
DEFAULTS: Final = Settings()
GRPC_PORT: Final = split_address(DEFAULTS.listen_address)[1]
METRICS_PORT: Final = split_address(DEFAULTS.metrics_address or "")[1]
INVOICING_PORT: Final = split_address(DEFAULTS.invoicing_address)[1]
IMAGE: Final = "billing-service"
APP_LABEL: Final = "app.kubernetes.io/name"
COMPOSE: Final = yaml.safe_load((DEPLOY / "compose.yaml").read_text("utf-8"))
OURS: Final = [pod for pod in PODS.values() if pod.container["image"] == IMAGE]


def environment(pod: Pod, *more: dict[str, str]) -> dict[str, str]:
    """The settings that the pod's container gets."""
    found: dict[str, str] = {}
    for source in pod.container.get("envFrom", []):
        found |= manifest("ConfigMap", source["configMapRef"]["name"])["data"]
    found |= {entry["name"]: entry["value"] for entry in pod.container.get("env", [])}
    for entries in more:
        found |= entries
    return found


def settings_of(environ: dict[str, str], directory: Path) -> Settings:
    """Parse them, with a database URL where they name its file."""
    url = directory / "url"
    url.write_text("postgresql://billing_service@postgres/billing")
    return read_settings(environ | {"BILLING_DATABASE_URL_FILE": str(url)})


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    """Whether a label selector matches."""
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    for expression in selector.get("matchExpressions", []):
        assert expression["operator"] == "In"
        if labels.get(expression["key"]) not in expression["values"]:
            return False
    return set(selector.get("matchLabels", {}).items()) <= set(labels.items())


def test_kustomization_lists_every_file() -> None:
    for directory, key in (("kubernetes", "resources"), ("kubernetes-mtls", "patches")):
        kustomization = yaml.safe_load((DEPLOY / directory / "kustomization.yaml").read_text())
        named = {p["path"] if isinstance(p, dict) else p for p in kustomization[key]}
        files = {path.name for path in (DEPLOY / directory).glob("*.yaml")}
        assert named == files - {"kustomization.yaml"}


def test_every_workload_is_there() -> None:
    workloads = {"billing-server", "billing-worker", "billing-migrate", AUDIT}
    assert set(PODS) == {*workloads, *TRIGGERS}
    assert {pod.name for pod in OURS} == set(PODS) - set(TRIGGERS)


def test_one_image_and_it_is_the_one_whose_tag_kustomization_sets() -> None:
    kustomization = yaml.safe_load((DEPLOY / "kubernetes" / "kustomization.yaml").read_text())
    assert [image["name"] for image in kustomization["images"]] == [IMAGE]
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert version is not None
    assert kustomization["images"][0]["newTag"] == version[1]
    assert {pod.container["args"][0] for pod in OURS} == {"serve", "worker", "migrate", "audit"}


@pytest.mark.parametrize("pod", PODS.values(), ids=lambda pod: pod.name)
def test_a_pod_may_do_little(pod: Pod) -> None:
    assert pod.spec["automountServiceAccountToken"] is False
    security = pod.spec["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod.container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"cpu", "memory"} <= set(pod.container["resources"]["requests"])
    assert "memory" in pod.container["resources"]["limits"]
    account = manifest("ServiceAccount", pod.spec["serviceAccountName"])
    assert account["automountServiceAccountToken"] is False


@pytest.mark.parametrize("pod", OURS, ids=lambda pod: pod.name)
def test_a_pod_runs_as_the_image_s_user_who_can_read_its_secrets(pod: Pod) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)
    assert user is not None
    security = pod.spec["securityContext"]
    assert (security["runAsUser"], security["runAsGroup"]) == (int(user[1]), int(user[2]))
    assert security["fsGroup"] == int(user[2])
    for volume in pod.spec["volumes"]:
        if "secret" in volume:
            assert volume["secret"]["defaultMode"] == 0o440


@pytest.mark.parametrize("pod", OURS, ids=lambda pod: pod.name)
def test_every_variable_is_a_setting_and_every_file_is_mounted(pod: Pod, tmp_path: Path) -> None:
    environ = environment(pod)
    assert set(environ) <= VARIABLES
    mounts = [PurePosixPath(mount["mountPath"]) for mount in pod.container["volumeMounts"]]
    needed = {name for name in environ if name.endswith("_FILE")}
    if pod.name != "billing-server":
        needed -= {"BILLING_JWKS_FILE"}  # only who answers calls reads it
    for name in needed:
        assert PurePosixPath(environ[name]).parent in mounts, name
    volumes = {volume["name"] for volume in pod.spec["volumes"]}
    assert {mount["name"] for mount in pod.container["volumeMounts"]} == volumes
    settings = settings_of(environ, tmp_path)
    if pod.name == "billing-server":
        settings.require_servable()


def test_ports_are_the_settings_defaults_everywhere(tmp_path: Path) -> None:
    exposed = re.search(r"^EXPOSE (.+)$", DOCKERFILE, re.MULTILINE)
    assert exposed is not None
    assert list(map(int, exposed[1].split())) == [GRPC_PORT, METRICS_PORT]
    for name, ports in (
        ("billing-server", {"grpc": GRPC_PORT, "metrics": METRICS_PORT}),
        ("billing-worker", {"metrics": METRICS_PORT}),
    ):
        pod = PODS[name]
        assert {p["name"]: p["containerPort"] for p in pod.container["ports"]} == ports
        assert pod.template["metadata"]["annotations"]["prometheus.io/port"] == str(METRICS_PORT)
        settings = settings_of(environment(pod), tmp_path)
        assert settings.listen_address == f"0.0.0.0:{GRPC_PORT}"
        assert settings.metrics_address == f"0.0.0.0:{METRICS_PORT}"
        assert split_address(settings.invoicing_address)[1] == INVOICING_PORT
    [port] = manifest("Service", "billing-server")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (GRPC_PORT, "grpc")


def test_the_image_listens_where_it_says(tmp_path: Path) -> None:
    environ = dict(re.findall(r"(BILLING_[A-Z_]+)=(\S+)", DOCKERFILE))
    assert set(environ) <= VARIABLES
    settings = read_settings(environ)
    assert split_address(settings.listen_address)[1] == GRPC_PORT
    assert split_address(settings.metrics_address or "")[1] == METRICS_PORT
    health = re.search(r"^HEALTHCHECK .* CMD (.+)$", DOCKERFILE, re.MULTILINE)
    assert health is not None
    assert json.loads(health[1]) == ["billing", "health"]


def test_probes_ask_what_is_served() -> None:
    server, worker = PODS["billing-server"].container, PODS["billing-worker"].container
    assert server["readinessProbe"]["grpc"] == {"port": GRPC_PORT}
    for probe in ("startupProbe", "livenessProbe"):
        # No restart mends a database: what would restart must not follow it.
        assert server[probe]["grpc"] == {"port": GRPC_PORT, "service": LIVENESS}
        assert worker[probe]["httpGet"] == {"port": "metrics", "path": "/metrics"}


def test_pods_are_given_the_time_to_drain(tmp_path: Path) -> None:
    server = PODS["billing-server"]
    drain_seconds = settings_of(environment(server), tmp_path).drain_seconds
    [_, pause_seconds] = server.container["lifecycle"]["preStop"]["exec"]["command"]
    grace_seconds = server.spec["terminationGracePeriodSeconds"]
    assert grace_seconds > drain_seconds + float(pause_seconds)
    assert PODS["billing-worker"].spec["terminationGracePeriodSeconds"] > grace_seconds
    for name in ("server", "worker"):
        stop = COMPOSE["services"][name]["stop_grace_period"]
        assert float(stop.removesuffix("s")) > DEFAULTS.drain_seconds


def test_selectors_find_the_pods_they_are_named_for() -> None:
    for made in MANIFESTS:
        kind, name, spec = made["kind"], made["metadata"]["name"], made.get("spec", {})
        if kind == "Deployment":
            assert selects(spec["selector"], PODS[name].labels)
            [spread] = PODS[name].spec["topologySpreadConstraints"]
            assert selects(spread["labelSelector"], PODS[name].labels)
        elif kind in ("Service", "PodDisruptionBudget"):
            selector = spec["selector"]
            selector = selector if "matchLabels" in selector else {"matchLabels": selector}
            assert [p.name for p in PODS.values() if selects(selector, p.labels)] == [name]


def test_a_disruption_budget_leaves_a_pod_and_lets_one_go() -> None:
    for name in ("billing-server", "billing-worker"):
        replicas = manifest("Deployment", name)["spec"]["replicas"]
        budget = manifest("PodDisruptionBudget", name)["spec"]
        assert replicas - budget.get("minAvailable", replicas - 1) == 1
        assert budget.get("maxUnavailable", 1) == 1


def test_network_policies_let_through_what_is_needed_and_no_more() -> None:
    allowed: dict[tuple[str, str], set[int]] = {}
    for policy in (m["spec"] for m in MANIFESTS if m["kind"] == "NetworkPolicy"):
        for pod in PODS.values():
            for direction in ("ingress", "egress"):
                if selects(policy["podSelector"], pod.labels):
                    rules = policy.get(direction, [])
                    ports = {entry["port"] for rule in rules for entry in rule["ports"]}
                    allowed.setdefault((pod.name, direction), set()).update(ports)
    backends = {53, 5432, INVOICING_PORT}
    assert allowed == {
        ("billing-server", "ingress"): {GRPC_PORT, METRICS_PORT},
        ("billing-server", "egress"): backends,
        ("billing-worker", "ingress"): {METRICS_PORT},
        ("billing-worker", "egress"): backends,
        ("billing-migrate", "ingress"): set(),
        ("billing-migrate", "egress"): backends,
        (AUDIT, "ingress"): set(),
        (AUDIT, "egress"): {53, GRPC_PORT},
        **{(name, "ingress"): set() for name in TRIGGERS},
        **{(name, "egress"): {53, GRPC_PORT} for name in TRIGGERS},
    }
    default = manifest("NetworkPolicy", "billing-default")["spec"]
    assert all(selects(default["podSelector"], pod.labels) for pod in PODS.values())
    assert set(default["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in default


def test_mtls_adds_what_tls_and_client_certificates_need(tmp_path: Path) -> None:
    spec = manifest("Deployment", "billing-server", PATCHES)["spec"]["template"]["spec"]
    [container] = spec["containers"]
    added = {entry["name"]: entry["value"] for entry in container["env"]}
    settings_patch = manifest("ConfigMap", "billing-settings", PATCHES)["data"]
    environ = environment(PODS["billing-server"], settings_patch, added)
    assert set(environ) <= VARIABLES
    settings = settings_of(environ, tmp_path)
    settings.require_servable()
    assert settings.uses_client_certificates
    assert not settings.allow_plaintext
    mounts = [PurePosixPath(mount["mountPath"]) for mount in container["volumeMounts"]]
    assert {PurePosixPath(v).parent for n, v in added.items() if n.endswith("_FILE")} == set(mounts)
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in spec["volumes"]}
    assert split_address(settings.mtls_listen_address or "")[1] == MTLS_PORT
    [port] = container["ports"]
    service = manifest("Service", "billing-server", PATCHES)["spec"]["ports"]
    assert [(p["name"], p["containerPort"]) for p in (port,)] == [("grpc-mtls", MTLS_PORT)]
    assert [(p["port"], p["targetPort"]) for p in service] == [
        (GRPC_PORT, "grpc"),
        (MTLS_PORT, "grpc-mtls"),
    ]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert container[probe]["grpc"] is None
        assert container[probe]["exec"]["command"][:2] == ["billing", "health"]
    policy = manifest("NetworkPolicy", "billing-server", PATCHES)["spec"]["ingress"][0]["ports"]
    assert [p["port"] for p in policy] == [GRPC_PORT, MTLS_PORT]


def test_compose_runs_one_image_with_settings_that_exist() -> None:
    ours = {n: s for n, s in COMPOSE["services"].items() if n != "postgres"}
    assert set(ours) == {"migrate", "server", "worker", "invoicing"}
    assert {service["image"] for service in ours.values()} == {f"{IMAGE}:local"}
    for service in ours.values():
        assert set(service.get("environment", {})) <= VARIABLES
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
    images = re.search(r"postgres:(\d+)", COMPOSE["services"]["postgres"]["image"])
    assert images is not None
    assert 15 <= int(images[1]) <= 18


def test_compose_secrets_are_files_that_someone_reads() -> None:
    defined = set(COMPOSE["secrets"])
    script = (DEPLOY / "compose" / "make-secrets.sh").read_text("utf-8")
    roles = (DEPLOY / "compose" / "roles.sql").read_text("utf-8")
    for name in defined:
        assert COMPOSE["secrets"][name] == {"file": f"./secrets/{name}"}
        assert name.partition("-")[0] in script
    assert set(re.findall(r"/run/secrets/([a-z-]+)", roles)) <= set(
        COMPOSE["services"]["postgres"]["secrets"]
    )
    for service in COMPOSE["services"].values():
        mounted = set(service.get("secrets", []))
        assert mounted <= defined
        read = {
            PurePosixPath(value).name
            for value in service.get("environment", {}).values()
            if value.startswith("/run/secrets/")
        }
        assert read <= mounted
    assert "/deploy/secrets/" in (ROOT / ".gitignore").read_text("utf-8").splitlines()


def test_compose_starts_things_in_order_and_publishes_on_loopback(tmp_path: Path) -> None:
    services = COMPOSE["services"]
    healthy, finished = "service_healthy", "service_completed_successfully"
    assert services["migrate"]["depends_on"]["postgres"]["condition"] == healthy
    for name in ("server", "worker"):
        assert services[name]["depends_on"]["migrate"]["condition"] == finished
    for name in ("postgres", "server", "worker", "invoicing"):
        assert services[name]["healthcheck"]["test"][0] == "CMD"
    assert services["server"]["ports"] == [
        f"127.0.0.1:{port}:{port}" for port in (GRPC_PORT, METRICS_PORT)
    ]
    image = dict(re.findall(r"(BILLING_[A-Z_]+)=(\S+)", DOCKERFILE))
    settings_of(image | services["server"]["environment"], tmp_path).require_servable()


def test_nothing_secret_goes_into_an_image() -> None:
    lines = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for line in copied for name in line.split()} <= {
        rule.removeprefix("!") for rule in rules if rule.startswith("!")
    }
