"""`python -m jobs.lm_eval ...`: the harness's command `lm_eval`, which knows `--model dllm`."""

import sys

from lm_eval.__main__ import cli_evaluate

from engine.errors import UserError


def main() -> None:
    """Run the harness. A wrong setting of ours is one line."""
    try:
        cli_evaluate()
    except UserError as error:
        print(f"jobs.lm_eval: {error}", file=sys.stderr)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
