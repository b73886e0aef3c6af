"""Whatever a text is, its row comes back with finite scores or a reason, everywhere."""

import json
import math
import random

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings

import ranker
from ranker.batch_scorer import BatchScorer
from ranker.records import Group
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits
from ranker.serving.server import Server
from tests.bad_texts import TEXTS
from tests.test_cli import ranker_cli

ROWS = [{"prompt": text, "candidates": [text, "b", text + "c"]} for text in TEXTS.values()]


@pytest.fixture
def app(model):
    return application(Server(ranker.load(model).scorer, "m", Limits()), Keys([]))


def check(scores, error):
    assert (scores is None) != (error is None)
    assert scores is None or (len(scores) == 3 and all(math.isfinite(score) for score in scores))


def test_there_are_enough_of_them():
    assert len(TEXTS) >= 60
    assert len(set(TEXTS.values())) == len(TEXTS)


def test_through_the_library(model):
    for result in ranker.load(model).scorer.score([Group(row["prompt"], tuple(row["candidates"])) for row in ROWS]):
        check(None if result.error else result.scores, result.error)
    answer = BatchScorer(model)({"prompt": [r["prompt"] for r in ROWS], "candidates": [r["candidates"] for r in ROWS]})
    for scores, error in zip(answer["ranker_scores"], answer["ranker_error"], strict=True):
        check(scores, error)
    assert len(answer["ranker_error"]) == len(ROWS)


def test_through_the_command_line(model, tmp_path):
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    out = tmp_path / "out.jsonl"
    done = ranker_cli("score", "--onnx", model, "--input", tmp_path / "in.jsonl", "--output", out)
    assert done.returncode == 0, done.stderr
    answer = [json.loads(line) for line in out.read_bytes().split(b"\n") if line]
    assert len(answer) == len(ROWS)
    for row in answer:
        check(row["scores"], row["error"])
    kept = ranker_cli(
        "filter", tmp_path / "in.jsonl", "--onnx", model, "-o", tmp_path / "kept", "--keep", "score > -99"
    )
    assert kept.returncode == 0, kept.stderr
    lines = b"".join(path.read_bytes() for path in (tmp_path / "kept").glob("*-0*.jsonl")).split(b"\n")
    assert len([line for line in lines if line]) == len(ROWS)


def test_through_http(app):
    with TestClient(app) as client:
        for name, row in zip(TEXTS, ROWS, strict=True):
            body = json.dumps(row | {"partial": True}).encode()
            answer = client.post("/v1/score", content=body, headers={"content-type": "application/json"})
            assert answer.status_code in (200, 422), name
            if answer.status_code == 200:
                (result,) = answer.json()["results"]
                check(result["scores"], result["error"])


@pytest.mark.parametrize("seed", range(3))
def test_mixtures_of_them_are_scored_as_each_alone(model, seed):
    scorer, draw = ranker.load(model).scorer, random.Random(seed)
    texts = list(TEXTS.values())
    groups = [Group(draw.choice(texts), tuple(draw.sample(texts, 3))) for _ in range(60)]
    for group, together in zip(groups, scorer.score(groups), strict=True):
        (alone,) = scorer.score([group])
        assert alone.error == together.error
        assert together.scores == pytest.approx(alone.scores, abs=1e-5, nan_ok=True)


def test_no_request_that_the_schema_allows_breaks_the_server(app):
    schema, called = schemathesis.openapi.from_asgi("/openapi.json", app), set()
    for operation in schema.get_all_operations():

        @settings(
            max_examples=10, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True, database=None
        )
        @given(case=operation.ok().as_strategy())
        def call(case):
            response = case.call()
            called.add(case.path)
            assert response.status_code < 500, (case.path, response.status_code, case.body)

        call()
    assert {"/v1/score", "/v1/compare", "/rerank", "/predict", "/score", "/pooling", "/get_reward"} <= called
