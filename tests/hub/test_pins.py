"""One file of pins, and everything in the package that names a revision agrees with it."""

from pathlib import Path

import pytest

from openrs.config.load import RECIPES, load, packaged
from openrs.errors import UserError
from openrs.hub import pins
from openrs.hub.pins import checkpoint, reference, references, target

SKETCH = str(Path(__file__).parents[1] / "exp3_sketch.yaml")


def test_every_pin_is_a_commit_a_beginning_or_left_to_the_first_fetch() -> None:
    for kind in ("models", "datasets"):
        for repo, pin in pins._pins()[kind].items():
            given = [key for key in ("revision", "starts", "first") if pin.get(key)]
            assert len(given) == 1, repo
            assert "revision" not in pin or pins.COMMIT.fullmatch(pin["revision"]), repo
            assert "starts" not in pin or pins.BEGINNING.fullmatch(pin["starts"]), repo


@pytest.mark.parametrize("name", sorted(packaged()))
def test_packaged_recipes_agree_with_the_pins(name: str) -> None:
    for ref in references(load(name)):
        assert ref.revision == reference(ref.kind, ref.repo, "").revision, f"{name}: {ref.repo}"
    assert RECIPES.is_dir()


def test_benchmarks_agree_with_the_pins() -> None:
    from openrs.evaluation.benchmarks import known

    for name, benchmark in known().items():
        assert pins._pins()["benchmarks"][name] == benchmark.hub
        if benchmark.revision:
            assert reference("dataset", str(benchmark.hub), "").revision == benchmark.revision


def test_references_of_exp3() -> None:
    found = references(load(SKETCH))
    assert [(ref.purpose, ref.repo) for ref in found][:3] == [
        ("model", "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B"),
        ("training data", "knoveleng/open-rs"),
        ("benchmark aime24", "HuggingFaceH4/aime_2024"),
    ]
    assert all(not ref.unpinned for ref in found)
    assert next(ref for ref in found if "Minerva" in ref.repo).revision == "93d86e1"


def test_local_and_made_things_need_no_fetch(tmp_path: Path) -> None:
    assert references(load("demo")) == []
    (tmp_path / "rows.jsonl").write_text("{}")
    overrides = [f"model.name={tmp_path}", f"data.source={tmp_path}/rows.jsonl", f"evaluation.data={tmp_path}"]
    assert references(load(SKETCH, overrides)) == []


def test_an_unpinned_reference_is_an_error_unless_allowed() -> None:
    with pytest.raises(UserError, match="model nobody/model has no pinned revision"):
        reference("model", "nobody/model", "model")
    assert reference("model", "nobody/model", "model", allow_unpinned=True).unpinned
    with pytest.raises(UserError, match="revision main of dataset knoveleng/open-rs is not a commit"):
        reference("dataset", "knoveleng/open-rs", "training data", "main")
    assert not reference("dataset", "knoveleng/open-rs", "training data").unpinned
    assert reference("dataset", "knoveleng/AMC-23", "benchmark amc23").revision == "main"


def test_a_users_own_benchmarks_are_fetched_too(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine: {hub: me/mine, rows: 3, question: q, gold: [a], gold_kind: expr}\nhere: {rows: 1}\n")
    with pytest.raises(UserError, match="benchmark mine: dataset me/mine has no pinned revision"):
        references(load(SKETCH, [f"evaluation.benchmarks=[{file}]"]))
    file.write_text(f"mine: {{hub: me/mine, revision: {'f' * 40}, rows: 3}}\n")
    assert references(load(SKETCH, [f"evaluation.benchmarks=[{file}]"]))[-1].revision == "f" * 40


def test_the_papers_checkpoints() -> None:
    assert checkpoint("exp3", 50) == ("knoveleng/OpenRS-GRPO", "1793695d9e827f1024422af3698f9a070b935698")
    with pytest.raises(UserError, match="no checkpoint exp1@500"):
        checkpoint("exp1", 500)
    found = target("paper:exp2@400")
    assert found is not None
    assert found[0].revision == "f3f07cd9f9b2abd8f8760dc4bef5b7165a940ffe"
    assert target("paper:open-rs3")[0].revision == "b9ea78ba17ad"  # type: ignore[index]
    assert target("exp3") is None
    with pytest.raises(UserError, match="there is no paper:exp9"):
        target("paper:exp9")


@pytest.mark.parametrize("experiment", ["exp1", "exp2", "exp3"])
def test_checkpoints_are_commits_and_all_different(experiment: str) -> None:
    table = pins._pins()["checkpoints"]
    every = [commit for name in ("exp1", "exp2", "exp3") for commit in table[name].values()]
    assert len(set(every)) == len(every) == 20
    assert all(pins.COMMIT.fullmatch(commit) for commit in table[experiment].values())
