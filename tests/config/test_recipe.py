"""Recipes: what is refused, and that every message names the file, the line and the nearest right key."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from openrs.config.checks import prompts_per_step
from openrs.config.load import diff, load, load_resolved, packaged, to_json, to_yaml
from openrs.config.names import is_hub_name
from openrs.config.schema import Recipe
from openrs.errors import UserError


def refused(recipe: str | Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load(str(recipe), overrides)
    return str(caught.value)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A recipe of a user that extends the demo."""
    path = tmp_path / "own.yaml"
    path.write_text("extends: demo\ntitle: mine\ngrpo:\n  max_steps: 25\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("value", ["1e400", "-1e400", ".inf", "-.inf", ".nan"])
@pytest.mark.parametrize(
    "key",
    [
        "grpo.learning_rate", "grpo.beta", "grpo.temperature", "grpo.adam_epsilon", "grpo.lr_scheduler_kwargs.min_lr",
        "grpo.vllm_server_timeout", "model.toy.learning_rate", "rewards.timeout_seconds", "rewards.functions.0.weight",
        "training.max_hours", "monitors.kl.above", "evaluation.temperature", "hardware.price_per_gpu_hour",
    ],
)  # fmt: skip
def test_no_number_of_a_recipe_may_be_nan_or_inf(key: str, value: str) -> None:
    message = refused(
        "demo", f"rewards.functions=[{{name: accuracy, weight: {value}}}]" if "functions" in key else f"{key}={value}"
    )
    assert key in message
    assert re.search(r"(inf|nan) is not a finite number|should be (greater|less) than", message), message


@pytest.mark.parametrize(
    "change",
    [
        "learning_rate=0", "learning_rate=-1e-6", "weight_decay=-0.1", "adam_beta1=1.5", "adam_epsilon=0", "beta=-0.04",
        "max_grad_norm=-1", "temperature=0", "top_p=0", "top_p=1.1", "per_device_train_batch_size=0",
        "gradient_accumulation_steps=-1", "num_iterations=0", "max_completion_length=0", "epsilon=0", "warmup_steps=-3",
    ],
)  # fmt: skip
def test_numbers_with_which_nothing_can_be_trained(change: str) -> None:
    name = change.partition("=")[0]
    message = refused("demo", f"grpo.{change}")
    assert re.search(rf"^--set grpo\.{name}: grpo\.{name} = \S+ must be (at least|more than) [01]", message), message


def test_packaged_recipes_load_and_go_round() -> None:
    assert {"demo", "exp1", "exp2", "exp3"} <= set(packaged())
    assert "base" not in packaged()
    for name in packaged():
        recipe = load(name)
        assert Recipe.model_validate(json.loads(to_json(recipe))) == recipe


def test_resolved_yaml_is_the_same_recipe(tmp_path: Path) -> None:
    recipe = load("exp3", ["grpo.learning_rate=2e-6"])
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    again = load(str(tmp_path / "recipe.yaml"))
    assert again == recipe
    assert again.hash == recipe.hash
    assert recipe.hash != load("exp3").hash


def test_extends_merges_key_by_key(own: Path) -> None:
    recipe = load(str(own))
    assert recipe.grpo == load("demo").grpo | {"max_steps": 25}
    assert recipe.title == "mine"


@pytest.mark.parametrize("parent", ["own", "own.yaml", "./own.yaml", "../here/own.yaml"])
def test_extends_goes_as_deep_as_needed_and_takes_names_and_files(own: Path, parent: str) -> None:
    folder = own.parent / "here"
    folder.mkdir()
    own = own.rename(folder / "own.yaml")
    (folder / "second.yaml").write_text(f"extends: {parent}\ngrpo: {{seed: 7}}\n", encoding="utf-8")
    (folder / "third.yaml").write_text("extends: second\ngrpo: {save_steps: 5}\n", encoding="utf-8")
    recipe, demo = load(str(folder / "third.yaml")), load("demo")
    assert recipe.title == "mine"
    assert (recipe.grpo["max_steps"], recipe.grpo["seed"], recipe.grpo["save_steps"]) == (25, 7, 5)
    assert recipe.grpo["learning_rate"] == demo.grpo["learning_rate"]


@pytest.mark.slow
def test_every_experiment_can_be_extended(tmp_path: Path) -> None:
    """README's line: a YAML file of your own that begins with `extends: exp3`."""
    for name in ("exp1", "exp2", "exp3", "exp2-lora", "exp3-plus", "exp3-fast", "demo"):
        path = tmp_path / f"{name}.yaml"  # called like the packaged one: it is not its own parent
        path.write_text(f"extends: {name}\ntitle: mine\n", encoding="utf-8")
        assert load(str(path)).model_copy(update={"title": ""}) == load(name).model_copy(update={"title": ""})


@pytest.mark.parametrize("length", [1, 2, 5])
def test_recipes_that_extend_each_other_in_a_circle_are_refused(tmp_path: Path, length: int) -> None:
    for n in range(length):
        (tmp_path / f"r{n}.yaml").write_text(f"extends: r{(n + 1) % length}\n", encoding="utf-8")
    circle = " -> ".join(f"r{n % length}.yaml" for n in range(length + 1))
    assert f"the recipes extend each other in a circle: {circle}" in refused(tmp_path / "r0.yaml")


def test_a_fault_in_a_recipe_far_below_is_named_with_its_file_and_line(own: Path, tmp_path: Path) -> None:
    own.write_text("extends: demo\ntitle: a\ngrpo:\n  learnin_rate: 1\n", encoding="utf-8")
    (tmp_path / "second.yaml").write_text("extends: own\n", encoding="utf-8")
    (tmp_path / "third.yaml").write_text("extends: second.yaml\n", encoding="utf-8")
    assert "own.yaml:4: TRL's GRPOConfig has no option learnin_rate" in refused(tmp_path / "third.yaml")


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("modle: {name: toy}", "own.yaml:5: there is no setting modle; did you mean model?"),
        ("prompt: {max_token: 3}", "own.yaml:5: there is no setting prompt.max_token; did you mean prompt.max_tokens?"),
        ("training: {keep_last: two}", "own.yaml:5: training.keep_last = 'two': input should be a valid integer"),
        ("evaluation: {samples: 0}", "own.yaml:5: evaluation.samples = 0: input should be greater than or equal to 1"),
        ("hardware: {layout: spilt}", "own.yaml:5: hardware.layout = 'spilt'"),
        (
            "model: {toy: {layer: 2}}",
            "own.yaml:5: there is no setting model.toy.layer; did you mean model.toy.layers?",
        ),
    ],
)
def test_a_wrong_key_or_type_is_named_with_its_line(own: Path, line: str, expected: str) -> None:
    own.write_text(own.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")
    assert expected in refused(own)


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("grpo.learnin_rate=1e-6", "TRL's GRPOConfig has no option learnin_rate; did you mean grpo.learning_rate?"),
        ("grpo.beta=high", "grpo.beta = 'high' is a str, TRL needs float"),
        ("grpo.bf16=1", "grpo.bf16 = 1 is a int, TRL needs None or bool"),
        ("grpo.num_generations=true", "grpo.num_generations = True is a bool, TRL needs None or int"),
        ("grpo.output_dir=x", "grpo.output_dir is not set here: the run directory is given by --run"),
        ("grpo.num_generations=5", "= 72 completions cannot be cut into groups of grpo.num_generations = 5"),
        ("grpo.num_generations=1", "an advantage compares at least 2 completions"),
        ("prompt.max_tokens=4060", "prompts of 4060 and completions of 40 tokens do not fit into model.context = 4096"),
        ("prompt.user=hello", "prompt.user must contain {problem}"),
        ("grpo.adam_beta1=1", "grpo.adam_beta1 = 1 must be at least 0 and below 1"),
        ("grpo.top_k=-3", "grpo.top_k = -3 must be at least 0"),
        ("grpo.loss_type=bnop", "grpo.loss_type = 'bnop' is unknown; did you mean bnpo"),
        ("grpo.scale_rewards=foo", "grpo.scale_rewards = 'foo' is unknown; take one of group, batch, none"),
        ("grpo.optim=adamw_toch", "grpo.optim = 'adamw_toch' is unknown; did you mean adamw_torch"),
        ("grpo.generation_kwargs={temperature: 0}", "grpo.generation_kwargs.temperature = 0 must be a number above 0"),
        (
            "grpo.generation_kwargs={temperature: .nan}",
            "grpo.generation_kwargs.temperature = nan is not a finite number",
        ),
        ("grpo.max_steps=0", "grpo.max_steps must be set"),
        ("grpo.save_steps=2.5", "grpo.save_steps = 2.5 must be a whole number"),
        ("training.stop_after=1000", "training.stop_after = 1000 is beyond grpo.max_steps = 200"),
        ("training.keep_every=70", "training.keep_every = 70 is not a multiple of grpo.save_steps = 100"),
        ("model.name=some/model", "model some/model needs a revision"),
        ("data.source=some/data", "data set some/data needs a revision"),
        ("data.answer_template=x", "data.answer_template must contain {answer}"),
        ("hardware.layout=split", "layout split needs a GPU for generation"),
        ("hardware.gpus=2", "layout single uses one GPU, hardware.gpus = 2"),
        ("evaluation.max_tokens=5000", "evaluation.max_tokens = 5000 does not fit into model.context = 4096"),
        ("model.toy.heads=5", "model.toy.hidden = 96 cannot be cut into 5 heads"),
        ("rewards.functions=[{name: format}, {name: format}]", "reward format is listed twice"),
        ("rewards.functions=[{name: x, wieght: 1}]", "did you mean rewards.functions.0.weight?"),
        ("gropo.beta=1", "--set gropo.beta: there is no setting gropo; did you mean grpo?"),
        ("nonsense", "--set nonsense: not KEY=VALUE"),
        ("title.x=1", "nothing can be set inside it"),
    ],
)
def test_settings_that_cannot_work_are_refused(override: str, expected: str) -> None:
    assert expected in refused("demo", override)


