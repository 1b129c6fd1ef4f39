"""`-m tests.end_to_end.quick_heartbeat ARGS`: pipeline.run with a heartbeat timeout of seconds."""

from unittest import mock

from pipeline.launch import launch
from pipeline.run import run

if __name__ == "__main__":
    with mock.patch.multiple(
        "pipeline.plan.heartbeat", BEAT_S=0.5, SILENT_S=5.0, COUNTS_SILENT_S=5.0
    ):
        launch(run)
