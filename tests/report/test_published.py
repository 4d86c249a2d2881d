"""What the published figures alone say, recomputed: from the package's own reference.yaml."""

import re
from html import unescape

import pytest
import yaml

from openrs.report.evidence import reference
from openrs.report.evidence.reference import arithmetic
from openrs.report.evidence.sources import Sources
from openrs.report.pages.document import document
from openrs.report.pages.markdown import markdown
from openrs.report.pages.page import html
from openrs.report.pages.published import draws, notes, published
from openrs.report.verdicts.selection import of_paper


def test_averages_recompute_within_the_rounding_of_their_cells():
    """Cells and average are each rounded to a tenth: up to 0.1 apart, 56.94 and 57.0 are the same average."""
    rows = {row["model"]: row for row in published()["table"]}
    assert not [model for model, row in rows.items() if row["agrees"] is False]
    assert rows["DeepScaleR-1.5B-Preview"]["recomputed"] == 56.94
    assert [rows[model]["recomputed"] for model in ("Open-RS1", "Open-RS2", "Open-RS3")] == [53.04, 55.66, 56.34]
    assert any("56.94, which rounding explains" in note for note in notes())


def test_implied_prices_recompute():
    prices = {row["model"]: row["usd_per_gpu_hour"] for row in published()["costs"]}
    assert prices["Open-RS"] == 0.4375
    assert prices["rStar-Math-7B"] is None
    others = [price for model, price in prices.items() if price and model != "Open-RS"]
    assert len(others) == 4
    assert others == pytest.approx([1.89] * 4, abs=0.0015)


def test_the_best_of_21_draws_of_an_unchanged_base_is_likely_38_to_40_and_at_most_45():
    best = of_paper()
    assert best["checkpoints"] == 21
    found = [(one["seed_sd"], one["expected_best"], one["probability"]) for one in (*best["estimates"], best["bound"])]
    expected = [(0.048, 0.377, 0.007), (0.0596, 0.400, 0.070), (0.0826, 0.448, 0.447)]
    for one, other in zip(found, expected, strict=True):
        assert one == pytest.approx(other, abs=1.2e-3)
    assert best["best"] == pytest.approx(14 / 30, abs=1e-6)
    assert [round(100 * score, 1) for score in best["scores"]["exp3"]] == [
        46.7,
        30.0,
        43.3,
        23.3,
        33.3,
        26.7,
        23.3,
        30.0,
    ]


@pytest.mark.slow
def test_page_markdown_and_json_say_the_same_of_the_best_and_none_gives_the_bound_as_the_estimate():
    tree = document(Sources())
    best = tree["published"]["selection"]
    said = " ".join(best["said"])
    assert "expected at 38 to 40, at most at 44.8" in said
    assert "1 to 7 of 100 such papers, at most in 45" in said
    assert "these data cannot tell" in said
    page = unescape(re.sub(r"<[^>]+>", "", html(tree, Sources())))
    for text in (page, markdown(tree)):
        flat = " ".join(text.replace("\\", "").split())
        assert all(sentence in flat for sentence in (*best["said"], best["note"]))
        # every mention of the bound says that it is one
        bounds = re.finditer(r"44\.8(?= %|\.)", flat)
        assert all("at most" in flat[place.start() - 20 : place.end()] for place in bounds)


def test_500_steps_are_36_000_completions_and_the_released_steps_cost_8_40_and_4_20():
    sums = arithmetic()
    assert (sums["prompts"], sums["completions"], sums["seconds_per_step"]) == (6000, 36000, 172.8)
    assert {row["model"]: (row["prompts"], row["usd"]) for row in sums["released"]} == {
        "Open-RS1": (1200, pytest.approx(8.4)),
        "Open-RS2": (600, pytest.approx(4.2)),
        "Open-RS3": (600, pytest.approx(4.2)),
    }


def test_printed_scores_are_those_of_the_logs_to_the_rounding():
    for row in draws():
        assert abs(row["accuracy"] - row["published"]) <= 0.0005 + 1e-9, row
        low, high = row["interval"]
        assert low < row["accuracy"] < high
    assert len(draws()) == 15


def test_the_standard_errors_of_the_logs_follow_from_their_scores():
    """accuracy and n in reference.yaml belong together: p n is a whole number for every log."""
    for one in reference.logs():
        assert abs(one.accuracy * one.n - round(one.accuracy * one.n)) < 1e-3 * one.n


def test_models_are_known_by_name_revision_and_tokens():
    assert reference.model_named("knoveleng/Open-RS3") == "Open-RS3"
    assert (
        reference.model_named("deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B", "ad9f0ae0864d") == reference.tree()["base"]
    )
    assert reference.model_named("knoveleng/OpenRS-GRPO@1793695d9e82") == "Open-RS3"
    assert reference.model_named("knoveleng/OpenRS-GRPO", "b224d0ff3f66ced97e621b2ad1eeafd53235240c") is None
    assert reference.model_named("someone/else") is None
    found = reference.log_of("fd81113ccd505a4e")
    assert found is not None
    assert (found.model, found.benchmark) == ("Open-RS3", "aime24")


def test_figures_equal_those_handed_over(shared_data):
    """The package's own copy against the file that came with the task, where that is at hand."""
    path = shared_data.parent / "reference" / "paper.yaml"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    given, own = yaml.safe_load(path.read_text()), reference.tree()
    assert list(own["table"]) == given["table"]
    for ours, theirs in zip(own["checkpoints"], given["checkpoints"], strict=True):
        assert (ours["experiment"], ours["step"], ours["revision"]) == tuple(
            theirs[key] for key in ("experiment", "step", "revision")
        )
        for name, result in theirs["results"].items():
            kept = {"accuracy": "accuracy", "problems": "problems", "hash_cont_tokens": "hash_cont_tokens"}
            assert {key: ours["results"][name][key] for key in kept} == {key: result[kept[key]] for key in kept}
            assert ours["results"][name]["tokens"] == result.get("mean_output_tokens")
    costs = {row["model"]: (row["hours"], row["usd"]) for row in own["costs"]}
    assert costs == {row["model"]: (row["hours"], row["usd"]) for row in given["costs"]}
    rows = {row["model"]: row for row in own["reevaluations"][0]["rows"]}
    assert rows == {row["model"]: row for row in given["reevaluations"]["sober-look"]["rows"]}
