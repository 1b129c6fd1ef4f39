"""iLLaDA-8B, Base and Instruct (arXiv 2606.25331).

The transformer is Llama's with bidirectional attention, and grouped heads; logits are not shifted.
The published files hold the output head although it is tied to the embedding: loading checks that
the two are equal (engine/model/weights.py).
"""

from typing import Any

from engine.model.config import ModelConfig
from engine.model.config_json import ASSUMED, Raw, check_assumed, read_sizes, read_token_ids
from engine.model.weight_map import Names

FAMILY_ASSUMED: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "layer_norm_eps": None,  # a number turns the authors' RMS norms into layer norms
}
"""Values that the shared transformer is built for, in addition to ASSUMED."""

DEFAULTS = "illada_8b"
NAMES = Names()

# The published template was not seen. These are the turns of Seed-Coder, whose vocabulary has the
# same size and special ids; the tokens are those that the checkpoint's tokenizer names.
CHECK_TOKENS = (
    "{% if not bos_token or not eos_token %}{{ raise_exception('the checkpoint has no chat "
    "template, and its tokenizer names no bos_token and eos_token to make one of') }}{% endif %}"
)
CHAT_TEMPLATE = (
    CHECK_TOKENS + "{% for message in messages %}"
    "{{ bos_token }}{{ message['role'] + '\\n' + message['content'] }}"
    "{% if message['role'] == 'system' %}{{ '\\n\\n' }}{% endif %}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ bos_token + 'assistant\\n' }}{% endif %}"
)


def read_config(raw: Raw, name: str = "") -> ModelConfig:
    """Translate iLLaDA's `config.json`.

    Raises:
        KeyError: a required key is missing.
        UserError: a key has a value that this loader does not support.
    """
    # The authors' class takes no other size of a head.
    head_dim = {"head_dim": raw["hidden_size"] // raw["num_attention_heads"]}
    check_assumed(raw, ASSUMED | FAMILY_ASSUMED | head_dim, "iLLaDA")
    sizes = read_sizes(raw)
    # transformers leaves this key out where it is true, unless a class says otherwise.
    sizes["tied_head"] = raw.get("tie_word_embeddings", True)
    return ModelConfig(
        family="illada",
        mlp_size=raw["intermediate_size"],
        **sizes,
        # No config.json states the mask; the authors' README does.
        **read_token_ids(raw, mask=5, eos=2),
    )
