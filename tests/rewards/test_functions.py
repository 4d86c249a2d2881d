"""The rewards in both modes: the numbers of the paper's code and its defects, with the real judge."""

import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from openrs.errors import UserError
from openrs.rewards.functions import Cosine, RewardSet, build_rewards
from openrs.rewards.grading import Grade, Item, Judge, Rule, Verdict


@dataclass(frozen=True)
class Spec:
    name: str
    weight: float = 1.0
    args: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=2, timeout=60) as shared:
        yield shared


def ask(rewards: RewardSet, completions: Sequence[str], golds: Sequence[str], tokens: Sequence[int] = ()) -> list[Any]:
    """Judge, and call every function as TRL does (grpo_trainer.py, _calculate_rewards), one result list each."""
    prompts = ["p"] * len(golds)
    columns = {"gold": golds, "id": ["x"] * len(golds), "verdicts": rewards.judge(completions, golds, prompts)}
    columns |= {"prompts": prompts, "completions": completions, "trainer_state": None}
    columns |= {"completion_ids": [[0] * n for n in tokens or map(len, completions)], "log_extra": print}
    return [function(**columns, log_metric=print) for function in rewards.functions]


def only(judge: Judge, mode: Any, name: str, completion: str, gold: str, tokens: int = 1, **args: Any) -> float | None:
    value: float | None = ask(build_rewards([Spec(name, args=args)], mode, judge), [completion], [gold], [tokens])[0][0]
    return value


def padded(ending: str, characters: int) -> str:
    return "." * (characters - len(ending)) + ending


# --- accuracy ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gold", "completion", "paper", "corrected"),
    [
        ("$4$", r"\boxed{4}", 1.0, 1.0),
        ("$4$", r"\boxed{5}", 0.0, 0.0),
        ("$4$", "no idea", 0.0, 0.0),
        ("4", r"\boxed{4}", 1.0, 1.0),  # first defect: a gold without dollars or box can't be parsed ...
        ("4", r"\boxed{7}", 1.0, 0.0),  # ... and pays for any answer ...
        ("4", "", 1.0, 0.0),  # ... or none
        (" ", r"\boxed{4}", 1.0, None),  # a gold that nobody can read
        ("$5$", r"\boxed{2+3=5}", 0.0, 1.0),  # second defect: verify(answer, gold)
        (r"$\frac{x^2}{4}+y^2=1$", r"\boxed{1}", 1.0, 0.0),
    ],
)
def test_accuracy(judge: Judge, gold: str, completion: str, paper: float, corrected: float | None) -> None:
    assert only(judge, "paper", "accuracy", completion, gold) == paper
    assert only(judge, "corrected", "accuracy", completion, gold) == corrected


# --- format -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["paper", "corrected"])
@pytest.mark.parametrize(
    ("completion", "value"),
    [
        ("thought\n</think>\nanswer", 1.0),
        ("\n</think>\n", 1.0),
        ("thought</think>\nanswer", 0.0),
        ("thought\n</think> answer", 0.0),
        ("thought\n</think>", 0.0),
        ("a\n</think>\nb\n</think>\nc", 0.0),
        ("a\n</think>\n</think>\nb", 1.0),  # occurrences do not overlap: str.count finds one
        ("", 0.0),
    ],
)
def test_format(judge: Judge, mode: Any, completion: str, value: float) -> None:
    assert only(judge, mode, "format", completion, "$4$") == value


# --- cosine -----------------------------------------------------------------------------------------------------------

PAPER_TABLE = [  # characters, correct, wrong: at max_len 3584, shared/reference/paper.md, "The rewards as coded"
    (1_792, 0.75, -0.25),
    (3_584, 0.50, -0.50),
    (7_168, 1.00, 0.00),
    (10_752, 0.50, -0.50),
    (14_336, 1.00, 0.00),
]


