"""How does text become token ids, and how do generated token ids become text?

`chat.py`: prompts through the checkpoint's tokenizer and chat template, and back
`messages.py`: what a row gives as messages and tools
`templates.py`: the checkpoint's chat template: which, and is it valid?
`reach.py`: does all that a conversation says reach the prompt?
`bos.py`: the BOS in front of every prompt, where the settings ask for one
`special_text.py`: text that spells a special token stays text
`tokenizer.py`: load a checkpoint's tokenizer, and check that it fits the model
"""
