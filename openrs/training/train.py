"""From a recipe to checkpoints: prepare model and data, assemble the trainer (trainer.py), run it, record it."""

import hashlib
import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from openrs.config.checks import grpo_value, prompts_per_step
from openrs.config.names import Layout
from openrs.config.schema import Recipe
from openrs.data import prompts
from openrs.data.problems import Problems
from openrs.data.tokenizer import check_tokenizer, load_tokenizer
from openrs.errors import UserError
from openrs.hub import adapters
from openrs.hub.loading import check_weights, refuse_code
from openrs.hub.models import local_model
from openrs.planner.shapes import BYTES, read_config
from openrs.run import checkpoints, manifest
from openrs.run.directory import Run
from openrs.run.files import sha256
from openrs.run.libraries import importing
from openrs.run.processes import rank
from openrs.run.progress import Progress
from openrs.training import cpu, demo_model, disk, lora, tracking
from openrs.training.canary import Canary
from openrs.training.references import check_data, judge_of, problems_of
from openrs.training.vllm_server import Address, autocast, set_colocated_arguments

if TYPE_CHECKING:
    from openrs.training.recompute import Recompute


class Prepared(NamedTuple):
    """What every stage of a run works with: resolved once a process, then handed on.

    model: folder of the base model. Policy, reference, vLLM and tokenizer all load from it, so none can end up
        with another revision.
    problems: the recipe's, as they were read.
    start: the checkpoint to resume from, None in a new run.
    done: whether `start` is the run's last checkpoint.
    """

    model: Path
    problems: Problems
    start: Path | None
    done: bool


def prepare(recipe: Recipe, run: Run, progress: Progress) -> Prepared:
    """Look for checkpoints, set damaged ones aside, read the data, get the model. The caller holds the run's lock.

    Raises UserError for data, models, trackers and disks that cannot be used.
    """
    start, lines = checkpoints.latest_resumable(run.checkpoints)
    for line in lines:
        progress.say(line)
    done = start is not None and checkpoints.step_of(start) >= recipe.last_step
    problems = problems_of(recipe)
    # Bad data is refused before a model is made or downloaded; what a run resumes with was checked, if it is the same.
    if start is None or manifest.accepts_changes(run):
        manifest.record(run, references=check_data(recipe, problems, progress))
    if not done:
        tracking.require(recipe.training.trackers)
        disk.refuse_small_disk(recipe, run)
    model = base_model(recipe, run, progress)
    if not done:
        trust = recipe.model.trust_remote_code
        check_weights(model, trust_remote_code=trust, pickle_weights=recipe.model.allow_pickle_weights)
        prompts.check_prompt(load_tokenizer(model, trust_remote_code=trust), recipe.prompt)
        if start is not None:
            refuse_code(start)
        if start is not None and not adapters.is_adapter(start):
            check_weights(start, trust_remote_code=trust)
    return Prepared(model, problems, start, done)


def prepare_worker(recipe: Recipe, run: Run, progress: Progress, start: Path | None) -> Prepared:
    """The same in a process that another one has started, which has looked for checkpoints and refused what is bad."""
    return Prepared(base_model(recipe, run, progress), problems_of(recipe), start, done=False)


