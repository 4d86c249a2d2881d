"""The judge's verdicts, with real math-verify and real lighteval."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import forked
import pytest

from openrs.cli import main as cli
from openrs.errors import UserError
from openrs.rewards.grade_files import grade_file
from openrs.rewards.grading import Item, Judge, Rule, Verdict, printable

HERE = Path(__file__).parent
SLOW = [json.loads(line)["text"] for line in (HERE / "slow_latex.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    # A machine under load must not turn a verdict into a time-out here, so the limit is wide.
    with Judge(workers=2, timeout=60) as shared:
        yield shared


def verdicts(judge: Judge, gold: str, completion: str) -> dict[Rule, Verdict]:
    return {
        rule: grade.verdict
        for rule, grade in zip(Rule, judge.grade([Item(gold, completion, r) for r in Rule]), strict=True)
    }


TRAINING = (Rule.PAPER, Rule.PAPER_COSINE, Rule.CORRECTED)


@pytest.mark.parametrize(
    ("gold", "completion", "expected"),
    [
        ("$4$", r"so \boxed{4}", "correct"),
        ("$4$", r"so \boxed{5}", "incorrect"),
        (r"\boxed{\frac{1}{2}}", "thus\n\\[\n\\boxed{0.5}\n\\]", "correct"),
        ("so the answer is $7$", r"\boxed{3} ... no, wait ... \boxed{7}", "correct"),  # the last box counts
        (r"$\frac{3}{4}$", r"The final answer is $\frac{6}{8}$.", "correct"),  # an anchor will do instead of a box
        ("$4$", "I think it is $4$", "no_answer"),  # neither box nor anchor
        ("$4$", "", "no_answer"),
        ("", r"\boxed{4}", "unparseable_gold"),
    ],
)
def test_training_rules_agree(judge: Judge, gold: str, completion: str, expected: str) -> None:
    found = verdicts(judge, gold, completion)
    assert {found[rule] for rule in TRAINING} == {expected}


@pytest.mark.parametrize(
    ("gold", "completion", "published", "corrected"),
    [
        ("4", r"\boxed{4}", "unparseable_gold", "correct"),  # no dollars
        # Right answers that the published order calls wrong: the gold, in the answer's place, is not simplified.
        ("$5$", r"\boxed{2+3=5}", "incorrect", "correct"),
        ("$x>3$", r"\boxed{(3,\infty)}", "incorrect", "correct"),
        (r"$\{1,2\}$", r"\boxed{(2,1)}", "incorrect", "correct"),
        # Wrong answers that it calls right.
        (r"$\frac{x^2}{4}+y^2=1$", r"\boxed{1}", "correct", "incorrect"),
        ("$a^2+b^2=c^2$", r"\boxed{c^2}", "correct", "incorrect"),
        ("$(2,1)$", r"\boxed{1,2}", "correct", "incorrect"),
    ],
)
def test_published_order_of_verify_matters(
    judge: Judge, gold: str, completion: str, published: str, corrected: str
) -> None:
    found = verdicts(judge, gold, completion)
    assert (found[Rule.PAPER], found[Rule.PAPER_COSINE], found[Rule.CORRECTED]) == (published, published, corrected)


@pytest.mark.parametrize(
    ("gold", "box"), [("$12$", r"\boxed{12 \text{ cm}}"), (r"$\text{even}$", r"\boxed{\text{even}}")]
)
def test_published_cosine_does_not_open_a_box_between_dollars(judge: Judge, gold: str, box: str) -> None:
    inside, alone = verdicts(judge, gold, f"${box}$"), verdicts(judge, gold, f"so {box}")
    assert (inside[Rule.PAPER], inside[Rule.PAPER_COSINE], inside[Rule.CORRECTED]) == (
        "correct",
        "incorrect",
        "correct",
    )
    assert {alone[rule] for rule in TRAINING} == {"correct"}


def test_what_was_extracted_is_told(judge: Judge) -> None:
    half, text, none = judge.grade(
        [
            Item(r"$\frac{1}{2}$", r"\boxed{0.25}", Rule.PAPER),
            Item(r"$\text{even}$", r"$\boxed{\text{even}}$", Rule.PAPER_COSINE),
            Item("$4$", "who knows", Rule.PAPER),
        ]
    )
    assert (half.gold, half.answer) == (r"\frac{1}{2} -> 1/2", "0.25 -> 0.250000000000000")
    assert text.answer == r"\boxed{ (not read as mathematics)"
    assert (none.gold, none.answer) == ("4", "")
    assert 0 < half.seconds < 60


@pytest.mark.slow
def test_grades_come_in_the_order_of_the_items(judge: Judge) -> None:
    numbers = random.Random(0).sample(range(1000), 80)
    items = [
        Item(f"${n}$", rf"\boxed{{{n if n % 3 else n + 1}}}" + " slow" * (n % 7) * 5_000, Rule.PAPER) for n in numbers
    ]
    grades = judge.grade(items)
    assert [grade.gold for grade in grades] == [str(n) for n in numbers]
    assert [grade.verdict for grade in grades] == ["correct" if n % 3 else "incorrect" for n in numbers]


def test_no_items_start_no_worker() -> None:
    with Judge() as judge:
        assert judge.grade([]) == []
        assert judge._pool == []


READABLE = {
    "nul": "\0" * 1000,
    "surrogates": "\ud800\udfff \udc80",
    "million": "Okay, let me think. " * 50_000,
    "unicode": "\u202e\ufdfa\U0001f600e\u0301" * 500,
    "line ends": "\r\n\v\f\x1c\x85\u2028\u2029" * 100,
    "json": '{"verdict": "incorrect"}\n',
}
NASTY = {
    "dollars": "$" * 30_001 + r"\boxed{4}",
    "answers": "answer " * 20_000 + r"\boxed{4}",
    "boxes": r"\boxed{" * 3_000 + "4" + "}" * 3_000,
    "brackets": r"\boxed{" + "(" * 5_000 + "4" + ")" * 5_000 + "}",
    "many boxes": r"\boxed{4} " * 5_000,
    "digits": r"\boxed{" + "9" * 20_000 + "}",
    "zero": r"\boxed{\frac{1}{0}}",
    "huge": "\\boxed{" * 150_000,
}


@pytest.mark.parametrize("rule", [Rule.PAPER, Rule.CORRECTED, Rule.LATEX_GOLD])
def test_odd_characters_and_a_million_of_them_do_not_hide_the_answer(judge: Judge, rule: Rule) -> None:
    grades = judge.grade([Item("$4$", text + r"\boxed{4}", rule) for text in READABLE.values()])
    assert {name: grade.verdict for name, grade in zip(READABLE, grades, strict=True)} == dict.fromkeys(
        READABLE, "correct"
    )


@pytest.mark.slow
def test_every_input_gets_a_verdict() -> None:
    items = [Item("$4$", text, rule) for text in NASTY.values() for rule in (Rule.PAPER, Rule.EXPR_GOLD)]
    items += [Item(text, r"\boxed{4}", Rule.CORRECTED) for text in (NASTY | READABLE).values()]
    with Judge(workers=3, timeout=1) as judge:
        grades = judge.grade(items)
    assert [type(grade.verdict) for grade in grades] == [Verdict] * len(items)
    assert max(len(grade.answer) for grade in grades) < 500


@pytest.mark.slow
def test_slow_items_get_a_verdict_while_others_flow() -> None:
    limit, workers = 1.5, 3
    quick = [Item("$5$", r"\boxed{5}", Rule.PAPER)] * 3
    some = SLOW[::3]  # all of them: test_slow_latex_is_judged_inside_the_limits
    items = [item for text in some for item in (Item("$5$", text, Rule.PAPER), *quick)]
    with Judge(workers=workers, timeout=limit) as judge:
        grades = judge.grade(items)
    slow = grades[::4]
    assert {grade.verdict for grade in grades if grade not in slow} == {"correct"}
    assert {grade.verdict for grade in slow} <= {"timeout", "incorrect"}
    assert sum(grade.verdict == "timeout" for grade in slow) >= 4


@pytest.mark.slow
def test_published_timeout_inside_math_verify_stays_a_wrong_answer_not_ours() -> None:
    """math-verify stops at 3 s by itself and says "not equal"; inside our 5 s that verdict stands, and gold = text
    stays right."""
    with Judge(workers=2, timeout=30) as judge:
        wrong, same = judge.grade(
            [
                Item("$5$", r"\boxed{3^{1000000000}}", Rule.PAPER),
                Item("$3^{1000000000}$", r"\boxed{3^{1000000000}}", Rule.PAPER),
            ]
        )
    assert (wrong.verdict, same.verdict) == ("incorrect", "correct")
    assert wrong.seconds > 2.5


# --- the evaluation metric --------------------------------------------------------------------------------------------

GOLDS = [
    "27",
    "27.0",
    " 204",
    r"$\frac{1}{2}$",
    r"\boxed{0.5}",
    "$(1,2)$",
    "$x=5$",
    r"50\%",
    "$50\\%$",
    r"$\text{even}$",
    "foo",
    "",
]
ANSWERS = [
    r"Therefore, the final answer is: $\boxed{27}$. I hope it is correct.",
    r"\boxed{027}",
    "The answer is 27.",
    "Answer : 27",
    "we get 204",
    r"$\boxed{\frac{2}{4}}$",
    r"The final answer is $0.50000004$. I hope",
    r"\boxed{0.500004}",  # equal to five decimals, not to six
    r"\[ x = \boxed{5} \]",
    r"$\boxed{1,2}$",
    r"so 1/2, thus \boxed{50\%}",
    r"\boxed{\text{even}}",
    "foo",
    "",
]


Score = Callable[[list[Item]], list[float]]


@pytest.fixture(scope="module")
def lighteval_scores() -> Iterator[Score]:
    script = [sys.executable, str(HERE / "lighteval_reference.py")]
    with forked.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:

        def ask(items: list[Item]) -> list[float]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([[item.gold, item.completion, item.rule] for item in items]) + "\n")
            process.stdin.flush()
            scores: list[float] = json.loads(process.stdout.readline())
            return scores

        yield ask


def judged_like_lighteval(judge: Judge, lighteval_scores: Score, items: list[Item]) -> dict[str, int]:
    """Compare with lighteval's own objects; returns how often each verdict was given."""
    grades = judge.grade(items)
    different = [
        (item, grade, score)
        for item, grade, score in zip(items, grades, lighteval_scores(items), strict=True)
        if (grade.verdict == "correct") != (score == 1.0)
    ]
    assert different == []
    counts = {verdict: sum(grade.verdict == verdict for grade in grades) for verdict in Verdict}
    assert counts["timeout"] == counts["crash"] == 0
    return counts


