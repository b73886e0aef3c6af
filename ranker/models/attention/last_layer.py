"""The last layer of an encoder, computed for those tokens alone that the head reads.

Nobody reads what the last layer makes of the other tokens, so it needs their keys and values, and neither their queries
nor what follows attention. In a model of six layers that is a seventh of all products; the states that are read are the
same.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from torch import Tensor, nn

from ranker.models.attention.disentangled import Relations
from ranker.models.attention.padding_free import padding_free_attention
from ranker.models.attention.reading import Reading


class BertLastLayer:
    """Mixed into a layer of BERT's shape; with ``reading`` it gives (rows, read tokens, hidden)."""

    def forward(
        self, hidden_states: Tensor, attention_mask: Tensor | None = None, *others: Any, **options: Any
    ) -> Tensor:
        """As the library's, where ``reading`` is None."""
        reading: Reading | None = options.pop("reading", None)
        if reading is None:
            whole: Tensor = super().forward(hidden_states, attention_mask, *others, **options)  # type: ignore[misc]
            return whole
        layer: Any = self
        projections = layer.attention.self
        queries = reading.of(hidden_states)
        linears = (projections.query, projections.key, projections.value)
        mixed = _mixed(projections, linears, queries, hidden_states, attention_mask, reading, options)
        out: Tensor = layer.feed_forward_chunk(layer.attention.output(mixed, queries))
        return out


class DistilBertLastLayer:
    """As ``BertLastLayer`` for DistilBERT."""

    def forward(self, hidden_states: Tensor, attention_mask: Tensor | None = None, **options: Any) -> Tensor:
        """As the library's, where ``reading`` is None."""
        reading: Reading | None = options.pop("reading", None)
        if reading is None:
            whole: Tensor = super().forward(hidden_states, attention_mask, **options)  # type: ignore[misc]
            return whole
        layer: Any = self
        projections = layer.attention
        queries = reading.of(hidden_states)
        linears = (projections.q_lin, projections.k_lin, projections.v_lin)
        mixed = _mixed(projections, linears, queries, hidden_states, attention_mask, reading, options)
        states = layer.sa_layer_norm(projections.out_lin(mixed) + queries)
        out: Tensor = layer.output_layer_norm(layer.ffn(states) + states)
        return out


class DebertaLastLayer:
    """As ``BertLastLayer`` for DeBERTa, whose ``Relations`` say which tokens are read."""

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor,
        query_states: Tensor | None = None,
        relative_pos: Relations | None = None,
        **options: Any,
    ) -> tuple[Tensor, Tensor | None]:
        """As the library's, where nothing says which tokens are read."""
        reading = None if relative_pos is None else relative_pos.reading
        if relative_pos is not None and reading is not None:
            query_states = reading.of(hidden_states)
            relative_pos = relative_pos.of_read_tokens(reading)
            if relative_pos.rows is None:
                attention_mask = reading.of(attention_mask, 2)
        out: tuple[Tensor, Tensor | None] = super().forward(  # type: ignore[misc]
            hidden_states, attention_mask, query_states=query_states, relative_pos=relative_pos, **options
        )
        return out


def _mixed(
    module: Any,
    linears: tuple[nn.Module, nn.Module, nn.Module],
    queries: Tensor,
    states: Tensor,
    mask: Tensor | None,
    reading: Reading,
    options: dict[str, Any],
) -> Tensor:
    """What attention gives the read tokens: (rows, read tokens, hidden)."""
    heads = getattr(module, "num_attention_heads", None) or module.n_heads
    query, key, value = (
        linear(part).unflatten(-1, (heads, -1)).transpose(1, 2)
        for linear, part in zip(linears, (queries, states, states), strict=True)
    )
    dropout = module.dropout.p if module.training else 0.0
    options = options | {"segments": reading.segments, "dropout": dropout}
    narrow = None if mask is None else reading.of(mask, 2)
    mixed, _ = padding_free_attention(module, query, key, value, narrow, module.scaling, **options)
    return mixed.flatten(2)


LAST_LAYERS: Final[dict[str, type]] = {
    "bert": BertLastLayer,
    "roberta": BertLastLayer,
    "xlm-roberta": BertLastLayer,
    "electra": BertLastLayer,
    "distilbert": DistilBertLastLayer,
    "deberta-v2": DebertaLastLayer,
}
"""By family. ModernBERT computes queries, keys and values in one product, and MPNet's layers are computed here."""


def last_layer(backbone: Any) -> nn.Module:
    """The last layer of an encoder."""
    layers: nn.ModuleList = (backbone.transformer if hasattr(backbone, "transformer") else backbone.encoder).layer
    return layers[-1]


def prepare(backbone: Any, family: str) -> None:
    """Let the last layer be computed for some tokens alone, where the family allows it."""
    if family in LAST_LAYERS:
        last = last_layer(backbone)
        # Same parameters, other forward: assigning the class keeps the loaded weights where they are.
        kind: type = type(last)
        last.__class__ = _with(LAST_LAYERS[family], kind)


def reads_alone(backbone: Any, family: str) -> bool:
    """Whether the last layer is computed for the read tokens alone."""
    if family == "mpnet":
        return True
    if family not in LAST_LAYERS or not isinstance(last_layer(backbone), LAST_LAYERS[family]):
        return False
    # DeBERTa's convolution after the first layer reads all of its tokens.
    alone = family != "deberta-v2" or backbone.config.num_hidden_layers > 1 or backbone.encoder.conv is None
    return bool(alone)


@cache
def _with(forward: type, layer: type) -> type:
    """The layer's class with another forward; its name stays, by which libraries choose what they shard."""
    if issubclass(layer, forward):
        return layer
    return type(layer.__name__, (forward, layer), {"__module__": layer.__module__})