def train_from(recipe: Recipe, run: Run, progress: Progress, prepared: Prepared, server: Address | None = None) -> Path:
    """Train in this process, alone or as one of those that torchrun started; returns the last checkpoint.

    `server` is the vLLM server of the split layout. The process of rank 0 writes the records.
    Raises UserError for prompts that cannot be used, and when a stop rule of the recipe ended the run (after a
    checkpoint); RunFailure when the canary did.
    """
    with importing():
        from datasets import Dataset

        from openrs.rewards.functions import build_rewards
        from openrs.training.fused import use_fused_kernels
        from openrs.training.lifecycle import CONSTRUCTION, run_with_lifecycle, watched
        from openrs.training.monitors import Alarms
        from openrs.training.recompute import Recompute
        from openrs.training.record import Recorder
        from openrs.training.trainer import Trainer
    model, problems, start = prepared.model, prepared.problems, prepared.start
    tokenizer = load_tokenizer(model, trust_remote_code=recipe.model.trust_remote_code)
    check_tokenizer(tokenizer, model)
    prompted = prompts.tokenize_problems(tokenizer, recipe.prompt, problems.rows)
    log_dataset_summary(recipe, problems, prompted, progress)
    record_provenance(recipe, run, model, problems, prompted, resumed=start is not None)
    if recipe.hardware.gpus == 0:
        cpu.apply_cpu_workarounds(recipe)
    set_colocated_arguments(recipe)

    with judge_of(recipe, recipe.rewards.workers) as judge, watched(recipe, run, progress) as watchdog:
        rewards = build_rewards(recipe.rewards.functions, recipe.rewards.mode, judge)
        recompute = None
        if recipe.hardware.recompute != "all":
            recompute = Recompute(
                recipe.hardware.recompute, read_config(model / "config.json"), BYTES[recipe.model.dtype]
            )
        trainer = Trainer(
            model=str(model),
            args=grpo_config(recipe, run.checkpoints / checkpoints.STAGING, rewards.weights, server, recompute),
            processing_class=tokenizer,
            train_dataset=Dataset.from_dict(
                {
                    "prompt": prompted.prompts,
                    "gold": [problem.answer for problem in prompted.problems],
                    "id": [problem.id for problem in prompted.problems],
                }
            ),
            peft_config=lora.peft_config(recipe.model.lora) if recipe.model.lora is not None else None,
            prompt_ids=dict(zip(prompted.prompts, prompted.ids, strict=True)),
            folder=run.checkpoints,
            rewards=rewards,
            canary=Canary(prompted.ids, recipe.monitors.canary) if recipe.grpo.get("use_vllm") else None,
            recompute=recompute,
            dealing=recipe.hardware.deal_by_length,
            expect=watchdog.expect,
        )
        if recipe.hardware.fused_kernels:
            use_fused_kernels(trainer, recipe, run, progress)
        alarms, recorder = Alarms(recipe, run, progress), Recorder(trainer, recipe, run, progress)
        trainer.add_callback(alarms)  # first: what it finds is recorded with the step
        trainer.add_callback(recorder)
        progress.start()
        watchdog.expect(CONSTRUCTION + (disk.slowest(checkpoints.bytes_of(start)) if start is not None else 0))
        with closing(recorder), run_with_lifecycle(trainer, recipe, run, progress, watchdog):
            trainer.train(resume_from_checkpoint=str(start) if start is not None else None)
    alarms.refuse_if_stopped(trainer.state.global_step)
    return checkpoints.folder_of(run.checkpoints, recipe.last_step)


def base_model(recipe: Recipe, run: Run, progress: Progress) -> Path:
    """The folder of the model that training starts from: the demo's is made here, once; a hub model is downloaded.

    Raises UserError when there is no such model.
    """
    if recipe.model.toy is None:
        return local_model(recipe.model.name, recipe.model.revision)
    folder = run.path / "base"
    if not (folder / "toy.json").is_file():
        progress.say("making the demo's model: supervised training on corrupted sums")
        progress.start()
    return demo_model.make(recipe.model.toy, folder, lambda n, of, loss: progress.step("teach", n, of, {"loss": loss}))


def record_provenance(
    recipe: Recipe, run: Run, model: Path, problems: Problems, prompted: prompts.TokenizedProblems, *, resumed: bool
) -> None:
    """Record (rank 0 does) what is trained on, file by file. Raises UserError when a resumed run has
    been trained on something else."""
    if rank() != 0:
        return
    content = hashlib.sha256()
    for problem, ids in zip(prompted.problems, prompted.ids, strict=True):
        content.update(json.dumps([problem.id, ids, problem.answer]).encode())
    manifest.establish(
        run,
        resumed=resumed,
        data={
            "source": recipe.data.source,
            "revision": recipe.data.revision,
            "files": problems.files,
            "rows": problems.read,
            "without_answer": len(problems.without_answer),
            "too_long": len(prompted.too_long),
            "problems": len(prompted.problems),
            "prompts_and_golds_sha256": content.hexdigest(),
        },
        model={
            "name": recipe.model.name,
            "revision": recipe.model.revision,
            "files": {path.name: sha256(path) for path in sorted(model.iterdir()) if path.is_file()},
        },
    )
    manifest.record(run, libraries=manifest.libraries())


