"""Copies within the data and questions of the benchmarks: planted ones are found, changed numbers are none."""

import json
import random

import pytest
from curation_helpers import FIVE, near_copy, other_numbers, problems, row

from openrs.curation import decontaminate, duplicates
from openrs.curation.rows import Row, write_rows
from openrs.curation.settings import Decontaminate, Duplicates
from openrs.curation.text import tokens


def find(rows, tmp_path, same=lambda pairs: [a == b for a, b in pairs], **settings):
    chosen = Duplicates(**settings)
    parts, keys = [], []
    for start in range(0, len(rows), 500):
        parts.append(tmp_path / f"part-{len(parts)}.parquet")
        keys.append(tmp_path / f"keys-{len(keys)}")
        write_rows(parts[-1], rows[start : start + 500])
        duplicates.write_keys(rows[start : start + 500], chosen, keys[-1])
    return duplicates.find(parts, keys, chosen, same)


def rows_of(*asked):
    return [row(problem, answer, number) for number, (problem, answer) in enumerate(asked)]


def test_exact_typed_otherwise_and_near(tmp_path):
    long = (
        "A farmer has cows and 17 sheep in a field, and every morning he counts the legs of all animals. He counts $94$"
    )
    found = find(
        rows_of(
            ("What is $1+1$?", "2"), ("What is $1+1$?", "2"), ("what is\n\\(1 + 1\\)", "2"), ("What is $1+2$?", "3"),
            (f"{long} legs. How many cows are there?", "6.5"), (f"{long} of the legs. How many cows are there?", "6.5"),
            (f"{long.replace('17', '18')} legs. How many cows are there?", "5"),
        ),
        tmp_path,
    )  # fmt: skip
    assert {number: (out.reason, out.other) for number, out in found.gone.items()} == {
        1: ("same text", "test/0"), 2: ("same text, typed otherwise", "test/0"), 5: ("near copy", "test/4"),
    }  # fmt: skip
    assert found.facts["texts"] == 6
    assert found.facts["texts but for typing"] == 5


def test_conflicting_answers(tmp_path):
    rows = rows_of(("What is $x$?", "2"), ("What is $x$?", "3"), ("What is $y$?", "1/2"), ("What is $y$?", "\\frac12"))
    judged = []

    def same(pairs):
        judged.extend(pairs)
        return [{a, b} == {"1/2", "\\frac12"} for a, b in pairs]

    dropped = find(rows, tmp_path / "a", same).gone if (tmp_path / "a").mkdir() is None else None
    assert {n: out.reason for n, out in dropped.items()} == {
        0: "same question, different answers", 1: "same question, different answers", 3: "same text",
    }  # fmt: skip
    assert ("2", "3") in judged
    (tmp_path / "b").mkdir()
    assert set(find(rows, tmp_path / "b", same, conflicts="keep_first").gone) == {1, 3}


def test_a_near_copy_with_another_answer_stays_and_is_counted(tmp_path):
    text = "Nine lamps stand in a long straight row along the main street of a small town, and each of them is on"
    found = find(rows_of((f"{text} or off today.", "1"), (f"{text} or off tonight.", "2")), tmp_path)
    assert found.gone == {}
    assert found.facts["near copies with another answer, kept"] == 1


@pytest.mark.slow
def test_planted_near_copies_among_real_problems(shared_data, tmp_path):
    """500 copies typed otherwise, and 500 with one other number, planted in 3,000 real problems."""
    rng = random.Random(7)
    real = list(dict.fromkeys(p for p, a in problems(shared_data) if 80 < len(p) < 900 and a))
    real = [p for p in rng.sample(real, 6000) if other_numbers(p, rng)][:3000]
    rows = [row(problem, "1", n) for n, problem in enumerate(real)]
    copies = {3000 + n: (n, near_copy(real[n], rng)) for n in range(500)}
    changed = {3500 + n: (500 + n, other_numbers(real[500 + n], rng)) for n in range(500)}
    rows += [row(text, "1", number) for number, (_, text) in (copies | changed).items()]
    gone = find(rows, tmp_path).gone
    right = sum(number in gone and gone[number].other == f"test/{origin}" for number, (origin, _) in copies.items())
    wrong = sorted(number for number in changed if number in gone)
    assert right >= 490  # the few below are copies of a row that was itself a copy of an earlier one
    assert wrong == []  # precision 1.0 over 500 planted negatives
    assert len([number for number in gone if number < 3000]) < 30  # the real data's own copies


