"""The recipe's typed tree: every section, every key, its default and its limits. Reading it is load.py's work.

Never imports torch.
"""

import hashlib
import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    field_serializer,
    model_serializer,
)

from openrs.config.names import Layout

WHOLE = "whole"


class Settings(BaseModel):
    """A section of the recipe: frozen, and a key it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    newer: ClassVar[frozenset[str]] = frozenset()
    """Keys that came after the first runs. They are written only where they are set, so that older recipes keep their
    hash; model_dump(context=WHOLE) writes them always."""

    @model_serializer(mode="wrap")
    def _without_newer_defaults(
        self, written: SerializerFunctionWrapHandler, info: SerializationInfo
    ) -> dict[str, Any]:
        tree: dict[str, Any] = written(self)
        if info.context == WHOLE:
            return tree
        fields = type(self).model_fields
        return {key: value for key, value in tree.items() if key not in self.newer or value != fields[key].default}


class ToyModel(Settings):
    """The demo's model, made on the spot (openrs/training/demo_model.py): a Qwen2 taught on corrupted sums."""

    seed: int = 0
    layers: int = Field(2, ge=1)
    hidden: int = Field(96, ge=32)
    heads: int = Field(3, ge=1, description="hidden / heads is the head size; vLLM on a CPU needs 32, 64, 80 ...")
    steps: int = Field(350, ge=1, description="supervised steps of 64 demonstrations")
    learning_rate: float = Field(6e-3, gt=0)


class Lora(Settings):
    """Low-rank adapters on all linear layers instead of training every weight."""

    rank: int = Field(32, ge=1)
    alpha: int = Field(128, ge=1)
    dropout: float = Field(0.05, ge=0, lt=1)


class Model(Settings):
    name: str = Field(description="a folder, a hub repository, or `toy` for the demo's model")
    revision: str | None = Field(None, description="a hub commit; required for a hub repository")
    allow_unpinned: bool = Field(False, description="take whatever the hub serves today")
    dtype: Literal["bfloat16", "float32", "float16"] = "bfloat16"
    attn_implementation: str = "sdpa"
    context: int | None = Field(None, ge=8, description="tokens that fit into the model's window, when known")
    trust_remote_code: bool = Field(False, description="run Python code that comes with the model")
    allow_pickle_weights: bool = Field(False, description="load .bin weights, which can run code when loaded")
    toy: ToyModel | None = None
    lora: Lora | None = None


class Prompt(Settings):
    system: str | None = Field(None, description="the system message, or @FILE beside the recipe")
    user: str = Field("{problem}", description="the user message; {problem} stands for the problem")
    max_tokens: int = Field(512, ge=1, description="longest prompt in tokens, BOS included")
    too_long: Literal["refuse", "drop", "truncate_left"] = Field(
        "drop", description="what happens to longer prompts; always counted"
    )
    double_bos: bool = Field(False, description="a second BOS in front, as the authors' generation had it")
    chat_template: str | None = Field(None, description="a Jinja template, or @FILE; the tokenizer's own when absent")


class Data(Settings):
    newer = frozenset({"keep_system", "unreadable_limit"})

    source: str = Field(
        description="a data file, a folder of them, a hub data set, or `toy-sums` for the demo's problems"
    )
    revision: str | None = Field(None, description="a hub commit; required for a hub data set")
    allow_unpinned: bool = Field(False, description="take whatever the hub serves today")
    subset: str | None = None
    split: str = "train"
    problem_column: str = Field("problem", description="dots go into nested rows: prompt.0.content")
    answer_column: str = Field("answer", description="the reference answer; dots go into nested rows")
    strip_suffix: str = Field("", description="an instruction at the end of each problem that is taken away")
    answer_template: str = Field(
        "{answer}", description="how the reference answer is given to the judge; bare LaTeX needs ${answer}$"
    )
    missing_answer: Literal["refuse", "drop"] = "refuse"
    limit: int | None = Field(None, ge=1, description="take only the first rows")
    keep_system: bool = Field(False, description="chat rows keep their system turn, instead of prompt.system")
    unreadable_limit: float | None = Field(
        None, ge=0, le=1, description="share of reference answers that the judge may fail on; 0.02 when absent"
    )


