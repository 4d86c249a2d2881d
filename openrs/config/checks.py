"""What pydantic's types cannot see: TRL's own options, and settings that do not go together. Never imports torch."""

import difflib
import json
import math
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

from openrs.config.faults import did_you_mean
from openrs.config.names import Layout, is_hub_name
from openrs.config.schema import Recipe
from openrs.config.yaml_lines import Lines, place_of
from openrs.errors import UserError

GRPO_OPTIONS = Path(__file__).parent / "grpo_options.json"

# Options of GRPOConfig that another setting of the recipe, or openrs itself, decides.
OWNED_ELSEWHERE = {
    "auto_find_batch_size": "the batch is part of the experiment; openrs plan --fit finds one",
    "data_seed": "grpo.seed decides the order of the problems",
    "deepspeed": "set hardware.zero_stage",
    "disable_tqdm": "openrs shows its own progress",
    "do_eval": "set the evaluation section",
    "do_predict": "set the evaluation section",
    "do_train": "openrs train always trains",
    "eval_steps": "set the evaluation section",
    "eval_strategy": "set the evaluation section",
    "generation_batch_size": "set steps_per_generation",
    "hub_model_id": "openrs export RUN --push OWNER/NAME uploads",
    "hub_token": "give HF_TOKEN in the environment: what is in a recipe is written into the run",
    "ignore_data_skip": "a resumed run goes on in the data where it stopped",
    "log_completions": "set training.completions_every",
    "log_completions_hub_repo": "nothing is uploaded while training",
    "liger_kernel_config": "set hardware.fused_kernels",
    "logging_steps": "every step is logged",
    "logging_strategy": "every step is logged",
    "model_init_kwargs": "set the model section",
    "num_train_epochs": "set grpo.max_steps",
    "output_dir": "the run directory is given by --run",
    "push_to_hub": "nothing is uploaded while training; export does that when asked",
    "report_to": "metrics.jsonl in the run is the record",
    "resume_from_checkpoint": "the newest complete checkpoint of the run is taken",
    "reward_weights": "set rewards.functions[].weight",
    "run_name": "the run directory is given by --run",
    "save_only_model": "a run must be able to go on; see training.old_weights_only",
    "save_strategy": "set grpo.save_steps",
    "save_total_limit": "set training.keep_last",
    "sync_ref_model": "a checkpoint does not hold a reference model that moves, so such a run could not be resumed",
    "use_liger_kernel": "set hardware.fused_kernels",
    "trust_remote_code": "set model.trust_remote_code",
    "vllm_mode": "set hardware.layout",
    "vllm_server_base_url": "set hardware.layout; openrs starts the server",
    "vllm_server_host": "set hardware.layout; openrs starts the server",
}
# Options of grpo with a range that needs no other setting: the least, whether it is allowed itself, and the most.
BELOW_ONE = math.nextafter(1, 0)
_RANGES: dict[str, tuple[float, bool, float]] = {
    **dict.fromkeys(("adam_epsilon", "epsilon", "epsilon_high"), (0, False, math.inf)),
    **dict.fromkeys(("temperature", "repetition_penalty"), (0, False, math.inf)),
    **dict.fromkeys(("weight_decay", "max_grad_norm", "warmup_steps", "beta", "top_k"), (0, True, math.inf)),
    **dict.fromkeys(("per_device_train_batch_size", "gradient_accumulation_steps"), (1, True, math.inf)),
    **dict.fromkeys(("steps_per_generation", "num_iterations", "max_completion_length"), (1, True, math.inf)),
    **dict.fromkeys(("adam_beta1", "adam_beta2"), (0, True, BELOW_ONE)),
    **dict.fromkeys(("top_p", "vllm_gpu_memory_utilization"), (0, False, 1)),
    "min_p": (0, True, 1),
    "learning_rate": (0, False, 1000),
    "seed": (0, True, 2**32 - 1),
}
# Words that TRL takes without a look and stumbles over after the first generation (grpo_trainer.py of TRL 1.16).
_CHOICES: dict[str, tuple[Any, ...]] = {
    "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"),
    "scale_rewards": ("group", "batch", "none", True, False),
    "importance_sampling_level": ("token", "sequence"),
    "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    "vllm_importance_sampling_mode": ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask"),
}
_PYTHON = {"bool": bool, "int": int, "float": (int, float), "str": str, "dict": dict, "list": list, "None": type(None)}


@cache
def grpo_options() -> dict[str, dict[str, Any]]:
    """Every option of TRL's GRPOConfig: name -> {"types": [...], "default": ...} (scripts/grpo-options wrote it)."""
    options: dict[str, dict[str, Any]] = json.loads(GRPO_OPTIONS.read_text(encoding="utf-8"))["options"]
    return options


