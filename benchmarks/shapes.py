"""Shapes of published models, for measurements without their weights."""

from __future__ import annotations

from typing import Any

from transformers import DebertaV2Config


def deberta_v3(vocab_size: int, *, hidden: int = 768, layers: int = 12, **settings: Any) -> DebertaV2Config:
    """DeBERTa-v3 with so many words; ``base`` by default."""
    return DebertaV2Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        intermediate_size=4 * hidden,
        relative_attention=True,
        position_buckets=256,
        pos_att_type=["p2c", "c2p"],
        share_att_key=True,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        max_position_embeddings=512,
        type_vocab_size=0,
        **settings,
    )
