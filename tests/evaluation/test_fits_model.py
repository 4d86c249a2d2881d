"""An evaluation fits the model and the machine: number format, window, what is said while it runs, empty folders."""

import json
import random
import shutil

import pytest

from openrs.config.schema import Evaluation
from openrs.errors import UserError
from openrs.evaluation.benchmarks import EvalProblem
from openrs.evaluation.engines import EngineLayout
from openrs.evaluation.plan import Target, fit_to_window, keep_record, prepare, protocol_of, read_record, requests_for
from openrs.evaluation.protocols import chosen
from openrs.evaluation.run import evaluate
from openrs.report.pages.page import report_on
from openrs.rewards.grading import Judge
from openrs.run.progress import Progress

pytestmark = pytest.mark.usefixtures("stand_in")


def run(target, settings, folder):
    with Judge(workers=1) as judge:
        return evaluate(target, settings, folder, Progress(), judge)


@pytest.mark.parametrize("stored", ["bfloat16", "float16", "float32"])
def test_a_cpu_computes_in_float32_unless_asked_otherwise(made_model, settings, stored):
    cpu, gpu = EngineLayout("transformers", (None,)), EngineLayout("transformers", ("0",))
    plan = prepare(Target("made", str(made_model), dtype=stored), settings(), cpu)
    assert (plan.engine().dtype, plan.record["protocol"]["dtype"]) == ("float32", "float32")
    assert [stored in line for line in plan.notes] == [True] * (stored != "float32")
    plan = prepare(Target("made", str(made_model), dtype=stored), settings(), gpu)
    assert (plan.engine().dtype, plan.record["protocol"]["dtype"], plan.notes) == (stored, stored, [])
    plan = prepare(Target("made", str(made_model), dtype=stored, cpu_dtype=stored), settings(), cpu)
    assert (plan.engine().dtype, plan.notes) == (stored, [])


@pytest.mark.parametrize("protocol", ["paper", "sober", "custom"])
def test_every_protocol_is_cut_to_a_small_window(made_model, settings, protocol):
    asked = chosen(settings(max_tokens=32768), protocol, {})
    plan = prepare(Target("made", str(made_model)), asked, EngineLayout("transformers", (None,)))
    assert max(len(request.ids) + request.max_new_tokens for request in plan.requests) == 4096
    assert (plan.record["protocol"]["name"], plan.record["protocol"]["max_tokens"]) == ("custom", 4096)
    (departure,) = plan.record["protocol"]["departures"]
    assert ("these settings" if protocol == "custom" else f"protocol {protocol}") in departure


def test_a_cut_is_said_and_stands_in_scores_and_report(made_model, settings, tmp_path, capsys):
    run(Target("made", str(made_model)), settings(max_tokens=100_000, samples=1), tmp_path / "eval" / "made")
    said = capsys.readouterr().out
    assert "have at most 4,096 tokens, the model's window" in said
    (departure,) = json.loads((tmp_path / "eval" / "made" / "scores.json").read_text())["protocol"]["departures"]
    assert departure in said
    report_on([str(tmp_path / "eval" / "made")], str(tmp_path / "report"))
    lines = (tmp_path / "report" / "report.md").read_text()
    assert "Departures from the protocol:\n\n- made: prompt and completion have at most 4,096 tokens" in lines


def test_a_prompt_beyond_the_window_is_refused(made_model, settings, tmp_path):
    model = shutil.copytree(made_model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8}))
    with pytest.raises(UserError, match="does not fit into the model's window of 8"):
        prepare(Target("made", str(model)), settings())


def test_the_first_line_comes_before_the_first_sample(made_model, settings, tmp_path, capsys, monkeypatch):
    from evaluation_fixtures import StandIn

    class Slow(StandIn):
        def generate(self, take, on_tokens):
            on_tokens(41)
            seen.append(capsys.readouterr().out)
            yield from super().generate(take, on_tokens)

    seen: list[str] = []
    monkeypatch.setattr("openrs.evaluation.run.load", Slow)
    run(Target("made", str(made_model)), settings(), tmp_path / "eval")
    assert "evaluate made 0/34  batch 1 of 9, 0 tokens so far" in seen[0]
    assert "evaluate made 0/34  batch 1 of 9, 41 tokens so far" in seen[0]


def test_a_folder_without_a_sample_holds_no_other_evaluation(made_model, settings, tmp_path):
    folder, target = tmp_path / "eval", Target("made", str(made_model))
    run(target, settings(), folder)
    with pytest.raises(UserError, match="counted together"):
        run(target, settings(temperature=0.3), folder)
    for name in ("samples.jsonl", "scores.json"):
        (folder / name).unlink()
    assert run(target, settings(temperature=0.3), folder)["protocol"]["temperature"] == 0.3


def test_a_cut_by_longer_prompts_that_come_later_is_no_other_evaluation(tmp_path):
    """The samples that are there have the lengths that they would have after the cut; other lengths are refused."""
    dice, kept = random.Random(0), {True: 0, False: 0}
    for number in range(100):
        window, short = dice.randint(20, 60), dice.randint(1, 19)
        asked = [dice.choice([None, dice.randint(20, 80)]), dice.choice([None, dice.randint(20, 80)])]
        tokens, longer = dice.randint(1, 60), dice.randint(short, 19)
        visits = []
        for limit, longest in zip(asked, (short, longer), strict=True):
            settings, departures = fit_to_window(Evaluation(max_model_len=limit, max_tokens=tokens), longest, window)
            protocol = protocol_of(settings, "vllm", 1, "float32") | ({"departures": departures} if departures else {})
            (request,) = requests_for({"b": [EvalProblem("p", "", "", "")]}, {"b": [[1] * short]}, {"b": 1}, settings)
            evaluation = settings.model_dump()
            visits.append({"protocol": protocol, "evaluation": evaluation, "request": request.max_new_tokens})
        records = [
            {"model": {"name": "m", "step": 0, "sha256": ""}, "benchmarks": {}, "inputs": {}, **visit}
            for visit in visits
        ]
        for first, second in (records, records[::-1]):
            folder = tmp_path / f"{number}-{first is records[0]}"
            keep_record(folder, first, kept=False)
            if first["protocol"]["max_model_len"] == second["protocol"]["max_model_len"]:
                continue
            if ("departures" in first["protocol"]) == ("departures" in second["protocol"]):
                continue  # two different wishes
            try:
                keep_record(folder, second, kept=True)
            except UserError:
                kept[False] += 1
                assert first["protocol"]["max_model_len"] is not None
                assert second["protocol"]["max_model_len"] is not None
                continue
            kept[True] += 1
            assert first["request"] == second["request"]
            assert "departures" in read_record(folder)["protocol"]
            assert read_record(folder)["protocol"]["max_model_len"] == window
            assert read_record(folder)["evaluation"]["max_model_len"] == window
    assert min(kept.values()) > 5, kept
