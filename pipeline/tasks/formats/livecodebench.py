"""LiveCodeBench's prompt: the authors' own for models without one of their own
(LiveCodeBench/LiveCodeBench 28fef95, lcb_runner/prompts/code_generation.py). Its system turn is in
conf/livecodebench.yaml."""

from pipeline.tasks.formats.base import Format, Row

WITH_STARTER = (
    "You will use the following starter code to write the solution to the problem and enclose your "
    "code within delimiters."
)
WITHOUT_STARTER = (
    "Read the inputs from stdin solve the problem and write the answer to stdout (do not directly "
    "test on the sample inputs). Enclose your code within delimiters as follows. Ensure that when "
    "the python program runs, it reads the inputs, runs the algorithm and writes output to STDOUT."
)


def generic(row: Row) -> str:
    starter = row["starter_code"]
    how = WITH_STARTER if starter else WITHOUT_STARTER
    return (
        f"### Question:\n{row['question_content']}\n\n### Format: {how}\n"
        f"```python\n{starter or '# YOUR CODE HERE'}\n```\n\n"
        "### Answer: (use the provided format with backticks)\n\n"
    )


FORMATS = {
    "livecodebench": Format(columns=(("question_content",), ("starter_code",)), text=generic),
}