# --- benchmarks -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def asked(shared_data, tmp_path_factory):
    settings = Decontaminate(benchmarks=FIVE, data=str(shared_data / "benchmarks"))
    return settings, decontaminate.gather(settings, tmp_path_factory.mktemp("questions"))


@pytest.mark.slow
def test_the_known_contaminated_questions_are_found(asked, shared_data):
    """paper.md, section 2: normalised exact matches with MATH-500 7, OlympiadBench 1. Ours sees these and more."""
    settings, path = asked
    check = decontaminate.decontaminate(settings, path)
    questions = json.loads(path.read_text())
    assert len(questions) == 30 + 40 + 500 + 272 + 675

    def plain(text):  # the comparison behind the known figures: letters and digits only
        return "".join(c for c in text.lower() if c.isalnum())

    known = {plain(text): (benchmark, id_) for benchmark, id_, text in questions}
    found, counts = {}, {}
    for number, (problem, answer) in enumerate(problems(shared_data)):
        hit = known.get(plain(problem))
        if hit:
            found.setdefault(hit, []).append(row(problem, answer, number))
    per_benchmark = {name: sum(benchmark == name for benchmark, _ in found) for name in FIVE}
    assert per_benchmark == {"aime24": 0, "amc23": 0, "math_500": 7, "minerva": 0, "olympiadbench": 1}
    for (benchmark, id_), rows in found.items():
        for one in rows:
            out = check(one)
            assert not isinstance(out, Row)
            assert (out.reason, out.other) == (f"a question of {benchmark}", id_)
            counts[out.reason] = counts.get(out.reason, 0) + 1
    assert counts == {"a question of math_500": 7, "a question of olympiadbench": 1}


@pytest.mark.slow
def test_planted_questions_are_found_and_changed_ones_are_not(asked):
    """Every question of all five benchmarks: typed otherwise it is found; with another number it is none."""
    settings, path = asked
    check = decontaminate.decontaminate(settings, path)
    rng = random.Random(11)
    all_questions = {" ".join(tokens(text)) for _, _, text in json.loads(path.read_text())}
    copies, changed, missed, wrong = 0, 0, [], []
    for _, id_, question in json.loads(path.read_text()):
        if len(tokens(question)) < 12:
            continue
        copies += 1
        if isinstance(check(row(near_copy(question, rng) + " Give the answer as a single number.")), Row):
            missed.append(id_)
        other = other_numbers(question, rng)
        if other is not None and " ".join(tokens(other)) not in all_questions:
            changed += 1
            out = check(row(other))
            if not isinstance(out, Row) and out.other == id_:
                wrong.append(id_)
    assert copies > 1400
    assert changed > 1200
    assert len(missed) / copies < 0.01, missed[:5]
    assert len(wrong) / changed < 0.01, wrong[:5]
    print(f"{copies} planted, {len(missed)} missed; {changed} with another number, {len(wrong)} flagged")


def test_a_benchmark_that_cannot_be_had_is_refused_with_the_way_out(tmp_path):
    from openrs.errors import UserError

    with pytest.raises(UserError, match=r"decontamination: .* has no aime24") as raised:
        decontaminate.gather(Decontaminate(benchmarks=["aime24"], data=str(tmp_path)), tmp_path)
    assert "stages.decontaminate.benchmarks" in raised.value.fix
