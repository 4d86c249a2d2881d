"""Benchmark definitions and their data, from files, from a generator, and a user's own."""

import json
import shutil
from pathlib import Path

import pytest

from openrs.errors import UserError
from openrs.evaluation.benchmarks import PROMPTS, known, load_problems, resolve

FIVE = {"aime24": 30, "amc23": 40, "math_500": 500, "minerva": 272, "olympiadbench": 675}
MINE = "mine:\n  rows: 2\n  question: ask\n  gold: [answer]\n  gold_kind: expr\n"


def write(folder: Path, *rows: object, name: str = "mine.jsonl") -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def mine(folder: Path, text: str = MINE):
    (folder / "mine.yaml").write_text(text)
    return resolve([str(folder / "mine.yaml")])[0]


def test_all_definitions_are_there_and_carry_what_the_judge_needs():
    rules = {name: benchmark.rule for name, benchmark in known().items()}
    assert rules == {
        "aime24": "expr-gold",
        "aime25": "expr-gold",
        "amc23": "expr-gold",
        "math_500": "latex-gold",
        "minerva": "latex-gold",
        "olympiadbench": "latex-gold",
        "gpqa_diamond": "index-gold",
        "demo": "latex-gold",
    }
    assert {name for name, benchmark in known().items() if benchmark.hashes} == set(FIVE)
    assert known()["math_500"].revision == "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be"
    assert known()["amc23"].revision is None


def test_prompt_is_the_papers_with_single_braces():
    problem = known()["aime24"].template.format(Question="Q{x}")
    assert (PROMPTS / "eval_math.txt").read_bytes().count(b"{{ANSWER}}") == 1
    assert r"$\boxed{ANSWER}$" in problem
    assert problem.endswith("before answering.\n\nQ{x}")


@pytest.mark.parametrize(("name", "rows"), FIVE.items())
def test_the_five_load_from_files(shared_data, name, rows):
    problems = load_problems(known()[name], shared_data / "benchmarks")
    assert len(problems) == len({problem.id for problem in problems}) == rows
    assert all(problem.prompt.endswith("\n\n" + problem.question) and problem.gold for problem in problems)


def test_golds_are_what_the_metric_gets(shared_data):
    golds = {name: load_problems(known()[name], shared_data / "benchmarks")[0] for name in FIVE}
    assert golds["aime24"].gold == "204"
    assert golds["amc23"].gold == "27.0"  # a float in the data
    assert golds["olympiadbench"].gold == "2"  # a list of one in the data
    assert r"\boxed{\left( 3, \frac{\pi}{2} \right)}" in golds["math_500"].gold  # the whole solution
    assert golds["minerva"].gold.startswith("Start with:")
    assert golds["math_500"].id == "math_500/test/precalculus/807.json"


def test_parquet_gives_the_same_as_jsonl(shared_data, tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [json.loads(line) for line in (shared_data / "benchmarks" / "amc23.jsonl").open()]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "amc23.parquet")
    assert load_problems(known()["amc23"], tmp_path) == load_problems(known()["amc23"], shared_data / "benchmarks")


def test_demo_is_generated():
    problems = load_problems(known()["demo"])
    assert len(problems) == 512
    one = problems[0]
    left, right = one.id.removeprefix("demo/").split("+")
    assert one.prompt == one.question == f"What is {left}+{right}?"
    assert str(int(left) + int(right)) in one.gold


def test_a_users_benchmark_in_a_few_lines(tmp_path):
    write(tmp_path, {"ask": "1+1?", "answer": 2}, {"ask": "2+2?", "answer": "4"})
    first, second = load_problems(mine(tmp_path), tmp_path)
    assert first.prompt.endswith("1+1?")
    assert (first.gold, second.gold) == ("2", "4")
    assert first.id.startswith("mine/")
    assert first.id != second.id


def test_a_users_own_prompt(tmp_path):
    (tmp_path / "short.txt").write_text("Q: {Question} {{}}")
    write(tmp_path, {"ask": "1+1?", "answer": 2}, {"ask": "2+2?", "answer": "4"})
    assert load_problems(mine(tmp_path, MINE + "  prompt: short.txt\n"), tmp_path)[0].prompt == "Q: 1+1? {}"
    assert load_problems(mine(tmp_path, MINE + "  prompt: null\n"), tmp_path)[0].prompt == "1+1?"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no benchmark in it"),
        ("mine: 3\n", "mine.yaml:1: mine is not a"),
        ("mine:\n  question: q\n", "mine.rows is missing"),
        (MINE + "  glod: x\n", "mine.yaml:6: there is no setting mine.glod; did you mean mine.gold?"),
        (MINE.replace("expr", "word"), "mine.yaml:5: mine.gold_kind"),
        (MINE.replace("rows: 2", "rows: 0"), "mine.yaml:2: mine.rows"),
        (MINE + "  prompt: nope.txt\n", "there is no prompt file nope.txt"),
        ("../x:" + MINE.removeprefix("mine:"), "name"),
    ],
)
def test_faults_in_a_definition_are_named(tmp_path, text, said):
    with pytest.raises(UserError, match=said.replace(".", r"\.")):
        mine(tmp_path, text)


