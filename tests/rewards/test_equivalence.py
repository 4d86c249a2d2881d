"""The corrected judge: pairs of known truth, the shared hard cases, hostile text; and the paper's rules beside it."""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from openrs.rewards import extraction, normalize, numerals
from openrs.rewards.equivalence import equivalent
from openrs.rewards.extraction import answer_in, as_continued, gold_in
from openrs.rewards.grading import Item, Judge, Rule
from openrs.rewards.references import reference_kinds, safe_form

HERE = Path(__file__).parent
sys.path.append(str(HERE.parents[1] / "benchmarks"))
from judge_pairs import KINDS, completion, pairs  # noqa: E402


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(workers=2, timeout=60) as shared:  # a machine under load must not turn a verdict into a time-out here
        yield shared


# --- known truth ------------------------------------------------------------------------------------------------------


def count_errors(judge: Judge, seed: int, count: int) -> tuple[Counter[tuple[str, bool]], list[str], int, int]:
    rng = random.Random(seed)
    drawn = list(pairs(seed, count))
    assert {pair.kind for pair in drawn} == set(KINDS)
    grades = judge.grade([Item(f"${pair.gold}$", completion(pair, rng), Rule.CORRECTED) for pair in drawn])
    wrong = [pair for pair, grade in zip(drawn, grades, strict=True) if (grade.verdict == "correct") != pair.right]
    right = sum(pair.right for pair in drawn)
    return Counter((pair.kind, pair.right) for pair in wrong), [str(pair) for pair in wrong], right, len(drawn) - right


@pytest.mark.slow
def test_pairs_of_known_truth(judge: Judge) -> None:
    _, wrong, right, other = count_errors(judge, 20, 600)
    assert min(right, other) > 200
    assert wrong == []


@pytest.mark.soak
@pytest.mark.limits(processor=1500)
def test_ten_thousand_pairs(judge: Judge) -> None:
    counts, wrong, right, other = count_errors(judge, 2026, 12_000)
    refused = sum(number for (_, truth), number in counts.items() if truth)
    accepted = sum(number for (_, truth), number in counts.items() if not truth)
    assert accepted < 0.001 * other, wrong
    assert refused < 0.01 * right, wrong


@pytest.mark.parametrize("form", ["${}$", r"\boxed{{{}}}", "{}"])
def test_shared_hard_cases(judge: Judge, shared_data: Path, form: str) -> None:
    path = shared_data / "judge_cases.jsonl"
    if not path.is_file():
        pytest.skip("judge_cases.jsonl is not in the shared data")
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    items = [Item(form.format(case["gold"]), case["completion"], Rule.CORRECTED) for case in cases]
    grades = judge.grade(items)
    wrong = [c["id"] for c, grade in zip(cases, grades, strict=True) if (grade.verdict == "correct") != c["right"]]
    assert len(cases) >= 93
    assert wrong == []


@pytest.mark.parametrize(
    ("gold", "answer", "right"),
    [
        # one of each convention of docs/judging.md
        ("0.35", r"35\%", True),
        ("0.35", r"0.35\%", False),
        (r"12\text{ inches}", "12", True),
        (r"1\text{ m}", r"1\text{ cm}", False),
        ("5m", "5", False),
        ("5", "5 m", True),
        (r"5\text{ kg}", r"5\text{ m}", False),
        ("23:17", "46:34", True),
        ("10:15", "10:16", False),
        ("4:30 PM", "4086462", False),
        ("1/406", "4:30 PM", False),
        (r"\sqrt{2}", "1.414", False),
        (r"\frac13", "0.333333333333", True),
        ("[1,2]", "(1,2)", False),
        (r"\{1,2\}", "(2,1)", True),
        ("(2,1)", "1,2", False),
        ("x=5", "y=5", False),
        ("y=2x+7", "f(x)=2x+7", True),
        ("2x+1>3", r"(1,\infty)", True),
        ("|x|<2", "(-2,2)", True),
        (r"x \ne 3", r"\mathbb{R}\setminus\{3\}", True),
        (r"\begin{cases} x=1 \\ y=2 \end{cases}", "(1,2)", True),
        (r"3\text{ million}", "3{,}000{,}000", True),
        (r"\text{at least }5", "5", False),
        ("51_{(10)} = 201_{(5)}", "201_{5}", True),
        ("201_{5}", "51_{(10)} = 201_{(5)}", True),
        ("201_{5}", "52_{(10)} = 201_{(5)}", False),
        (r"\cos 20^\circ", r"\cos\frac{\pi}{9}", True),
        ("2^{2^{40}}", "2^{2^{40}}", True),
        ("2^{2^{40}}", "2^{2^{41}}", False),
    ],
)
def test_conventions(gold: str, answer: str, right: bool) -> None:
    assert equivalent(gold, answer) is right


