from itertools import permutations

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModel

from ranker.checkpoints import native
from ranker.models import backbones
from ranker.models.pairwise import PairwiseConfig
from ranker.models.torch_scorer import TorchScorer
from ranker.records import Group
from ranker.scoring import batching
from ranker.scoring.pipeline import TextPipeline
from tests.conftest import FAMILIES, LAYOUTS, backbone_config, tiny, tokenizer_json

PROMPT = "Which of these are tools: hammer, apple, saw, pear?"
ANSWERS = ("hammer, saw", "[apple, pear]", "The answer is hammer.", "- saw\n- hammer", "", "1) 42 metres")
ORDER_FREE = [layout for layout in LAYOUTS if layout != "ordered_pair"]


def raw_scores(model, tokenizer, answers):
    """Scores in the order given, without the pipeline's canonical order."""
    pipeline = TextPipeline(model.layout, tokenizer)
    packed = pipeline.pack(pipeline.tokenize([Group(PROMPT, tuple(answers))])[0])
    arrays = batching.collate(
        model.layout, batching.units([packed])[:1] if packed.together else batching.units([packed])
    )
    with torch.no_grad():
        return model(**{k: torch.from_numpy(v) for k, v in arrays.items()})[..., 0].numpy().ravel()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", ORDER_FREE)
@pytest.mark.parametrize("count", [2, 5])
def test_scores_do_not_depend_on_the_order(family, layout, count):
    model, tokenizer = tiny(layout, family=family)
    expected = raw_scores(model, tokenizer, ANSWERS[:count])
    assert np.ptp(raw_scores(model, tokenizer, ANSWERS)) > 1e-3, "candidates must differ for this to mean anything"
    for order in list(permutations(range(count)))[1:8]:
        got = raw_scores(model, tokenizer, [ANSWERS[i] for i in order])
        np.testing.assert_allclose(got, expected[list(order)], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ORDER_FREE)
def test_sixteen_candidates_in_any_order(layout):
    model, tokenizer = tiny(layout)
    answers = [f"{a} {i}" for i, a in enumerate(ANSWERS * 3)][:16]
    expected = raw_scores(model, tokenizer, answers)
    rng = np.random.default_rng(0)
    for _ in range(5):
        order = rng.permutation(16)
        np.testing.assert_allclose(
            raw_scores(model, tokenizer, [answers[i] for i in order]), expected[order], atol=1e-5
        )


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_scores_do_not_depend_on_batch_neighbours(family, layout):
    model, tokenizer = tiny(layout, family=family)
    groups = [Group(PROMPT, ANSWERS[:3]), Group("Hi", ("a", "b b b b")), Group("x " * 300, ("y " * 200, "z"))]
    alone = [TorchScorer(model, tokenizer).score([g])[0].scores for g in groups]
    for budget in (16, 500, 100_000):
        together = TorchScorer(model, tokenizer, max_tokens_per_forward=budget).score(groups)
        for a, b in zip(alone, together, strict=True):
            np.testing.assert_allclose(a, b.scores, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("layout", ["shared_prompt", "set_encoder"])
def test_other_candidates_matter_only_to_models_that_read_them_together(layout):
    model, tokenizer = tiny(layout)
    few, many = (raw_scores(model, tokenizer, ANSWERS[:n])[:2] for n in (2, 5))
    assert np.abs(few - many).max() > 1e-4
    model, tokenizer = tiny("pointwise")
    few, many = (raw_scores(model, tokenizer, ANSWERS[:n])[:2] for n in (2, 5))
    np.testing.assert_allclose(few, many, rtol=1e-5, atol=1e-5)


def test_hub_candidates_do_not_see_each_other_in_the_first_layer():
    """Changing one answer changes another only through block 0, so a one-layer model shows no change."""
    model, tokenizer = tiny("shared_prompt")
    model.backbone.encoder.layer = model.backbone.encoder.layer[:1]
    pipeline = TextPipeline(model.layout, tokenizer)
    states = []
    for other in ("hammer, saw", "banana boat"):
        packed = pipeline.pack(pipeline.tokenize([Group(PROMPT, ("The answer is hammer.", other))])[0])
        arrays = {k: torch.from_numpy(v) for k, v in batching.collate(model.layout, batching.units([packed])).items()}
        with torch.no_grad():
            mask = backbones_mask(arrays["block_ids"])
            hidden = backbones.encode(
                model.backbone, arrays["input_ids"], arrays["block_ids"], arrays["position_ids"], mask, None
            )
        states.append(hidden[0, arrays["readout"][0, 1]])
    torch.testing.assert_close(states[0], states[1])


def backbones_mask(block_ids):
    from ranker.models.attention.blocks import star_mask

    return star_mask(block_ids)


def test_star_mask_by_hand():
    from ranker.models.attention.blocks import star_mask

    mask = star_mask(torch.tensor([[0, 1, 2, -1]]))[0, 0]
    expected = [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 1, 0]]
    assert mask.int().tolist() == expected


