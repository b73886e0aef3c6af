"""Input layouts: what a model reads of a prompt and its candidates, one class and one file per layout.

A layout is stored in checkpoints and in ``model.onnx`` (``parse`` reads it back) and decides the input ids: how texts
are packed into rows, how they are cut, what a group costs, which inputs the graph has besides ids, blocks and
positions, and where a candidate's score is in the output. ``ranker.models.readouts`` has the torch side.

Example:
    >>> layout = parse({"layout": "set_encoder", "cls_id": 1, "sep_id": 2, "pad_id": 0})
    >>> layout.scores_are_relative, layout.order_free
    (True, True)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import Field, TypeAdapter

from ranker.layouts.conversation import Conversation
from ranker.layouts.judge import Judge
from ranker.layouts.layout import Layout, Output, PackedGroup, Row
from ranker.layouts.ordered_pair import OrderedPair
from ranker.layouts.pointwise import Pointwise
from ranker.layouts.set_encoder import SetEncoder
from ranker.layouts.shared_prompt import SharedPrompt
from ranker.layouts.steamshp import SteamSHP

LAYOUTS: Final[dict[str, type[Layout]]] = {
    cls.model_fields["layout"].default: cls
    for cls in (Pointwise, Conversation, SetEncoder, SharedPrompt, OrderedPair, SteamSHP, Judge)
}
"""The layouts by name."""

AnyLayout = Annotated[
    Pointwise | Conversation | SetEncoder | SharedPrompt | OrderedPair | SteamSHP | Judge,
    Field(discriminator="layout"),
]
"""One of them, told apart by its field ``layout``: the type of a field that stores a layout."""

_adapter: TypeAdapter[AnyLayout] = TypeAdapter(AnyLayout)

__all__ = ["LAYOUTS", "AnyLayout", "Layout", "Output", "PackedGroup", "Row", "parse"]


def parse(values: Mapping[str, Any]) -> AnyLayout:
    """A layout from what a checkpoint stores, strictly: unknown names and fields are errors.

    Raises:
        pydantic.ValidationError: naming the field.
    """
    return _adapter.validate_python(dict(values))
