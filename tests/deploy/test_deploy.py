"""What is in deploy/ is checked by the tools that know best, and each check finds a broken copy."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rateway.config.table import ROWS
from rateway.runtime.monitoring import metrics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent

Checked = tuple[int, str]


def call(*words: str | Path, cwd: Path = ROOT) -> Checked:
    """Exit code and all output. A tool that is missing fails the test."""
    environment = {**os.environ, "NO_COLOR": "1", "SYSTEMD_COLORS": "0"}
    done = subprocess.run(
        [str(word) for word in words],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        timeout=300,
        env=environment,
    )
    return done.returncode, done.stdout + done.stderr


def hadolint(path: Path) -> Checked:
    return call(BIN / "hadolint", path)


def compose(path: Path) -> Checked:
    return call(BIN / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", path)


def kubernetes(path: Path) -> Checked:
    return call(BIN / "kubernetes-validate", "--strict", path)


def prometheus(path: Path) -> Checked:
    return call("promtool", "check", "config", "--syntax-only", path)


def rules(path: Path) -> Checked:
    return call("promtool", "check", "rules", "--lint-fatal", path)


def unit(path: Path) -> Checked:
    """As installed, with the command that this environment has."""
    path.write_text(path.read_text().replace("/opt/rateway/bin/rateway", str(BIN / "rateway")))
    code, said = call("systemd-analyze", "verify", path)
    return (code or len(said)), said


def dashboard(path: Path) -> Checked:
    """Every query names metrics and labels that docs/metrics.md has."""
    found = unknown(queries(json.loads(path.read_text())))
    return len(found), "\n".join(found)


CHECKS: dict[str, tuple[Callable[[Path], Checked], str, str]] = {
    # file: (check, a text in it, what breaks it in its place)
    "Dockerfile": (hadolint, 'ENTRYPOINT ["python"', 'ENTRYPOINT python\nENTRYPOINT ["python"'),
    "compose/compose.yaml": (compose, "image: rateway", "image: [perhaps]"),
    "compose/fleet.yaml": (compose, "image: rateway", "image: [perhaps]"),
    "kubernetes/fleet.yaml": (kubernetes, "replicas: 3", "replica: 3"),
    "kubernetes/rateway.yaml": (
        kubernetes,
        "terminationGracePeriodSeconds: 30",
        "terminationGraceSeconds: 30",
    ),
    "prometheus/prometheus.yml": (prometheus, "scrape_interval: 10s", "scrape_interval: soon"),
    "prometheus/alerts.yml": (rules, "rateway_lag_seconds > 30", "rateway_lag_seconds >"),
    "systemd/rateway.service": (unit, "WatchdogSec=60", "WatchdogSec=often"),
    "grafana/rateway.json": (dashboard, "rateway_lag_seconds{", "rateway_lag_minutes{"),
}


def copy_of(name: str, folder: Path) -> Path:
    path = folder / Path(name).name
    path.write_text((DEPLOY / name).read_text())
    return path


@pytest.mark.parametrize("name", CHECKS)
def test_the_tool_that_knows_it_finds_nothing(name: str, tmp_path: Path) -> None:
    check, _, _ = CHECKS[name]
    code, said = check(copy_of(name, tmp_path))
    assert code == 0, said


@pytest.mark.parametrize("name", CHECKS)
def test_the_same_check_fails_on_a_broken_copy(name: str, tmp_path: Path) -> None:
    check, good, bad = CHECKS[name]
    path = copy_of(name, tmp_path)
    text = path.read_text()
    assert good in text
    path.write_text(text.replace(good, bad, 1))
    code, said = check(path)
    assert code != 0 and said


def test_every_alert_fires_when_it_should_and_keeps_silent_otherwise() -> None:
    code, said = call("promtool", "test", "rules", "alerts.test.yml", cwd=DEPLOY / "prometheus")
    assert code == 0 and "SUCCESS" in said, said


def test_an_alert_that_would_not_fire_is_found(tmp_path: Path) -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus/alerts.test.yml").read_text())
    tests["tests"] = [test for test in tests["tests"] if test["name"].startswith("RatewayPaused")]
    (tmp_path / "alerts.test.yml").write_text(yaml.safe_dump(tests))
    path = copy_of("prometheus/alerts.yml", tmp_path)
    path.write_text(path.read_text().replace("rateway_paused == 1", "rateway_paused == 2"))
    code, said = call("promtool", "test", "rules", "alerts.test.yml", cwd=tmp_path)
    assert code != 0 and "RatewayPaused" in said


def alerts() -> dict[str, dict[str, Any]]:
    found = yaml.safe_load((DEPLOY / "prometheus/alerts.yml").read_text())
    return {rule["alert"]: rule for group in found["groups"] for rule in group["rules"]}


def test_every_alert_has_a_test_of_both_kinds_and_words_on_what_to_do() -> None:
    tests = yaml.safe_load((DEPLOY / "prometheus/alerts.test.yml").read_text())["tests"]
    asked = [(one["alertname"], bool(one["exp_alerts"])) for test in tests for one in test["alert_rule_test"]]
    operating = (ROOT / "docs/operating.md").read_text()
    for name, rule in alerts().items():
        assert (name, True) in asked and (name, False) in asked
        assert f"\n### {name}\n" in operating
        assert rule["annotations"]["runbook"] == f"docs/operating.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_alerts_name_metrics_that_there_are() -> None:
    assert unknown([rule["expr"] for rule in alerts().values()]) == []


def queries(board: Any) -> list[str]:
    """Every expression in a dashboard, wherever it stands."""
    if isinstance(board, dict):
        own = [board[key] for key in ("expr", "definition") if isinstance(board.get(key), str)]
        return own + [found for value in board.values() for found in queries(value)]
    if isinstance(board, list):
        return [found for value in board for found in queries(value)]
    return []


def unknown(expressions: list[str]) -> list[str]:
    """Metrics and labels in these expressions that docs/metrics.md does not have."""
    rows = {row.name: row for row in metrics.METRICS}
    table = (ROOT / "docs/metrics.md").read_text()
    found = []
    assert expressions
    for expression in expressions:
        for match in re.finditer(r"\b(rateway_\w+?)((?:_bucket|_sum|_count)?)\b(?:\{([^}]*)\})?", expression):
            row = rows.get(match[1])
            if row is None or f"`{match[1]}`" not in table:
                found.append(f"{match[1]} in {expression}")
                continue
            if bool(match[2]) != (row.kind == "histogram"):
                found.append(f"{match[0]} is a {row.kind}")
            labels = re.findall(r"(\w+)\s*[=!]", match[3] or "")
            known = {*row.labels, "instance", "job"}
            found += [f"label {label} in {expression}" for label in labels if label not in known]
    return found


def test_every_metric_is_on_the_dashboard_or_needs_not_be() -> None:
    text = (DEPLOY / "grafana/rateway.json").read_text()
    elsewhere = {
        # facts rather than courses, or sums of what is shown
        "rateway_build_info", "rateway_http_rejected_total", "rateway_state",
        "rateway_up_seconds", "rateway_layout_shards", "rateway_published_total",
        "rateway_events_repeated_total", "rateway_compression_ratio", "rateway_unrouted_names",
        "rateway_unconfirmed_bytes", "rateway_cache_bytes", "rateway_process_up_seconds",
        "rateway_identify_budget_reset_seconds", "rateway_identify_concurrency",
    }  # fmt: skip
    assert {row.name for row in metrics.METRICS if row.name not in text} - {
        "rateway_build_info"
    } == elsewhere - {"rateway_build_info"}


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((DEPLOY / "grafana/rateway.json").read_text())["panels"]:
        at = panel["gridPos"]
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24
        taken |= cells


def test_the_service_is_hardened_and_never_starts_again_what_a_person_must_change(tmp_path: Path) -> None:
    path = copy_of("systemd/rateway.service", tmp_path)
    text = path.read_text()
    for line in ("Type=notify", "RestartPreventExitStatus=78", "StateDirectoryMode=0700", "WatchdogSec=60"):
        assert f"\n{line}\n" in text
    code, said = call("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", path)
    assert code == 0, said
    path.write_text(text.replace("ProtectSystem=strict\n", "").replace("CapabilityBoundingSet=\n", ""))
    code, _ = call("systemd-analyze", "security", "--offline=yes", "--threshold=20", "--no-pager", path)
    assert code != 0


def test_containers_run_as_nobody_without_a_shell_between_and_never_two_on_one_state() -> None:
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    assert re.search(r"^USER 10001:10001$", dockerfile, re.MULTILINE)
    for word in ("ENTRYPOINT", "CMD"):
        assert re.findall(rf"{word} (\S)", dockerfile)[-1] == "["
    stack = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    gateway = stack["services"]["gateway"]
    assert gateway["deploy"]["replicas"] == 1 and gateway["cap_drop"] == ["ALL"]
    for service in stack["services"].values():
        # Another policy would leave it away after the machine was started anew.
        assert service["restart"] == "unless-stopped"
        # Compose cannot put a secret from the environment into a read-only root.
        from_environment = any("environment" in stack["secrets"][name] for name in service.get("secrets", ()))
        assert not (from_environment and service.get("read_only"))
    *_, stateful = yaml.safe_load_all((DEPLOY / "kubernetes/rateway.yaml").read_text())
    assert stateful["kind"] == "StatefulSet" and stateful["spec"]["replicas"] == 1
    assert stateful["spec"]["volumeClaimTemplates"][0]["spec"]["accessModes"] == ["ReadWriteOncePod"]
    pod = stateful["spec"]["template"]["spec"]
    assert (
        pod["securityContext"]["runAsNonRoot"]
        and pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"]
    )


def gateways_of(stack: Any) -> dict[str, Any]:
    """The services of a compose file that run the gateway."""
    return {name: each for name, each in stack["services"].items() if each["image"] == "rateway"}


def test_a_fleet_has_three_members_with_a_state_each_and_three_nodes_that_pause_without_a_majority() -> None:
    stack = yaml.safe_load((DEPLOY / "compose/fleet.yaml").read_text())
    gateways = gateways_of(stack)
    assert len(gateways) == 3 and len(stack["services"]) == 6
    assert {each["environment"]["FLEET"] for each in gateways.values()} == {"bot"}
    for services in (
        gateways,
        {name: stack["services"][name] for name in stack["services"] if name not in gateways},
    ):
        assert len({each["volumes"][0] for each in services.values()}) == 3
        assert len({each["hostname"] for each in services.values()}) == 3
    for service in stack["services"].values():
        assert service["restart"] == "unless-stopped"
    conf = (DEPLOY / "compose/rabbitmq-cluster.conf").read_text()
    assert re.findall(r"rabbit@(\S+)", conf) == [name for name in stack["services"] if name not in gateways]
    (operator,) = yaml.safe_load_all((DEPLOY / "kubernetes/rabbitmq.yaml").read_text())
    additional = operator["spec"]["rabbitmq"]["additionalConfig"]
    for text in (conf, additional):
        assert "cluster_partition_handling = pause_minority" in text
    for text in (
        (DEPLOY / "compose/advanced.config").read_text(),
        operator["spec"]["rabbitmq"]["advancedConfig"],
    ):
        assert "[{kernel, [{net_ticktime, 10}]}]." in text
    secret, *_, budget, stateful = yaml.safe_load_all((DEPLOY / "kubernetes/fleet.yaml").read_text())
    assert stateful["spec"]["replicas"] == operator["spec"]["replicas"] == 3
    assert stateful["spec"]["podManagementPolicy"] == "Parallel" and budget["spec"]["maxUnavailable"] == 1
    assert secret["stringData"]["amqp-uri"].count("rabbitmq-server-") == 3
    container = stateful["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "FLEET", "value": "bot"} in container["env"]
    # Beside what makes it a fleet it is the manifest of one gateway.
    *_, alone = yaml.safe_load_all((DEPLOY / "kubernetes/rateway.yaml").read_text())
    container["env"] = [each for each in container["env"] if each["name"] != "FLEET"]
    assert container == alone["spec"]["template"]["spec"]["containers"][0]


def test_every_setting_that_is_named_there_is_one() -> None:
    known = {row.env for row in ROWS} | {f"{row.env}_FILE" for row in ROWS if row.secret}
    named: set[str] = set()
    for name in ("compose", "fleet"):
        for gateway in gateways_of(yaml.safe_load((DEPLOY / f"compose/{name}.yaml").read_text())).values():
            named |= set(gateway["environment"])
    for name in ("rateway", "fleet"):
        *_, stateful = yaml.safe_load_all((DEPLOY / f"kubernetes/{name}.yaml").read_text())
        container = stateful["spec"]["template"]["spec"]["containers"][0]
        named |= {each["name"] for each in container["env"]}
    named |= set(
        re.findall(r"^Environment=(\w+)=", (DEPLOY / "systemd/rateway.service").read_text(), re.MULTILINE)
    )
    text = (DEPLOY / "Dockerfile").read_text()
    given = set(re.findall(r"^(?:ENV|   ) +?(\w+)=", text, re.MULTILINE))
    named |= given - {"PATH", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    assert named <= known


def test_files_that_compose_mounts_are_there() -> None:
    needed: set[str] = set()
    for name in ("compose.yaml", "fleet.yaml"):
        text = (DEPLOY / "compose" / name).read_text()
        stack = yaml.safe_load(text)
        for service in stack["services"].values():
            for volume in service.get("volumes", ()):
                path = volume.split(":")[0]
                assert not path.startswith(".") or (DEPLOY / "compose" / path).is_file(), path
        needed |= set(re.findall(r"\$\{(\w+)", text))
        needed |= {secret["environment"] for secret in stack["secrets"].values()}
    assert needed == set(re.findall(r"^(\w+)=", (DEPLOY / "compose/example.env").read_text(), re.MULTILINE))