@pytest.mark.slow
def test_evaluation_rules_judge_as_lighteval_does(judge: Judge, lighteval_scores: Score) -> None:
    items = [
        Item(gold, answer, rule) for gold in GOLDS for answer in ANSWERS for rule in (Rule.LATEX_GOLD, Rule.EXPR_GOLD)
    ]
    counts = judged_like_lighteval(judge, lighteval_scores, items)
    assert min(counts[verdict] for verdict in ("correct", "incorrect", "unparseable_gold", "no_answer")) >= 5


def answer_of(row: dict[str, Any]) -> str:
    if "final_answer" in row:
        return str(row["final_answer"][0])
    return str(row["answer"]) if "answer" in row else row["solution"].rpartition(r"\boxed{")[2].rpartition("}")[0]


@pytest.mark.slow
def test_evaluation_rules_judge_real_golds_as_lighteval_does(
    judge: Judge, lighteval_scores: Score, shared_data: Path
) -> None:
    draw = random.Random(0)
    items = []
    for name, rule in (
        ("aime24", Rule.EXPR_GOLD),
        ("amc23", Rule.EXPR_GOLD),
        ("math_500", Rule.LATEX_GOLD),
        ("minerva", Rule.LATEX_GOLD),
        ("olympiadbench", Rule.LATEX_GOLD),
    ):
        rows = [json.loads(line) for line in (shared_data / "benchmarks" / f"{name}.jsonl").read_text().splitlines()]
        for row, other in zip(draw.sample(rows, 12), draw.sample(rows, 12), strict=True):
            gold, wrong = answer_of(row), answer_of(other)
            text = row["solution"] if name in ("math_500", "minerva") else gold
            thought = f"Okay. {other['problem' if 'problem' in other else 'question']}\n</think>\n"
            endings = (
                rf"\boxed{{{gold}}}",
                f"$\\boxed{{{wrong}}}$",
                f"**Final Answer**\n{gold}",
                str(other.get("solution")),
            )
            items += [Item(text, thought + ending, rule) for ending in endings]
    counts = judged_like_lighteval(judge, lighteval_scores, items)
    assert counts["correct"] >= 70
    assert counts["incorrect"] >= 70


