"""A whole run: sections that belong together."""

import pytest

from ranker.config.files import parse_config
from ranker.errors import ConfigError


def run(**sections):
    model = {"name_or_path": "offline"} | sections.pop("model", {"type": "set_encoder"})
    return parse_config({"output_dir": "runs/x", "model": model, "data": {"train": ["rows.jsonl"]}, **sections})


def data(**values):
    return run(data=values).data


def test_the_sample_is_validated_and_tested_on_its_own_rows():
    sample = data(train=["sample"])
    assert (sample.validation, sample.test) == (("sample:validation",), ("sample:test",))


def test_rows_of_ones_own_are_not_validated_on_the_sample():
    settings = data(train=["rows.jsonl"])
    assert (settings.validation, settings.test) == ((), ())


def test_the_sample_among_other_sources_has_no_validation_rows():
    assert data(train=["sample", "rows.jsonl"]).validation == ()


def test_validation_rows_that_are_named_stay():
    named = data(train=["sample"], validation=["mine.jsonl"])
    assert (named.validation, named.test) == (("mine.jsonl",), ())


def test_test_rows_that_are_named_stay():
    named = data(train=["sample"], test=["mine.jsonl"])
    assert (named.validation, named.test) == (("sample:validation",), ("mine.jsonl",))


def test_one_source_may_be_written_without_brackets():
    assert data(train="rows.jsonl").train == ("rows.jsonl",)


@pytest.mark.parametrize("train", [5, {"a": 1}, None])
def test_train_that_is_no_list_is_refused(train):
    with pytest.raises(ConfigError, match=r"'data\.train': expected a text or a list of texts"):
        data(train=train)


def test_data_without_train_is_refused_by_the_key():
    with pytest.raises(ConfigError, match=r"'data\.train': expected a value, it has no default"):
        data(validation=["rows.jsonl"])


@pytest.mark.parametrize(
    ("model", "loss", "output"),
    [
        ({"type": "pointwise"}, "bradley_terry", "scalar"),
        ({"type": "pointwise", "aspects": ["a", "b"]}, "mse", "aspects"),
        ({"type": "pointwise"}, "cross_entropy", "accept_reject"),
        ({"type": "set_encoder"}, "list_mle", "scalar"),
    ],
)
def test_output_follows_from_the_model_and_the_loss(model, loss, output):
    assert run(model=model, training={"loss": loss}).output == output


def test_the_output_of_armorm_is_gated():
    sections = {"model": {"type": "armorm", "aspects": ["a"]}, "data": {"train": ["r.jsonl"], "aspects": ["s.jsonl"]}}
    assert run(**sections).output == "gated"


@pytest.mark.parametrize(
    ("model", "labels"),
    [
        ({"type": "pointwise"}, 1),
        ({"type": "pointwise", "aspects": ["a", "b"]}, 2),
        ({"type": "set_encoder", "num_labels": 3}, 3),
        ({"type": "steamshp"}, 1),
    ],
)
def test_labels_are_one_per_output(model, labels):
    loss = "answer_token" if model["type"] == "steamshp" else "bradley_terry"
    assert run(model=model, training={"loss": loss}).num_labels == labels


def test_a_loss_of_another_model_is_refused_with_those_that_fit():
    with pytest.raises(ConfigError, match=r"model\.type 'steamshp' trains with answer_token, .*; got 'mse'"):
        run(model={"type": "steamshp"}, training={"loss": "mse"})


def test_cross_entropy_has_no_aspects():
    with pytest.raises(ConfigError, match=r"'cross_entropy' has the classes reject and accept; remove model\.aspects"):
        run(model={"type": "pointwise", "aspects": ["a"]}, training={"loss": "cross_entropy"})


@pytest.mark.parametrize(
    ("training", "message"),
    [
        (
            {"loss": "mse", "weight_by": "prompt"},
            r"weight_by 'prompt' is for losses of comparisons and lists, not for 'mse'",
        ),
        (
            {"loss": "token_pairwise", "prefix_sharing": True},
            r"'token_pairwise' compares whole rows; remove one of them",
        ),
        ({"padding_free": True, "prefix_sharing": True}, r"needs an attention mask and padding_free has none"),
    ],
)
def test_what_is_read_together_fits_the_loss(training, message):
    with pytest.raises(ConfigError, match=message):
        run(model={"type": "pointwise"}, training=training)


def test_order_consistency_is_of_ordered_models():
    training = {"loss": {"type": "bradley_terry", "order_consistency": 0.1}}
    assert run(model={"type": "ordered_pair"}, training=training).training.loss.order_consistency == 0.1
    with pytest.raises(ConfigError, match="the scores of 'set_encoder' do not depend on the order"):
        run(model={"type": "set_encoder"}, training=training)


def test_aspect_rows_and_armorm_belong_together():
    match = r"model\.type 'armorm' and the rows in data\.aspects belong together"
    with pytest.raises(ConfigError, match=match):
        run(data={"train": ["a.jsonl"], "aspects": ["b.jsonl"]})
    with pytest.raises(ConfigError, match=match):
        run(model={"type": "armorm", "aspects": ["a"]})


def test_qat_of_adapters_is_refused():
    with pytest.raises(ConfigError, match="qat trains all weights; merge the adapter"):
        run(lora={}, qat="int8")


@pytest.mark.parametrize("section", [{"lora": {}}, {"qat": "int8"}])
def test_armorm_trains_no_backbone(section):
    with pytest.raises(ConfigError, match="freezes its backbone; remove lora and qat"):
        run(
            model={"type": "armorm", "aspects": ["a"]},
            data={"train": ["a.jsonl"], "aspects": ["b.jsonl"]},
            **section,
        )


@pytest.mark.parametrize("sizes", [[1, 4], [5, 4]])
def test_candidates_per_prompt_are_in_order(sizes):
    with pytest.raises(
        ConfigError, match=r"training\.candidates_per_prompt: expected \[fewest, most\] with 2 <= fewest"
    ):
        run(training={"candidates_per_prompt": sizes})


@pytest.mark.parametrize(
    ("tokens_per_step", "processes", "passes"), [(None, 1, 1), (8192, 1, 4), (8192, 2, 2), (8192, 16, 1), (1024, 1, 1)]
)
def test_accumulation_reads_the_tokens_of_a_step(tokens_per_step, processes, passes):
    training = {"max_tokens_per_forward": 2048, "tokens_per_step": tokens_per_step}
    assert run(training=training).training.accumulation(processes) == passes
