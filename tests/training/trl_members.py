"""What openrs overrides, calls and reads inside TRL 1.16 and transformers 5.17, and why.

Most of these members are private: an upgrade may change them without notice. test_trl_members.py compares this table
with the installed versions and with trainer.py: an upgrade fails with the name of a member.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Member:
    """One callable of a library. signature: as inspect.signature gives it, without annotations."""

    name: str
    signature: str
    reason: str


GRPO = "trl.trainer.grpo_trainer.GRPOTrainer"

# Methods that training.trainer.Trainer overrides, in the order in which a step calls them.
OVERRIDDEN = (
    Member(
        "train",
        "(self, resume_from_checkpoint=None, trial=None, ignore_keys_for_eval=None)",
        "the first step's seconds count from here",
    ),
    Member("_get_train_sampler", "(self, dataset=None)", "EpochSampler: the order depends on seed and epoch only"),
    Member(
        "_run_epoch",
        "(self, model, epoch, train_dataloader, steps_in_epoch, num_update_steps_per_epoch, trial,"
        " ignore_keys_for_eval, start_time, resume_from_checkpoint, epochs_trained, steps_trained_in_current_epoch)",
        "tells the sampler the epoch",
    ),
    Member("_prepare_inputs", "(self, generation_batch)", "no shuffle: a micro-batch is one group"),
    Member("_generate_and_score_completions", "(self, inputs)", "refuses weights that are NaN or Inf"),
    Member("_tokenize_prompts", "(self, prompts)", "the token ids are looked up, as the recipe's rules gave them"),
    Member(
        "_generate_single_turn",
        "(self, prompt_ids, images, multimodal_fields, num_generations, has_tool_images=False)",
        "weight sync and generation are timed, the canary is checked between them",
    ),
    Member(
        "_get_per_token_logps_and_entropies",
        "(self, model, input_ids, attention_mask, logits_to_keep, batch_size=None, compute_entropy=False,"
        " compute_aux_loss=False, pixel_values=None, image_grid_thw=None, num_images=None, pixel_attention_mask=None,"
        " spatial_shapes=None, num_tiles=None, image_sizes=None, token_type_ids=None, mm_token_type_ids=None,"
        " image_position_ids=None)",
        "the same numbers without computing padding (logprobs.py)",
    ),
    Member(
        "_calculate_rewards",
        "(self, inputs, prompts, completions, completion_ids_list)",
        "judges the batch once, hands the verdicts to the reward functions, records problems and reference answers",
    ),
    Member(
        "compute_loss",
        "(self, model, inputs, return_outputs=False, num_items_in_batch=None)",
        "its value is kept until the end of the step",
    ),
    Member("_compute_loss", "(self, model, inputs)", "measures the largest KL of one token"),
    Member(
        "_get_grad_norm",
        "(self, model, grad_norm=None)",
        "called between clipping and the optimizer (DeepSpeed has left out a step of NaN by then): a loss or norm that"
        " is NaN or Inf ends the run before the weights change",
    ),
    Member("log", "(self, logs, start_time=None)", "seconds and counts become metrics of the step"),
    Member("_save_checkpoint", "(self, model, trial)", "a checkpoint is complete or absent"),
    Member("_load_optimizer_and_scheduler", "(self, checkpoint)", "restores the position in the generation batch"),
    Member("create_model_card", "(self, model_name=None, dataset_name=None, tags=None)", "`openrs export` writes it"),
)

# Callables that openrs calls, by their full name.
CALLED = (
    Member(f"{GRPO}._log_completion_extra", "(self, column, values)", "columns of the saved completions"),
    Member(f"{GRPO}.remove_callback", "(self, callback)", "no printed dictionary a step"),
    Member(f"{GRPO}.is_world_process_zero", "(self)", "who completes a checkpoint"),
    Member(
        "transformers.trainer_callback.TrainerState.compute_steps",
        "(self, args, max_steps)",
        "a resumed run saves as often as its recipe says, not as the checkpoint's did",
    ),
    Member(
        "trl.trainer.utils.RepeatSampler.__init__",
        "(self, data_source, mini_repeat_count, batch_size=1, repeat_count=1, shuffle=True, seed=None)",
        "EpochSampler is made from TRL's own",
    ),
    Member("trl.trainer.utils.split_tensor_dict", "(tensor_dict, num_chunks)", "a generation batch into micro-batches"),
    Member(
        "trl.trainer.utils.add_fused_lm_head",
        "(model, temperature=1.0, cast_lm_head_to_fp32=False, outputs=('log_probs',))",
        "TRL has called it on both models: logprobs.py asks them with fused_lm_head=True",
    ),
    Member("trl.generation.vllm_generation.VLLMGeneration.sync_weights", "(self)", "called before TRL would: timed"),
    Member(
        "trl.generation.vllm_generation.VLLMGeneration._iter_named_params",
        "(self)",
        "with LoRA replaced by lora.merged_weights: TRL's merges into the base and does not get it back",
    ),
    Member(
        "transformers.integrations.liger.apply_liger_kernel",
        "(model, kernel_config)",
        "hardware.fused_kernels: TRL's use_liger_kernel is deprecated, and reaches the reference by chance only",
    ),
    Member(
        "transformers.integrations.sdpa_attention.sdpa_attention_forward",
        "(module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, position_bias=None,"
        " **kwargs)",
        "attention of each packed row by itself (logprobs.py)",
    ),
)

# Attributes of GRPOTrainer that trainer.py and canary.py read or set.
ATTRIBUTES = {
    "_buffered_inputs": "the micro-batches of the generation batch in use; saved and restored",
    "_last_loaded_step": "the step whose weights vLLM has",
    "_logs": "prompts, completions, rewards and advantages of the latest batch",
    "_step": "micro-batches so far; saved and restored",
    "accelerator": "autocast, reduce, rank",
    "args": "GRPOConfig",
    "model": "the policy",
    "num_iterations": "updates a generation batch",
    "optimizer": "its state is checked for NaN and Inf before a checkpoint",
    "processing_class": "the tokenizer, saved with each checkpoint",
    "ref_model": "the reference model, None with LoRA or beta 0",
    "state": "TrainerState: global_step",
    "use_vllm": "whether weights have to be synced",
    "vllm_generation": "the weight sync and vLLM itself",
    "vllm_mode": "colocate or server",
}
SAMPLER_ATTRIBUTES = (
    "batch_size",
    "data_source",
    "generator",
    "mini_repeat_count",
    "num_samples",
    "repeat_count",
    "seed",
    "shuffle",
)
