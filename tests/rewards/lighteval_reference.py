"""Run by test_grading.py in a process of its own (lighteval sets SIGALRM):
scores of lighteval's own metric objects. A JSON list of [gold, completion, rule] a line comes in, a
list of scores goes out.
"""

import json
import sys

from lighteval.metrics.dynamic_metrics import MultilingualExtractiveMatchMetric
from lighteval.metrics.metrics import Metrics
from lighteval.metrics.utils.extractive_match_utils import ExprExtractionConfig, LatexExtractionConfig
from lighteval.models.model_output import ModelResponse
from lighteval.tasks.requests import Doc
from lighteval.utils.language import Language

METRICS = {
    "expr-gold": Metrics.expr_gold_metric.value.sample_level_fn,  # lighteval ships this one as the paper has it
    "latex-gold": MultilingualExtractiveMatchMetric(
        language=Language.ENGLISH,
        fallback_mode="first_match",
        precision=5,
        gold_extraction_target=(LatexExtractionConfig(),),
        pred_extraction_target=(ExprExtractionConfig(), LatexExtractionConfig(boxed_match_priority=0)),
        aggregation_function=max,
    ),
}


def score(gold: str, completion: str, rule: str) -> float:
    doc = Doc(query="", choices=[gold], gold_index=0)
    return float(METRICS[rule].compute(doc=doc, model_response=ModelResponse(text=[completion])))


for line in sys.stdin:
    print(json.dumps([score(*question) for question in json.loads(line)]), flush=True)
