"""Recipes, overrides, and errors that name the key and the repair."""

import pytest

from ranker.config import dump_config, load_config, recipes
from ranker.config.files import CONFIG_BYTES, explained_config, parse_config
from ranker.errors import ConfigError

MODEL = "model: {type: set_encoder, name_or_path: offline}\n"
MINIMAL = MODEL + "output_dir: runs/x\ndata: {train: [rows.jsonl]}\n"
COMPLETE = "recipe: none\n"


@pytest.fixture
def config(tmp_path):
    """Writes a YAML file and loads it."""

    def load(text=MINIMAL, overrides=()):
        path = tmp_path / "run.yaml"
        path.write_text(text if "recipe:" in text else COMPLETE + text, encoding="utf-8")
        return load_config(path, overrides)

    return load


@pytest.mark.parametrize("name", recipes())
def test_every_recipe_is_valid(name):
    assert load_config(name).output_dir == f"runs/{name}"


@pytest.mark.parametrize("name", recipes())
def test_a_dumped_configuration_is_read_back(name, config):
    original = load_config(name)
    assert config(dump_config(original)) == original


def test_a_file_is_loaded_by_its_path(config):
    assert config().data.train == ("rows.jsonl",)


@pytest.mark.parametrize("name", recipes())
def test_an_explained_configuration_is_read_back(name, config):
    original = load_config(name)
    text = explained_config(original)
    assert config(text) == original
    comments = [line.strip() for line in text.splitlines() if line.strip().startswith("#")]
    assert "# folder of checkpoints, metrics and exports" in comments
    assert len(comments) > 20


def test_a_file_changes_the_recipe_that_it_names(config):
    changed = config(
        "recipe: pairrm\noutput_dir: runs/mine\ntraining: {learning_rate: 1.0e-5}\ndata: {train: [a.jsonl]}\n"
    )
    base = load_config("pairrm")
    assert (changed.output_dir, changed.training.learning_rate, changed.data.train) == ("runs/mine", 1e-5, ("a.jsonl",))
    assert changed.model == base.model
    assert changed.training == base.training.model_copy(update={"learning_rate": 1e-5})
    assert config("recipe: pairrm\n", ["training.seed=3"]).training.seed == 3
    assert config("recipe: pairrm\ntraining: {loss: {type: list_mle}}\n").training.loss.type == "list_mle"


@pytest.mark.parametrize(
    ("text", "problem"),
    [(MINIMAL, "no recipe is named"), ("recipe: pairm\n", "unknown recipe 'pairm'; did you mean 'pairrm'")],
)
def test_a_file_without_a_recipe_is_refused(text, problem, tmp_path):
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError, match=rf"run\.yaml: {problem}.*begin the file with 'recipe: NAME'.*pairrm"):
        load_config(tmp_path / "run.yaml")


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join(['*' + before] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, r"aliases are not read; write the value of \*a out.*line 3"),
        ("a: " + "[" * 20000, "nested too deep"),
        ("a: 2024-13-45\n", "month must be in 1..12"),
        ("a: [", "expected the node content"),
    ],
)
def test_yaml_that_cannot_be_read_is_one_line(text, reason, config):
    with pytest.raises(ConfigError, match=rf"run\.yaml: not valid YAML: .*{reason}") as caught:
        config(text)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=r"'training\.seed': expected a YAML value"):
        load_config("pairrm", [f"training.seed={text.partition(': ')[2]}"])


def test_an_unknown_recipe_is_answered_with_the_nearest():
    with pytest.raises(ConfigError, match="expected a recipe or a YAML file, got 'pairm'; did you mean 'pairrm'"):
        load_config("pairm")


def test_broken_yaml_is_named_with_its_file(config):
    with pytest.raises(ConfigError, match=r"run\.yaml: not valid YAML"):
        config("data: [")


def test_a_file_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_bytes(b"output_dir: caf\xe9\n")
    with pytest.raises(ConfigError, match=r"run\.yaml: not valid YAML"):
        load_config(path)


@pytest.mark.parametrize(
    ("text", "kind"), [("# recipe: of nothing", "NoneType"), ("[1, 2] # recipe:", "list"), ("words # recipe:", "str")]
)
def test_a_file_without_sections_is_refused(text, kind, config):
    with pytest.raises(ConfigError, match=f"expected sections model, data, training; got {kind}"):
        config(text)