@pytest.mark.parametrize(("characters", "correct", "wrong"), PAPER_TABLE)
def test_cosine_as_published_counts_characters_and_wraps(
    judge: Judge, characters: int, correct: float, wrong: float
) -> None:
    rewards = build_rewards([Spec("cosine", args={"max_len": 3584})], "paper", judge)
    right, bad = padded(r"\boxed{4}", characters), padded(r"\boxed{5}", characters)
    assert ask(rewards, [right, bad], ["$4$"] * 2, tokens=[9, 9])[0] == pytest.approx([correct, wrong], abs=1e-12)
    drained = rewards.stats.drain()
    assert drained["judge/cosine_beyond"] == 2 * (characters > 3584)
    assert drained["judge/cosine_wraps"] == 2 * (characters > 7168)


def test_cosine_at_no_length() -> None:
    curve = Cosine(3584)
    assert (curve.value(True, 0), curve.value(False, 0)) == (1.0, 0.0)


def test_empty_completion_pays_nothing_as_published(judge: Judge) -> None:
    assert only(judge, "paper", "cosine", "", "$4$", max_len=3584) == 0.0


@pytest.mark.parametrize("length", [0, 1, 777, 3583, 3585, 9_999, 123_456])
@pytest.mark.parametrize(("correct", "low", "high"), [(True, 0.5, 1.0), (False, -0.5, 0.0)])
def test_cosine_equals_the_published_arithmetic_to_the_last_bit(
    length: int, correct: bool, low: float, high: float
) -> None:
    """progress = length / max_len; min + 0.5 * (max - min) * (1 + cos(progress * pi)), in this order of operations."""
    progress = length / 3584
    expected = low + 0.5 * (high - low) * (1.0 + math.cos(progress * math.pi))
    assert Cosine(3584).value(correct, length).hex() == expected.hex()


@pytest.mark.parametrize(
    ("tokens", "correct", "wrong"),
    [(1_792, 0.75, -0.25), (3_584, 0.5, -0.5), (3_585, 0.5, -0.5), (7_168, 0.5, -0.5), (0, 1.0, 0.0)],
)
def test_cosine_corrected_counts_tokens_and_is_clamped(judge: Judge, tokens: int, correct: float, wrong: float) -> None:
    rewards = build_rewards([Spec("cosine", args={"max_len": 3584})], "corrected", judge)
    right, bad = padded(r"\boxed{4}", 10_000), padded(r"\boxed{5}", 10_000)
    found = ask(rewards, [right, bad], ["$4$"] * 2, tokens=[tokens or 1] * 2)[0]
    if tokens:
        assert found == pytest.approx([correct, wrong], abs=1e-12)
    drained = rewards.stats.drain()
    assert drained["judge/cosine_beyond"] == 2 * (tokens > 3584)
    assert drained["judge/cosine_wraps"] == 0


def test_cosine_defects_and_their_mending(judge: Judge) -> None:
    long = padded(r"\boxed{7}", 3584)
    assert only(judge, "paper", "cosine", long, "4", max_len=3584) == 1.0  # unparseable gold: 1.0, not the curve
    assert only(judge, "corrected", "cosine", long, " ", max_len=3584) is None
    swapped = padded(r"\boxed{2+3=5}", 3584)
    assert only(judge, "paper", "cosine", swapped, "$5$", max_len=3584) == pytest.approx(-0.5)
    assert only(judge, "corrected", "cosine", swapped, "$5$", tokens=3584, max_len=3584) == pytest.approx(0.5)
    unit = padded(r"$\boxed{12 \text{ cm}}$", 3584)  # the cosine alone leaves this box shut
    assert only(judge, "paper", "cosine", unit, "$12$", max_len=3584) == pytest.approx(-0.5)
    assert only(judge, "paper", "accuracy", unit, "$12$") == 1.0
    assert only(judge, "corrected", "cosine", unit, "$12$", tokens=3584, max_len=3584) == pytest.approx(0.5)


