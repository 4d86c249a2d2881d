"""A child process of the judge (grading.py): reads one item a line, answers one verdict a line, in JSON.

Run by its path, never imported by the trainer: it imports math-verify, sympy and the two files of lighteval that hold
the evaluation metric (about 0.4 s, 60 MB), and neither torch nor openrs. Whatever it does wrong ends with its own
death; the clock that decides is the parent's.

The rules, as the published code has them:
- `paper`: src/open_r1/rewards.py of knoveleng/open-rs at 2889c47, accuracy_reward: gold as LaTeX, first match; answer
  as LaTeX, boxed before everything else, never without an anchor, first match; verify(answer, gold), which is the wrong
  way round.
- `paper-cosine`: the same with `boxed=True` in the answer's normalization, which get_cosine_scaled_reward has where the
  accuracy reward has `boxed="all"`. No branch of latex2sympy2_extended 1.0.6 knows True, so a box between dollars or
  brackets is not opened: `$\\boxed{12 \\text{ cm}}$` is no answer there, `$\\boxed{12}$` still is one.
- `corrected`: our own (extraction.py, reading.py, equivalence.py beside this file), on math-verify's parser. A
  thought without end (`<think>` without `</think>`) holds no answer.
- `latex-gold`, `expr-gold`: lighteval's extractive match (evaluate.py of knoveleng/open-rs; lighteval 0.13.0 differs
  from the paper's commit ed08481 here only by allowing a blank before the colon of "answer :" and by surviving a
  malformed number).
- `index-gold`: the same for one of four choices, A to D, in gold and answer; also without an anchor, which was the
  default at ed08481.

math-verify and lighteval time out by SIGALRM inside (3 and 5 s for each parse and each comparison) and treat that as
"not parsed" or "not equal", as they did in the published runs: a verdict that is reached inside the parent's limit is
the published one.
"""

import contextlib
import importlib.util
import itertools
import json
import math
import os
import resource
import signal
import sys
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

TEXT_LIMIT = 200  # characters of an extracted gold or answer that go back: they are for a person

Extracted = tuple[str, list[Any], list[Any]]  # verdict, gold as extracted, answer as extracted
CORRECTED_SECONDS = 3.0  # of processor time for the comparison; math-verify's own limit is 3 s by the clock


