"""LLM-Blender's interface gives LLM-Blender's numbers, computed here from the logits of all ordered pairs."""

import numpy as np
import pytest

from ranker.errors import ConfigError
from ranker.integrations import llm_blender
from ranker.integrations.llm_blender import Blender
from ranker.loading import Ranker
from ranker.models.torch_scorer import TorchScorer
from ranker.scoring import batching
from tests.conftest import tiny

INPUTS = ["Which of these are tools?", "How many legs?"]
CANDIDATES = [["hammer, saw", "apple", "pear or hammer", "saw"], ["8", "24 legs", "two", "I do not know."]]


@pytest.fixture(scope="module")
def blender():
    return Blender(Ranker(TorchScorer(*tiny("ordered_pair"))))


def matrix(blender, prompt, candidates):
    """M[i, j], the logit of i on the left and j on the right."""
    scorer = blender.ranker.scorer
    from ranker.records import Group

    packed = scorer.pipeline.pack(scorer.pipeline.tokenize([Group(prompt, tuple(candidates))])[0])
    pair_logits = np.zeros((len(candidates), len(candidates)))
    for unit in batching.units([packed]):
        import torch

        with torch.inference_mode():
            logits = scorer._forward(batching.collate(scorer.model.layout, [unit])).mean(-1)
        pair_logits[unit.rows[0].candidates] = logits[0, 0] - logits[0, 1]
    return pair_logits


def test_rank_is_its_mean_over_columns(blender):
    scores = blender.rank(INPUTS, CANDIDATES, return_scores=True)
    ranks = blender.rank(INPUTS, CANDIDATES, batch_size=8, disable_tqdm=True)
    assert (scores.dtype, ranks.dtype) == (np.float32, np.int32)
    for prompt, group, values, places in zip(INPUTS, CANDIDATES, scores, ranks, strict=True):
        m = matrix(blender, prompt, group)
        expected = (m - m.T).mean(axis=-1)
        np.testing.assert_allclose(values, expected, atol=1e-4)
        assert places.tolist() == [1 + int((expected > one).sum()) for one in expected]


def test_compare_is_the_sum_of_both_orders(blender):
    a, b = ([group[i] for group in CANDIDATES] for i in (0, 1))
    logits = blender.compare(INPUTS, a, b, return_logits=True)
    for prompt, one, other, logit in zip(INPUTS, a, b, logits, strict=True):
        m = matrix(blender, prompt, [one, other])
        assert logit == pytest.approx(m[0, 1] - m[1, 0], abs=1e-4)
    np.testing.assert_array_equal(blender.compare(INPUTS, a, b), logits > 0)
    with pytest.raises(ConfigError, match="expected mode"):
        blender.compare(INPUTS, a, b, mode="[A]")


def test_one_order_is_read_by_a_model_that_reads_one_order_and_refused_by_others(blender):
    one_order = Blender(Ranker(TorchScorer(*tiny("ordered_pair"), average_orders=False)))
    a, b = ([group[i] for group in CANDIDATES] for i in (0, 1))
    matrices = [matrix(blender, *values) for values in zip(INPUTS, zip(a, b, strict=True), strict=True)]
    expected = {
        "[A,B]": [m[0, 1] for m in matrices],
        "[B,A]": [m[1, 0] for m in matrices],
        "[A,B]+[B,A]": [m[0, 1] - m[1, 0] for m in matrices],
    }
    for mode, logits in expected.items():
        np.testing.assert_allclose(one_order.compare(INPUTS, a, b, return_logits=True, mode=mode), logits, atol=1e-4)
        a_is_better = np.array(logits) < 0 if mode == "[B,A]" else np.array(logits) > 0
        np.testing.assert_array_equal(one_order.compare(INPUTS, a, b, mode=mode), a_is_better)
    for mode in ("[A,B]", "[B,A]"):
        with pytest.raises(ConfigError, match="averages both orders; load it with average_orders=False"):
            blender.compare(INPUTS, a, b, mode=mode)


def test_an_order_free_model_has_half_the_sum_in_either_order(pointwise):
    blender = Blender(pointwise)
    a, b = ([group[i] for group in CANDIDATES] for i in (0, 1))
    both = blender.compare(INPUTS, a, b, return_logits=True)
    np.testing.assert_allclose(blender.compare(INPUTS, a, b, return_logits=True, mode="[A,B]"), both / 2, atol=1e-5)
    np.testing.assert_allclose(blender.compare(INPUTS, a, b, return_logits=True, mode="[B,A]"), -both / 2, atol=1e-5)
    np.testing.assert_array_equal(blender.compare(INPUTS, a, b, mode="[B,A]"), both > 0)