def test_cosine_takes_other_values() -> None:
    paper_text = Cosine(100, min_value_wrong=-0.5, max_value_wrong=0.0)  # as the text has it: short and wrong is worst
    assert (paper_text.value(False, 0), paper_text.value(False, 100)) == (-0.5, 0.0)
    assert Cosine(100, min_value_correct=0.0, max_value_correct=2.0).value(True, 50) == pytest.approx(1.0)


# --- what a time-out and a crash pay ----------------------------------------------------------------------------------


class Scripted(Judge):
    """A mock: a judge that gives the verdict named by the completion's first word, since a crash can't be had to
    order."""

    asked: list[Item]

    def grade(self, items: Sequence[Item]) -> list[Grade]:
        self.asked = [*getattr(self, "asked", []), *items]
        return [Grade(Verdict(item.completion.split()[0]), "", "", 0.0) for item in items]


@pytest.mark.parametrize("verdict", ["timeout", "crash"])
@pytest.mark.parametrize("mode", ["paper", "corrected"])
def test_timeout_and_crash_pay_as_a_wrong_answer(mode: Any, verdict: str) -> None:
    specs = [Spec("accuracy"), Spec("cosine", args={"max_len": 10})]
    for name, of_accuracy, of_cosine in ((verdict, 0.0, -0.5), ("incorrect", 0.0, -0.5), ("correct", 1.0, 0.5)):
        found = ask(build_rewards(specs, mode, Scripted()), [name.ljust(10)], ["$4$"], [10])
        assert found == [[of_accuracy], [pytest.approx(of_cosine)]]


@pytest.mark.slow
def test_a_real_timeout_pays_nothing() -> None:
    with Judge(workers=1, timeout=2.0) as judge:
        rewards = build_rewards([Spec("accuracy")], "paper", judge)
        assert ask(rewards, [r"\boxed{3^{1000000000}}", r"\boxed{5}"], ["$5$"] * 2) == [[0.0, 1.0]]
    assert rewards.stats.timeouts == 1


# --- once a batch, and the counts -------------------------------------------------------------------------------------


def test_each_completion_is_judged_once_a_batch() -> None:
    judge = Scripted()
    rewards = build_rewards([Spec("accuracy"), Spec("format"), Spec("cosine", args={"max_len": 9})], "corrected", judge)
    batch = ["correct", "timeout", "correct", "no_answer"]
    ask(rewards, batch, ["a", "a", "a", "a"])
    assert [item.completion for item in judge.asked] == ["correct", "timeout", "no_answer"]
    ask(rewards, batch, ["a", "b", "b", "a"])  # other golds: asked again
    assert len(judge.asked) == 3 + 4
    ask(rewards, batch, ["a", "b", "b", "a"])  # the same texts once more are a new batch
    assert len(judge.asked) == 3 + 4 + 4
    assert rewards.stats.completions == 3 * 4
    assert {item.rule for item in judge.asked} == {Rule.CORRECTED}


def test_paper_mode_asks_each_rule_once_and_counts_a_completion_once() -> None:
    judge = Scripted()
    rewards = build_rewards([Spec("accuracy"), Spec("cosine", args={"max_len": 9})], "paper", judge)
    ask(rewards, ["unparseable_gold", "timeout", "crash", "no_answer", "correct", "incorrect", "crash"], ["g"] * 7)
    assert [item.rule for item in judge.asked] == [Rule.PAPER] * 6 + [Rule.PAPER_COSINE] * 6
    drained = rewards.stats.drain()
    assert drained.pop("judge/seconds") > 0
    assert drained == {
        "judge/completions": 7,
        "judge/correct": 1,
        "judge/unparseable_golds": 1,
        "judge/no_answers": 1,
        "judge/timeouts": 1,
        "judge/crashes": 2,
        "judge/cosine_beyond": 1,  # "unparseable_gold" has 16 characters
        "judge/cosine_wraps": 0,
    }
    assert set(rewards.stats.drain().values()) == {0.0}


