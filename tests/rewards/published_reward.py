"""Run by test_equivalence.py in a process of its own: the accuracy rewards as the paper's code calls math-verify.

Source: accuracy_reward and get_cosine_scaled_reward of src/open_r1/rewards.py, knoveleng/open-rs at 2889c47. A JSON
list of [gold, completion] a line comes in; a list of pairs goes out: what accuracy pays, and whether cosine's is right.
"""

import json
import sys

from latex2sympy2_extended import NormalizationConfig
from math_verify import LatexExtractionConfig, parse, verify


def reward(completion: str, solution: str, boxed: object) -> float:
    gold = parse(solution, extraction_mode="first_match", extraction_config=[LatexExtractionConfig()])
    if len(gold) == 0:
        return 1.0
    answer = parse(
        completion,
        extraction_config=[
            LatexExtractionConfig(
                normalization_config=NormalizationConfig(
                    nits=False, malformed_operators=False, basic_latex=True, equations=True, boxed=boxed, units=True
                ),
                boxed_match_priority=0,
                try_extract_without_anchor=False,
            )
        ],
        extraction_mode="first_match",
    )
    return float(verify(answer, gold))


reward(r"\boxed{1}", "$1$", "all")  # the first call compiles patterns, inside math-verify's 3 s
for line in sys.stdin:
    rewards = [[reward(text, gold, "all"), reward(text, gold, True)] for gold, text in json.loads(line)]
    print(json.dumps(rewards), flush=True)