def test_samples_at_temperature_zero() -> None:
    message = refused("demo", "evaluation.temperature=0", "evaluation.samples=4")
    assert "4 samples at temperature 0 are 4 copies of one" in message


@pytest.mark.parametrize("key", ["rewards.functions", "evaluation.benchmarks", "training.trackers", "rewards"])
@pytest.mark.parametrize("value", ["[{}]", "[null]", "[[]]", "7"])
def test_a_fault_inside_of_what_replaces_a_value_of_the_recipe_below_is_the_own_files(
    tmp_path: Path, key: str, value: str
) -> None:
    """The recipe below has other values at the same places, with lines of their own."""
    (tmp_path / "own.yaml").write_text(
        "extends: demo\n" + "{}: {{{}: ".format(*key.split(".")) + value + "}\n"
        if "." in key
        else f"extends: demo\n{key}: {value}\n"
    )
    message = refused(tmp_path / "own.yaml")
    assert message.startswith("own.yaml:2: "), message
    assert "demo.yaml:" not in message


def test_all_faults_in_one_message(own: Path) -> None:
    own.write_text("extends: demo\nmodle: 1\nprompt: {max_token: 3}\n", encoding="utf-8")
    message = refused(own)
    assert "modle" in message
    assert "max_token" in message


def test_files_that_are_no_recipes(tmp_path: Path) -> None:
    assert "there is no recipe called dmeo" in refused("dmeo")
    assert "did you mean demo?" in refused("dmeo")
    assert "there is no recipe file" in refused(tmp_path / "none.yaml")
    path = tmp_path / "bad.yaml"
    path.write_text("a: [1,\n", encoding="utf-8")
    assert refused(path).startswith("bad.yaml:2: not YAML")
    path.write_text("- 1\n", encoding="utf-8")
    assert "bad.yaml:1: the top of the file is a list" in refused(path)
    path.write_text("extends: demo\ntitle: a\ntitle: b\n", encoding="utf-8")
    assert "bad.yaml:3: `title` is written twice (first at bad.yaml:2)" in refused(path)
    path.write_text("extends: nothing\n", encoding="utf-8")
    assert "bad.yaml:1: there is no recipe nothing to extend" in refused(path)
    path.write_bytes(b"\xff\xfe")
    assert "bad.yaml:1: not UTF-8" in refused(path)


