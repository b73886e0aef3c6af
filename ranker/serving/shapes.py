"""The requests and answers of every route, each as its own clients know it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Text = Annotated[str, StringConstraints(strict=True)]


class Shape(BaseModel):
    """Fields that are not known are ignored, as the clients of the routes that we take over expect."""

    model_config = ConfigDict(extra="ignore", protected_namespaces=())


class Turn(Shape):
    """One message of a conversation."""

    role: Literal["system", "user", "assistant", "tool"]
    content: Text


class Item(Shape):
    """One prompt and its candidates."""

    prompt: Text | list[Turn]
    candidates: list[Text]


class ScoreRequest(Shape):
    """One item, or several in ``items``."""

    prompt: Text | list[Turn] | None = None
    candidates: list[Text] | None = None
    items: list[Item] | None = None


class Scored(Shape):
    """What was found of an item; ``error`` says why there is nothing."""

    scores: list[float] | None = None
    ranks: list[int] | None = None
    order: list[int] | None = None
    truncated: list[bool] | None = None
    error: str | None = None


class ScoreResponse(Shape):
    """One result per item, in order."""

    model: str
    results: list[Scored]


class CompareRequest(Shape):
    """Two answers to a prompt."""

    prompt: Text | list[Turn]
    a: Text
    b: Text


class CompareResponse(Shape):
    """``logit`` above 0: a is better; ``probability`` at the model's temperature."""

    model: str
    logit: float
    probability: float


class Document(Shape):
    """A document with its text."""

    text: Text


class RerankRequest(Shape):
    """Cohere's, Jina's and vLLM's (``documents``), or TEI's (``texts``)."""

    query: Text
    documents: list[Text | Document] | None = None
    texts: list[Text] | None = None
    top_n: int | None = Field(None, ge=1)
    return_documents: bool = False
    return_text: bool = False
    raw_scores: bool = True
    model: str | None = None


class RewardRequest(Shape):
    """OpenRLHF's: rendered texts; ``prompts`` tells where the response begins. Empty lists are legal."""

    query: list[Text] = []
    prompts: list[Text] | None = None
    labels: list[Any] | None = None


class EvaluationRequest(Shape):
    """LLaMA-Factory's: rendered texts."""

    model: str = ""
    messages: list[Text] = Field(min_length=1)
    max_length: int | None = None