# --- openrs grade -----------------------------------------------------------------------------------------------------


def jsonl(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", encoding="utf-8")
    return path


@pytest.mark.slow
def test_grade_prints_a_line_each_and_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = jsonl(
        tmp_path / "a.jsonl",
        {"gold": "$4$", "completion": "\\boxed{4}"},
        {"gold": "$5$", "completion": "\\boxed{2+3=5}"},
        {"gold": "$5$", "completion": "\\boxed{2+3=5}", "rule": "corrected"},
        {"gold": "$5$", "completion": "\\boxed{\\text{\x1b[2J\n\ud800}}"},
    )
    file.write_text("\ufeff" + file.read_text() + "\n")  # a byte order mark is nothing, an empty line is no item
    assert cli.main(["grade", str(file), "--timeout", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines[:4]] == [
        ["1", "correct"],
        ["2", "incorrect"],
        ["3", "correct"],
        ["4", "incorrect"],
    ]
    assert lines[1].endswith("gold: 5   answer: 2+3=5 -> Eq(2 + 3, 5)")
    assert "\\x1b[2J" in lines[3]
    assert lines[4:] == ["4 judged: 2 correct, 2 incorrect"]


@pytest.mark.slow
def test_compare_shows_both_verdicts_and_marks_where_they_differ(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = jsonl(
        tmp_path / "a.jsonl",
        {"gold": "$4$", "completion": "\\boxed{4}"},
        {"gold": "$5$", "completion": "\\boxed{3=5}", "rule": "expr-gold"},
        {"gold": "$12:00$", "completion": "\\boxed{1:00}"},
    )
    assert cli.main(["grade", str(file), "--compare", "--timeout", "60"]) == 0
    lines = capsys.readouterr().out.splitlines()
    verdicts = [tuple(line.split()[1:3]) for line in lines[:3]]
    assert verdicts == [("correct", "correct"), ("correct", "incorrect"), ("correct", "incorrect")]
    assert ["differ" in line for line in lines[:3]] == [False, True, True]
    assert lines[3:] == [
        "paper: 3 judged: 3 correct", "corrected: 3 judged: 1 correct, 2 incorrect", "2 differ: lines 2, 3"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"gold": "$4$", "completion": "x"}\n{"gold": "$4$"}\n', "line 2: the field completion is missing"),
        (b'{"gold": 4, "completion": "x"}\n', "line 1: the field gold must be a string"),
        (b'{"gold": "$4$", "completion"', "line 1: not JSON: Expecting ':' delimiter"),
        (b"[1, 2]\n", "line 1: a list, not an object"),
        (b'{"gold": "$4$", "completion": "", "rule": "mine"}\n', "line 1: unknown rule 'mine'"),
        (b"[" * 200_000, "line 1: "),
        (b"\xff\xfe", "line 1: invalid UTF-8"),
    ],
)
def test_grade_refuses_a_broken_file_and_names_the_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: bytes, said: str
) -> None:
    (tmp_path / "b.jsonl").write_bytes(content)
    assert cli.main(["grade", str(tmp_path / "b.jsonl")]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_lines_before_a_broken_one_are_judged(tmp_path: Path) -> None:
    file = jsonl(tmp_path / "c.jsonl", {"gold": "$4$", "completion": "\\boxed{4}"}, {"gold": "$4$"})
    written: list[str] = []
    with Judge(workers=1) as judge, pytest.raises(UserError, match="line 2"):
        grade_file(file, judge, "paper", written.append)
    assert [line.split()[1] for line in written] == ["correct"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.jsonl"], "No such file"),
        (["."], "not a file"),
        (["x", "--rule", "papr"], "unknown rule"),
        (["x", "--timeout", "0"], "time limit"),
        (["x", "--timeout", "nan"], "time limit"),
        (["x", "--workers", "0"], "0 workers"),
    ],
)
def test_grade_refuses_bad_arguments(capsys: pytest.CaptureFixture[str], arguments: list[str], said: str) -> None:
    assert cli.main(["grade", *arguments]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_printable_is_one_safe_line() -> None:
    assert printable("a\n\x1b[31m\ud800\u202e\x85é $\\frac12$") == "a\\n\\x1b[31m\\ud800\\u202e\\x85é $\\frac12$"
