"""How does a row become the token ids of its prompt?

`columns.py`: which columns do prompts come from?
`prompter.py`: a row's prompt, or what is wrong with the row
`kept.py`: the prompts in the output
"""