@pytest.mark.parametrize("family", [*FAMILIES, "xlm-roberta"])
def test_full_attention_equals_the_library_model(family):
    """With one block and running positions the encoder must say what transformers' own model says."""
    torch.manual_seed(0)
    config = PairwiseConfig(backbone=backbone_config(family)).backbone_config()
    reference = AutoModel.from_config(config, attn_implementation="eager").eval()
    ours = backbones.build(config).eval()
    ours.load_state_dict(reference.state_dict(), strict=False)
    ids = torch.randint(5, 600, (3, 40))
    valid = torch.ones_like(ids)
    valid[1, 30:] = 0
    offset = backbones.position_offset(config)
    positions = torch.arange(40).expand(3, 40) + offset
    ids = torch.where(valid == 1, ids, config.pad_token_id)
    positions = torch.where(valid == 1, positions, offset)
    blocks = valid - 1
    mask = (blocks >= 0)[:, None, None, :].expand(-1, -1, 40, -1)
    with torch.no_grad():
        expected = reference(input_ids=ids, attention_mask=valid).last_hidden_state
        got = backbones.encode(ours, ids, blocks, positions, mask, None)
    torch.testing.assert_close(got[valid == 1], expected[valid == 1], atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_exchange_equals_full_attention_over_the_group(family):
    """Rows plus exchanged [CLS] must equal one long sequence under the set mask (own block, or any block's [CLS])."""
    model, tokenizer = tiny("set_encoder", family=family)
    pipeline = TextPipeline(model.layout, tokenizer)
    packed = pipeline.pack(pipeline.tokenize([Group(PROMPT, ANSWERS[:3])])[0])
    expected = raw_scores(model, tokenizer, ANSWERS[:3])
    rows = packed.rows
    ids, segments, positions = (
        torch.from_numpy(np.concatenate([getattr(r, name) for r in rows])).long()[None]
        for name in ("ids", "blocks", "positions")
    )
    block = torch.repeat_interleave(torch.arange(3), torch.tensor([len(r.ids) for r in rows]))
    starts = torch.tensor(np.cumsum([0, *[len(r.ids) for r in rows][:-1]]))
    is_cls = torch.zeros(len(block), dtype=torch.bool)
    is_cls[starts] = True
    mask = ((block[:, None] == block[None, :]) | is_cls[None, :])[None, None]
    with torch.no_grad():
        hidden = backbones.encode(model.backbone, ids, segments, positions, mask, None)
        got = model.head(hidden[0, starts])[:, 0].numpy()
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_published_equals_an_independent_forward():
    """LLM-Blender's forward, written out: markers found, one head on [source; candidate], left minus right."""
    model, tokenizer = tiny("ordered_pair")
    source, first, second = model.layout.markers
    logit = TorchScorer(model, tokenizer).compare([Group(PROMPT, ANSWERS[:2])])[0]

    def one_order(a, b):
        texts = [i.tolist() for i in tokenizer.encode([PROMPT, a, b])]
        ids = [x for m, t in zip((source, first, second), texts, strict=True) for x in (2, m, *t, 3)]
        where = [ids.index(m) for m in (source, first, second)]
        blocks = np.repeat(range(3), [len(t) + 3 for t in texts])
        with torch.no_grad():
            hidden = model.backbone(
                input_ids=torch.tensor([ids]),
                attention_mask=torch.ones(1, 1, len(ids), len(ids), dtype=torch.bool),
                token_type_ids=torch.tensor((blocks > 0).astype(int))[None],
            ).last_hidden_state[0]
            e_s, e_1, e_2 = (hidden[i] for i in where)
            left, right = (model.head(torch.cat([e_s, e])) for e in (e_1, e_2))
        return float((left - right).mean())

    expected = (one_order(*ANSWERS[:2]) - one_order(ANSWERS[1], ANSWERS[0])) / 2
    assert logit == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_save_and_load_give_the_same_scores(layout, tmp_path):
    model, tokenizer = tiny(layout, num_labels=2)
    native.save(model, tokenizer, tmp_path)
    groups = [Group(PROMPT, ANSWERS), Group("Hi", ("a",))]
    assert native.check_reload(TorchScorer(model, tokenizer), tmp_path, groups) <= 1e-6


def test_duplicates_and_single_and_no_candidates():
    for layout in LAYOUTS:
        scorer = TorchScorer(*tiny(layout))
        two, none, one = scorer.score([Group("p", ("same", "same")), Group("p", ()), Group("p", ("x",))])
        assert two.scores[0] == two.scores[1]
        assert none.scores.shape == (0,)
        assert one.scores.shape == (1,)
        assert np.isfinite(one.scores).all()


def test_nan_is_an_error_for_its_row_alone():
    model, tokenizer = tiny("pointwise")
    (bad,) = tokenizer.encode(["hammer"])
    with torch.no_grad():
        model.base_model.embeddings.word_embeddings.weight[int(bad[0])] = float("nan")
    good, broken = TorchScorer(model, tokenizer).score([Group("Hi", ("a", "b")), Group("Hi", ("hammer", "b"))])
    assert good.error is None
    assert "NaN" in broken.error


def test_compare_wants_two_candidates():
    with pytest.raises(ValueError, match="pair 0: expected two candidates, got 3"):
        TorchScorer(*tiny()).compare([Group("p", ("a", "b", "c"))])


def test_head_computes_in_fp32_under_autocast():
    model, _ = tiny()
    features = torch.randn(2, 32)
    with torch.autocast("cpu", torch.bfloat16):
        under = model.head(features)
    assert under.dtype == torch.float32
    torch.testing.assert_close(under, model.head(features))


def test_published_reads_its_two_candidates_apart_from_the_start(tiny_backbone):
    """Markers that start alike are read alike, and the layout learns nothing."""
    from ranker.models.pairwise import from_backbone

    torch.manual_seed(0)
    model, tokenizer = from_backbone(str(tiny_backbone), layout="ordered_pair", max_length=128, prompt_reserve=16)
    pipeline = TextPipeline(model.layout, tokenizer)
    packed = pipeline.pack(pipeline.tokenize([Group(PROMPT, ANSWERS[:2])])[0])
    arrays = {k: torch.from_numpy(v) for k, v in batching.collate(model.layout, batching.units([packed])).items()}
    from ranker.models.attention.blocks import row_mask

    with torch.no_grad():
        hidden = backbones.encode(
            model.eval().backbone,
            arrays["input_ids"],
            arrays["block_ids"],
            arrays["position_ids"],
            row_mask(arrays["block_ids"]),
            None,
        )
    first, second = (hidden[0, arrays["readout"][0, k]] for k in (1, 2))
    assert (first - second).norm() / first.norm() > 0.05


def test_a_convolution_that_would_leak_across_candidates_is_refused(tmp_path):
    from transformers import AutoModel, PreTrainedTokenizerFast

    from ranker.errors import CheckpointError
    from ranker.models.pairwise import from_backbone

    config = PairwiseConfig(backbone=backbone_config("deberta-v2") | {"conv_kernel_size": 3}).backbone_config()
    AutoModel.from_config(config).save_pretrained(tmp_path)
    PreTrainedTokenizerFast(
        tokenizer_file=None,
        tokenizer_object=Tokenizer.from_str(tokenizer_json()),
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
    ).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="convolution reads across candidates"):
        from_backbone(str(tmp_path), layout="shared_prompt", max_length=128, prompt_reserve=16)
    model, tokenizer = from_backbone(str(tmp_path), layout="set_encoder", max_length=128, prompt_reserve=16)
    (result,) = TorchScorer(model, tokenizer).score([Group(PROMPT, ANSWERS[:3])])
    assert np.isfinite(result.scores).all()


def test_more_tokens_than_positions_is_said(tiny_backbone):
    from ranker.errors import ConfigError
    from ranker.models.pairwise import from_backbone

    with pytest.raises(ConfigError, match="max_length 512 is more than the backbone's 160 positions"):
        from_backbone(str(tiny_backbone), layout="set_encoder")


def test_one_group_that_fails_leaves_the_others_scored():
    model, tokenizer = tiny()
    scorer = TorchScorer(model, tokenizer)
    forward = scorer._forward

    def no_memory(arrays):
        if len(arrays["input_ids"]) > 3:
            raise RuntimeError("trace\nfailed to allocate 7 GB")
        return forward(arrays)

    scorer._forward = no_memory
    big, *small = scorer.score([Group(PROMPT, ANSWERS[:5]), Group(PROMPT, ANSWERS[:2]), Group("Hi", ("a", "b", "c"))])
    assert big.error == "the model failed on this row: failed to allocate 7 GB"
    assert all(s.error is None for s in small)