def test_a_file_that_is_too_large_is_not_read(config):
    with pytest.raises(ConfigError, match=f"expected at most {CONFIG_BYTES} bytes of YAML"):
        config("#" * (CONFIG_BYTES + 1))


def test_a_text_override_is_yaml(config):
    settings = config(overrides=["training.learning_rate=1e-5", "data.train=[a, b]", "training.seed=3"])
    assert (settings.training.learning_rate, settings.data.train, settings.training.seed) == (1e-5, ("a", "b"), 3)


def test_a_text_override_may_hold_equals_signs(config):
    assert config(overrides=["output_dir=runs/a=b"]).output_dir == "runs/a=b"


def test_a_mapping_override_is_a_value(config):
    settings = config(overrides={"training.seed": 3, "data.train": ("a", "b")})
    assert (settings.training.seed, settings.data.train) == (3, ("a", "b"))


def test_the_last_override_of_a_key_counts(config):
    assert config(overrides=["training.seed=3", "training.seed=4"]).training.seed == 4


def test_an_override_makes_a_section_that_is_absent(config):
    assert config(overrides=["lora.r=4"]).lora.r == 4


def test_an_override_fills_a_section_that_is_empty(config):
    assert config(MINIMAL + "training:\n", ["training.seed=3"]).training.seed == 3


def test_an_override_without_equals_sign_is_refused_with_an_example(config):
    with pytest.raises(ConfigError, match=r"expected key=value, got 'training\.seed'; for example"):
        config(overrides=["training.seed"])


def test_an_override_that_is_no_yaml_is_named(config):
    with pytest.raises(ConfigError, match=r"'data\.train': expected a YAML value, got '\[a'"):
        config(overrides=["data.train=[a"])


def test_an_override_below_a_value_is_refused(config):
    with pytest.raises(ConfigError, match=r"'output_dir\.name': 'output_dir' is a value, not a section"):
        config(overrides=["output_dir.name=x"])


def test_a_setting_of_a_named_loss_adds_to_the_name(config):
    text = MINIMAL + "training: {loss: huber}\n"
    loss = config(text, ["model.type=pointwise", "training.loss.delta=2"]).training.loss
    assert (loss.type, loss.delta) == ("huber", 2.0)


def test_a_setting_of_a_loss_that_an_override_names_adds_to_it(config):
    overrides = ["model.type=pointwise", "training.loss=huber", "training.loss.delta=2"]
    assert config(overrides=overrides).training.loss.delta == 2.0


@pytest.mark.parametrize("training", ["", "training: {seed: 1}\n", "training: {loss: }\n"])
def test_a_setting_of_a_loss_that_is_not_named_belongs_to_the_default(training, config):
    loss = config(MINIMAL + training, ["training.loss.center_rewards_coefficient=0.01"]).training.loss
    assert (loss.type, loss.center_rewards_coefficient) == ("bradley_terry", 0.01)


def test_a_mapping_of_overrides_is_not_changed(config):
    overrides = {"model.type": "pointwise", "training.loss": {"type": "huber"}, "training.loss.delta": 2.0}
    assert config(overrides=overrides).training.loss.delta == 2.0
    assert overrides["training.loss"] == {"type": "huber"}


def test_an_unknown_key_is_answered_with_the_nearest(config):
    with pytest.raises(ConfigError, match=r"unknown key 'training\.learning_rat'; did you mean 'learning_rate'"):
        config(overrides=["training.learning_rat=1e-5"])


def test_an_unknown_section_is_answered_with_the_nearest(config):
    with pytest.raises(ConfigError, match="unknown key 'trainning'; did you mean 'training'"):
        config(overrides=["trainning.seed=1"])


def test_an_unknown_key_of_an_optional_section_is_answered_with_the_nearest(config):
    with pytest.raises(ConfigError, match=r"unknown key 'lora\.lora_alfa'; did you mean 'lora_alpha'"):
        config(overrides=["lora.lora_alfa=2"])


def test_an_unknown_key_of_a_nested_section_is_answered_with_the_nearest(config):
    overrides = ["model.type=armorm", "model.aspects=[a]", "data.aspects=[b]", "model.gate.hiden=3"]
    with pytest.raises(ConfigError, match=r"unknown key 'model\.gate\.hiden'; did you mean 'hidden'"):
        config(overrides=overrides)


