"""L0: the fifteen hashes of the authors' logs, and every way in which inputs can differ from them."""

import json
import shutil
import subprocess
import sys

import pytest

from openrs.cli.main import main
from openrs.data.tokenizer import ChatEncoder
from openrs.errors import UserError
from openrs.evaluation.benchmarks import digest, known, load_problems
from openrs.evaluation.inputs import check_inputs, combined, encode_benchmark, located, recorded_digests, row_digests

pytestmark = pytest.mark.slow
FIVE = [benchmark for benchmark in known().values() if benchmark.hashes]


@pytest.fixture
def data(shared_data, tmp_path):
    return shutil.copytree(shared_data / "benchmarks", tmp_path / "benchmarks", copy_function=shutil.copyfile)


@pytest.fixture
def tokenizer(shared_data):
    return shared_data / "tokenizer"


def rewrite(file, change):
    rows = [json.loads(line) for line in file.open()]
    rows = change(rows)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def changed(key, old, new, number=0):
    def change(rows):
        assert old in rows[number][key]
        rows[number][key] = rows[number][key].replace(old, new, 1)
        return rows

    return change


def test_all_fifteen_match(shared_data, tokenizer):
    report = check_inputs(FIVE, shared_data / "benchmarks", tokenizer)
    assert report.proven
    assert (report.equal, len(report.checks), report.bos) == (15, 15, 2)
    assert report.verdict().startswith("L0: 15 of 15 hashes equal")


def test_ten_without_tokenizer_and_it_says_why_not_fifteen(shared_data):
    report = check_inputs(FIVE, shared_data / "benchmarks")
    assert not report.proven
    assert (report.equal, len(report.differs)) == (10, 0)
    assert "the other 5 are over token ids and need --tokenizer" in report.verdict()


def test_one_bos_gives_other_token_hashes(shared_data, tokenizer):
    encoder = ChatEncoder.from_folder(tokenizer)
    problem = load_problems(known()["aime24"], shared_data / "benchmarks")[0]
    one, two = encoder.ids(problem.prompt), encoder.ids(problem.prompt, double_bos=True)
    assert two == [151646, *one]
    assert one[:2] == [151646, 151644]
    assert encoder.leading_bos(one) == 1


def record(benchmarks, data_dir, tokenizer):
    """What input_hashes.json holds, computed anew from data and tokenizer that check_inputs proved: to write it anew.

    input_tokens: hash_input_tokens in the forms that other people's logs have it: lighteval up to 0.10 hashed a list of
    lists of ids, since 0.11 a list; with two BOS as the authors, or with one.
    """
    encoder = ChatEncoder.from_folder(tokenizer)
    tree = {}
    for benchmark in benchmarks:
        problems, encoded = encode_benchmark(benchmark, data_dir, encoder)
        forms = {}
        for bos, ids in (("two BOS", [e.double for e in encoded]), ("one BOS", [e.ids for e in encoded])):
            forms[combined(digest(str([tokens])) for tokens in ids)] = bos
            forms[combined(digest(str(tokens)) for tokens in ids)] = bos
        tree[benchmark.name] = {
            "input_tokens": forms,
            "rows": [list(row) for row in row_digests(problems, encoded)],
        }
    return tree


def test_the_recorded_digests_are_those_of_the_proven_data(shared_data, tokenizer):
    assert record(FIVE, shared_data / "benchmarks", tokenizer) == recorded_digests()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("kilometer", "kilometre", "more than one character differs"),
        ("9", "8", "is '8' and was '9'"),
        ("hours", "hour", "'s' was taken away before character"),
        ("Every", " Every", "white space was added around it"),
        ("walk", "wallk", "was added"),
    ],
)
def test_a_changed_question_is_found_and_named(data, tokenizer, old, new, said):
    rewrite(data / "aime24.jsonl", changed("problem", old, new))
    report = check_inputs(FIVE, data, tokenizer)
    assert not report.proven
    assert {check.benchmark for check in report.differs} == {"aime24"}
    assert len(report.differs) == 3
    (change,) = report.changes
    assert (change.benchmark, change.row, change.id, change.what) == ("aime24", 1, "aime24/60", "question")
    assert said in change.detail


def test_a_changed_answer_is_found_although_no_hash_covers_it(data, tokenizer):
    rewrite(data / "amc23.jsonl", lambda rows: [{**row, "answer": 28.0} if row["id"] == 0 else row for row in rows])
    report = check_inputs(FIVE, data, tokenizer)
    assert report.equal == 15
    assert not report.proven
    assert str(report.changes[0]) == "amc23/0 (row 1): answer: character 2 is '8' and was '7'"
    assert "answers were changed" in report.verdict()


def test_missing_added_and_reordered_rows(data):
    rewrite(data / "minerva.jsonl", lambda rows: rows[::-1])
    assert check_inputs([known()["minerva"]], data).equal == 2
    rewrite(data / "minerva.jsonl", lambda rows: [*rows[:5], *rows[6:], {**rows[0], "problem": "1+1?", "idx": 999}])
    report = check_inputs([known()["minerva"]], data)
    assert [(change.what, change.row, change.id) for change in report.changes] == [
        ("added", 272, "minerva/999"),
        ("missing", 0, "minerva/266"),
    ]
    assert len(report.differs) == 2


