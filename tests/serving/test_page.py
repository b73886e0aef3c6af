"""The page in a real browser."""

import math
import shutil
import subprocess
import threading
import time

import pytest
import uvicorn
from playwright import sync_api

import ranker
from ranker.records import Group
from ranker.serving.app import application
from ranker.serving.limits import Keys, Limits
from ranker.serving.page import mount, snippets
from ranker.serving.result import answers, heat_map, table
from ranker.serving.server import Server

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ANSWERS = ("a saw", "<b>hammer</b><img src=x onerror=document.title='broken'>", "pear")


def test_the_table_says_what_the_model_says_and_escapes_texts(model):
    scorer = ranker.load(model).scorer
    group = Group("p", ANSWERS)
    (result,) = scorer.score([group])
    shown = answers(scorer, group, result)
    assert [answer.score for answer in shown] == sorted(result.scores.tolist(), reverse=True)
    assert [answer.number - 1 for answer in shown] == (-result.scores).argsort(kind="stable").tolist()
    assert shown[0].odds[1] == pytest.approx(scorer_odds(shown[0].score - shown[1].score))
    assert shown[0].odds[1] + shown[1].odds[0] == pytest.approx(1)
    page = table(shown) + heat_map(shown)
    assert "<img" not in page
    assert "&lt;img" in page
    assert "cannot change the scores" in page


def scorer_odds(logit):
    return 1 / (1 + math.exp(-logit))


def test_snippets_run():
    curl, python = snippets("it's $HOME", ["a 'b'", 'c "d"'])
    echoed = subprocess.run(["sh", "-c", curl.replace("curl", "printf '%s\\n'")], capture_output=True, text=True)
    assert '{"prompt": "it\'s $HOME", "candidates": ["a \'b\'", "c \\"d\\""]}' in echoed.stdout
    compile(python, "snippet", "exec")


@pytest.fixture
def address(model):
    server = Server(ranker.load(model).scorer, "m", Limits())
    app = mount(application(server, Keys(["secret"])), server)
    running = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.05)
    yield f"http://127.0.0.1:{running.servers[0].sockets[0].getsockname()[1]}/ui"
    running.should_exit = True
    thread.join(10)


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_the_api_page_works_without_internet_and_sends_its_examples(address):
    root = address.removesuffix("/ui")
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page()
        abroad = []
        page.on("request", lambda request: abroad.append(request.url) if "127.0.0.1" not in request.url else None)
        page.goto(root)
        page.get_by_role("link", name="API", exact=True).click()
        page.get_by_role("button", name="Authorize").first.click()
        page.locator("input[type=text], input[type=password]").last.fill("secret")
        page.locator(".auth-btn-wrapper button", has_text="Authorize").click()
        page.locator(".auth-btn-wrapper button", has_text="Close").click()
        page.locator("#operations-ranker-rank_v1_rank_post .opblock-summary-control").click()
        page.get_by_role("button", name="Execute").click()
        shown = page.locator(".live-responses-table .response-col_description").nth(1)
        shown.wait_for(timeout=20_000)
        assert '"order"' in shown.inner_text()
        assert page.locator(".live-responses-table .response-col_status").nth(1).inner_text().startswith("200")
        headings = page.locator(".opblock-tag").all_inner_texts()
        assert [text.split("\n")[0] for text in headings] == ["ranker", "rerank", "vLLM", "reward models", "server"]
        assert [url for url in abroad if not url.startswith(("data:", "blob:"))] == []
        browser.close()


@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_three_answers_are_ranked_in_chromium(address, model):
    expected = ranker.load(model).rank("Which are tools?", list(ANSWERS))
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(http_credentials={"username": "me", "password": "secret"}).new_page()
        abroad = []
        page.on("request", lambda request: abroad.append(request.url) if "127.0.0.1" not in request.url else None)
        page.goto(address)
        page.get_by_role("button", name="Rank").click()  # the example that is filled in
        page.locator("table").first.locator("tbody tr").first.wait_for(timeout=20_000)
        page.get_by_label("Prompt").fill("Which are tools?")
        for number, answer in enumerate(ANSWERS, 1):
            page.get_by_label(f"Answer {number}").fill(answer)
        page.get_by_role("button", name="Rank").click()
        page.get_by_text("a saw", exact=True).locator("visible=true").last.wait_for(timeout=20_000)
        rows = page.locator("table").first.locator("tbody tr")
        rows.filter(has_text="hammer").first.wait_for(timeout=20_000)
        cells = [row.locator("td").all_inner_texts() for row in rows.all()]
        assert [int(row[1]) - 1 for row in cells] == expected.order.tolist()
        assert [row[2] for row in cells] == [ANSWERS[i] for i in expected.order]
        assert page.title() != "broken"
        page.get_by_role("button", name="Add an answer").click()
        page.get_by_label("Answer 4").wait_for(timeout=10_000)
        page.get_by_role("button", name="Remove the last answer").click()
        page.get_by_label("Answer 4").wait_for(timeout=10_000, state="hidden")
        assert page.get_by_role("link", name="the API").get_attribute("href") == "../docs"
        assert page.locator("table").count() == 2
        assert [url for url in abroad if not url.startswith(("data:", "blob:"))] == []
        browser.close()
