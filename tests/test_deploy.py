"""The deployment files name options, routes, extras and files that exist."""

import json
import re
import shutil
import subprocess

import pytest
import yaml
from typer.main import get_command

from ranker.cli.main import app
from ranker.serving.limits import Limits
from ranker.serving.routes import health
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"
KUSTOMIZE = DEPLOY / "kustomize"
KUSTOMIZATIONS = sorted(path.parent for path in KUSTOMIZE.rglob("kustomization.yaml"))
BUILD = next(
    (command for command in (["kustomize", "build"], ["kubectl", "kustomize"]) if shutil.which(command[0])), None
)

METRICS = {
    "ranker_requests_total": ("counter", {"route", "status"}),
    "ranker_request_seconds": ("histogram", {"route"}),
    "ranker_requests_in_flight": ("gauge", set()),
    "ranker_refused_total": ("counter", {"reason"}),
    "ranker_items_total": ("counter", set()),
    "ranker_item_errors_total": ("counter", set()),
    "ranker_answers_total": ("counter", set()),
    "ranker_answers_read_total": ("counter", set()),
    "ranker_queue_items": ("gauge", set()),
    "ranker_queue_seconds": ("histogram", set()),
    "ranker_batch_items": ("histogram", set()),
    "ranker_batch_seconds": ("histogram", set()),
    "ranker_tokens_total": ("counter", set()),
    "ranker_padding_tokens_total": ("counter", set()),
    "ranker_model_info": ("gauge", {"model", "layout", "precision", "device", "version"}),
    "process_resident_memory_bytes": ("gauge", set()),
    "process_cpu_seconds_total": ("counter", set()),
    "process_open_fds": ("gauge", set()),
    "process_start_time_seconds": ("gauge", set()),
}
"""Metrics of the server: their type and their own labels."""

SERIES = {f"{name}_bucket" if kind == "histogram" else name: name for name, (kind, _) in METRICS.items()}
"""Names of series that a panel may ask for, and their metrics; of a histogram the buckets."""


def options(verb):
    return {name for parameter in get_command(app).get_command(None, verb).params for name in parameter.opts}


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def dashboard():
    return json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())


def panels():
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions():
    return [target["expr"] for panel in panels() for target in panel["targets"]]


def names(expression):
    """Names of an expression that are neither functions, keywords nor labels."""
    bare = re.sub(r"\{.*?\}|\[.*?\]|\bby \(.*?\)", "", expression)
    return set(re.findall(r"\b[a-zA-Z_]\w*\b(?!\s*\()", bare)) - {"or"}


def labels(expression):
    """Names of the labels that an expression selects or groups by."""
    grouped = ",".join(re.findall(r"\bby \((.*?)\)", expression))
    return set(re.findall(r"(\w+)\s*[=!]~?", expression)) | set(re.findall(r"\w+", grouped))


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_images_install_extras_and_copy_files_that_exist(name):
    text = (DEPLOY / name).read_text()
    for line in re.findall(r"^COPY (.+)$", text, re.MULTILINE):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
    extras = re.search(r"'\.\[([\w,]+)\]'", text)[1].split(",")
    project = (ROOT / "pyproject.toml").read_text()
    assert all(re.search(rf"^{extra} = ", project, re.MULTILINE) for extra in extras)
    command = [*json.loads(re.search(r"ENTRYPOINT (.+)", text)[1]), *json.loads(re.search(r"^CMD (.+)", text, re.M)[1])]
    assert command[:2] == ["ranker", "serve"]
    assert {word for word in command if word.startswith("--")} <= options("serve")


def test_compose_scrapes_with_a_key():
    (compose,) = documents("compose.yaml")
    assert set(compose["services"]) == {"ranker", "prometheus", "grafana"}
    assert (DEPLOY.parent / compose["services"]["ranker"]["build"]["dockerfile"]).exists()
    (prometheus,) = documents("prometheus.yaml")
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["ranker:8000"]
    assert job["authorization"]["credentials_file"] in compose["services"]["prometheus"]["command"][0]


