"""How does a row become the token ids of its prompt?

`prompter.py`: which columns make the prompt, the job's template, and what is wrong with a row
"""