class Reward(Settings):
    name: str = Field(description="accuracy, format, cosine, overlong, or your own module:function")
    weight: float = 1.0
    args: dict[str, Any] = Field(default_factory=dict)


class Rewards(Settings):
    mode: Literal["paper", "corrected"] = Field(description="paper: as published, defects included; corrected: fixed")
    functions: list[Reward] = Field(min_length=1)
    timeout_seconds: float = Field(5.0, gt=0, description="wall clock for judging one completion")
    memory_gib: float = Field(2.0, gt=0, description="memory of one judging process")
    workers: int | None = Field(None, ge=1)


class Training(Settings):
    stop_after: int | None = Field(None, ge=1, description="end here although the schedule spans grpo.max_steps")
    max_hours: float | None = Field(
        None, gt=0, description="checkpoint and leave with exit code 75 before this wall clock is over"
    )
    must_save_by: str | None = Field(None, description="the same before this moment: ISO 8601, UTC without an offset")
    keep_last: int = Field(2, ge=1, description="newest checkpoints kept")
    keep_every: int | None = Field(None, ge=1, description="checkpoints at multiples of this are always kept")
    old_weights_only: bool = Field(
        False, description="older kept checkpoints lose what only serves to go on (3 to 7 times the weights)"
    )
    completions_every: int = Field(1, ge=1, description="steps between two saved samples of completions")
    completions_kept: int = Field(8, ge=0, description="completions saved of each such step")
    watchdog_factor: float = Field(10.0, gt=1, description="a step that takes so many times the median is a hang ...")
    watchdog_least: float = Field(600.0, gt=0, description="... if it takes at least so many seconds; the first 3 x")
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        ["tensorboard"], description="mirrors of metrics.jsonl; none goes to the network"
    )


class Watch(Settings):
    """One monitor (openrs/training/monitors.py says which metric it reads). A limit that is null is off."""

    above: float | None = Field(None, description="an alarm in the log when the metric is above this")
    below: float | None = Field(None, description="an alarm when it is below this")
    stop_above: float | None = Field(None, description="above this, a checkpoint and the end, exit code 2")
    stop_below: float | None = Field(None, description="below this, a checkpoint and the end, exit code 2")
    steps: int = Field(3, ge=1, description="so many steps one after another before a limit counts")


class CanaryConfig(Settings):
    """vLLM and the trainer score the same fixed text after each weight sync; apart, the run ends with exit code 1."""

    newer = frozenset({"times"})

    prompts: int = Field(8, ge=0, description="the first problems of the data; 0: no canary")
    tokens: int = Field(32, ge=1, description="of greedy completion for each, made once at the start")
    max_gap: float = Field(
        0.1, gt=0, description="largest mean |difference| of log-probabilities, nats (canary.py says why)"
    )
    times: float = Field(5.0, gt=1, description="later differences may be so many times that of equal weights")


class MonitorsConfig(Settings):
    """Alarms once a crossing, in the log and in metrics.jsonl. No rule stops a run unless the recipe sets it."""

    capped: Watch = Watch(above=0.5)
    no_signal: Watch = Watch(above=0.75)
    kl: Watch = Watch(above=0.5)
    kl_max: Watch = Watch(above=100.0)
    length: Watch = Watch()
    non_latin: Watch = Watch(above=0.05)
    unparseable_references: Watch = Watch(above=0.02)
    cosine_wraps: Watch = Watch(above=0.0)
    gap: Watch = Watch(above=0.05, steps=1)
    generation_seconds: Watch = Watch()
    reward_seconds: Watch = Watch()
    update_seconds: Watch = Watch()
    sync_seconds: Watch = Watch()
    canary: CanaryConfig = CanaryConfig()