def test_compose_provisions_grafana():
    (compose,) = documents("compose.yaml")
    mounts = dict(volume.split(":")[:2] for volume in compose["services"]["grafana"]["volumes"])
    assert all((DEPLOY / source).exists() for source in mounts)
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (sources,) = documents("grafana/provisioning/datasources/prometheus.yaml")
    (source,) = sources["datasources"]
    assert source["type"] == "prometheus"
    host, port = re.fullmatch(r"http://(\w+):(\d+)", source["url"]).groups()
    assert compose["services"][host]["ports"][0].endswith(f":{port}")
    (prometheus,) = documents("prometheus.yaml")
    assert source["jsonData"]["timeInterval"] == prometheus["scrape_configs"][0]["scrape_interval"]
    (boards,) = documents("grafana/provisioning/dashboards/ranker.yaml")
    board = mounts["./grafana/dashboard.json"]
    assert board.rpartition("/")[0] == boards["providers"][0]["options"]["path"]
    environment = compose["services"]["grafana"]["environment"]
    assert environment["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == board


def test_the_dashboard_can_be_imported():
    board = dashboard()
    assert board["title"] == "ranker"
    assert board["schemaVersion"] >= 39
    assert board["id"] is None
    variables = {variable["name"]: variable for variable in board["templating"]["list"]}
    assert list(variables) == ["datasource", "job", "instance"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    source = {"type": "prometheus", "uid": "${datasource}"}
    assert all(thing["datasource"] == source for thing in [*panels(), variables["job"], variables["instance"]])
    assert [panel["title"] for panel in board["panels"] if panel["type"] == "row"] == [
        "Traffic",
        "Scoring",
        "Capacity",
        "Model",
    ]


def test_panels_have_a_unit_and_a_description():
    for panel in panels():
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        sentences = panel["description"].split(". ")
        assert len(sentences) > 1, f"{panel['title']}: expected what it means, and what to do about it"
        assert panel["description"].endswith(".")


def test_panels_have_their_own_ids_titles_and_places():
    cells = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert cells.setdefault((x, y), panel["title"]) == panel["title"]
    for field in ("id", "title"):
        values = [panel[field] for panel in dashboard()["panels"]]
        assert len(values) == len(set(values))


@pytest.mark.parametrize("expression", expressions())
def test_panels_ask_for_metrics_and_labels_that_exist(expression):
    assert names(expression)
    assert names(expression) <= set(SERIES)
    metrics = {SERIES[name] for name in names(expression)}
    of_metrics = set().union(*(METRICS[name][1] for name in metrics))
    of_histograms = {"le"} if any(METRICS[name][0] == "histogram" for name in metrics) else set()
    assert labels(expression) <= {"job", "instance"} | of_metrics | of_histograms
    for name in names(expression):
        selectors = re.findall(rf"(\w+ ?\()?{name}(\{{.*?\}})?(\[\$__rate_interval\])?", expression)
        for function, selector, window in selectors:
            assert 'job=~"$job"' in selector
            assert 'instance=~"$instance"' in selector
            counts = METRICS[SERIES[name]][0] in ("counter", "histogram")
            assert (function == "rate(", bool(window)) == (counts, counts), f"{name}: expected a rate of counters only"


def test_every_metric_is_on_the_dashboard():
    shown = {SERIES[name] for expression in expressions() for name in names(expression)}
    assert shown == set(METRICS)


def test_variables_ask_for_metrics_that_exist():
    for variable in dashboard()["templating"]["list"][1:]:
        assert variable["definition"] == variable["query"]["query"]
        name, label = re.fullmatch(r"label_values\((\w+)(?:\{.*\})?, (\w+)\)", variable["definition"]).groups()
        assert name in SERIES
        assert label == variable["name"]


def test_routes_that_panels_leave_out_are_those_of_operators():
    left_out = {route for expression in expressions() for route in re.findall(r'route!~"(.*?)"', expression)}
    (routes,) = left_out
    assert set(routes.split("|")) <= {route.path for route in health.router(None).routes}


def test_kubernetes_asks_the_health_routes_and_sets_limits_that_exist():
    deployment, service, scaler, _ = documents("kubernetes.yaml")
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["livenessProbe"]["httpGet"]["path"] == "/livez"
    assert {word for word in container["args"] if word.startswith("--")} <= options("serve")
    limits = [word.partition("=")[0] for word in container["args"] if "=" in word]
    assert set(limits) <= set(Limits.model_fields)
    drain = Limits.model_fields["drain_seconds"].default
    assert deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain
    assert service["spec"]["selector"] == deployment["spec"]["selector"]["matchLabels"]
    assert scaler["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]


def test_what_selects_the_pods_names_their_labels_and_port():
    deployment, service, _, budget = documents("kubernetes.yaml")
    template = deployment["spec"]["template"]
    assert budget["kind"] == "PodDisruptionBudget"
    assert budget["spec"]["selector"] == deployment["spec"]["selector"]
    assert budget["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    (monitor,) = documents("kustomize/overlays/monitoring/servicemonitor.yaml")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    (port,) = service["spec"]["ports"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert endpoint["port"] == port["name"]
    (container,) = template["spec"]["containers"]
    assert {"name": port["name"], "containerPort": port["port"]} in container["ports"]
    assert endpoint["path"] in {route.path for route in health.router(None).routes}


def test_the_monitor_scrapes_with_a_key_of_its_own_secret():
    deployment, *_ = documents("kubernetes.yaml")
    (monitor,) = documents("kustomize/overlays/monitoring/servicemonitor.yaml")
    authorization = monitor["spec"]["endpoints"][0]["authorization"]
    assert authorization["type"] == "Bearer"
    assert set(authorization["credentials"]) == {"name", "key"}
    # The server's secret may hold several keys, separated by commas, which are no bearer key.
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert authorization["credentials"]["name"] != container["env"][0]["valueFrom"]["secretKeyRef"]["name"]


@pytest.mark.parametrize("folder", KUSTOMIZATIONS, ids=lambda folder: folder.name)
def test_kustomizations_name_all_files_beside_them(folder):
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    patches = [patch["path"] for patch in kustomization.get("patches", [])]
    named = {(folder / name).resolve() for name in [*kustomization["resources"], *patches]}
    assert all(path.is_file() or (path / "kustomization.yaml").is_file() for path in named)
    assert {path.resolve() for path in folder.glob("*.yaml")} - named == {(folder / "kustomization.yaml").resolve()}


def test_the_base_and_the_single_file_say_the_same():
    folder = KUSTOMIZE / "base"
    resources = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert [yaml.safe_load((folder / name).read_text()) for name in resources] == documents("kubernetes.yaml")


def test_the_gpu_overlay_adds_options_that_exist():
    patch = yaml.safe_load((KUSTOMIZE / "overlays" / "gpu" / "deployment.yaml").read_text())
    words = [change["value"] for change in patch if change["path"].endswith("/args/-")]
    assert words == ["--device", "cuda", "--warm-up"]
    assert {word for word in words if word.startswith("--")} <= options("serve")


def built(name):
    """The objects that a kustomization builds, by kind."""
    command = [*BUILD, str(KUSTOMIZE / name)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stderr
    return {thing["kind"]: thing for thing in yaml.safe_load_all(run.stdout)}


@pytest.mark.skipif(BUILD is None, reason="needs kustomize or kubectl")
def test_kustomize_builds_the_base_and_its_overlays():
    base = built("base")
    assert base == {thing["kind"]: thing for thing in documents("kubernetes.yaml")}
    monitored = built("overlays/monitoring")
    (monitor,) = documents("kustomize/overlays/monitoring/servicemonitor.yaml")
    assert monitored == {**base, "ServiceMonitor": monitor}
    gpu = built("overlays/gpu")
    assert {kind: thing for kind, thing in gpu.items() if thing != base[kind]}.keys() == {"Deployment"}
    (before,) = base["Deployment"]["spec"]["template"]["spec"]["containers"]
    (container,) = gpu["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == [*before["args"], "--device", "cuda", "--warm-up"]
    assert container["image"] == "ranker-gpu"
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert container["startupProbe"]["httpGet"] == container["livenessProbe"]["httpGet"]


def test_the_ray_job_is_a_filter_job():
    (job,) = documents("kuberay.yaml")
    entry = job["spec"]["entrypoint"]
    assert entry.startswith("ranker filter ")
    assert set(re.findall(r"--[\w-]+", entry)) <= options("filter")