@pytest.mark.parametrize(
    ("prompt", "said"),
    [("no question", "has no {Question}"), ("{Question} {answer}", "not a template"), ("{Question", "not a template")],
)
def test_a_prompt_that_asks_nothing_is_refused(tmp_path, prompt, said):
    (tmp_path / "p.txt").write_text(prompt)
    with pytest.raises(UserError, match=said):
        mine(tmp_path, MINE + "  prompt: p.txt\n")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"ask": "1?", "gold": 2}], "row 1: there is no column answer\n  why: the columns are ask, gold"),
        ([{"problem": "1?", "answer": 2}], "there is no column ask\n  why: the columns are problem, answer"),
        ([{"ask": "1?", "answer": 2}], "1 rows, mine has 2"),
        ([{"ask": "1?", "answer": 2}] * 3, "rows 1 and 2 have the same question"),
        ([{"ask": "1?", "answer": 2}, {"ask": " ", "answer": 2}], "row 2: ask is ' ', not a question"),
        ([{"ask": None, "answer": 2}], "ask is None"),
        ([{"ask": "1?", "answer": None}], "the answer is None"),
        ([{"ask": "1?", "answer": ""}], "the answer is empty"),
        ([{"ask": "1?", "answer": ["1", "2"]}], "the answer is .'1', '2'."),
        ([{"ask": "1?", "answer": float("nan")}], "the answer is nan"),
        ([{"ask": "1? \ud800", "answer": 1}], "lone surrogate"),
        ([["ask", "answer"]], "mine.jsonl:1: a list, not an object"),
        ([], "0 rows, mine has 2"),
    ],
)
def test_faults_in_the_data_are_named(tmp_path, rows, said):
    write(tmp_path, *rows)
    with pytest.raises(UserError, match=said):
        load_problems(mine(tmp_path), tmp_path)


def test_ids_that_come_twice_are_refused(tmp_path):
    write(tmp_path, {"ask": "1?", "answer": 2, "n": 7}, {"ask": "2?", "answer": 2, "n": 7})
    with pytest.raises(UserError, match="rows 1 and 2 have the id 7"):
        load_problems(mine(tmp_path, MINE + "  id: n\n"), tmp_path)


def test_a_file_cut_off_is_named_with_its_line(shared_data, tmp_path):
    whole = (shared_data / "benchmarks" / "aime24.jsonl").read_bytes()
    (tmp_path / "aime24.jsonl").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"aime24\.jsonl:\d+: not JSON"):
        load_problems(known()["aime24"], tmp_path)
    (tmp_path / "aime24.jsonl").unlink()
    (tmp_path / "aime24.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="not a parquet file"):
        load_problems(known()["aime24"], tmp_path)


def test_a_missing_file_says_what_is_there(tmp_path):
    (tmp_path / "amc23.jsonl").touch()
    with pytest.raises(UserError, match=r"no aime24\.jsonl or aime24\.parquet\n  why: in it: amc23\.jsonl"):
        load_problems(known()["aime24"], tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_problems(known()["aime24"], tmp_path / "nope")


def test_names_are_resolved_in_order(tmp_path):
    (tmp_path / "mine.yaml").write_text(MINE)
    names = [benchmark.name for benchmark in resolve(["minerva", str(tmp_path / "mine.yaml"), "aime24"])]
    assert names == ["minerva", "mine", "aime24"]
    with pytest.raises(UserError, match="no benchmark aime42"):
        resolve(["aime42"])
    with pytest.raises(UserError, match="asked for twice"):
        resolve(["aime24", "aime24"])
    with pytest.raises(UserError, match="cannot be read"):
        resolve(["nope.yaml"])


def test_a_generator_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"openrs\.nope:rows cannot be imported"):
        load_problems(mine(tmp_path, MINE + "  generator: openrs.nope:rows\n"))


def test_without_hub_data_set_and_folder_there_is_nothing(tmp_path):
    with pytest.raises(UserError, match="has no hub data set"):
        load_problems(mine(tmp_path))


def test_an_unreachable_hub_is_one_refusal(monkeypatch):
    """One request is made; the half minute of retries of `load_dataset` never begins."""
    import datasets
    import huggingface_hub

    def unreachable(_, repo, *, revision, timeout):
        raise ConnectionError(f"no network for {repo} at {revision}")

    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", unreachable)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: pytest.fail("it was asked all the same"))
    with pytest.raises(
        UserError, match="no network for HuggingFaceH4/aime_2024 at 2fe88a2f1091d5048c0f36abc874fb997b3dd99a"
    ):
        load_problems(known()["aime24"])


def test_a_folder_may_hold_more_than_the_benchmarks(shared_data, tmp_path):
    shutil.copy(shared_data / "benchmarks" / "amc23.jsonl", tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    assert len(load_problems(known()["amc23"], tmp_path)) == 40


def test_own_rows_are_read_as_training_reads_them(tmp_path):
    """Other kinds of files, chat rows, nested columns, and numbers that Python would write with an e."""
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2?"}]
    rows = [{"ask": "1?", "answer": 1e-7}, {"ask": chat, "answer": ["2"]}]
    (tmp_path / "mine.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(rows).encode())
    found = load_problems(mine(tmp_path), tmp_path)
    assert [(one.question, one.gold) for one in found] == [("1?", "0.0000001"), ("2?", "2")]
    nested = [{"ask": f"{n}?", "reward_model": {"ground_truth": n}} for n in (1, 2)]
    write(tmp_path, *nested)
    definition = mine(tmp_path, MINE.replace("[answer]", "[reward_model.ground_truth]"))
    assert [one.gold for one in load_problems(definition, tmp_path)] == ["1", "2"]
