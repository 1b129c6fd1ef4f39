"""How does text become token ids, and how do generated token ids become text?

`chat.py`: prompts through the checkpoint's tokenizer and chat template, and back
`special_text.py`: text that spells a special token stays text
`tokenizer.py`: load a checkpoint's tokenizer, and check that it fits the model
"""
