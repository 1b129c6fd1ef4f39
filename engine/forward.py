"""Runs a packed plan: sends it to the device, computes it there, and brings the report back.

The device part of an iteration is everything from the embedding to the commits. It reads nothing on
the host, and its launches depend only on the batch's shape, so it can be captured in a graph.
"""

import logging

import numpy as np
from torch import Tensor

from engine.batch import HostBatch
from engine.canvas import Canvases
from engine.config import EngineConfig
from engine.decide import Decider
from engine.device_batch import Batch, BatchSender
from engine.graphs import CudaCapture, Graphs
from engine.report import ReportReader
from engine.runner import ModelRunner
from engine.stats import EngineStats

log = logging.getLogger("engine")


class Forwards:
    """Runs forwards on one device, as graphs where that is faster."""

    def __init__(
        self,
        config: EngineConfig,
        runner: ModelRunner,
        canvases: Canvases,
        decider: Decider,
        sender: BatchSender,
        stats: EngineStats,
    ) -> None:
        self._runner = runner
        self._canvases = canvases
        self._decider = decider
        self.sender = sender
        self._stats = stats
        self._reader = ReportReader(runner.device)
        self.graphs: Graphs | None = None
        if config.graphs and runner.is_capturable and runner.device.type == "cuda":
            if runner.model.parallel.size > 1:
                log.info("engine.graphs: not for a model that several ranks hold together")
            else:
                capture = CudaCapture(runner.device)
                self.graphs = Graphs(self.device_part, sender, capture)

    def run(self, host: HostBatch) -> np.ndarray:
        """Run the plan through the model and the strategy. Returns the report of its commits, int32
        [2, M] (see Canvases.commit)."""
        self._canvases.write()
        tiles = self._runner.tiles(host)
        num_asked, num_padding = host.index_M.size, 0
        graph = None
        if self.graphs is not None:
            with self._runner.clock.paused():
                graph = self.graphs.graph(host, tiles)
        if self.graphs is None or graph is None:
            report = self.device_part(self.sender.send(host, tiles))
        else:
            num_padding = graph.inputs.shape.num_query_tokens - host.positions_Q.size
            with self._runner.clock:
                report = self.graphs.replay(graph, host, tiles)
        on_host = self._reader.read(report, num_asked)
        self._stats.num_padding_tokens += num_padding
        return on_host

    def device_part(self, batch: Batch) -> Tensor:
        """From a batch to the report of its commits, on the device."""
        asked = self._decider.asked(batch)
        token_ids_Q = self._canvases.tokens(batch.slots_Q)
        added_ND = self._decider.added(batch, asked)
        hidden_ND = self._runner.forward(batch, token_ids_Q, added_ND)
        return self._decider.commit(batch, asked, hidden_ND)