class Evaluation(Settings):
    benchmarks: list[str] = Field(default_factory=list)
    data: str | None = Field(None, description="folder with NAME.jsonl files; the hub at pinned revisions when absent")
    samples: int = Field(1, ge=1, description="completions per problem")
    samples_small: int | None = Field(None, ge=1, description="the same for benchmarks of fewer than 100 problems")
    temperature: float = Field(0.6, ge=0)
    top_p: float = Field(0.95, gt=0, le=1)
    max_tokens: int = Field(32768, ge=1)
    max_model_len: int | None = Field(None, ge=2, description="tokens of prompt and completion together, at most")
    double_bos: bool = Field(False, description="a second BOS in front, as the authors' evaluation had it")
    seed: int = 1234
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    processes: int | None = Field(None, ge=1, description="engines side by side; one a GPU when absent")
    gpu_memory: float = Field(0.9, gt=0, le=1, description="share of a GPU's memory that vLLM takes")
    batch_size: int = Field(64, ge=1, description="completions generated together by the transformers engine")
    checkpoints: Literal["last", "all"] = Field(
        "last", description="which checkpoints are evaluated beside the base: fixed before training"
    )


class Hardware(Settings):
    newer = frozenset({"recompute", "deal_by_length", "fused_kernels", "draft_tokens"})

    gpu: str = Field("none", description="e.g. A40; none for a CPU")
    gpus: int = Field(0, ge=0)
    layout: Layout = Field(Layout.SINGLE, description="split: the last GPU only generates")
    price_per_gpu_hour: float | None = Field(None, ge=0, description="US dollars")
    processes: int | None = Field(
        None, ge=1, description="training processes, where the layout does not say it (CPU tests)"
    )
    zero_stage: Literal[0, 1, 2] = Field(
        0, description="ZeRO: 1 shares out the optimizer's state, 2 the gradients too and exchanges them more often"
    )
    recompute: Literal["auto", "all", "none"] | Annotated[int, Field(ge=0)] = Field(
        "all", description="layers whose matrix products and attention the backward makes again; auto: by free memory"
    )
    deal_by_length: bool = Field(
        False, description="micro-batches go to the processes by length: same gradient, and none waits so long"
    )
    fused_kernels: bool = Field(
        False, description="RMSNorm, SwiGLU and rotary by liger-kernel on a GPU: same functions, rounded otherwise"
    )
    draft_tokens: int = Field(
        0, ge=0, le=16, description="tokens that vLLM drafts from earlier text and verifies at once: same distribution"
    )

    @property
    def world_size(self) -> int:
        """Training processes: as set, or all GPUs, or all but the generating one."""
        return self.processes or self.layout.trainers(self.gpus)

    @field_serializer("layout")
    def _plain_layout(self, layout: Layout) -> str:
        """A plain text, which YAML can write."""
        return layout.value


class Paper(Settings):
    experiment: Literal["exp1", "exp2", "exp3"] | None = None
    released_step: int | None = None
    claims: list[str] = Field(default_factory=list)


class Recipe(Settings):
    """One experiment, whole. `grpo` goes to TRL's GRPOConfig as it is; every other section is openrs's own."""

    title: str
    model: Model
    prompt: Prompt = Prompt()
    data: Data
    rewards: Rewards
    grpo: dict[str, Any]
    training: Training = Training()
    monitors: MonitorsConfig = MonitorsConfig()
    evaluation: Evaluation = Evaluation()
    hardware: Hardware = Hardware()
    paper: Paper = Paper()

    @property
    def last_step(self) -> int:
        """The step that training ends at: the schedule's last, or training.stop_after before it."""
        return int(self.training.stop_after or self.grpo["max_steps"])

    @property
    def hash(self) -> str:
        """SHA-256 of the resolved tree in canonical JSON: equal exactly when every setting is."""
        return hashlib.sha256(json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False).encode()).hexdigest()
