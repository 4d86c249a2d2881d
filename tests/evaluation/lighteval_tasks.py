"""The benchmarks as lighteval 0.13 tasks with the paper's metrics: lighteval stays the harness that defines and scores.

Importing lighteval takes seconds and brings torch; nothing here is imported before an evaluation needs it.
Source of the metrics: src/open_r1/evaluate.py of knoveleng/open-rs (commit 2889c47), lighteval at commit ed08481.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from openrs.data.rows import Row
from openrs.evaluation.benchmarks import LETTERS, Benchmark, ask_lighteval, problem_of, read_rows


def paper_metric(gold_kind: Literal["expr", "latex", "index"], samples: int = 1) -> Any:
    """The paper's metric as a lighteval SampleLevelMetric: `extractive_match` of one sample, or `avg@n:n=N` of several.

    expr and latex: the gold read as expression or LaTeX, the prediction as expression, then LaTeX with boxed answers
    first; first match as fallback; precision 5. index: the letter of a choice, also without an anchor, which was the
    default at ed08481 and no longer is.
    """
    import numpy as np
    from lighteval.metrics.dynamic_metrics import (
        ExprExtractionConfig,
        LatexExtractionConfig,
        MultilingualExtractiveMatchMetric,
    )
    from lighteval.metrics.metrics_sample import AvgAtN
    from lighteval.metrics.utils.extractive_match_utils import IndicesExtractionConfig
    from lighteval.metrics.utils.metric_utils import SampleLevelMetric
    from lighteval.tasks.requests import SamplingMethod
    from lighteval.utils.language import Language

    letters = [IndicesExtractionConfig(prefix_for_extraction="NativeLetters", try_extract_without_anchor=True)]
    answers = [ExprExtractionConfig(), LatexExtractionConfig(boxed_match_priority=0)]
    golds = {"expr": [ExprExtractionConfig()], "latex": [LatexExtractionConfig()], "index": letters}
    match = MultilingualExtractiveMatchMetric(
        language=Language.ENGLISH,
        gold_extraction_target=golds[gold_kind],
        pred_extraction_target=letters if gold_kind == "index" else answers,
        aggregation_function=max,
        fallback_mode="first_match",
        precision=5,
    )
    return SampleLevelMetric(
        metric_name="extractive_match" if samples == 1 else f"avg@n:n={samples}",
        sample_level_fn=match if samples == 1 else AvgAtN(n=samples, sample_scoring_function=match),
        category=SamplingMethod.GENERATIVE,
        corpus_level_fn=np.mean,
        higher_is_better=True,
    )


def _prompt_function(benchmark: Benchmark) -> Callable[[Row, str], Any]:
    def prompt(row: Row, task_name: str = "") -> Any:
        from lighteval.tasks.requests import Doc

        problem = problem_of(benchmark, row, benchmark.name)
        choices, index = [problem.gold], 0
        if benchmark.prompt_function:
            _, choices, index = ask_lighteval(benchmark, row, benchmark.name)
        elif benchmark.gold_kind == "index":
            choices, index = list(LETTERS), LETTERS.index(problem.gold)
        specific = {"problem_id": problem.id}
        return Doc(query=problem.prompt, choices=choices, gold_index=index, task_name=task_name, specific=specific)

    return prompt


def task_config(benchmark: Benchmark, samples: int = 1, max_tokens: int = 32768) -> Any:
    """The benchmark as a LightevalTaskConfig: hub repository, pinned revision, the paper's prompt, gold and metric."""
    from lighteval.tasks.lighteval_task import LightevalTaskConfig

    return LightevalTaskConfig(
        name=benchmark.name,
        prompt_function=_prompt_function(benchmark),
        hf_repo=benchmark.hub or benchmark.generator or benchmark.name,
        hf_subset=benchmark.subset,
        hf_revision=benchmark.revision,
        hf_avail_splits=[benchmark.split],
        evaluation_splits=[benchmark.split],
        generation_size=max_tokens,
        stop_sequence=[],
        metrics=[paper_metric(benchmark.gold_kind, samples)],
        original_num_docs=benchmark.rows,
        effective_num_docs=benchmark.rows,
        version=1,
    )


def task(benchmark: Benchmark, data_dir: Path | None, samples: int = 1, max_tokens: int = 32768) -> Any:
    """The same as a LightevalTask whose rows are already in it, so that lighteval downloads nothing.

    Every Doc carries our problem id in `specific["problem_id"]`; lighteval overwrites Doc.id and shuffles (seed 42).
    """
    from lighteval.tasks.lighteval_task import LightevalTask

    made = LightevalTask(task_config(benchmark, samples, max_tokens))
    made.dataset = {benchmark.split: [dict(row) for row in read_rows(benchmark, data_dir)[0]]}
    return made
