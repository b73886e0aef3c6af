"""Rewards as trainers ask for them, against the model's own scores."""

import numpy as np
import pytest
import torch

import ranker
from ranker.batch_scorer import BatchScorer
from ranker.errors import ConfigError, DataError
from ranker.integrations import openrlhf, trl, verl
from ranker.integrations.rewards import GroupRewards
from ranker.integrations.sentence_transformers import CrossEncoder
from ranker.records import Message

PROMPTS = ["p", "q", "p", "q", "p"]
ANSWERS = ["a saw", "c", "b hammer", "d e", "pear"]


@pytest.fixture
def expected(model):
    loaded = ranker.load(model)
    p, q = loaded.score("p", ["a saw", "b hammer", "pear"]), loaded.score("q", ["c", "d e"])
    return np.array([p[0], q[0], p[1], q[1], p[2]])


def test_completions_of_equal_prompts_are_a_group(model, expected):
    np.testing.assert_allclose(GroupRewards(model)(PROMPTS, ANSWERS), expected, atol=1e-5)


def test_comparisons_within_the_group(model, expected):
    rates = GroupRewards(model, mode="win_rate")(PROMPTS, ANSWERS)
    group_scores = expected[[0, 2, 4]]
    wins = [(group_scores[i] > np.delete(group_scores, i)).mean() for i in range(3)]
    np.testing.assert_allclose(rates[[0, 2, 4]], np.array(wins) - np.mean(wins), atol=1e-6)
    strengths = GroupRewards(model, mode="bradley_terry")(PROMPTS, ANSWERS)
    np.testing.assert_allclose(strengths[[0, 2, 4]], group_scores - group_scores.mean(), atol=0.02)
    with pytest.raises(ConfigError, match="expected mode score, win_rate, bradley_terry, got 'elo'"):
        GroupRewards(model, mode="elo")


def test_trl_gets_plain_floats_of_messages_and_none_for_what_fails(model, expected):
    reward = trl.reward_function(model, name="helpful")
    assert reward.__name__ == "helpful"
    chats = [[{"role": "user", "content": p}] for p in PROMPTS]
    turns = [[{"role": "assistant", "content": a}] for a in ANSWERS]
    returned = reward(prompts=chats, completions=turns, completion_ids=None, trainer_state=None)
    loaded = ranker.load(model).score((Message("user", "p"),), ["a saw", "b hammer", "pear"])
    np.testing.assert_allclose([returned[0], returned[2], returned[4]], loaded, atol=1e-5)
    assert reward(prompts=["p", "p"], completions=["a", None])[1] is None
    with pytest.raises(ConfigError, match="one prompt per completion"):
        reward(prompts=["p"], completions=[])


def test_openrlhf_gets_tensors_and_the_response_without_its_template(model, expected):
    reward = openrlhf.reward_function(model)
    queries = [f"{p}{a}<|im_end|>\n" for p, a in zip(PROMPTS, ANSWERS, strict=True)]
    returned = reward(queries, PROMPTS, [None] * 5)
    np.testing.assert_allclose(returned["rewards"].numpy(), expected, atol=1e-5)
    torch.testing.assert_close(returned["scores"], torch.sigmoid(returned["rewards"]), atol=1e-6, rtol=1e-6)
    assert returned["extra_logs"]["ranker_failed"].sum() == 0
    assert openrlhf.response("Hi there</s><pad><pad>", "Hi") == " there"


def test_verl_reads_the_prompt_where_the_dataset_put_it(model, pointwise, expected):
    infos = [{"question": p} for p in PROMPTS]
    batch = verl.batch_reward_function(model, columns={"prompt": "question"})
    np.testing.assert_allclose(batch([""] * 5, ANSWERS, [None] * 5, infos), expected, atol=1e-5)
    alone = float(ranker.load(pointwise).score("p", ["a saw"])[0])
    one = verl.reward_function(pointwise, columns={"prompt": "question"})
    assert one("", "a saw", None, {"question": "p"}) == pytest.approx(alone, abs=1e-5)
    assert verl.batch_reward_function(model)([""] * 3, ["a", None, "b"], [None] * 3, [{"prompt": "p"}] * 3)[1] == 0
    with pytest.raises(DataError, match=r"sample 1: field 'extra_info\.prompt': expected the prompt"):
        verl.batch_reward_function(model)(["", ""], ["a", "b"], [None] * 2, [{"prompt": "p"}, None])


def test_cross_encoder_calls(model):
    encoder, loaded = CrossEncoder(model), ranker.load(model)
    documents = ["a saw", "b hammer", "pear"]
    ranked = encoder.rank("p", documents, top_k=2, return_documents=True)
    ranking = loaded.rank("p", documents)
    assert [row["corpus_id"] for row in ranked] == ranking.order[:2].tolist()
    assert ranked[0]["text"] == documents[ranking.order[0]]
    assert encoder.predict([("p", "a saw"), ("q", "c"), ("p", "b"), ("q", "d")]).shape == (4,)
    with pytest.raises(ConfigError, match="the score of a lone answer means nothing"):
        encoder.predict([("p", "a saw"), ("q", "c"), ("p", "b")])


def test_cross_encoder_arguments_are_honoured_or_refused_by_name(pointwise):
    encoder = CrossEncoder(pointwise)
    pairs = [("p", "a saw"), ("q", "c"), ("p", "hammer")]
    logits = encoder.predict(pairs, batch_size=2, show_progress_bar=False)
    assert encoder.predict(pairs[0]) == pytest.approx(float(logits[0]), abs=1e-6)
    np.testing.assert_allclose(
        encoder.predict(pairs, activation_fn=torch.nn.Sigmoid()), 1 / (1 + np.exp(-logits)), rtol=1e-6
    )
    tensor = encoder.predict(pairs, convert_to_tensor=True)
    assert isinstance(tensor, torch.Tensor)
    assert [float(score) for score in encoder.predict(pairs, convert_to_numpy=False)] == pytest.approx(logits.tolist())
    ranked = encoder.rank("p", ["a saw", "hammer"], activation_fn=torch.nn.Sigmoid())
    assert all(0 < row["score"] < 1 for row in ranked)
    for call in (
        lambda **options: encoder.predict(pairs, **options),
        lambda **options: encoder.rank("p", ["a"], **options),
    ):
        with pytest.raises(ConfigError, match="does not honour prompt, apply_softmax; leave it out"):
            call(prompt="query: ", apply_softmax=True, prompt_name=None)


def test_an_activation_is_applied_to_logits_of_one_output_as_the_library_does(pointwise):
    encoder = CrossEncoder(pointwise)
    pairs = [("p", "a saw"), ("q", "c"), ("p", "hammer")]
    logits = encoder.predict(pairs)
    np.testing.assert_array_equal(encoder.predict(pairs, activation_fn=torch.nn.Identity()), logits)
    np.testing.assert_array_equal(encoder.predict(pairs, activation_fn=torch.nn.Softmax(dim=-1)), [1, 1, 1])
    trained = torch.nn.Linear(1, 1)
    expected = logits * trained.weight.item() + trained.bias.item()
    np.testing.assert_allclose(encoder.predict(pairs, activation_fn=trained), expected, atol=1e-5)
    hits = encoder.rank("p", ["a saw", "hammer", "pear"], activation_fn=torch.neg)
    assert [hit["score"] for hit in hits] == sorted((hit["score"] for hit in hits), reverse=True)
    assert [hit["corpus_id"] for hit in hits] == np.argsort(
        encoder.predict([("p", d) for d in ("a saw", "hammer", "pear")])
    ).tolist()
    assert encoder.rank("p", []) == []


def test_a_lone_answer_to_a_model_that_compares_is_warned_of_once(model, pointwise, caplog):
    loaded = ranker.load(model)
    for _ in range(3):
        loaded.score("p", ["a"])
    assert caplog.text.count("the score of a lone answer means nothing") == 1
    caplog.clear()
    BatchScorer(model)({"prompt": ["p"], "response": ["a"]})
    assert caplog.text.count("the score of a lone answer means nothing") == 1
    caplog.clear()
    ranker.load(pointwise).score("p", ["a"])
    assert not caplog.text