# --- the registry -----------------------------------------------------------------------------------------------------


def test_names_weights_and_order() -> None:
    specs = [Spec("format", 1), Spec("cosine", 2.0, {"max_len": 3584}), Spec("accuracy", 0.5)]
    rewards = build_rewards(specs, "paper", Scripted())
    assert [function.__name__ for function in rewards.functions] == ["format", "cosine", "accuracy"]
    assert rewards.weights == [1.0, 2.0, 0.5]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (Spec("acuracy"), "did you mean accuracy"),
        (Spec("length"), "module:function"),
        (Spec("accuracy", args={"max_len": 1}), "unknown argument max_len"),
        (Spec("format", args={"a": 1}), "takes none"),
        (Spec("cosine"), "max_len is missing"),
        (Spec("cosine", args={"max_length": 3584}), "did you mean max_len"),
        (Spec("cosine", args={"max_len": 0}), "above 0"),
        (Spec("cosine", args={"max_len": "3584"}), "not a number"),
        (Spec("cosine", args={"max_len": 9, "min_value_wrong": math.nan}), "not a number"),
        (Spec("nowhere_at_all:f"), "No module named 'nowhere_at_all'"),
        (Spec("json:nothing"), "nothing is not there"),
        (Spec("json:__name__"), "not callable"),
        (Spec(":f"), "unknown reward"),
        (Spec("json:"), "unknown reward"),
    ],
)
def test_bad_rewards_are_refused(spec: Spec, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_rewards([spec], "paper", Scripted())


def test_doubled_names_are_refused() -> None:
    with pytest.raises(UserError, match="two rewards are called format"):
        build_rewards([Spec("format"), Spec("format")], "paper", Scripted())


OWN = """
import sibling_of_mine
def short(prompts, completions, completion_ids, gold, limit=3, **columns):
    return [sibling_of_mine.PAYS if len(text) <= limit else None for text in completions]
"""


@pytest.mark.slow
def test_own_function_from_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_mine.py").write_text(OWN)
    (tmp_path / "sibling_of_mine.py").write_text("PAYS = 0.25\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", ["/"])  # nothing of the folder is there by chance
    rewards = build_rewards([Spec("rewards_of_mine:short", 3.0), Spec("format")], "paper", Scripted())
    assert ask(rewards, ["ab", "abcd"], ["$4$"] * 2) == [[0.25, None], [0.0, 0.0]]
    assert rewards.functions[0].__name__ == "short"
    wider = build_rewards([Spec("rewards_of_mine:short", args={"limit": 4})], "paper", Scripted())
    assert ask(wider, ["ab", "abcd"], ["$4$"] * 2) == [[0.25, 0.25]]
    for args, said in (({"limt": 4}, "did you mean limit"), ({"completions": []}, "unknown argument")):
        with pytest.raises(UserError, match=said):
            build_rewards([Spec("rewards_of_mine:short", args=args)], "paper", Scripted())
    (tmp_path / "broken_of_mine.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(UserError, match="not_installed_anywhere"):
        build_rewards([Spec("broken_of_mine:f")], "paper", Scripted())


@pytest.mark.slow
def test_rewards_import_neither_torch_nor_math_verify() -> None:
    heavy = ["torch", "trl", "sympy", "math_verify", "numpy"]
    code = f"import sys, openrs.rewards.functions; print([name for name in {heavy} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


# --- inside TRL -------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_trl_leaves_none_out_of_the_sum(judge: Judge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One real step of GRPOTrainer on two groups of six; the gold of one can't be parsed, so there length alone
    counts."""
    torch = pytest.importorskip("torch")
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM
    from trl import GRPOConfig, GRPOTrainer

    torch.manual_seed(0)
    vocabulary = {token: n for n, token in enumerate(["<eos>", *"abcdefg"])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="a"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    config = Qwen2Config(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1,
                         num_key_value_heads=1, eos_token_id=0, pad_token_id=0, bos_token_id=None)  # fmt: skip
    (tmp_path / "tokens_of_mine.py").write_text(
        "def tokens(completion_ids, **_): return [len(ids) / 8 for ids in completion_ids]"
    )
    monkeypatch.chdir(tmp_path)
    rewards = build_rewards([Spec("tokens_of_mine:tokens", 0.5), Spec("accuracy", 2.0)], "corrected", judge)

    class JudgingTrainer(GRPOTrainer):
        def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, ids: Any) -> Any:
            verdicts = rewards.judge(completions, [row["gold"] for row in inputs], prompts)
            inputs = [row | {"verdicts": verdict} for row, verdict in zip(inputs, verdicts, strict=True)]
            return super()._calculate_rewards(inputs, prompts, completions, ids)

    trainer = JudgingTrainer(
        model=Qwen2ForCausalLM(config),
        reward_funcs=rewards.functions,
        processing_class=PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", pad_token="<eos>"),
        train_dataset=Dataset.from_list([{"prompt": "a", "gold": "$4$"}, {"prompt": "b", "gold": " "}]),
        args=GRPOConfig(
            output_dir=str(tmp_path),
            per_device_train_batch_size=12,
            num_generations=6,
            max_completion_length=8,
            max_steps=1,
            reward_weights=rewards.weights,
            use_cpu=True,
            bf16=False,
            report_to="none",
            save_strategy="no",
            disable_tqdm=True,
        ),
    )
    trainer.train()

    logs = {name: torch.tensor(list(values)) for name, values in trainer._logs["rewards"].items()}
    unparseable = torch.tensor([prompt == "b" for prompt in trainer._logs["prompt"]])
    assert logs["accuracy"].isnan().tolist() == unparseable.tolist()
    assert logs["accuracy"][~unparseable].tolist() == [0.0] * 6
    summed = 0.5 * logs["tokens"][unparseable]
    assert summed.std() > 0
    expected = (summed - summed.mean()) / (summed.std() + 1e-4)
    assert torch.tensor(list(trainer._logs["advantages"]))[unparseable].tolist() == pytest.approx(
        expected.tolist(), abs=1e-5
    )
    assert rewards.stats.unparseable_golds == 6


@pytest.mark.slow
def test_real_golds_without_dollars_are_mostly_unparseable(judge: Judge, shared_data: Path) -> None:
    """Why the first defect matters: DeepScaleR's answers are bare, and the published reward then pays 1.0 for
    anything."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(shared_data / "training" / "deepscaler_subset_1209.parquet", columns=["reward_model"])
    golds = [json.loads(json.dumps(row))["ground_truth"] for row in table.column("reward_model").to_pylist()][:300]
    grades = judge.grade([Item(str(gold), r"\boxed{\text{no idea}}", Rule.PAPER) for gold in golds])
    assert sum(grade.verdict == "unparseable_gold" for grade in grades) > 200
    wrapped = judge.grade([Item(f"${gold}$", rf"\boxed{{{gold}}}", Rule.CORRECTED) for gold in golds])
    assert sum(grade.verdict == "correct" for grade in wrapped) > 290


@pytest.mark.slow
def test_overlong_is_dapos_equation_13() -> None:
    spec = SimpleNamespace(name="overlong", weight=1.0, args={"max_len": 100, "cache": 20})
    (overlong,) = build_rewards([spec], "corrected", Judge(1)).functions
    lengths = [0, 80, 85, 90, 100, 101, 500]
    found = overlong(completion_ids=[[7] * n for n in lengths])
    assert found == pytest.approx([0.0, 0.0, -0.25, -0.5, -1.0, -1.0, -1.0])
    for args in ({}, {"max_len": 10}, {"max_len": 10, "cache": 20}, {"max_len": 10, "cache": 5, "x": 1}):
        with pytest.raises(UserError):
            build_rewards([SimpleNamespace(name="overlong", weight=1.0, args=args)], "paper", Judge(1))