def test_arguments_that_are_not_one_per_input_are_refused(blender):
    for call in (
        lambda: blender.rank(INPUTS, [*CANDIDATES, ["a"]]),
        lambda: blender.compare(INPUTS, ["a", "b"], ["a"]),
        lambda: blender.rank_with_ref(INPUTS, CANDIDATES, ref_candidates=["a"]),
        lambda: blender.get_best_of_n(INPUTS[:1], CANDIDATES),
    ):
        with pytest.raises(ConfigError, match="expected one entry of candidates and references per input"):
            call()


def test_instructions_come_before_their_inputs_without_a_gap(blender):
    with_parts = blender.rank(INPUTS, CANDIDATES, instructions=["Say: ", "Count: "], return_scores=True)
    joined = blender.rank(["Say: " + INPUTS[0], "Count: " + INPUTS[1]], CANDIDATES, return_scores=True)
    np.testing.assert_array_equal(with_parts, joined)
    with pytest.raises(ConfigError, match="one instruction per input"):
        blender.rank(INPUTS, CANDIDATES, instructions=["Say"])


@pytest.mark.parametrize("mode", sorted(llm_blender.REFERENCES))
def test_scores_against_one_reference(blender, mode):
    scores = blender.rank_with_ref(INPUTS, CANDIDATES, return_scores=True, mode=mode)
    for prompt, group, values in zip(INPUTS, CANDIDATES, scores, strict=True):
        reference = llm_blender.REFERENCES[mode](group)
        for candidate, score in zip(group, values, strict=True):
            if candidate != reference:
                m = matrix(blender, prompt, [candidate, reference])
                assert score == pytest.approx(m[0, 1] - m[1, 0], abs=1e-4)
            else:
                assert score == pytest.approx(0, abs=1e-6)
    with pytest.raises(ConfigError, match="expected ref_mode"):
        blender.rank_with_ref(INPUTS, CANDIDATES, ref_mode="random")


def test_best_and_worst(blender):
    ranks = blender.rank(INPUTS, CANDIDATES)
    best = [group[int(np.argmin(values))] for group, values in zip(CANDIDATES, ranks, strict=True)]
    worst = [group[int(np.argmax(values))] for group, values in zip(CANDIDATES, ranks, strict=True)]
    assert blender.get_best_of_n(INPUTS, CANDIDATES, pairrm_cmp_type="full") == best
    assert blender.get_worst_of_n(INPUTS, CANDIDATES) == worst
    assert [group[0] for group in blender.get_best_of_n(INPUTS, CANDIDATES, return_all=True)] == best
    bubble = blender.get_best_of_n(INPUTS, CANDIDATES)
    assert bubble == blender.get_best_of_n(INPUTS, CANDIDATES)
    with pytest.raises(ConfigError, match="bubble or full"):
        blender.get_best_of_n(INPUTS, CANDIDATES, pairrm_cmp_type="heap")


def test_ragged_candidates_are_legal(blender):
    ranks = blender.rank(INPUTS, [CANDIDATES[0], CANDIDATES[1][:2]])
    assert [len(values) for values in ranks] == [4, 2]


def test_conversations_are_rendered_as_pairrm_was_trained(blender, monkeypatch):
    seen = {}
    monkeypatch.setattr(Blender, "compare", lambda self, *args, **options: seen.update(args=args, options=options))
    a = [{"role": "USER", "content": "Hi"}, {"role": "ASSISTANT", "content": "Hello"}] * 2
    b = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}] * 2
    blender.compare_conversations([a], [b], batch_size=4, disable_tqdm=True)
    assert (seen["options"]["batch_size"], seen["options"]["disable_tqdm"]) == (4, True)
    inputs, first, second = seen["args"]
    assert inputs == [
        "Finish the following coversation in each i-th turn by filling in <Response i> with your response."
        "USER: Hi\nAssistant: <Response 1>\nUSER: Hi\nAssistant: <Response 2>"
    ]
    assert first == ["<Response 1>: Hello\n<Response 2>: Hello"]
    assert second == ["<Response 1>: No\n<Response 2>: No"]
    with pytest.raises(ConfigError, match="same user turns"):
        blender.compare_conversations([a], [b[:2]])
    with pytest.raises(ConfigError, match="conversation 0 a: expected turns of user and assistant"):
        blender.compare_conversations([a[:1]], [b[:1]])


def test_a_model_must_be_loaded_first():
    with pytest.raises(ConfigError, match="call loadranker"):
        Blender().rank(INPUTS, CANDIDATES)


def test_arguments_that_are_not_honoured_are_refused_by_name(blender):
    for call in (blender.rank, blender.rank_with_ref, blender.get_best_of_n, blender.get_worst_of_n):
        with pytest.raises(ConfigError, match=rf"Blender\.{call.__name__} does not honour source_max_length"):
            call(INPUTS, CANDIDATES, batch_size=4, source_max_length=128)
    with pytest.raises(ConfigError, match="does not honour policy"):
        blender.compare(INPUTS, ["a", "b"], ["c", "d"], None, 4, True, policy="max_probs")