def test_a_thought_without_end_holds_no_answer(judge: Judge) -> None:
    texts = {
        "<think>\n\\boxed{42}": "no_answer",
        as_continued("...<think>\n", r"so \boxed{42}"): "no_answer",
        as_continued("...<think>\n", "so \\boxed{41}\n</think>\nThe answer is $42$."): "correct",
        as_continued("no thought", r"\boxed{42}"): "correct",
        as_continued("<think> and </think> are for thoughts", r"\boxed{42}"): "correct",
        "\\boxed{42}\n</think>\nIt is \\boxed{43}.": "incorrect",
    }
    grades = judge.grade([Item("$42$", text, Rule.CORRECTED) for text in texts])
    assert [str(grade.verdict) for grade in grades] == list(texts.values())


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (r"\boxed{27} and \boxed{64}", "27, 64"),
        (r"\boxed{3} no, \boxed{7}", "7"),
        (r"\boxed{42}, cut: \boxed{4", "42"),
        (r"cut: \boxed{4", ""),
        (r"forgot $\boxed{\frac{1}{2}$.", r"\frac{1}{2}"),
        (r"\boxed{\text{a\}b}}", r"\text{a\}b}"),
        ("The answer is 42.", "42"),
        ("I think it is $4$", ""),
        ("**Final Answer**\n\n$(1,2)$ and $(3,4)$", "(1,2)  and  (3,4)"),
    ],
)
def test_where_the_answer_stands(text: str, found: str) -> None:
    assert answer_in(text) == found


# --- reference answers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("reference", "kinds", "safe"),
    [
        ("4.5e33", ["e-notation"], r"4.5\times 10^{33}"),
        ("12:00", ["time"], "12:00"),
        ("2516_8", ["base"], "2516_8"),
        (r"35\%", ["percent"], r"35\%"),
        ("1,2", ["multi-part"], "1,2"),
        (r"11,\! 111", ["thousands marks"], "11111"),
        ("110,143,242", [], "110,143,242"),  # may be three numbers
        (r"0.\overline{6}", ["recurring"], r"\frac{6}{9}"),
        ("１５", ["other characters"], "15"),
        (r"\frac12", [], r"\frac12"),
    ],
)
def test_kinds_of_references(reference: str, kinds: list[str], safe: str) -> None:
    assert reference_kinds(reference) == kinds
    assert safe_form(reference) == safe
    assert equivalent(reference, safe)


@pytest.mark.parametrize("mark", ["and", "or", "AND", "OR", r"\text{and}", r"\mathrm{or}", ",", ";"])
@pytest.mark.parametrize("form", ["{}", "{0} {0}", "${}$", r"\boxed{{{}}}", "({})", "1, {}, {}"])
def test_what_joins_a_list_may_stand_alone(mark: str, form: str) -> None:
    """A word like `or` is the whole answer of a question about logic: no error in the judge, which cost a worker."""
    text = form.format(mark, mark)
    assert equivalent(text, text) or not any(c.isalnum() for c in text)
    assert not equivalent(text, r"\frac{1}{7}")
    assert not equivalent("(-3, 5]", text)
    assert set(reference_kinds(text)) <= {"multi-part"}


@pytest.mark.slow
def test_minerva_has_58_references_in_e_notation(shared_data: Path) -> None:
    rows = [json.loads(line) for line in (shared_data / "benchmarks" / "minerva.jsonl").read_text().splitlines()]
    assert sum("e-notation" in reference_kinds(row["solution"]) for row in rows) == 58


# --- the paper's rules ------------------------------------------------------------------------------------------------


def real_pairs(shared_data: Path, count: int) -> list[tuple[str, str]]:
    """Real references, each with itself, with another one, and bare, as an answer."""
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(shared_data / "training" / "deepscaler_part1.parquet", columns=["reward_model"])
    golds = list(dict.fromkeys(str(row["ground_truth"]) for row in table.column("reward_model").to_pylist()))
    golds = random.Random(17).sample(golds, count)
    found = []
    for number, gold in enumerate(golds):
        other = golds[number - 1]
        found.append((f"${gold}$", rf"</think> so $\boxed{{{gold if number % 2 else other}}}$"))
        found.append((f"${gold}$", rf"The final answer is \boxed{{{other if number % 2 else gold}}}"))
    return found


