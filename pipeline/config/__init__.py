"""Which settings does a job have, and are they valid?

`job.py`: the dataclasses that hold and check all settings
`prompt.py`: those of prompts
`template.py`: the syntax of `prompt.template`
"""
