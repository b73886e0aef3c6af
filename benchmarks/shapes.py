"""Shapes of published models, for measurements without their weights."""

from __future__ import annotations

from typing import Any

from transformers import DebertaV2Config, Qwen3Config


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


def qwen3(vocab_size: int, *, hidden: int = 1024, layers: int = 28, heads: int = 16, **settings: Any) -> Qwen3Config:
    """Qwen3 with so many words; 0.6B by default."""
    return Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads // 2,
        head_dim=128 if hidden > 100 else 16,
        intermediate_size=3 * hidden,
        max_position_embeddings=4096,
        **settings,
    )
