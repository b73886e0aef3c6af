"""What a checkpoint's own code does otherwise is done so, or refused by name; never scored otherwise in silence."""

import json

import numpy as np
import pytest
import torch
from peft import PromptTuningConfig, get_peft_model
from sentence_transformers import CrossEncoder
from transformers import AutoModelForSequenceClassification, AutoTokenizer

import ranker
from ranker.errors import CheckpointError, ConfigError, DataError
from ranker.records import Group, Message, Preference, Rendered
from tests.references.producers import (
    CHATML,
    LONG,
    ROWS,
    SPREAD,
    Produced,
    base,
    bert_tokenizer,
    cross_encoder,
    logits,
    trl_chat,
)
from tests.references.test_producers import compared

pytestmark = pytest.mark.filterwarnings("ignore")


def changed(file, **values):
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def predicted(folder):
    """The scores of CrossEncoder, of conversations of one question."""
    model = CrossEncoder(str(folder), device="cpu")

    def reference(conversation):
        if len(conversation) != 2:
            return None
        pair = (conversation[0]["content"], conversation[1]["content"])
        return float(model.predict([pair], activation_fn=torch.nn.Identity(), show_progress_bar=False)[0])

    return Produced(folder, reference)


def decoder_cross_encoder(folder, template):
    tokenizer = base(folder / "base", template, "llama3")
    tokenizer.model_max_length = 64
    tokenizer.save_pretrained(folder / "base")
    CrossEncoder(str(folder / "base"), num_labels=1, device="cpu").save_pretrained(str(folder / "cross"))
    return folder / "cross"


def test_a_cross_encoder_on_a_decoder_reads_pairs_and_cuts_as_its_own_code_does(tmp_path):
    produced = predicted(decoder_cross_encoder(tmp_path, None))
    rows = [row for row in (*ROWS, *LONG) if any(turn["content"] for turn in row)]  # no token at all fails there
    ours, theirs = compared(ranker.load(produced.folder).scorer, produced, rows)
    np.testing.assert_allclose(ours, theirs, atol=SPREAD * np.ptp(theirs), rtol=0)


def test_a_cross_encoder_whose_template_reads_no_pair_is_refused(tmp_path):
    template = "{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}"
    with pytest.raises(CheckpointError, match="does not write the query and the document of a pair"):
        ranker.load(decoder_cross_encoder(tmp_path, template))


def test_a_tokenizer_that_cuts_on_the_left_is_followed(tmp_path):
    folder = cross_encoder(tmp_path).folder
    tokenizer = bert_tokenizer()
    tokenizer.truncation_side = "left"
    tokenizer.save_pretrained(folder)
    produced = predicted(folder)
    ours, theirs = compared(ranker.load(folder).scorer, produced, LONG)
    np.testing.assert_allclose(ours, theirs, atol=1e-5, rtol=0)


def test_a_classifier_with_code_of_its_own_is_refused(tmp_path):
    folder = trl_chat(tmp_path).folder
    changed(folder / "config.json", auto_map={"AutoModelForSequenceClassification": "modeling.Mine"})
    with pytest.raises(CheckpointError, match="code of its own for the classifier"):
        ranker.load(folder)


def test_special_tokens_that_only_the_library_knows_are_refused(tmp_path):
    folder = trl_chat(tmp_path).folder
    changed(folder / "tokenizer_config.json", split_special_tokens=True)
    with pytest.raises(CheckpointError, match="other ids than tokenizer.json gives"):
        ranker.load(folder)


def test_a_padding_token_that_is_an_ordinary_word_is_noted(tmp_path):
    folder = trl_chat(tmp_path).folder
    changed(folder / "tokenizer_config.json", pad_token="!")
    with pytest.warns(UserWarning, match="'!' for special tokens"):
        ranker.load(folder)


