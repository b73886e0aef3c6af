"""The deployment files name options, routes, extras and files that exist."""

import json
import re

import pytest
import yaml
from typer.main import get_command

from ranker.cli.main import app
from ranker.serving.limits import Limits
from tests.conftest import ROOT

DEPLOY = ROOT / "deploy"


def options(verb):
    return {name for parameter in get_command(app).get_command(None, verb).params for name in parameter.opts}


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


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
    assert set(compose["services"]) == {"ranker", "prometheus"}
    assert (DEPLOY.parent / compose["services"]["ranker"]["build"]["dockerfile"]).exists()
    (prometheus,) = documents("prometheus.yaml")
    (job,) = prometheus["scrape_configs"]
    assert job["static_configs"][0]["targets"] == ["ranker:8000"]
    assert job["authorization"]["credentials_file"] in compose["services"]["prometheus"]["command"][0]


def test_kubernetes_asks_the_health_routes_and_sets_limits_that_exist():
    deployment, service, scaler = documents("kubernetes.yaml")
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


def test_the_ray_job_is_a_filter_job():
    (job,) = documents("kuberay.yaml")
    entry = job["spec"]["entrypoint"]
    assert entry.startswith("ranker filter ")
    assert set(re.findall(r"--[\w-]+", entry)) <= options("filter")