def test_numbers_without_a_dot_are_numbers() -> None:
    assert load("demo", ["grpo.learning_rate=2e-6"]).grpo["learning_rate"] == 2e-6


def test_prompts_come_from_files_byte_for_byte(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_bytes(b"two  spaces, \\boxed{{}}\r\nno end of line")
    path = tmp_path / "own.yaml"
    path.write_text('extends: demo\nprompt: {system: "@system.txt"}\n', encoding="utf-8")
    assert load(str(path)).prompt.system == "two  spaces, \\boxed{{}}\r\nno end of line"
    path.write_text('extends: demo\nprompt:\n  system: "@none.txt"\n', encoding="utf-8")
    assert refused(path).startswith("own.yaml:3: ")


def test_hub_names() -> None:
    assert is_hub_name("Qwen/Qwen2.5-1.5B")
    for path in ("./a/b", "/a/b", "a", "a/b/c", "~/a", "data/rows.jsonl", "data/rows.parquet"):
        assert not is_hub_name(path), path


def test_the_paper_in_numbers() -> None:
    """paper.md section 1: what the recipes share and where they differ."""
    exp1, exp2, exp3 = (load(name) for name in ("exp1", "exp2", "exp3"))
    assert {key for key, _, _ in diff(exp2, exp3)} == {
        "title",
        "prompt.system",
        "rewards.functions",
        "paper.experiment",
    }
    lengths = [recipe.grpo["max_completion_length"] for recipe in (exp1, exp2, exp3)]
    assert lengths == [4096, 3584, 3584]
    assert [recipe.paper.released_step for recipe in (exp1, exp2, exp3)] == [100, 50, 50]
    for recipe in (exp1, exp2, exp3):
        assert prompts_per_step(recipe) == 12
        assert recipe.rewards.mode == "paper"
        assert recipe.model.revision == "ad9f0ae0864d7fbcd1cd905e3c6c5b069cc8b562"
        assert (recipe.grpo["beta"], recipe.grpo["loss_type"], recipe.grpo["temperature"]) == (0.04, "bnpo", 1.0)
        assert recipe.grpo["generation_kwargs"] == {"temperature": 0.7}
    split = load("exp3", ["hardware.layout=split", "grpo.gradient_accumulation_steps=4"])
    assert (split.hardware.world_size, prompts_per_step(split)) == (3, 12)
    reward = {reward.name: (reward.weight, reward.args) for reward in exp3.rewards.functions}
    assert reward["format"] == (1.0, {})
    assert reward["cosine"][0] == 2.0
    assert reward["cosine"][1]["max_len"] == 3584


@pytest.mark.slow
def test_every_default_that_changed_is_written_out() -> None:
    """stack.md section 5: options that are not neutral by default in TRL 1.16."""
    changed = (
        "beta loss_type use_bias_correction_kl vllm_importance_sampling_correction temperature max_completion_length"
        " vllm_gpu_memory_utilization bf16 gradient_checkpointing optim average_tokens_across_devices"
        " lr_scheduler_kwargs scale_rewards importance_sampling_level mask_truncated_completions top_p top_k"
        " repetition_penalty"
    )
    for name in ("exp1", "exp2", "exp3"):
        assert not [option for option in changed.split() if option not in load(name).grpo]


@pytest.mark.parametrize("name", ["exp1", "exp2", "exp3", "demo", "exp2-lora", "exp3-plus", "exp3-fast"])
def test_each_recipe_opens_with_its_departures(name: str) -> None:
    text = (Path(__file__).parents[2] / "openrs" / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
    head = text.partition("\ntitle:")[0]
    starts = [line[1:].strip().partition(". ")[0] for line in head.splitlines()]
    numbers = [start for start in starts if start.isdigit()]
    assert numbers == [str(n + 1) for n in range(len(numbers))]
    assert len(numbers) >= (2 if name == "exp3-fast" else 5)


def test_recipes_and_help_never_import_torch() -> None:
    code = (
        "import sys, openrs.config.load, openrs.config.checks, openrs.cli.main;"
        "openrs.config.load.load('exp3'); openrs.cli.main.parser().format_help();"
        "print(sorted(m for m in ('torch', 'transformers', 'trl', 'numpy', 'datasets') if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_another_temperature_in_sampling_than_in_the_loss_must_be_meant_where_trl_would_correct_for_it(
    tmp_path: Path,
) -> None:
    """`extends: demo` with use_vllm took TRL's default: sampled at 0.7, weighted at 1.0, a fifth of the gradient."""
    path = tmp_path / "own.yaml"
    sampled = "grpo: {use_vllm: true, temperature: 1.0, generation_kwargs: {temperature: %s}%s}\n"
    silent = load("demo").grpo
    assert silent["vllm_importance_sampling_correction"] is False
    silent.pop("vllm_importance_sampling_correction")
    base = yaml.safe_dump(load("demo").model_dump() | {"grpo": silent})
    (tmp_path / "silent.yaml").write_text(base, encoding="utf-8")
    path.write_text("extends: silent\n" + sampled % (0.7, ""), encoding="utf-8")
    assert "sampled at temperature 0.7 and weighted at 1: by TRL's default" in refused(path)
    for temperature, said in ((1.0, ""), (0.7, ", vllm_importance_sampling_correction: true"),
                              (0.7, ", vllm_importance_sampling_correction: false")):  # fmt: skip
        path.write_text("extends: silent\n" + sampled % (temperature, said), encoding="utf-8")
        assert load(str(path)).grpo["use_vllm"] is True


@pytest.mark.parametrize("text", ["12e4567", "1e3", "1e-6", "010", "0x1f", "1:30", "2026-11-28", "yes", "null", ".5"])
def test_a_text_that_looks_like_a_number_is_the_same_text_when_it_is_read_again(tmp_path: Path, text: str) -> None:
    recipe = load("demo", [f"data.revision='{text}'"])
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert load_resolved(tmp_path / "recipe.yaml").data.revision == text
