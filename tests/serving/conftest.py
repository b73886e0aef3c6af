"""A served model and its client, for tests of routes."""

import pytest
from fastapi.testclient import TestClient

import ranker
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits
from ranker.serving.server import Server


@pytest.fixture(scope="module")
def loaded(pointwise):
    return ranker.load(pointwise)


@pytest.fixture(scope="module")
def client(loaded):
    with TestClient(application(Server(loaded.scorer, "m", Limits()), Keys([]))) as response:
        yield response