def grpo_value(recipe: Recipe, option: str) -> Any:
    """A setting of `grpo:`, or TRL's default where the recipe is silent."""
    return recipe.grpo.get(option, grpo_options()[option]["default"])


def prompts_per_step(recipe: Recipe) -> int:
    """Distinct problems in one optimizer step: completions of the whole step / completions of a group."""
    per_step = grpo_value(recipe, "per_device_train_batch_size") * grpo_value(recipe, "gradient_accumulation_steps")
    return int(per_step * recipe.hardware.world_size // grpo_value(recipe, "num_generations"))


# Settings that were once let pass: a run that has them can still be read.
LATE_REFUSALS = ("grpo.warmup_steps",)


def check(recipe: Recipe, lines: Lines, *, begun: bool = False) -> None:
    """Raises UserError naming file and line for every setting that cannot work; all of them in one message."""
    problems = [*_options(recipe, lines), *_numbers(recipe, lines)]
    if not problems:  # the sums below need options of the right type
        sections = (_steps, _sampling, _drafts, _groups, _lengths, _sources, _machine, _evaluation)
        faults = [fault for section in sections for fault in section(recipe)]
        problems = [
            f"{place_of(tuple(key.split('.')), lines)}: {text}"
            for key, text in faults
            if not (begun and key in LATE_REFUSALS)
        ]
    if problems:
        raise UserError("\n".join(problems))


def _options(recipe: Recipe, lines: Lines) -> list[str]:
    problems = []
    for name, value in recipe.grpo.items():
        where = place_of(("grpo", name), lines)
        option = grpo_options().get(name)
        if name in OWNED_ELSEWHERE:
            problems.append(f"{where}: grpo.{name} is not set here: {OWNED_ELSEWHERE[name]}")
        elif option is None:
            hint = did_you_mean(name, grpo_options(), "grpo.")
            problems.append(f"{where}: TRL's GRPOConfig has no option {name}" + (f"; {hint}" if hint else ""))
        elif not _fits(value, option["types"]):
            wanted = " or ".join(option["types"])
            problems.append(f"{where}: grpo.{name} = {value!r} is a {type(value).__name__}, TRL needs {wanted}")
        elif (choices := option.get("choices", _CHOICES.get(name))) and value not in choices:
            near = difflib.get_close_matches(str(value), [str(choice) for choice in choices], n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"take one of {', '.join(map(str, choices))}"
            problems.append(f"{where}: grpo.{name} = {value!r} is unknown; {hint}")
    return problems


def _numbers(recipe: Recipe, lines: Lines) -> list[str]:
    """Numbers of the whole recipe that are NaN or Inf, and those of `grpo` with which nothing can be trained."""
    values = dict(_leaves(recipe.model_dump()))
    odd = [key for key, value in values.items() if isinstance(value, float) and not math.isfinite(value)]
    wrong = dict.fromkeys(odd, "is not a finite number")
    for name, (least, inclusive, most) in _RANGES.items():
        value = recipe.grpo.get(name)
        if isinstance(value, bool) or not isinstance(value, int | float) or ("grpo", name) in wrong:
            continue
        if value < least or (value == least and not inclusive) or value > most:
            upper = "" if math.isinf(most) else " and below 1" if most == BELOW_ONE else f" and at most {most:.15g}"
            wrong["grpo", name] = f"must be {'at least' if inclusive else 'more than'} {least:g}{upper}"
    return [f"{place_of(key, lines)}: {'.'.join(key)} = {values[key]!r} {text}" for key, text in wrong.items()]


def _leaves(tree: Any, key: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every value that is neither a mapping nor a list, with the keys and indices that lead to it."""
    if isinstance(tree, dict | list):
        for name, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from _leaves(value, (*key, str(name)))
    else:
        yield key, tree


def _fits(value: Any, types: list[str]) -> bool:
    if isinstance(value, bool):
        return "bool" in types
    return any(isinstance(value, _PYTHON[name]) for name in types)  # type: ignore[arg-type]


Faults = Iterator[tuple[str, str]]
"""Dotted key of a setting, and what is wrong with it."""


def _steps(recipe: Recipe) -> Faults:
    steps, save = grpo_value(recipe, "max_steps"), grpo_value(recipe, "save_steps")
    stop, every, by = recipe.training.stop_after, recipe.training.keep_every, recipe.training.must_save_by
    if steps < 1:
        yield "grpo.max_steps", "grpo.max_steps must be set: the schedule and the cost depend on it"
    if steps >= 1 and (warm_up := grpo_value(recipe, "warmup_steps") or 0) > steps:
        text = (
            f"grpo.warmup_steps = {warm_up} is longer than the training of grpo.max_steps = {steps}: the learning rate"
            f" would never reach {grpo_value(recipe, 'learning_rate'):g}. Set a shorter warm-up; a trial of the first"
            " steps of a longer schedule is --until N"
        )
        yield "grpo.warmup_steps", text
    if save < 1 or save != int(save):
        yield "grpo.save_steps", f"grpo.save_steps = {save} must be a whole number of steps"
    if stop is not None and stop > steps > 0:
        yield "training.stop_after", f"training.stop_after = {stop} is beyond grpo.max_steps = {steps}"
    if every is not None and save >= 1 and every % save:
        text = (
            f"training.keep_every = {every} is not a multiple of grpo.save_steps = {save}: no checkpoint is kept by it"
        )
        yield "training.keep_every", text
    if grpo_value(recipe, "bf16") and grpo_value(recipe, "fp16"):
        yield "grpo.fp16", "grpo.bf16 and grpo.fp16 exclude each other"
    try:
        datetime.fromisoformat(by or "2026-01-01")
    except ValueError:
        yield "training.must_save_by", f"training.must_save_by = {by!r} is not a moment like 2026-11-22T08:00:00Z"


def _sampling(recipe: Recipe) -> Faults:
    """generation_kwargs reach the sampler only. Where it samples at another temperature than the loss divides by, TRL's
    default correction weighs every token by the ratio of the two: that has to be meant."""
    changed = recipe.grpo.get("generation_kwargs") or {}
    in_loss = grpo_value(recipe, "temperature")
    sampled = changed.get("temperature", in_loss)
    correction = "vllm_importance_sampling_correction"
    if isinstance(sampled, bool) or not isinstance(sampled, int | float) or not 0 < sampled < math.inf:
        text = f"grpo.generation_kwargs.temperature = {sampled!r} must be a number above 0"
        yield "grpo.generation_kwargs", text
    elif grpo_value(recipe, "use_vllm") and sampled != in_loss and correction not in recipe.grpo:
        text = (
            f"completions are sampled at temperature {sampled:g} and weighted at {in_loss:g}: by TRL's default each"
            f" token's gradient would be scaled by the ratio. Write grpo.{correction}: false (as the paper) or true"
        )
        yield "grpo.generation_kwargs", text


def _drafts(recipe: Recipe) -> Faults:
    """vLLM 0.31 leaves out min_p and logit_bias where it verifies drafts, with a warning in its log only
    (v1/sample/logits_processor); structured outputs with drafts nobody has compared here. Its CPU build computes NaN
    for drafted tokens and accepts what it should not (dev/LOG.md, 29 November 2026)."""
    if not recipe.hardware.draft_tokens:
        return
    if not recipe.hardware.gpus:
        text = "vLLM's CPU build samples wrongly with drafts, and hardware.gpus is 0: set hardware.draft_tokens: 0"
        yield "hardware.draft_tokens", text
    if not grpo_value(recipe, "use_vllm"):
        yield "hardware.draft_tokens", "hardware.draft_tokens are vLLM's, but grpo.use_vllm is false: set it to 0"
    asked = {f"generation_kwargs.{name}": value for name, value in (recipe.grpo.get("generation_kwargs") or {}).items()}
    asked |= {name: grpo_value(recipe, name) for name in ("min_p", "vllm_structured_outputs_regex")}
    for name in ("min_p", "logit_bias", "structured_outputs"):
        if key := next((key for key, value in asked.items() if name in key and value), None):
            text = f"grpo.{key} and hardware.draft_tokens exclude each other: vLLM would not sample as it asks"
            yield "hardware.draft_tokens", f"{text}; set hardware.draft_tokens: 0"


def _groups(recipe: Recipe) -> Faults:
    group = grpo_value(recipe, "num_generations")
    if group < 2:
        text = f"grpo.num_generations = {group}: an advantage compares at least 2 completions of a prompt"
        yield "grpo.num_generations", text
        return
    micro = grpo_value(recipe, "per_device_train_batch_size")
    accumulation = grpo_value(recipe, "gradient_accumulation_steps")
    per_generation = grpo_value(recipe, "steps_per_generation") or accumulation
    processes = recipe.hardware.world_size
    batch = micro * processes * per_generation
    if batch % group:
        text = (
            f"a generation batch of {micro} per device x {processes} processes x {per_generation} steps = {batch}"
            f" completions cannot be cut into groups of grpo.num_generations = {group}"
        )
        yield "grpo.num_generations", text
    if (micro * processes * accumulation) % group:
        text = f"one step must hold whole groups of {group}: it has {micro} x {processes} x {accumulation} completions"
        yield "grpo.gradient_accumulation_steps", text
    if recipe.hardware.deal_by_length:
        other = None
        if accumulation % per_generation:  # short completions would go into one step and long ones into the next
            other = f"a generation of {per_generation} micro-batches that one step of {accumulation} does not hold"
        elif grpo_value(recipe, "top_entropy_quantile") < 1:  # taken over what the processes compute at the same time
            other = "grpo.top_entropy_quantile"
        if other:
            text = f"with {other}, hardware.deal_by_length would change the gradient: set it to false"
            yield "hardware.deal_by_length", text


def _lengths(recipe: Recipe) -> Faults:
    prompt, completion = recipe.prompt.max_tokens, grpo_value(recipe, "max_completion_length")
    limits = {
        "model.context": recipe.model.context,
        "grpo.vllm_max_model_length": recipe.grpo.get("vllm_max_model_length"),
    }
    for name, limit in limits.items():
        if limit is not None and prompt + completion > limit:
            text = f"prompts of {prompt} and completions of {completion} tokens do not fit into {name} = {limit}"
            yield "prompt.max_tokens", text
    if "{problem}" not in recipe.prompt.user:
        yield "prompt.user", "prompt.user must contain {problem}, or every prompt is the same"


def _sources(recipe: Recipe) -> Faults:
    model, data, toy = recipe.model, recipe.data, recipe.model.toy
    if (model.name == "toy") != (toy is not None):
        yield "model.name", "model.name: toy and the section model.toy go together"
    if toy is not None and toy.hidden % toy.heads:
        yield "model.toy.hidden", f"model.toy.hidden = {toy.hidden} cannot be cut into {toy.heads} heads"
    if is_hub_name(model.name) and model.revision is None and not model.allow_unpinned:
        yield "model.name", f"model {model.name} needs a revision (a hub commit), or model.allow_unpinned: true"
    if is_hub_name(data.source) and data.revision is None and not data.allow_unpinned:
        yield "data.source", f"data set {data.source} needs a revision (a hub commit), or data.allow_unpinned: true"
    if "{answer}" not in data.answer_template:
        yield "data.answer_template", "data.answer_template must contain {answer}, or all answers are the same"
    names = [reward.name for reward in recipe.rewards.functions]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield "rewards.functions", f"reward {name} is listed twice; give one a larger weight"


def _machine(recipe: Recipe) -> Faults:
    hardware = recipe.hardware
    layout, gpus = hardware.layout, hardware.gpus
    if layout is Layout.SPLIT and gpus < 2:
        yield (
            "hardware.layout",
            f"layout split needs a GPU for generation besides those that train: hardware.gpus = {gpus}",
        )
    elif layout is Layout.SPLIT and not grpo_value(recipe, "use_vllm"):
        yield "hardware.layout", "layout split generates on its last GPU with vLLM: set grpo.use_vllm: true"
    if layout is Layout.COLOCATE and hardware.world_size < 1:
        yield "hardware.layout", "layout colocate needs hardware.gpus of at least 1"
    if hardware.recompute != "all" and not grpo_value(recipe, "gradient_checkpointing"):
        text = (
            f"nothing is recomputed without grpo.gradient_checkpointing, but hardware.recompute is {hardware.recompute}"
        )
        yield "hardware.recompute", f"{text}: set grpo.gradient_checkpointing: true, or leave hardware.recompute out"
    if hardware.fused_kernels and not gpus:
        text = "hardware.fused_kernels are kernels for a GPU, but hardware.gpus is 0: set hardware.fused_kernels: false"
        yield "hardware.fused_kernels", text
    if layout is Layout.SINGLE and gpus > 1:
        yield "hardware.layout", f"layout single uses one GPU, hardware.gpus = {gpus}: take colocate or split"
    if hardware.processes is not None and gpus:
        text = "hardware.processes is for a CPU: with GPUs the layout says how many processes train"
        yield "hardware.processes", text


def _evaluation(recipe: Recipe) -> Faults:
    evaluation, context = recipe.evaluation, recipe.model.context
    if evaluation.temperature == 0 and evaluation.samples > 1:
        text = f"{evaluation.samples} samples at temperature 0 are {evaluation.samples} copies of one"
        yield "evaluation.samples", text
    if context is not None and evaluation.max_tokens > context:
        text = f"evaluation.max_tokens = {evaluation.max_tokens} does not fit into model.context = {context}"
        yield "evaluation.max_tokens", text
