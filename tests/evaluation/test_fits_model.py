"""An evaluation fits the model and the machine: number format, window, what is said while it runs, empty folders."""

import json
import shutil

import pytest

from openrs.errors import UserError
from openrs.evaluation.engines import EngineLayout
from openrs.evaluation.plan import Target, prepare
from openrs.evaluation.protocols import chosen
from openrs.evaluation.run import evaluate
from openrs.report.evidence.evaluations import evaluations
from openrs.report.pages import document, markdown
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
    (found,) = evaluations(tmp_path / "eval", [])
    lines = "\n".join(markdown._evaluations([document.evaluation(found)]))
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
