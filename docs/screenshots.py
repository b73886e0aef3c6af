"""The pictures of the docs, taken of a trained run in Chromium.

python docs/screenshots.py runs/pairrm    # after make train-pairrm; needs chromium and the dev extra
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
from pathlib import Path

from playwright import sync_api

DOCS = Path(__file__).parent
WIDTH, HEIGHT = 1200, 900


def main() -> None:
    """Take ``report.png``, ``page.png`` and ``api-page.png``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a run, with report.html and model.onnx")
    run = parser.parse_args().run.absolute()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    command = [sys.executable, "-m", "ranker", "serve", "--model", str(run / "model.onnx"), "--port", "0", "--ui"]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        address = next(match[1] for line in server.stderr or () if (match := re.search(r"(http://\S+)", line)))
        with sync_api.sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            page.goto(f"file://{run / 'report.html'}")
            page.screenshot(path=DOCS / "report.png")
            page.goto(f"{address}/ui")
            page.get_by_role("button", name="Rank").click()
            page.locator("table").first.locator("tbody tr").first.wait_for()
            page.wait_for_timeout(1000)  # the page still moves
            page.screenshot(path=DOCS / "page.png", full_page=True)
            page.goto(f"{address}/docs")
            page.locator("#operations-ranker-rank_v1_rank_post .opblock-summary-control").click()
            page.get_by_role("button", name="Execute").click()
            page.locator(".live-responses-table").wait_for()
            page.screenshot(path=DOCS / "api-page.png")
            browser.close()
    finally:
        server.terminate()
        server.wait()


if __name__ == "__main__":
    main()
