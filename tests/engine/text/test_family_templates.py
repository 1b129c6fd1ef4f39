"""The chat templates of the families, for checkpoints that come without one, give the text of the
published ones: of LLaDA-8B, Dream and Fast_dLLM_v2 (both Qwen2.5's), SDAR (Qwen3's), and Ling 2.0,
which LLaDA2 was trained from."""

import json

import pytest

from engine.text.chat import ChatTokenizer, PromptError
from tests.published import write_tokenizer
from tests.published_configs import CONFIGS

USER = {"role": "user", "content": "hi"}
BRIEF = {"role": "system", "content": "Be brief."}
TURNS = [USER, {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "bye"}]
PADDED = {"role": "user", "content": " \n a\n b \n"}
REASONED = [
    USER,
    {"role": "assistant", "content": "<think>\nEasy.\n</think>\n\nHello."},
    {"role": "user", "content": "bye"},
]
LATE = [USER, {"role": "assistant", "content": "Hello."}, BRIEF, {"role": "user", "content": "bye"}]

START, END = "<|start_header_id|>", "<|end_header_id|>\n\n"
LLADA = f"{START}user{END}hi<|eot_id|>"
OPEN = f"{START}assistant{END}"
QWENS = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
QWEN_BRIEF = "<|im_start|>system\nBe brief.<|im_end|>\n"
HI, ANSWER = "<|im_start|>user\nhi<|im_end|>\n", "<|im_start|>assistant\n"
TALK = f"{HI}{ANSWER}Hello.<|im_end|>\n<|im_start|>user\nbye<|im_end|>\n{ANSWER}"
LATELY = f"{HI}{ANSWER}Hello.<|im_end|>\n{QWEN_BRIEF}<|im_start|>user\nbye<|im_end|>\n{ANSWER}"
PADS = f"<|im_start|>user\n \n a\n b \n<|im_end|>\n{ANSWER}"
QWEN2_5 = {
    "user": QWENS + HI + ANSWER,
    "system": QWEN_BRIEF + HI + ANSWER,
    "turns": QWENS + TALK,
    "system later": QWENS + LATELY,
    "white space": QWENS + PADS,
}
OFF, HUMAN = "<role>SYSTEM</role>detailed thinking off<|role_end|>", "<role>HUMAN</role>"
LINGS = f"{HUMAN}hi<|role_end|><role>ASSISTANT</role>Hello.<|role_end|>"
BYE = f"{HUMAN}bye<|role_end|><role>ASSISTANT</role>"

MESSAGES = {
    "user": [USER],
    "system": [BRIEF, USER],
    "turns": TURNS,
    "system later": LATE,
    "white space": [PADDED],
}
PUBLISHED = {
    "llada": {
        "user": f"<|startoftext|>{LLADA}{OPEN}",
        "system": f"<|startoftext|>{START}system{END}Be brief.<|eot_id|>{LLADA}{OPEN}",
        "turns": f"<|startoftext|>{LLADA}{OPEN}Hello.<|eot_id|>{START}user{END}bye<|eot_id|>{OPEN}",
        "system later": f"<|startoftext|>{LLADA}{OPEN}Hello.<|eot_id|>{START}system{END}Be brief."
        f"<|eot_id|>{START}user{END}bye<|eot_id|>{OPEN}",
        "white space": f"<|startoftext|>{START}user{END}a\n b<|eot_id|>{OPEN}",
    },
    "llada2": {
        "user": f"{OFF}{HUMAN}hi<|role_end|><role>ASSISTANT</role>",
        "system": "<role>SYSTEM</role>Be brief.\ndetailed thinking off<|role_end|>"
        f"{HUMAN}hi<|role_end|><role>ASSISTANT</role>",
        "turns": OFF + LINGS + BYE,
        "system later": f"{OFF}{LINGS}<role>SYSTEM</role>Be brief.<|role_end|>{BYE}",
        "white space": f"{OFF}{HUMAN} \n a\n b \n<|role_end|><role>ASSISTANT</role>",
    },
    "dream": QWEN2_5,
    "fast_dllm_v2": QWEN2_5,
    "sdar": {
        "user": HI + ANSWER,
        "system": QWEN_BRIEF + HI + ANSWER,
        "turns": TALK,
        "system later": LATELY,
        "white space": PADS,
    },
}
CASES = [(layout, case) for layout, cases in PUBLISHED.items() for case in cases]


@pytest.fixture(scope="module")
def chats(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ChatTokenizer]:
    root = tmp_path_factory.mktemp("published")
    for layout in PUBLISHED:
        write_tokenizer(root / layout, layout)
        (root / layout / "config.json").write_text(json.dumps(CONFIGS[layout]))
    return {layout: ChatTokenizer.of_checkpoint(root / layout) for layout in PUBLISHED}


@pytest.mark.parametrize(("layout", "case"), CASES)
def test_the_text_is_that_of_the_published_template(
    chats: dict[str, ChatTokenizer], layout: str, case: str
) -> None:
    chat, wanted = chats[layout], PUBLISHED[layout][case]
    encoded = chat.conversation("messages", MESSAGES[case])
    assert encoded.text == wanted
    assert chat.tokenizer.decode(encoded.ids) == wanted
    if case == "system":
        assert chat.user_turn("prompt", ["hi"], "".join, "Be brief.") == encoded


@pytest.mark.parametrize("layout", ["llada2", "sdar"])
def test_the_reasoning_of_earlier_answers_is_left_out_which_is_an_error_of_the_row(
    chats: dict[str, ChatTokenizer], layout: str
) -> None:
    """As with the published templates: what a row says reaches the prompt, or is its error."""
    template = chats[layout].template
    assert template.render(REASONED, None) == PUBLISHED[layout]["turns"]
    with pytest.raises(PromptError, match=r"messages\[1\]\.content: .* leaves out or changes"):
        chats[layout].conversation("messages", REASONED)


@pytest.mark.parametrize("layout", ["llada2", "dream", "fast_dllm_v2", "sdar"])
def test_a_role_that_they_show_in_another_way_is_refused(
    chats: dict[str, ChatTokenizer], layout: str
) -> None:
    turns = [USER, {"role": "tool", "content": "5"}]
    with pytest.raises(PromptError, match="only the roles system, user and assistant"):
        chats[layout].conversation("messages", turns)
