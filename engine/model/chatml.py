"""ChatML, the chat template of Qwen's models, in the two forms that families publish.

For conversations without tools the text is that of the published templates. Roles beyond the three
are refused: the published templates show tools and their results in a way of their own.
"""

ANSWER = (
    "{% if '</think>' in message['content'] %}"
    "{{ message['content'].split('</think>')[-1].lstrip('\\n') }}"
    "{% else %}{{ message['content'] }}{% endif %}"
)
"""An assistant's turn, without the reasoning that it may begin with."""
ONLY_THREE = (
    "{% if message['role'] not in ('system', 'user', 'assistant') %}{{ raise_exception("
    "'the template of the model\\'s family knows only the roles system, user and assistant')"
    " }}{% endif %}"
)
"""Stands in the loop over messages."""
_START = "{% for message in messages %}" + ONLY_THREE + "<|im_start|>{{ message['role'] }}\n"
_END = "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"

QWEN2_5 = (
    "{% if messages[0]['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}"
    + _START
    + "{{ message['content'] }}"
    + _END
)
"""A conversation without a system turn gets Qwen's. Published so by Dream and Fast_dLLM_v2."""
QWEN3 = (
    _START
    + "{% if message['role'] == 'assistant' %}"
    + ANSWER
    + "{% else %}{{ message['content'] }}{% endif %}"
    + _END
)
"""No system turn that the conversation does not have, and earlier answers without their reasoning.
Published so by SDAR."""