def test_a_change_at_the_end_of_a_long_question_is_found(data):
    def change(rows):
        longest = max(rows, key=lambda row: len(row["question"]))
        longest["question"] = longest["question"][:-1] + "x"
        return rows

    rewrite(data / "olympiadbench.jsonl", change)
    (found,) = check_inputs([known()["olympiadbench"]], data).changes
    assert "is 'x' and was" in found.detail


def test_another_prompt_file_is_named(data):
    other = known()["aime24"].model_copy(update={"template": known()["aime24"].template + "\n"})
    report = check_inputs([other], data)
    assert "the prompt around the questions differs" in "\n".join(report.lines())
    assert not report.changes


def test_doubled_braces_do_not_give_the_authors_hashes(data):
    other = known()["aime24"].model_copy(
        update={"template": known()["aime24"].template.replace("{{ANSWER}}", "{{{{ANSWER}}}}")}
    )
    assert len(check_inputs([other], data).differs) == 2


def copy_tokenizer(source, target):
    return shutil.copytree(source, target, copy_function=shutil.copyfile)


def test_another_chat_template_is_named(data, tokenizer, tmp_path):
    folder = copy_tokenizer(tokenizer, tmp_path / "tokenizer")
    template = (folder / "chat_template.jinja").read_text(encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template.replace("<think>\\n", "<think>"), encoding="utf-8")
    report = check_inputs([known()["aime24"]], data, folder)
    assert [check.hash for check in report.differs] == ["hash_full_prompts", "hash_input_tokens"]
    assert "the chat template differs" in "\n".join(report.lines())


def test_another_tokenizer_is_named_with_its_rows(data, tokenizer, tmp_path):
    folder = copy_tokenizer(tokenizer, tmp_path / "tokenizer")
    tree = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    assert isinstance(tree["model"]["merges"], list)
    tree["model"]["merges"] = tree["model"]["merges"][:200]
    (folder / "tokenizer.json").write_text(json.dumps(tree), encoding="utf-8")
    report = check_inputs([known()["aime24"]], data, folder)
    assert [check.hash for check in report.differs] == ["hash_input_tokens"]
    assert {change.what for change in report.changes} == {"token ids"}
    assert len(report.changes) == 30
    assert "the tokenizer differs" in "\n".join(report.lines())


def test_an_unproven_benchmark_is_said_to_be_one(data):
    report = check_inputs([known()["demo"], known()["aime24"]], data)
    assert report.unproven == ("demo",)
    assert "published no log" in "\n".join(report.lines())
    assert not check_inputs([known()["demo"]], None).proven


def test_rewriting_is_recognised():
    from openrs.evaluation.benchmarks import digest

    assert located("a\r\nb", digest("a\nb")) == "line ends were rewritten"
    assert located("caf\u00e9", digest("cafe\u0301")) == "Unicode was rewritten to NFC"
    assert located("ab", digest("abc")) == "'c' was taken away before character 3"
    assert located("abc", digest("ac")) == "character 2 ('b') was added"


def test_the_verb_prints_and_exits(shared_data, data, tokenizer, capsys):
    good = ["inputs", "--data", str(shared_data / "benchmarks"), "--tokenizer", str(tokenizer)]
    assert main(good) == 0
    assert capsys.readouterr().out.count(" ok") == 15
    assert main(good[:3]) == 2
    capsys.readouterr()
    rewrite(data / "aime24.jsonl", changed("problem", "9", "8"))
    assert main(["inputs", "--data", str(data), "--tokenizer", str(tokenizer), "--json"]) == 2
    found = json.loads(capsys.readouterr().out)
    assert (found["proven"], found["equal"], found["of"]) == (False, 12, 15)
    assert found["changes"][0]["id"] == "aime24/60"
    assert main(["inputs", "--data", str(data), "--benchmarks", "minerva", "--tokenizer", str(tokenizer)]) == 0
    capsys.readouterr()
    assert main([*good, "--benchmarks", "minerva, amc23", "aime24"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()[1:4]] == ["minerva", "amc23", "aime24"]
    assert main(["inputs", "--data", str(data / "nope")]) == 2


def test_it_needs_neither_torch_nor_transformers(shared_data, tokenizer):
    program = (
        "import sys; from openrs.cli.main import main; "
        f"code = main(['inputs', '--data', {str(shared_data / 'benchmarks')!r}, '--tokenizer', {str(tokenizer)!r}]); "
        "sys.exit(code or any(name in sys.modules for name in ('torch', 'transformers', 'datasets', 'lighteval')))"
    )
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=False).returncode == 0


def test_a_broken_tokenizer_is_refused(data, tokenizer, tmp_path):
    folder = copy_tokenizer(tokenizer, tmp_path / "tokenizer")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match="has no chat template"):
        check_inputs(FIVE, data, folder)