def log_dataset_summary(
    recipe: Recipe, problems: Problems, prompted: prompts.TokenizedProblems, progress: Progress
) -> None:
    """Log what became of the data. Raises UserError when it is too little for one step."""
    absent, long, kept = len(problems.without_answer), len(prompted.too_long), len(prompted.problems)
    lost = f"{absent} rows without an answer dropped, " if absent else ""
    lost += f"{long} longer than {recipe.prompt.max_tokens} tokens ({recipe.prompt.too_long}), " if long else ""
    progress.say(f"{problems.read} rows from {recipe.data.source}: {lost}{kept} problems to train on")
    needed = prompts_per_step(recipe)
    if kept < needed:
        raise UserError(
            f"{kept} problems are fewer than the {needed} of one step",
            "TRL drops a batch that it cannot fill, so no step would ever come",
            "give more problems, or a smaller per_device_train_batch_size or gradient_accumulation_steps",
        )


def grpo_config(
    recipe: Recipe,
    staging: Path,
    weights: list[float],
    server: Address | None = None,
    recompute: "Recompute | None" = None,
) -> Any:
    from trl import GRPOConfig

    settings = grpo_settings(recipe, staging, weights, server)
    if recompute is not None:
        how = settings.get("gradient_checkpointing_kwargs") or {}
        settings["gradient_checkpointing_kwargs"] = {**how, "use_reentrant": False, "context_fn": recompute}
    return GRPOConfig(**settings)


def grpo_settings(recipe: Recipe, staging: Path, weights: list[float], server: Address | None = None) -> dict[str, Any]:
    """What GRPOConfig gets: the recipe's `grpo` section as it is, and the settings that openrs owns."""
    model: dict[str, Any] = {
        "dtype": recipe.model.dtype,
        "attn_implementation": recipe.model.attn_implementation,
        "use_safetensors": not recipe.model.allow_pickle_weights,
    }
    settings = {
        **recipe.grpo,
        "output_dir": str(staging),
        "model_init_kwargs": {name: value for name, value in model.items() if value is not None},
        "trust_remote_code": recipe.model.trust_remote_code,
        "reward_weights": weights,
        "logging_steps": 1,
        "report_to": "none",
        "disable_tqdm": True,
        "use_cpu": recipe.hardware.gpus == 0,
    }
    if recipe.hardware.zero_stage:
        settings["deepspeed"] = deepspeed_config(recipe)
    if recipe.grpo.get("use_vllm"):
        settings["vllm_mode"] = "server" if recipe.hardware.layout is Layout.SPLIT else "colocate"
    if server is not None:
        settings |= {"vllm_server_base_url": server.url, "vllm_group_port": server.group_port}
    return settings


def deepspeed_config(recipe: Recipe) -> dict[str, Any]:
    """ZeRO as the paper's accelerate configuration had it (recipes/accelerate_configs/zero2.yaml, 2889c47): stage 2, no
    offloading. With bf16 the optimizer keeps float32 master weights; without ZeRO, a bfloat16 model has none.

    "auto" is filled in by transformers from the training arguments.
    """
    return {
        "zero_optimization": {"stage": recipe.hardware.zero_stage},
        "bf16": {"enabled": autocast(recipe) == "bfloat16"},
        "fp16": {"enabled": autocast(recipe) == "float16"},
        "gradient_clipping": float(grpo_value(recipe, "max_grad_norm")),
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }
