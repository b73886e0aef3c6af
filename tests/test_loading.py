"""What ``Ranker`` takes, what it gives, and what it refuses."""

import numpy as np
import pytest

import ranker
from ranker import loading
from ranker.errors import ConfigError, ModelFileError, ScoringError
from ranker.loading import Ranker, load
from ranker.records import Group, Message
from ranker.scoring.protocol import Calibration, GroupScores
from tests.support.scorers import LengthScorer

USER = {"role": "user", "content": "q"}
SYSTEM = {"role": "system", "content": "s"}


@pytest.fixture
def model():
    return Ranker(LengthScorer(), "fake")


def test_scores_are_those_of_the_scorer(model):
    scores = model.score("q", ["a", "bbb", "cc"])
    assert scores.tolist() == [1.0, 3.0, 2.0]
    assert scores.dtype == np.float32


def test_a_prompt_as_text_stays_text(model):
    model.score("q", ["a"])
    assert model.scorer.groups == [Group("q", ("a",))]


@pytest.mark.parametrize(
    "prompt",
    [
        [SYSTEM, USER],
        (Message("system", "s"), Message("user", "q")),
        [Message("system", "s"), USER],
        [{"from": "system", "value": "s"}, {"from": "human", "value": "q"}],
    ],
    ids=["mappings", "records", "both", "sharegpt"],
)
def test_a_prompt_as_messages_is_read(prompt, model):
    model.score(prompt, ["a"])
    assert model.scorer.groups[0].prompt == (Message("system", "s"), Message("user", "q"))


@pytest.mark.parametrize(
    "answer",
    [
        "text",
        {"role": "assistant", "content": "text"},
        [{"role": "assistant", "content": "text"}],
        [USER, {"role": "assistant", "content": "text"}],
        {"text": "text"},
    ],
)
def test_a_candidate_as_messages_is_its_last_answer(answer, model):
    model.score("q", [answer])
    assert model.scorer.groups[0].candidates == ("text",)


def test_no_candidates_have_no_scores(model):
    assert model.score("q", []).shape == (0,)


@pytest.mark.parametrize("prompt", [3, None, {"role": "user", "content": "q"}, [{"role": "user"}], ["q"]])
def test_a_prompt_of_the_wrong_type_is_refused(prompt, model):
    with pytest.raises(ConfigError, match="expected a prompt as text or as messages"):
        model.score(prompt, ["a"])


def test_a_role_that_is_unknown_is_named(model):
    with pytest.raises(ConfigError, match=r"prompt\[1\]: expected a message with role .*'boss'"):
        model.score([USER, {"role": "boss", "content": "x"}], ["a"])


def test_a_candidate_of_the_wrong_type_is_named(model):
    with pytest.raises(ConfigError, match=r"candidates\[1\]: expected text, got int"):
        model.score("q", ["a", 3])


def test_a_candidate_that_ends_with_the_user_is_refused(model):
    with pytest.raises(ConfigError, match=r"candidates\[0\]: expected messages that end with an assistant turn"):
        model.score("q", [[USER]])


@pytest.mark.parametrize("candidates", ["text", None, 3, {"a"}])
def test_candidates_that_are_no_list_are_refused(candidates, model):
    with pytest.raises(ConfigError, match="expected a list of candidates"):
        model.score("q", candidates)


def test_one_prompt_for_a_batch_is_refused(model):
    with pytest.raises(ConfigError, match="expected a list of prompts, got one text; the call without _batch"):
        model.score_batch("q", [["a"]])


@pytest.mark.parametrize("candidates", [[["a"]], [["a"], ["b"], ["c"]], "ab"])
def test_another_number_of_candidate_lists_than_prompts_is_refused(candidates, model):
    with pytest.raises(ConfigError, match=r"expected one list of candidates per prompt \(2\)"):
        model.score_batch(["q", "r"], candidates)


def test_a_batch_gives_one_array_per_prompt(model):
    scores = model.score_batch(["q", "r"], [["a", "bb"], ["ccc"]])
    assert [array.tolist() for array in scores] == [[1.0, 2.0], [3.0]]


def test_progress_reads_prompts_in_chunks(model, monkeypatch, capsys):
    monkeypatch.setattr(loading, "CHUNK", 2)
    scores = model.score_batch(["q"] * 5, [["a" * n] for n in range(1, 6)], progress=True)
    assert model.scorer.calls == [2, 2, 1]
    assert [array.tolist() for array in scores] == [[1.0], [2.0], [3.0], [4.0], [5.0]]
    assert "5/5" in capsys.readouterr().err


def test_without_progress_all_prompts_are_one_call(model, monkeypatch, capsys):
    monkeypatch.setattr(loading, "CHUNK", 2)
    model.score_batch(["q"] * 5, [["a"]] * 5)
    assert model.scorer.calls == [5]
    assert capsys.readouterr().err == ""


def test_a_group_that_fails_is_an_error(model):
    with pytest.raises(ScoringError, match="the model failed on this row: bad"):
        model.score_batch(["q", "r"], [["a"], ["bad"]])


