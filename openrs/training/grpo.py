"""The main loop: from a recipe to checkpoints. Assemble TRL's trainer, run it, record what it says."""

from pathlib import Path
from typing import Any

from openrs import manifest
from openrs.data import prompts
from openrs.data.models import local_model
from openrs.data.problems import Problems, load_problems
from openrs.data.tokenizer import guard, load_tokenizer
from openrs.errors import Refusal
from openrs.libraries import hide_progress_bars
from openrs.recipe import Recipe
from openrs.recipe_checks import prompts_per_step
from openrs.rundir import Run
from openrs.training import checkpoints, demo_model
from openrs.training.progress import Progress


def train(recipe: Recipe, run: Run, progress: Progress) -> Path:
    """Train until the recipe's last step, from the newest complete checkpoint of the run; returns the last checkpoint.

    Raises Refusal for data, models and prompts that cannot be used. The caller holds the run's lock.
    """
    from datasets import Dataset

    from openrs.rewards.functions import build_rewards
    from openrs.rewards.grading import Judge
    from openrs.training.record import Recorder
    from openrs.training.trainer import STAGING, Trainer

    hide_progress_bars()
    last = recipe.training.stop_after or recipe.grpo["max_steps"]
    start, said = checkpoints.newest(run.checkpoints)
    for line in said:
        progress.say(line)
    if start is not None and checkpoints.step_of(start) >= last:
        progress.say(f"training is done: {start.name} is there")
        return start

    model = base_model(recipe, run, progress)
    tokenizer = load_tokenizer(model, trust_remote_code=recipe.model.trust_remote_code)
    guard(tokenizer, model)
    problems = load_problems(recipe.data)
    prompted = prompts.build(tokenizer, recipe.prompt, problems.rows)
    tell(recipe, run, problems, prompted, progress)

    with Judge(recipe.rewards.workers, recipe.rewards.timeout_seconds, int(recipe.rewards.memory_gib * 2**30)) as judge:
        rewards = build_rewards(recipe.rewards.functions, recipe.rewards.mode, judge)
        trainer = Trainer(
            model=str(model),
            args=grpo_config(recipe, run.checkpoints / STAGING, rewards.weights),
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict(
                {
                    "prompt": prompted.prompts,
                    "gold": [problem.answer for problem in prompted.problems],
                    "id": [problem.id for problem in prompted.problems],
                }
            ),
            reward_funcs=rewards.functions,
            prompt_ids=dict(zip(prompted.prompts, prompted.ids, strict=True)),
            folder=run.checkpoints,
            stats=rewards.stats,
        )
        trainer.add_callback(Recorder(trainer, recipe, run, progress))
        progress.start()
        trainer.train(resume_from_checkpoint=str(start) if start is not None else None)
    return checkpoints.folder_of(run.checkpoints, last)


def base_model(recipe: Recipe, run: Run, progress: Progress) -> Path:
    """The folder of the model that training starts from: the demo's is made here, once; a hub model is on this disk.

    Everything downstream (policy, reference, vLLM, tokenizer) loads from this one folder, so none of them can end up
    with another revision. Raises Refusal when there is no such model.
    """
    if recipe.model.made is None:
        return local_model(recipe.model.name, recipe.model.revision)
    folder = run.path / "base"
    if not (folder / "made.json").is_file():
        progress.say("making the demo's model: supervised training on corrupted sums")
        progress.start()
    return demo_model.make(recipe.model.made, folder, lambda n, of, loss: progress.step("teach", n, of, {"loss": loss}))


def tell(recipe: Recipe, run: Run, problems: Problems, prompted: prompts.Prompted, progress: Progress) -> None:
    """Say and record what became of the data. Raises Refusal when there are too few problems for one step."""
    counts = {
        "rows": problems.read,
        "without_answer": len(problems.without_answer),
        "too_long": len(prompted.too_long),
        "problems": len(prompted.problems),
    }
    manifest.record(
        run, data={"source": recipe.data.source, "revision": recipe.data.revision, "files": problems.files, **counts}
    )
    dropped = f"{counts['without_answer']} rows without an answer dropped, " if problems.without_answer else ""
    long = (
        f"{counts['too_long']} longer than {recipe.prompt.max_tokens} tokens ({recipe.prompt.too_long}), "
        if prompted.too_long
        else ""
    )
    progress.say(
        f"{counts['rows']} rows from {recipe.data.source}: {dropped}{long}{counts['problems']} problems to train on"
    )
    wanted = prompts_per_step(recipe)
    if counts["problems"] < wanted:
        raise Refusal(
            f"{counts['problems']} problems are fewer than the {wanted} of one step",
            "TRL drops a batch that it cannot fill, so no step would ever come",
            "give more problems, or a smaller per_device_train_batch_size or gradient_accumulation_steps",
        )


def grpo_config(recipe: Recipe, staging: Path, weights: list[float]) -> Any:
    """TRL's GRPOConfig: the recipe's `grpo` section as it is, and the settings that openrs owns."""
    from trl import GRPOConfig

    model: dict[str, Any] = {
        "dtype": recipe.model.dtype,
        "attn_implementation": recipe.model.attn_implementation,
        "use_safetensors": not recipe.model.allow_pickle_weights,
    }
    return GRPOConfig(
        **recipe.grpo,
        output_dir=str(staging),
        model_init_kwargs={name: value for name, value in model.items() if value is not None},
        trust_remote_code=recipe.model.trust_remote_code,
        reward_weights=weights,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=recipe.hardware.gpus == 0,
    )