def test_rewards_that_are_missing_are_counted_with_their_reasons(model, caplog):
    returned = trl.reward_function(model)(prompts=["p", "p", "p", 3], completions=["a", None, "b", "c"])
    assert [value is None for value in returned] == [False, True, False, True]
    (line,) = [message for message in caplog.messages if "no reward" in message]
    assert line.startswith("2 of 4 completions have no reward: 1 x candidates[0]: expected text, got null")
    assert "1 x prompt: expected text or a list of messages, got int" in line


def test_a_loaded_model_may_be_shared(model):
    loaded = ranker.load(model)
    rewards = GroupRewards(loaded)
    assert rewards.scorer.scorer is GroupRewards(loaded, mode="win_rate").scorer.scorer is loaded.scorer
    np.testing.assert_allclose(rewards(["p", "p"], ["a", "b"]), loaded.score("p", ["a", "b"]), atol=1e-6)


def test_sentence_transformers_evaluates_our_model(model):
    from sentence_transformers.cross_encoder.evaluation import CrossEncoderRerankingEvaluator

    samples = [
        {"query": f"q {i}", "positive": [f"hammer {i}"], "negative": [f"pear {j}" for j in range(i, i + 4)]}
        for i in range(6)
    ]
    returned = CrossEncoderRerankingEvaluator(samples, name="test", show_progress_bar=False)(CrossEncoder(model))
    loaded, reciprocal = ranker.load(model), []
    for sample in samples:
        scores = loaded.score(sample["query"], [*sample["positive"], *sample["negative"]]).tolist()
        reciprocal.append(1 / (1 + sum(score > scores[0] for score in scores[1:])))
    assert returned["test_mrr@10"] == pytest.approx(np.mean(reciprocal))


def test_a_completion_alone_with_its_prompt_is_refused_where_only_comparisons_mean_something(model, pointwise):
    for rewards in (GroupRewards(model), GroupRewards(pointwise, mode="win_rate")):
        with pytest.raises(ConfigError, match="completion 1: expected at least two completions of its prompt"):
            rewards(["p", "q", "p"], ["a", "b", "c"])
        returned = rewards(["p", "q", "p", "q"], ["a", "b", "c", None])
        assert np.isnan(returned).tolist() == [False, True, False, True], "its group was there, and could not be read"
    assert np.isfinite(GroupRewards(pointwise)(["p", "q"], ["a", "b"])).all()


def test_endings_of_templates_are_taken_off_in_one_go():
    long = "a" + " " * 200_000 + "b" + "</s>\n" * 100_000
    assert openrlhf.response(long, "") == "a" + " " * 200_000 + "b"
    assert openrlhf.response("Hi<|im_end|>\n<pad></s>", "Hi") == ""


def test_an_episode_of_several_turns_is_rewarded_as_a_whole(pointwise):
    turns = [
        {"role": "assistant", "content": "Let me look."},
        {"role": "tool", "content": "It is blue."},
        {"role": "assistant", "content": "pear"},
    ]
    reward = trl.reward_function(pointwise)
    whole, last = reward(prompts=["p", "p"], completions=[turns, turns[-1:]])
    loaded = ranker.load(pointwise)
    assert whole == pytest.approx(float(loaded.score("p", [turns])[0]), abs=1e-5)
    assert last == pytest.approx(float(loaded.score("p", ["pear"])[0]), abs=1e-5)
    assert whole != pytest.approx(last, abs=1e-4)


def test_columns_of_text_that_a_trainer_hands_over_are_named_once(pointwise, caplog):
    reward = trl.reward_function(pointwise, name="helpful")
    for _ in range(2):
        reward(prompts=["p"], completions=["a"], system=["be kind"], level=[3], trainer_state=None)
    assert [line for line in caplog.messages if "not used" in line] == ["helpful: columns not used: system"]
    compute_score = verl.reward_function(pointwise)
    compute_score("set", "a", None, {"prompt": "p", "context": "A passage."})
    assert "extra_info: columns not used: context" in caplog.text
