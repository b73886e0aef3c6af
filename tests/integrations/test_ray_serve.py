"""The guide's Ray Serve deployment answers requests as the library does."""

import json
import shutil
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest
import ray
from ray import serve

import ranker
from tests.test_examples import SECTIONS


@pytest.mark.full
def test_the_deployment_of_the_guide_ranks(model, tmp_path, monkeypatch):
    (code,) = [code for title, code in SECTIONS if title == "Ray Serve"]
    shutil.copy(model, tmp_path / "model.onnx")
    monkeypatch.chdir(tmp_path)
    space = {"__name__": "__main__"}
    exec(compile(code.replace('"model.onnx"', repr(str(tmp_path / "model.onnx"))), "guide", "exec"), space)
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=100 << 20)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": 8231})
        serve.run(space["application"])
        items = [{"prompt": f"p {i}", "candidates": ["a saw", "hammer " * (i + 1), "pear"]} for i in range(12)]

        def ask(item):
            request = urllib.request.Request("http://127.0.0.1:8231/", json.dumps(item).encode())
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.load(answer)

        with ThreadPoolExecutor(6) as clients:
            answers = list(clients.map(ask, items))
        loaded = ranker.load(model)
        assert answers == [loaded.rank(i["prompt"], i["candidates"]).order.tolist() for i in items]
    finally:
        serve.shutdown()
        ray.shutdown()
