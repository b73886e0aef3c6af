"""A page at ``/ui`` for a person who compares answers (Gradio)."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from itertools import chain, repeat
from types import ModuleType
from typing import Any, Final

from fastapi import FastAPI

from ranker.extras import require
from ranker.records import Group
from ranker.serving.batcher import RefusedError
from ranker.serving.guard import PAGE
from ranker.serving.limits import UnprocessableError
from ranker.serving.result import Answer, answers, heat_map, status_line, table
from ranker.serving.server import Server

PLACES: Final = 8
"""Most answers on the page."""

EXAMPLE_PROMPT: Final = "What is 2 + 2? Answer in one sentence."
EXAMPLE_ANSWERS: Final = ("2 + 2 is 4.", "It is 5, as everybody knows.", "Ask a calculator.")
"""What the page shows at first, so that one click shows a ranking."""

SHOWN: Final = 3
"""Answer boxes that are visible at first."""


def mount(app: FastAPI, server: Server) -> FastAPI:
    """The application with the page in it. The page loads nothing from other hosts and keeps no texts.

    Raises:
        MissingExtraError: gradio, the ``ui`` extra, is not installed.
    """
    gradio = require("gradio")
    server.has_page = True
    mounted: FastAPI = gradio.mount_gradio_app(
        app,
        _blocks(gradio, server),
        path=PAGE,
        theme=gradio.themes.Base(font=["system-ui"], font_mono=["monospace"]),
        footer_links=[],
        run_history=False,
    )
    return mounted


def _blocks(gradio: ModuleType, server: Server) -> Any:
    """The page's components, as gradio's ``Blocks``."""

    async def rank(prompt: str | None, *texts: str | None) -> tuple[str, str, str, str]:
        prompt = prompt or ""
        filled = [text for text in texts if text and text.strip()]
        if len(filled) < 2:
            return status_line("Expected at least two answers."), "", "", ""
        try:
            ranked_answers = await _ranked_answers(server, prompt, filled)
        except (UnprocessableError, RefusedError) as error:
            return status_line(str(error)), "", "", ""
        if isinstance(ranked_answers, str):
            return status_line(ranked_answers), "", "", ""
        return table(ranked_answers), heat_map(ranked_answers), *snippets(prompt, filled)

    def without_last(count: int) -> tuple[Any, ...]:
        left = max(2, count - 1)
        return left, *(gradio.update() if i < left else gradio.update(visible=False, value="") for i in range(places))

    places = min(PLACES, server.limits.candidates)
    with gradio.Blocks(title="ranker", analytics_enabled=False) as page:
        gradio.Markdown(f"# ranker\n`{server.name}` ranks answers to a prompt. For programs: [the API](../docs).")
        prompt = gradio.Textbox(label="Prompt", lines=3, value=EXAMPLE_PROMPT)
        boxes = [
            gradio.Textbox(label=f"Answer {n + 1}", lines=2, visible=n < SHOWN, value=text)
            for n, text in zip(range(places), chain(EXAMPLE_ANSWERS, repeat("")), strict=False)
        ]
        shown = gradio.State(min(SHOWN, places))
        with gradio.Row():
            more = gradio.Button("Add an answer")
            fewer = gradio.Button("Remove the last answer")
            go = gradio.Button("Rank", variant="primary")
        ranking = gradio.HTML()
        matrix = gradio.HTML()
        with gradio.Accordion("The same by curl and Python", open=False):
            curl = gradio.Code(label="curl", language="shell", interactive=False)
            python = gradio.Code(label="Python", language="python", interactive=False)
        more.click(
            lambda n: (min(n + 1, places), *(gradio.update(visible=i <= n) for i in range(places))),
            shown,
            [shown, *boxes],
            api_visibility="private",
        )
        fewer.click(without_last, shown, [shown, *boxes], api_visibility="private")
        go.click(rank, [prompt, *boxes], [ranking, matrix, curl, python], api_visibility="private")
    return page


async def _ranked_answers(server: Server, prompt: str, texts: Sequence[str]) -> list[Answer] | str:
    """The answers, best first, or the reason why they could not be ranked."""
    group = Group(prompt, tuple(texts))
    server.check([group])
    (result,) = await asyncio.wrap_future(server.batcher.submit([group], seconds=server.limits.request_timeout_s))
    if result.error is not None:
        return result.error
    return answers(server.scorer, group, result)


def snippets(prompt: str, texts: Sequence[str]) -> tuple[str, str]:
    """The same request for a shell and for Python."""
    body = json.dumps({"prompt": prompt, "candidates": list(texts)}, ensure_ascii=False)
    quoted = body.replace("'", "'\\''")
    curl = f"curl -s http://127.0.0.1:8000/v1/rank -H 'content-type: application/json' -d '{quoted}'"
    python = f'import ranker\n\nr = ranker.load("model.onnx")\nprint(r.rank({prompt!r}, {list(texts)!r}))'
    return curl, python
