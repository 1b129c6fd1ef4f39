"""GSM8K's prompts."""

from collections.abc import Callable

from pipeline.tasks.formats.base import Format, Row, Turn, examples

COLUMNS = (("question",),)
STOP = ("Question:", "</s>", "<|im_end|>")
STEP_BY_STEP = "Let's think step by step"


def question(text: str, hint: str) -> str:
    return f"Question: {text}\n{hint}\nAnswer:"


def dinfer(hint: str) -> Callable[[Row], str]:
    """Four examples in one text. In dInfer's own the signs * of two sums are lost (2/5*60 became
    2/560), and with them some of the score, so they are so here."""

    def text(row: Row) -> str:
        shots = [
            f"{question(one['question'], hint)} {one['answer']}" for one in examples("gsm8k_four")
        ]
        lossy = "\n\n".join(shots).replace("2/5*60", "2/560").replace("2/5*30", "2/530")
        return f"{lossy}\n\n{question(row['question'], hint)}"

    return text


def opencompass(row: Row) -> str:
    return question(row["question"], STEP_BY_STEP)


def turns() -> list[Turn]:
    return [
        {"role": role, "content": content}
        for one in examples("gsm8k_four")
        for role, content in (
            ("user", question(one["question"], STEP_BY_STEP)),
            ("assistant", one["answer"]),
        )
    ]


def cot(row: Row) -> str:
    return f"Q: {row['question']}\nA:"


def cot_8shot(row: Row) -> str:
    shots = [f"{cot(one)} {one['answer']}" for one in examples("gsm8k_eight")]
    return "\n\n".join([*shots, cot(row)])


FORMATS = {
    # dInfer, gsm8k_llada_moe.
    "gsm8k_dinfer": Format(columns=COLUMNS, text=dinfer("Please reason step by step"), stop=STOP),
    # dInfer, gsm8k_llada1.5.
    "gsm8k_dinfer_llada_1_5": Format(columns=COLUMNS, text=dinfer(STEP_BY_STEP), stop=STOP),
    # OpenCompass, gsm8k_gen_1d7fe4: LLaDA's.
    "gsm8k_opencompass": Format(
        columns=COLUMNS,
        text=opencompass,
        turns=turns,
        stop=("Question:",),
    ),
    # lm-evaluation-harness, gsm8k_cot, for base models; without examples it is Dream's.
    "gsm8k_cot_8shot": Format(columns=COLUMNS, text=cot_8shot, stop=("Q:", "</s>", "<|im_end|>")),
    "gsm8k_cot": Format(columns=COLUMNS, text=cot, stop=("Q:", "</s>", "<|im_end|>")),
}