def test_ranking_has_order_ranks_and_scores(model):
    ranking = model.rank("q", ["a", "ccc", "bb", "ddd"])
    assert ranking.order.tolist() == [1, 3, 2, 0]
    assert ranking.ranks.tolist() == [4, 1, 3, 1]
    assert ranking.scores.tolist() == [1.0, 3.0, 2.0, 3.0]


def test_ranking_by_a_schedule_agrees_with_the_scores(model):
    assert model.rank("q", ["a", "ccc", "bb"], schedule="all").order.tolist() == [1, 2, 0]


def test_the_best_of_equals_is_the_first(model):
    assert model.best_of_n("q", ["a", "bb", "cc"]) == "bb"


def test_the_best_of_none_is_refused(model):
    with pytest.raises(ConfigError, match="expected at least one candidate of every prompt to choose the best of"):
        model.best_of_n_batch(["q", "r"], [["a"], []])


def test_the_best_of_messages_is_their_text(model):
    assert model.best_of_n("q", ["a", {"role": "assistant", "content": "long"}]) == "long"


def test_a_comparison_is_the_log_odds(model):
    assert model.compare("q", "aaa", "b") == 2.0
    assert model.compare_batch(["q", "r"], ["aaa", "a"], ["b", "bb"]).tolist() == [2.0, -1.0]


def test_the_probability_of_a_comparison_is_at_the_stored_temperature():
    model = Ranker(LengthScorer(calibration=Calibration(temperature=2.0, n=10)))
    assert model.compare("q", "aaa", "b", probability=True) == pytest.approx(1 / (1 + np.exp(-1)))


def test_a_comparison_that_fails_is_named_by_its_number(model):
    with pytest.raises(ScoringError, match="pair 1 could not be scored"):
        model.compare_batch(["q", "r"], ["a", "bad"], ["b", "b"])


@pytest.mark.parametrize(("a", "b"), [(["a"], ["b", "c"]), ("ab", ["c", "d"]), (["a", "b"], "cd")])
def test_another_number_of_answers_than_prompts_is_refused(a, b, model):
    with pytest.raises(ConfigError, match=r"expected one a and one b per prompt \(2\)"):
        model.compare_batch(["q", "r"], a, b)


def test_scores_with_a_reference_are_log_odds_against_it(model):
    assert model.rank_with_reference("q", ["a", "bbbb"], "cc").tolist() == [-1.0, 2.0]


@pytest.mark.parametrize("references", [["a"], "ab"])
def test_another_number_of_references_than_prompts_is_refused(references, model):
    with pytest.raises(ConfigError, match=r"expected one reference per prompt \(2\)"):
        model.rank_with_reference_batch(["q", "r"], [["a"], ["b"]], references)


def test_a_lone_answer_of_a_relative_model_is_warned_of_once(caplog):
    model = Ranker(LengthScorer(scores_are_relative=True))
    model.score("q", ["a"])
    model.score("q", ["a"])
    assert caplog.text.count("the score of a lone answer means nothing") == 1


def test_a_lone_answer_of_a_pointwise_model_is_not_warned_of(model, caplog):
    model.score("q", ["a"])
    assert caplog.text == ""


def test_a_model_shows_what_it_is(model):
    assert repr(model).startswith("Ranker(model='fake', layout='pointwise', precision='fp32', device='cpu'")


def test_scores_that_are_not_finite_are_not_ranked():
    class Broken(LengthScorer):
        def score(self, groups, *, preserve_order=False):
            return [GroupScores(np.array([np.nan, 1.0], np.float32), np.zeros(2, bool)) for _ in groups]

    with pytest.raises(ValueError, match="expected finite scores"):
        Ranker(Broken()).rank("q", ["a", "b"])


def test_an_unknown_device_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="got 'cudda'; did you mean 'cuda'"):
        load("model.onnx", device="cudda")


def test_an_unknown_precision_is_refused():
    with pytest.raises(ConfigError, match="expected precision fp32, bf16, auto, got 'fp16'"):
        load("model.onnx", precision="fp16")


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ModelFileError, match=r"absent\.onnx: found no file or folder; check the path"):
        load(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"precision": "bf16"}, "a model.onnx has the precision it was exported in"),
        ({"padding_free": True}, "a model.onnx reads padded rows"),
    ],
)
def test_an_option_of_checkpoints_is_refused_for_a_file_before_it_is_read(option, message, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"")
    with pytest.raises(ConfigError, match=message):
        load(path, **option)


def test_tensorrt_of_a_checkpoint_is_refused(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ConfigError, match=r"TensorRT runs a model\.onnx; export the checkpoint"):
        load(tmp_path, device="tensorrt")


def test_a_model_that_is_loaded_already_is_not_a_path(tmp_path):
    """``score_file`` takes the path of a model, not what ``load`` gave."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "p", "candidates": ["a", "b"]}\n')
    with pytest.raises(ConfigError, match="expected the path of a model or a name on the hub, got Ranker"):
        ranker.score_file(Ranker(LengthScorer()), rows, tmp_path / "out.jsonl")