def test_answers_of_a_decoder_that_reads_both_ways_share_no_prompt(tmp_path):
    folder = trl_chat(tmp_path).folder
    changed(folder / "config.json", is_causal=False)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    answers = ("Paris.", "It is Paris", "No idea at all")
    turns = [[{"role": "user", "content": "Name it"}, {"role": "assistant", "content": answer}] for answer in answers]
    expected = [logits(model, tokenizer.apply_chat_template(turn, return_dict=True)["input_ids"]) for turn in turns]
    np.testing.assert_allclose(ranker.load(folder).score("Name it", answers), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_parameters": {"rope_type": "longrope", "rope_theta": 1e4}}, "with longrope reads short rows otherwise"),
        ({"rope_scaling": {"type": "longrope"}}, "with longrope reads short rows otherwise"),
    ],
)
def test_scores_that_would_depend_on_the_batch_are_refused(change, message, tmp_path):
    from ranker.models.pointwise import reading
    from tests.references.producers import decoder

    config = decoder(100)
    for name, value in change.items():
        setattr(config, name, value)
    with pytest.raises(CheckpointError, match=message):
        reading(config)


def test_several_chat_templates_without_a_default_are_refused(tmp_path):
    folder = trl_chat(tmp_path).folder
    (folder / "chat_template.jinja").unlink()
    named = [{"name": "rag", "template": CHATML}, {"name": "tool_use", "template": CHATML}]
    changed(folder / "tokenizer_config.json", chat_template=named)
    with pytest.raises(ConfigError, match="chat templates rag, tool_use and none that is 'default'"):
        ranker.load(folder)


def test_an_adapter_that_cannot_be_merged_is_refused(tmp_path):
    produced = trl_chat(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(produced.folder)
    adapted = get_peft_model(model, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=4))
    adapted.peft_config["default"].base_model_name_or_path = str(produced.folder)
    adapted.save_pretrained(tmp_path / "prompt")
    with pytest.raises(CheckpointError, match="type PROMPT_TUNING has no weights that can be merged"):
        ranker.load(tmp_path / "prompt")


def test_a_length_that_the_tokenizer_does_not_say_is_noted(tmp_path):
    folder = trl_chat(tmp_path).folder
    changed(folder / "config.json", max_position_embeddings=8192)
    with pytest.warns(UserWarning, match="rows are cut at 2048 tokens, of the 8192"):
        ranker.load(folder)


def test_a_text_without_tokens_is_an_error_of_its_row(tmp_path):
    scorer = ranker.load(trl_chat(tmp_path).folder).scorer
    (result,) = scorer.score([Group("", (Rendered(""),))])
    assert result.error == "the rendered conversation has no tokens, so there is nothing to read"
    assert np.isnan(result.scores).all()


def test_a_conversation_of_a_thousand_turns_is_cut_to_its_end(tmp_path):
    scorer = ranker.load(trl_chat(tmp_path).folder, text={"max_length": 64, "prompt_reserve": 8}).scorer
    turns = tuple(Message(role, f"turn {i} of many") for i, role in enumerate(("user", "assistant") * 500))[:-1]
    (tokens,) = scorer.pipeline.tokenize([Group(turns, ("The answer.",))])
    text = scorer.pipeline.tokenizer.decode(tokens.candidates[0])
    assert 32 < len(tokens.candidates[0]) <= 64
    assert text.endswith("turn 998 of many<|im_end|>\n<|im_start|>assistant\nThe answer.<|im_end|>\n")
    assert (tokens.prompts_cut, tokens.candidates_cut) == ((True,), (False,))


def test_a_training_row_that_the_template_refuses_is_named_or_left_out(tmp_path, caplog):
    from ranker.training.groups import Groups

    template = "{% if messages[0].role == 'system' %}{{ raise_exception('No system turn') }}{% endif %}" + CHATML
    pipeline = ranker.load(trl_chat(tmp_path).folder, text={"chat_template": template}).scorer.pipeline
    refused = Preference((Message("system", "s"), Message("user", "q")), ("a", "b"), ((1.0,), (0.0,)), 1.0, id="rows:2")
    rows = [Preference("q", ("a", "b"), ((1.0,), (0.0,)), 1.0, id="rows:1"), refused]
    with pytest.raises(DataError, match=r"rows:2: field 'candidates\[0\]'.*No system turn"):
        Groups(rows, pipeline)
    groups = Groups(rows, pipeline, on_error="skip")
    assert [row.id for row in groups.preferences] == ["rows:1"]
    assert "1 of 2 rows are left out; the first: rows:2" in caplog.text