def test_every_unknown_key_is_named(config):
    with pytest.raises(ConfigError) as caught:
        config(overrides=["data.trian=1", "training.sed=1"])
    assert str(caught.value).splitlines() == [
        "unknown key 'data.trian'; did you mean 'train'?",
        "unknown key 'training.sed'; did you mean 'seed'?",
    ]


def test_a_key_of_another_model_type_is_answered_with_its_types(config):
    with pytest.raises(
        ConfigError,
        match=r"'model\.num_labels': model\.type 'pointwise' has no such setting; it belongs to set_encoder, "
        "shared_prompt, ordered_pair",
    ):
        config(overrides=["model.type=pointwise", "model.num_labels=2"])


def test_an_unknown_model_type_is_answered_with_the_nearest(config):
    with pytest.raises(ConfigError, match=r"'model\.type': unknown value 'pointwize'; did you mean 'pointwise'"):
        config(overrides=["model.type=pointwize"])


def test_a_model_without_a_type_is_answered_with_the_types(config):
    text = MINIMAL.replace("type: set_encoder, ", "")
    with pytest.raises(ConfigError, match=r"'model\.type': no value; known: armorm, .*steamshp"):
        config(text, ["model.max_length=64"])


def test_an_unknown_loss_is_answered_with_the_nearest(config):
    with pytest.raises(ConfigError, match=r"'training\.loss\.type': unknown value 'list_ml'; did you mean 'list_mle'"):
        config(overrides=["training.loss=list_ml"])


def test_a_setting_of_another_loss_is_named(config):
    with pytest.raises(ConfigError, match=r"unknown key 'training\.loss\.delta'; known: type"):
        config(overrides=["model.type=pointwise", "training.loss=mse", "training.loss.delta=2"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.seed=many", r"'training\.seed': expected an integer; got 'many'"),
        (
            "training.max_tokens_per_forward=1",
            r"training\.max_tokens_per_forward: expected a whole number of tokens, at least 64, or auto; got 1",
        ),
        ("data.on_error=ignore", r"'data\.on_error': expected 'raise' or 'skip'; got 'ignore'"),
        ("training.loss=3", r"'training\.loss': .*; got 3"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_what_was_expected(override, message, config):
    with pytest.raises(ConfigError, match=message):
        config(overrides=[override])


def test_a_rule_between_settings_names_their_section(config):
    with pytest.raises(ConfigError, match=r"^model: expected prompt_reserve at most half of max_length 64"):
        config(overrides=["model.type=pointwise", "model.max_length=64", "model.prompt_reserve=60"])


def test_nested_mappings_are_a_configuration():
    sections = {"data": {"train": ["a"]}, "model": {"type": "set_encoder", "name_or_path": "offline"}}
    assert parse_config({"output_dir": "x", **sections}).model.type == "set_encoder"


def test_a_configuration_without_a_model_is_refused_by_the_key():
    with pytest.raises(ConfigError, match="'model': expected a value, it has no default"):
        parse_config({"output_dir": "x", "data": {"train": ["a"]}})


def test_a_model_without_a_backbone_is_refused_by_the_key():
    sections = {"data": {"train": ["a"]}, "model": {"type": "set_encoder"}}
    with pytest.raises(ConfigError, match=r"'model\.name_or_path': expected a value, it has no default"):
        parse_config({"output_dir": "x", **sections})


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("training.lr", "'training.learning_rate' here"),
        ("training.max_epochs", "'training.num_train_epochs' here"),
        ("training.batch_size", "'training.max_tokens_per_forward' here, in tokens"),
        ("data.eval", "'data.validation' here"),
        ("lora.rank", "'lora.r' here"),
        ("model.base_model", "'model.name_or_path' here"),
    ],
)
def test_a_setting_under_the_name_that_others_give_it_is_answered_with_ours(key, name):
    with pytest.raises(ConfigError, match=f"unknown key '{key}'; it is called {name}"):
        load_config("pairrm", [f"{key}=1"])


def test_every_name_of_others_means_a_setting():
    from ranker.config import RunConfig
    from ranker.config.files import SYNONYMS, _sections

    known = {field for fields in _sections().values() for field in fields} | set(RunConfig.model_fields)
    known |= {"name_or_path", "max_length", "center_rewards_coefficient", "label_smoothing_factor"}
    assert set(SYNONYMS.values()) <= known
    assert not set(SYNONYMS) & known - {"precision"}
