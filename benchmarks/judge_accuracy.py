"""How often is the judge wrong? False accepts and false refusals, by kind, where the truth is known.

Three parts: pairs made from one value (judge_pairs.py), the shared hard cases (judge_cases.jsonl), and real reference
answers of the training data, where the corrected judge and the paper's are compared and every difference is printed.
Exit code 1 when a target of issue 17 is missed: 0.1 % false accepts, 1 % false refusals. docs/judging.md has a run's
tables.
"""

import json
import random
import sys
import time
from collections import Counter
from pathlib import Path

import common
from judge_pairs import completion, pairs

from openrs.rewards.grading import Item, Judge, Rule

Table = list[list[object]]
HEAD = ["kind", "equal", "refused", "different", "accepted"]


def table(truths: list[tuple[str, bool]], verdicts: list[bool]) -> tuple[Table, int, int, int, int]:
    """Rows by kind, and over all: equal pairs, refused ones, different pairs, accepted ones."""
    counts: Counter[tuple[str, bool, bool]] = Counter(
        (kind, right, verdict) for (kind, right), verdict in zip(truths, verdicts, strict=True)
    )
    rows: Table = [HEAD]
    for kind in dict.fromkeys(kind for kind, _ in truths):
        equal, other = (sum(counts[kind, truth, verdict] for verdict in (True, False)) for truth in (True, False))
        rows.append([kind, equal, counts[kind, True, False], other, counts[kind, False, True]])
    sums = [sum(int(str(row[place])) for row in rows[1:]) for place in range(1, 5)]
    rows.append(["all", *sums])
    return rows, *sums


def grade(judge: Judge, items: list[Item]) -> list[bool]:
    return [grade.verdict == "correct" for grade in judge.grade(items)]


def made(judge: Judge, rule: Rule, count: int, seed: int, show: int) -> tuple[Table, int, int, int, int]:
    rng = random.Random(seed)
    drawn = list(pairs(seed, count))
    found = grade(judge, [Item(f"${pair.gold}$", completion(pair, rng), rule) for pair in drawn])
    wrong = [pair for pair, verdict in zip(drawn, found, strict=True) if verdict != pair.right]
    for pair in wrong[:show]:
        print(f"  {'refused' if pair.right else 'accepted'} ({pair.kind}): {pair.gold}   {pair.answer}")
    return table([(pair.kind, pair.right) for pair in drawn], found)


def shared(judge: Judge, rule: Rule, path: Path) -> tuple[Table, int, int, int, int]:
    cases = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    found = grade(judge, [Item(f"${case['gold']}$", case["completion"], rule) for case in cases])
    wrong = [case["id"] for case, verdict in zip(cases, found, strict=True) if verdict != case["right"]]
    print(f"  wrong: {', '.join(wrong) or 'none'}")
    return table([(case["id"].rstrip("0123456789abcdefgh") or case["id"], case["right"]) for case in cases], found)


def real(judge: Judge, folder: Path, count: int, show: int) -> dict[str, int]:
    """The paper's rule and the corrected one on real references, each with itself and with another as the answer."""
    import pyarrow.parquet as pq

    rows = pq.read_table(folder / "deepscaler_part1.parquet", columns=["reward_model"]).to_pylist()
    golds = list(dict.fromkeys(str(row["reward_model"]["ground_truth"]) for row in rows))
    golds = random.Random(5).sample(golds, min(count, len(golds)))
    asked = [(gold, gold) for gold in golds] + [(gold, golds[place - 1]) for place, gold in enumerate(golds)]
    items = [(f"${gold}$", rf"</think> It is $\boxed{{{answer}}}$.") for gold, answer in asked]
    paper, corrected = (grade(judge, [Item(*item, rule) for item in items]) for rule in (Rule.PAPER, Rule.CORRECTED))
    differ = [place for place in range(len(items)) if paper[place] != corrected[place]]
    for place in differ[:show]:
        said = "only the paper's" if paper[place] else "only the corrected"
        print(f"  {said} accepts {asked[place][1]!r} for {asked[place][0]!r}")
    itself = range(len(golds))
    return {
        "references": len(golds),
        "differ": len(differ),
        "paper refuses itself": sum(not paper[place] for place in itself),
        "corrected refuses itself": sum(not corrected[place] for place in itself),
        "paper accepts another": sum(paper[len(golds) :]),
        "corrected accepts another": sum(corrected[len(golds) :]),
    }


def main() -> int:
    parser = common.arguments(__doc__)
    parser.add_argument("--pairs", type=int, default=10_000, metavar="N")
    parser.add_argument("--references", type=int, default=2000, metavar="N", help="real ones (0: none)")
    parser.add_argument("--rule", default="corrected", metavar="RULE")
    parser.add_argument("--seed", type=int, default=2026)
    parser.add_argument("--show", type=int, default=40, metavar="N", help="wrong verdicts to print of each part")
    parser.add_argument("--data", type=Path, default=common.shared_data(), metavar="DIR")
    args = parser.parse_args()
    began = time.perf_counter()
    with Judge(timeout=30) as judge:
        print(f"{args.pairs} pairs of known truth, rule {args.rule}")
        rows, equal, refused, other, accepted = made(judge, Rule(args.rule), args.pairs, args.seed, args.show)
        print_table(rows)
        cases = args.data / "judge_cases.jsonl"
        if cases.is_file():
            print("shared hard cases")
            print_table(shared(judge, Rule(args.rule), cases)[0])
        references = {}
        if args.references and (args.data / "training").is_dir():
            print("real reference answers")
            references = real(judge, args.data / "training", args.references, args.show)
            print("  " + ", ".join(f"{name}: {value}" for name, value in references.items()))
    print(f"{accepted} of {other} accepted falsely, {refused} of {equal} refused; {time.perf_counter() - began:.0f} s")
    if args.json:
        args.json.write_text(json.dumps({"rows": rows, "references": references, "ratios": {}}, indent=1) + "\n")
    return int(accepted > 0.001 * other or refused > 0.01 * equal)


def print_table(rows: Table) -> None:
    widths = [max(len(str(row[place])) for row in rows) for place in range(len(HEAD))]
    for row in rows:
        print("  " + "  ".join(str(cell).ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


if __name__ == "__main__":
    sys.exit(main())
