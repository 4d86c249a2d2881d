"""Reference answers before the first step: what pays everybody is refused with an option that mends it, what cannot be
used is counted, and the paper's own data is only counted."""

import json
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from openrs.config.load import load
from openrs.config.schema import Recipe
from openrs.data.problems import load_problems
from openrs.errors import UserError
from openrs.report.evidence.collect import collect
from openrs.rewards.grading import Judge, Rule
from openrs.rewards.references import ReferenceFault, check_references
from openrs.run import manifest
from openrs.run.directory import Run
from openrs.run.progress import Progress
from openrs.training import references
from openrs.training import train as grpo

pytestmark = pytest.mark.slow

UNREADABLE = "The answer is one hundred apples and a pear"
WORKED = r"We speed up by $20 \%$, so that in the end the answer to the question is: 180."


@pytest.fixture(scope="module")
def judge() -> Iterator[Judge]:
    with Judge(1) as one:
        yield one


@pytest.fixture
def said(judge: Judge, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said, with a judge that is there already."""
    monkeypatch.setattr(references, "Judge", lambda *_: nullcontext(judge))
    return []


class Lines:
    def __init__(self, lines: list[str]) -> None:
        self.say = lines.append


def check(folder: Path, said: list[str], answers: list[Any], *settings: str) -> dict[str, Any]:
    path = folder / "mine.jsonl"
    rows = [{"problem": f"Question {number}?", "answer": answer} for number, answer in enumerate(answers)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return checked(load("exp3", [f"data.source={path}", "data.answer_column=answer", *settings]), said)


def checked(recipe: Recipe, said: list[str]) -> dict[str, Any]:
    problems = load_problems(recipe.data, judged=bool(references.rules_of(recipe)))
    return references.check_data(recipe, problems, Lines(said))  # type: ignore[arg-type]


def test_the_line_in_readme_reads_bare_answers_as_mathematics_and_says_so(tmp_path: Path, said: list[str]) -> None:
    found = check(tmp_path, said, ["25", 1e-5, ["7"]])
    assert (found["checked"], found["unreadable"], found["pays_wrong"], found["not_itself"]) == (3, 0, 0, 0)
    assert "3 bare answers are read as mathematics: 25 as $25$ (data.answer_template sets another form)" in said


@pytest.mark.parametrize("answers", [[*"12345678", UNREADABLE], [UNREADABLE] * 3])
def test_answers_that_pay_everybody_are_refused_with_an_option_that_mends_it(
    tmp_path: Path, said: list[str], answers: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        check(tmp_path, said, answers)
    message = str(caught.value)
    count = answers.count(UNREADABLE)
    assert f"{count} of {len(answers)} reference answers pay every completion" in message
    assert message.count(f": {UNREADABLE}") == count
    options = message[message.index("--set") :].partition(", or")[0].split("--set ")[1:]
    check(tmp_path, said, answers, *(option.strip() for option in options))


def test_more_than_a_fiftieth_that_cannot_be_used_needs_a_limit(tmp_path: Path, said: list[str]) -> None:
    corrected = "rewards.mode=corrected"
    unusable = "a\nb\nc"
    answers = [unusable, *map(str, range(2, 41))]
    with pytest.raises(UserError) as caught:
        check(tmp_path, said, answers, corrected)
    assert "1 of 40 reference answers cannot be used, more than 2%" in str(caught.value)
    assert "row 0: a\\nb\\nc" in str(caught.value)
    option = str(caught.value).rpartition("--set ")[2]
    assert check(tmp_path, said, answers, corrected, option)["unreadable"] == 1
    assert check(tmp_path, said, [*answers, *map(str, range(41, 90))], corrected)["unreadable"] == 1


TINY = [1e-7, "$10^{-7}$", "$0.0000001$", "$1/10000000$", -4e-7, r"$\frac{1}{10000000}$", r"$3 \times 10^{-9}$"]


@pytest.mark.parametrize("answer", TINY)
def test_tiny_numbers_that_the_papers_rule_takes_for_0_are_refused(
    tmp_path: Path, said: list[str], answer: float | str
) -> None:
    """It rounds to six decimals; the corrected rule reads them right, and 0 and 1e-5 are what they are."""
    others = ["25", 0, "$0.0000000$", 1e-5, 12345678]
    with pytest.raises(
        UserError, match=r"1 of 6 reference answers pay the answer 0.0 \(rewards.mode: paper\)"
    ) as caught:
        check(tmp_path, said, [*others, answer])
    option = str(caught.value).partition("--set ")[2].partition(",")[0]
    assert check(tmp_path, said, [*others, answer], option)["pays_zero"] == 0
    assert check(tmp_path, said, others)["pays_zero"] == 0


def test_solutions_without_a_box_or_with_another_last_number_are_shown(tmp_path: Path, said: list[str]) -> None:
    found = check(tmp_path, said, [WORKED, "We add all of these numbers and get \\boxed{12}."])
    assert (found["without_box"], found["other_number"]) == (1, 1)
    shown = [line for line in said if "solutions" in line]
    assert [line.partition(": ")[2] for line in shown] == [r"1, row 0; row 0 was read as 20 \% -> 20*(1/100)"] * 2


def test_the_papers_own_data_is_counted_and_never_refused(said: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"problem": "Q?", "solution": UNREADABLE}, {"problem": "P?", "solution": "25"}]
    monkeypatch.setattr("openrs.data.problems.hub_rows", lambda *_: iter(rows))
    assert checked(load("exp3"), said)["unreadable"] == 2
    assert "2 reference answers checked: 2 of them cannot be used" in said


def test_rewards_of_ones_own_ask_no_judge(tmp_path: Path, said: list[str]) -> None:
    own = "rewards.functions=[{name: format}]"
    assert check(tmp_path, said, [UNREADABLE] * 3, own) == {}


def test_what_a_wrong_answer_passes_for_is_found(judge: Judge) -> None:
    texts = ["$987654321$", "$5$", "no formula here"]
    found = check_references(texts, [Rule.PAPER], judge)
    assert found.faults == {0: ReferenceFault.PAYS_WRONG, 2: ReferenceFault.UNREADABLE}
    assert found.read == {1: "5"}


def test_the_report_shows_the_counts(tmp_path: Path) -> None:
    counts = {"checked": 40, "unreadable": 3, "not_itself": 0, "without_box": 2, "other_number": "x"}
    (tmp_path / "manifest.json").write_text(json.dumps({"attempts": [{}], "references": counts}))
    notes = collect(Run(tmp_path)).notes
    assert "of 40 reference answers 3 cannot be read, 2 are solutions without a box" in notes


@pytest.mark.parametrize("accepted", [None, []])
def test_other_data_that_a_resumed_run_accepts_is_checked(
    accepted: list[dict[str, object]] | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ends(what: str) -> Callable[..., None]:
        def end(*_: object) -> None:
            raise UserError(what)

        return end

    run, recipe = Run(tmp_path), load("demo")
    manifest.begin(recipe, run, ["openrs"], accepted)
    monkeypatch.setattr(grpo.checkpoints, "latest_resumable", lambda _: (tmp_path / "step-000001", []))
    monkeypatch.setattr(grpo, "check_data", ends("checked"))
    monkeypatch.setattr(grpo, "base_model", ends("not checked"))
    with pytest.raises(UserError) as ended:
        grpo.prepare(recipe, run, Progress())
    assert ended.value.what == ("checked" if accepted is not None else "not checked")
