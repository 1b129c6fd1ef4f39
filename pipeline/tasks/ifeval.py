"""IFEval: which of the row's instructions does the text follow?

The checkers are the published ones, in lm-evaluation-harness's copy (its task ifeval). The four
accuracies are those of the paper (arXiv 2311.07911): by prompt and by instruction, strict and
loose. A row passes if its text follows all instructions, strictly.
"""

from functools import cache
from typing import Any

from engine.errors import UserError
from pipeline.tasks.base import Metric, Row, Task, Verdict

COUNT = "num_instructions"


def verdict(row: Row, text: str) -> Verdict:
    names = row["instruction_id_list"]
    doc = {**row, "kwargs": [{**its} for its in row["kwargs"]]}
    found = _checkers().process_results(doc, [text])
    strict, loose = found["inst_level_strict_acc"], found["inst_level_loose_acc"]
    values = {
        "prompt_level_strict_acc": all(strict),
        "inst_level_strict_acc": sum(strict) / len(names),
        "prompt_level_loose_acc": all(loose),
        "inst_level_loose_acc": sum(loose) / len(names),
        COUNT: len(names),
    }
    missed = [name for name, is_followed in zip(names, strict, strict=True) if not is_followed]
    reason = f"failed: {missed[0] if len(missed) == 1 else 'several instructions'}"
    tallies = tuple(
        (f"kind of instruction, {how}", name.partition(":")[0], float(is_followed))
        for how, its in (("strict", strict), ("loose", loose))
        for name, is_followed in zip(names, its, strict=True)
    )
    return Verdict(not missed, reason if missed else "passed", values, tallies)


@cache
def _checkers() -> Any:
    """
    Raises:
        UserError: the data that they count sentences with is missing.
    """
    import nltk
    from langdetect import DetectorFactory
    from lm_eval.tasks.ifeval import utils  # fetches punkt_tab, if it can

    DetectorFactory.seed = 0  # or a short text's language differs from run to run
    try:
        nltk.data.find("tokenizers/punkt_tab")
    except LookupError as error:
        raise UserError(
            "task='ifeval': nltk's punkt_tab, which splits sentences, is missing and cannot be "
            "fetched; on a machine with network, python -m nltk.downloader -d FOLDER punkt_tab, "
            "and then set NLTK_DATA=FOLDER"
        ) from error
    return utils


TASK = Task(
    columns=("key", "prompt", "instruction_id_list", "kwargs"),
    verdict=verdict,
    metrics=(
        Metric("prompt_level_strict_acc"),
        Metric("inst_level_strict_acc", weight=COUNT),
        Metric("prompt_level_loose_acc"),
        Metric("inst_level_loose_acc", weight=COUNT),
    ),
    modules=("lm_eval", "nltk", "langdetect", "immutabledict"),
    extra="ifeval",
)