def judged_as_published(judge: Judge, items: list[tuple[str, str]]) -> int:
    script = [sys.executable, str(HERE / "published_reward.py")]
    done = subprocess.run(script, input=json.dumps(items) + "\n", capture_output=True, text=True, check=True)
    published = json.loads(done.stdout)
    for place, rule in enumerate((Rule.PAPER, Rule.PAPER_COSINE)):
        grades = judge.grade([Item(gold, text, rule) for gold, text in items])
        paid = [float(grade.verdict in {"correct", "unparseable_gold"}) for grade in grades]
        differ = [item for item, a, b in zip(items, paid, published, strict=True) if a != b[place]]
        assert differ == []
    return sum(pair[0] == 1.0 for pair in published)


@pytest.mark.slow
def test_paper_rules_judge_real_references_as_the_published_code(judge: Judge, shared_data: Path) -> None:
    items = real_pairs(shared_data, 60)
    assert 50 <= judged_as_published(judge, items) <= 80


@pytest.mark.soak
@pytest.mark.limits(processor=1500)
def test_paper_rules_on_2000_real_references(judge: Judge, shared_data: Path) -> None:
    items = real_pairs(shared_data, 2000)
    assert 1900 <= judged_as_published(judge, items) <= 2300


@pytest.mark.slow
@pytest.mark.limits(processor=1500)
@pytest.mark.parametrize("count", [60, pytest.param(2000, marks=pytest.mark.soak)])
def test_real_references_are_equal_to_themselves_alone(count: int, judge: Judge, shared_data: Path) -> None:
    items = real_pairs(shared_data, count)
    grades = judge.grade([Item(gold, text, Rule.CORRECTED) for gold, text in items])
    for (gold, text), grade in zip(items, grades, strict=True):
        itself = rf"\boxed{{{gold[1:-1]}}}" in text
        assert (grade.verdict == "correct") == itself or equivalent(gold_in(gold), answer_in(text)), (gold, text)


# --- hostile text -----------------------------------------------------------------------------------------------------

SPECIAL = [chr(code) for code in range(32, 127) if not chr(code).isalnum()]
SPECIAL += [
    "1",
    "a",
    "\n",
    "１",
    "²",
    "1,",
    "0.1",
    "e1",
    "{,}",
    "$1$ and ",
    "answer ",
    "percent",
    "<think>",
    "</think>",
]
SPECIAL += [rf"\{name}" for name in ("frac", "sqrt", "text{", "boxed{", "boxed", "left(", "overline{", "begin{", "pm")]
FUNCTIONS = (
    normalize.characters, normalize.commands, normalize.words, normalize.arguments, normalize.percents,
    numerals.thousands, numerals.recurring, numerals.scientific,
)  # fmt: skip
MEGABYTE = 1_000_000
OF_EACH = int(os.environ.get("OPENRS_SPECIAL_BYTES", MEGABYTE))  # an eighth: a few minutes


@pytest.mark.slow
@pytest.mark.limits(processor=120)
@pytest.mark.parametrize("function", [extraction.answer_in, extraction.gold_in], ids=lambda function: function.__name__)
def test_a_megabyte_of_every_special_character_is_searched_once(function) -> None:
    for part in SPECIAL:
        assert isinstance(function(part * (MEGABYTE // len(part))), str)


@pytest.mark.slow
@pytest.mark.limits(processor=120)
def test_a_megabyte_of_all_special_characters_is_normalized_once() -> None:
    text = "".join(random.Random(0).choices(SPECIAL, k=MEGABYTE // 3))
    for function in FUNCTIONS:
        assert isinstance(function(text), str)


@pytest.mark.soak
@pytest.mark.limits(processor=3000)
@pytest.mark.parametrize("function", FUNCTIONS, ids=lambda function: function.__name__)
def test_a_megabyte_of_every_special_character_is_normalized_once(function) -> None:
    for part in SPECIAL:
        assert isinstance(function(part * (OF_EACH // len(part))), str)


@pytest.mark.slow
def test_slow_latex_is_judged_inside_the_limits(judge: Judge) -> None:
    slow = [json.loads(line)["text"] for line in (HERE / "slow_latex.jsonl").read_text().splitlines()]
    with Judge(2, timeout=2) as strict:
        other = strict.grade([Item("$5$", text, Rule.CORRECTED) for text in slow])
    with Judge(2, timeout=5) as strict:
        itself = strict.grade([Item(f"${text[7:-1]}$", text, Rule.CORRECTED) for text in slow])
    assert {str(grade.verdict) for grade in other} <= {"incorrect", "timeout"}
    assert {str(grade.verdict) for grade in itself} == {"correct"}