def math_verify_rule(boxed: Any) -> Callable[[str, str], Extracted]:
    """The training reward's question: verify(answer, gold), the wrong way round, as published. `boxed`:
    NormalizationConfig.boxed for the answer."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    gold_config = [LatexExtractionConfig()]
    answer_config = [
        LatexExtractionConfig(
            normalization_config=NormalizationConfig(
                basic_latex=True, units=True, malformed_operators=False, nits=False, boxed=boxed, equations=True
            ),
            boxed_match_priority=0,
            try_extract_without_anchor=False,
        )
    ]

    def judge(gold_text: str, completion: str) -> Extracted:
        gold = parse(gold_text, gold_config, extraction_mode="first_match")
        if not gold:
            return "unparseable_gold", gold, []
        answer = parse(completion, answer_config, extraction_mode="first_match")
        if verify(answer, gold):
            return "correct", gold, answer
        return ("incorrect" if answer else "no_answer"), gold, answer

    return judge


def corrected_rule() -> Callable[[str, str], Extracted]:
    """Is it right? Not the published question: see equivalence.py."""
    package = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))  # noqa: PTH120, PTH100
    if package not in sys.path:
        sys.path.append(package)
    from openrs.rewards.equivalence import equivalent
    from openrs.rewards.extraction import answer_in, gold_in
    from openrs.rewards.reading import readings, shown

    def judge(gold_text: str, completion: str) -> Extracted:
        with alarm(CORRECTED_SECONDS):
            try:
                gold = gold_in(gold_text)
                values = readings(gold)
                if not values:
                    return "unparseable_gold", [], []
                answer = answer_in(completion)
                right = bool(answer) and equivalent(gold, answer)
                verdict = "correct" if right else "incorrect" if answer else "no_answer"
                return verdict, shown(gold), shown(answer)
            except TimeoutError:
                return "incorrect", [gold_text], []

    return judge


def lighteval_modules() -> tuple[Any, Any, Any]:
    """lighteval's extraction, comparison and language modules without the rest of lighteval, which takes 6 s and
    imports torch.

    Two modules are replaced by empty ones first: the package `lighteval.metrics`, whose __init__ imports every metric
    there is, and `lighteval.tasks.requests`, from which only the name of a type is taken.
    """
    spec = importlib.util.find_spec("lighteval")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'lighteval'", name="lighteval")
    metrics = types.ModuleType("lighteval.metrics")
    metrics.__path__ = [os.path.join(folder, "metrics") for folder in spec.submodule_search_locations]  # noqa: PTH118
    requests: Any = types.ModuleType("lighteval.tasks.requests")
    requests.Doc = object
    sys.modules["lighteval.metrics"] = metrics
    sys.modules["lighteval.tasks.requests"] = requests
    return (
        importlib.import_module("lighteval.metrics.utils.extractive_match_utils"),
        importlib.import_module("lighteval.metrics.utils.math_comparison"),
        importlib.import_module("lighteval.utils.language"),
    )


def lighteval_rule(modules: tuple[Any, Any, Any], gold_kind: str) -> Callable[[str, str], Extracted]:
    """The evaluation's question: MultilingualExtractiveMatchMetric with the settings of the paper's evaluate.py."""
    extraction, comparison, language = modules
    english = language.Language.ENGLISH
    letters = extraction.IndicesExtractionConfig(prefix_for_extraction="NativeLetters", try_extract_without_anchor=True)
    mathematics = (extraction.ExprExtractionConfig(), extraction.LatexExtractionConfig(boxed_match_priority=0))
    gold_target = {
        "expr": extraction.ExprExtractionConfig(), "latex": extraction.LatexExtractionConfig(), "index": letters
    }[gold_kind]  # fmt: skip
    question = types.SimpleNamespace(choices="ABCD")  # all that the patterns of letters take from a Doc is their number
    gold_patterns = extraction.get_extraction_regexes(question, (gold_target,), english)
    answer_patterns = extraction.get_extraction_regexes(
        question, (letters,) if gold_kind == "index" else mathematics, english
    )

    def judge(gold_text: str, completion: str) -> Extracted:
        answer = extraction.extract_target_from_pred(completion, answer_patterns, "first_match", "any_match", 5)
        gold = extraction.extract_target_from_pred(gold_text, gold_patterns, "first_match", "any_match", 5)
        # A gold without anything to extract is compared as it stands, so it can still be met.
        if comparison.compare_gold_target(gold or [gold_text], answer, 5, timeout_seconds=5):
            return "correct", gold, answer
        if not gold:
            return "unparseable_gold", gold, answer
        return ("incorrect" if answer else "no_answer"), gold, answer

    return judge


def load_rules() -> dict[str, Callable[[str, str], Extracted]]:
    modules = lighteval_modules()
    return {
        "paper": math_verify_rule(boxed="all"),
        "paper-cosine": math_verify_rule(boxed=True),
        "corrected": corrected_rule(),
        "latex-gold": lighteval_rule(modules, "latex"),
        "expr-gold": lighteval_rule(modules, "expr"),
        "index-gold": lighteval_rule(modules, "index"),
    }


@contextlib.contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """TimeoutError after so many seconds of processor time: how busy the machine is changes no verdict."""

    def ring(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


def shorten(text: str) -> str:
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 3] + "..."


def as_text(extracted: list[Any]) -> str:
    """What was extracted, for a person: the text, and what it was read as where that is small enough to print."""
    import sympy

    text = shorten(next((part for part in extracted if isinstance(part, str)), ""))
    expressions = [part for part in extracted if not isinstance(part, str)]
    if not expressions:
        return f"{text} (not read as mathematics)" if text else ""
    try:
        with alarm(0.2):
            nodes = list(itertools.islice(sympy.preorder_traversal(expressions[0]), 101))
            # Printing a number of a million digits takes seconds and is of no use.
            if len(nodes) > 100 or any(getattr(node, "is_Integer", False) and abs(node) > 10**50 for node in nodes):
                return text
            value = shorten(str(expressions[0]))
    except Exception:  # noqa: BLE001 - named fault boundary, the grader: sympy's printers fail in every way there is
        return text
    return value if value == text or not text else f"{text} -> {value}"


def die_with_parent(parent: int) -> None:
    """End when the trainer ends, also by SIGKILL and also in the middle of an item.

    On Linux the kernel sends SIGTERM. Elsewhere the end of input is seen after the item, and the limit on processor
    time (see main) ends an item that would go on for ever.
    """
    if sys.platform == "linux":
        import ctypes

        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:  # it died before we asked
        sys.exit(0)


def limit(which: int, soft: int) -> None:
    """Set a soft limit, never above the hard one that the machine set."""
    hard = resource.getrlimit(which)[1]
    soft = soft if hard == resource.RLIM_INFINITY else min(soft, hard)
    with contextlib.suppress(ValueError, OSError):  # macOS refuses RLIMIT_AS: there the clock alone protects
        resource.setrlimit(which, (soft, hard))


def peak_bytes() -> int:
    """The most memory it has held. Not ru_maxrss on Linux: that begins with what the parent held, and a trainer holds
    gigabytes."""
    with contextlib.suppress(OSError), open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123 - no pathlib
        return next((int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:")), 0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # macOS: bytes


def main(parent: int, memory_bytes: int, seconds: float) -> None:
    die_with_parent(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with open(os.dup(0), "rb") as inbox, open(os.dup(1), "wb") as outbox:  # noqa: PTH123 - descriptors
        nothing = os.open(os.devnull, os.O_RDWR)
        os.dup2(nothing, 0)
        os.dup2(nothing, 1)  # math-verify prints its errors: they must not mix with the answers

        def send(message: dict[str, Any]) -> None:
            outbox.write(json.dumps(message).encode("ascii") + b"\n")
            outbox.flush()

        try:
            rules = load_rules()
        except ImportError as error:
            send({"missing": str(error)})
            return
        for judge in rules.values():
            judge("$1$", r"$\boxed{1}$")  # compiles the patterns and does the late imports: not in any item's time
        limit(resource.RLIMIT_CORE, 0)
        limit(resource.RLIMIT_AS, memory_bytes)
        send({"ready": True})
        os.dup2(nothing, 2)  # from here on only hostile text could be written there

        for line in inbox:
            started = time.perf_counter()
            limit(resource.RLIMIT_CPU, math.ceil(time.process_time() + seconds) + 2)
            try:
                item = json.loads(line)
                verdict, gold, answer = rules[item["rule"]](item["gold"], item["completion"])
                reply = {"verdict": verdict, "gold": as_text(gold), "answer": as_text(answer)}
            except Exception as error:  # noqa: BLE001 - named fault boundary, the grader: hostile text raises anything
                why = f"{type(error).__name__}: {shorten(str(error))}"
                reply = {"verdict": "crash", "gold": "", "answer": "", "error": why}
            # An innocent item must find the memory that it needs. (The caches of sympy and antlr are no reason: over
            # 20,000 real golds and answers they grew by 40 MB and then stayed.)
            should_recycle = reply["verdict"] == "crash" or peak_bytes() > memory_bytes // 2
            send({**reply, "seconds": time.perf_counter() - started, "should_recycle": should_recycle})
            if should_recycle:
                return


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))
