"""Tokenizers as the families publish them, and those that are of another checkpoint."""

import json
import re
from pathlib import Path

import pytest

from engine.model.families import FAMILIES, config_of
from engine.model.families.dream import DLM_PAD_ID
from engine.model.load import read_config
from engine.text.messages import PromptError
from engine.text.tokenizer import check_tokens, load_tokenizer
from pipeline.config.job import PromptConfig
from pipeline.prompt.prompter import Prompter
from tests.published import TOKENIZERS, write_tokenizer
from tests.published_configs import CONFIGS

USER_TURN = {
    "llada": "<|startoftext|><|start_header_id|>user<|end_header_id|>\n\nhi<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n",
    "llada_moe": "<role>HUMAN</role>hi<|role_end|><role>ASSISTANT</role>",
    "llada2": "<role>SYSTEM</role>detailed thinking off<|role_end|>"
    "<role>HUMAN</role>hi<|role_end|><role>ASSISTANT</role>",
    "illada": "<[begin▁of▁sentence]>user\nhi<[end▁of▁sentence]><[begin▁of▁sentence]>assistant\n",
    "stable_diffcoder": "<[begin▁of▁sentence]>system\n"
    "You are an AI programming assistant, utilizing the Seed-Coder model, developed by ByteDance "
    "Seed, and you only answer questions related to computer science. For politically sensitive "
    "questions, security and privacy issues, and other non-computer science questions, you will "
    "refuse to answer.\n\n<[end▁of▁sentence]>"
    "<[begin▁of▁sentence]>user\nhi<[end▁of▁sentence]><[begin▁of▁sentence]>assistant\n",
    "qwen": "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n",
}
WITH_QWENS_SYSTEM = ("dream", "fast_dllm_v2", "fast_dllm_v2_small")
USER_TURN |= dict.fromkeys(
    WITH_QWENS_SYSTEM,
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + USER_TURN["qwen"],
)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each layout without weights."""
    root = tmp_path_factory.mktemp("published")
    for layout, raw in CONFIGS.items():
        write_tokenizer(root / layout, layout)
        (root / layout / "config.json").write_text(json.dumps(raw))
    return {layout: root / layout for layout in CONFIGS}


@pytest.mark.parametrize("layout", CONFIGS)
def test_the_published_tokenizer_is_read_and_is_the_models(
    folders: dict[str, Path], layout: str
) -> None:
    folder = folders[layout]
    model, tokenizer = read_config(folder), load_tokenizer(folder)
    check_tokens(tokenizer, model, folder)
    assert "mask" in tokenizer.convert_ids_to_tokens(model.mask_token_id).lower()
    ends = [id for id in model.eos_token_ids if layout != "dream" or id != DLM_PAD_ID]
    assert all("end" in tokenizer.convert_ids_to_tokens(id) or id == 126348 for id in ends)
    ids = tokenizer.encode("def f(x):  # ünï", add_special_tokens=False)
    assert tokenizer.decode(ids) == "def f(x):  # ünï"


@pytest.mark.parametrize("layout", CONFIGS)
def test_the_familys_chat_template_makes_special_tokens(
    folders: dict[str, Path], layout: str
) -> None:
    folder = folders[layout]
    model = read_config(folder)
    template = FAMILIES[model.family].CHAT_TEMPLATE
    prompter = Prompter(folder, PromptConfig(), 1000, template)
    ids = prompter.token_ids({"prompt": "hi"})
    wanted = USER_TURN.get(layout.removesuffix("_1"), USER_TURN["qwen"])
    assert prompter.tokenizer.decode(ids) == wanted
    special = {id for _, _, named in TOKENIZERS.values() for id in named.values()}
    assert sum(id in special for id in ids) >= 3
    assert prompter.text([*ids, *model.eos_token_ids]).strip()[:4] not in ("<|im", "<rol", "<[be")


def test_the_padding_of_diffucoder_ends_its_generations(tmp_path: Path) -> None:
    model = config_of(CONFIGS["dream"], "apple/DiffuCoder-7B-Instruct")
    assert model.eos_token_ids == (151643, 151645, 151667)
    write_tokenizer(tmp_path, "diffucoder")
    tokenizer = load_tokenizer(tmp_path)
    check_tokens(tokenizer, model, tmp_path)
    assert tokenizer.convert_ids_to_tokens(DLM_PAD_ID) == "<|dlm_pad|>"


@pytest.mark.parametrize(
    ("layout", "changes", "said"),
    [
        ("dream", {"mask_token_id": 151665}, "151665 is '<|beginoftext|>' .. 151666 (<|mask|>)"),
        ("fast_dllm_v2", {"mask_token_id": 5}, "mask_token_id=5 is .. must be 151665 (|<MASK>|)"),
        ("llada", {"mask_token_id": 126350}, "mask_token_id=126350 is no token .. 126336"),
        ("sdar", {"eos_token_id": 7}, "eos_token_id=7 is .. no token of ordinary text"),
        ("llada_moe", {"vocab_size": 156897}, "ids up to 156900, the model .. only 156897 rows"),
    ],
)
def test_token_ids_that_contradict_the_tokenizer_are_refused(
    folders: dict[str, Path], layout: str, changes: dict[str, int], said: str
) -> None:
    folder = folders[layout]
    model = config_of(CONFIGS[layout] | changes, layout)
    with pytest.raises(ValueError, match=re.escape(said).replace(re.escape(".."), ".*")):
        check_tokens(load_tokenizer(folder), model, folder)


def test_a_class_of_the_checkpoints_own_without_its_files_is_refused(tmp_path: Path) -> None:
    write_tokenizer(tmp_path, "dream")
    (tmp_path / "merges.txt").unlink()
    with pytest.raises(ValueError, match=r"no tokenizer can be loaded .* never run"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize("layout", ["illada", "stable_diffcoder"])
def test_a_template_of_named_tokens_needs_their_names(tmp_path: Path, layout: str) -> None:
    write_tokenizer(tmp_path, layout)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        file = tmp_path / name
        file.write_text(
            json.dumps({k: v for k, v in json.loads(file.read_text()).items() if k != "bos_token"})
        )
    template = FAMILIES[layout].CHAT_TEMPLATE
    prompter = Prompter(tmp_path, PromptConfig(), 1000, template)
    with pytest.raises(PromptError, match="names no bos_token and eos_token to make one of"):
        prompter.token_ids({"prompt": "hi"})


def test_a_system_turn_of_ones_own_replaces_seed_coders(folders: dict[str, Path]) -> None:
    template = FAMILIES["stable_diffcoder"].CHAT_TEMPLATE
    config = PromptConfig(system="Be brief.")
    prompter = Prompter(folders["stable_diffcoder"], config, 1000, template)
    assert prompter.tokenizer.decode(prompter.token_ids({"prompt": "hi"})) == (
        "<[begin▁of▁sentence]>system\nBe brief.\n\n<[end▁of▁sentence]>" + USER_TURN["illada"]
    )
