"""Replays small forwards as CUDA graphs: launching their kernels one by one costs the host up to a
third of the time.

A graph is captured for a fixed shape, to which plans are padded. Shapes come from a short list of
sizes, so that few graphs serve all plans and little is padded. A plan with guided positions has no
graph: they are the last of the requested ones, where a graph has padding.
"""

import gc
import logging
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from engine.batch import HostBatch
from engine.batch_buffer import BatchShape
from engine.device_batch import Batch, BatchSender, FixedBatch
from engine.errors import UserError
from engine.kernels.tiles import HostTiles
from engine.memory import is_out_of_memory

log = logging.getLogger("engine")

MOST_QUERY_TOKENS = 4096
"""Longer forwards take the GPU longer than their launches take even a slow host: on one whose
launches take 70 us each, LLaDA-MoE's forward of 2,048 tokens took 13 ms of the GPU and 18.5 of the
host."""
MOST_GRAPHS = 64
"""A graph keeps its inputs, and the driver's copy of its launches: a few MB. Runs of 1 to 128
sequences with prompts of 300 to 600 tokens had at most 30 graphs, whatever the cache policy."""
SIGHTINGS, SIGHTINGS_WHEN_FULL = 2, 16
"""How often a shape must come before it is captured, which takes as long as some eager forwards.
More often where another graph has to go for it, so that shapes which take turns cost little."""


class Captured(NamedTuple):
    """A captured function."""

    replay: Callable[[], None]
    """Run it again on what its inputs hold now."""
    output: Tensor
    """What it returned; every replay overwrites it."""


class Capture(Protocol):
    """Captures a function of tensors at fixed addresses."""

    def __call__(self, function: Callable[[], Tensor]) -> Captured:
        """Capture the function. It may be run as well, so its inputs must be harmless.

        Raises:
            UserError: it cannot be captured.
        """
        ...


class CudaCapture:
    """Captures CUDA graphs. All share one memory pool, because only one runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # One stream for all, so that cuBLAS keeps one workspace and graphs can share memory.
        self._stream = torch.cuda.Stream(device)
        self._pool = torch.cuda.graph_pool_handle()

    def __call__(self, function: Callable[[], Tensor]) -> Captured:
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        try:
            with torch.cuda.stream(self._stream):
                # Compiles the kernels and lets cuBLAS allocate: neither may happen in a capture.
                function()
        finally:
            # Where it has run out of memory too: forwards share memory with what it has launched.
            current.wait_stream(self._stream)
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may use CUDA meanwhile, to ask for the free memory, say.
            with (
                collector_paused(),
                torch.cuda.graph(
                    graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
                ),
            ):
                output = function()
        except (RuntimeError, MemoryError) as error:
            # torch leaves its stream current if the capture cannot be ended in good order.
            torch.cuda.set_stream(current)
            if _is_for_lack_of_memory(error):
                raise
            raise UserError(
                "engine.graphs=true: a forward cannot be captured as a CUDA graph, probably "
                "because the decoding strategy reads a tensor on the host; set engine.graphs=false"
            ) from error
        return Captured(graph.replay, output)


@contextmanager
def collector_paused() -> Iterator[None]:
    """Without Python's garbage collector: in the middle of a capture it could free an engine that
    nobody uses any more, with its pinned memory and its graphs, by CUDA calls that break the
    capture."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@dataclass(frozen=True, slots=True)
class Graph:
    """The device part of an iteration, captured for one shape."""

    inputs: FixedBatch
    captured: Captured


class Graphs:
    """The graphs of one engine, by shape."""

    def __init__(
        self, device_part: Callable[[Batch], Tensor], sender: BatchSender, capture: Capture
    ) -> None:
        """`device_part`: from a batch to its report, without reading the device."""
        self._device_part = device_part
        self._sender = sender
        self._capture: Capture | None = capture
        self._graphs: OrderedDict[BatchShape, Graph] = OrderedDict()
        self._sightings: Counter[BatchShape] = Counter()

    def __len__(self) -> int:
        return len(self._graphs)

    def graph(self, host: HostBatch, tiles: Sequence[HostTiles]) -> Graph | None:
        """The graph for a plan, captured if its shape has come often enough; None if the plan is to
        run eagerly."""
        if self._capture is None or host.positions_Q.size > MOST_QUERY_TOKENS:
            return None
        if host.twins is not None:
            return None
        if host.filters is not None and host.filters.views.any_filter:
            return None  # sorting the logits takes the GPU longer than launches take the host
        shape = padded_shape(host, tiles)
        if shape in self._graphs:
            self._graphs.move_to_end(shape)
            return self._graphs[shape]
        self._sightings[shape] += 1
        is_full = len(self._graphs) >= MOST_GRAPHS
        if self._sightings[shape] < (SIGHTINGS_WHEN_FULL if is_full else SIGHTINGS):
            return None
        if is_full:
            # The oldest, of which nothing may be kept: its memory is for the new one.
            dropped = next(iter(self._graphs))
            del self._graphs[dropped], self._sightings[dropped]
        graph = self._captured(shape, self._capture)
        if graph is None:
            self.drop("no memory to capture a CUDA graph")
        else:
            self._graphs[shape] = graph
        return graph

    def replay(self, graph: Graph, host: HostBatch, tiles: Sequence[HostTiles]) -> Tensor:
        """Run a plan through its graph. Returns the padded report."""
        self._sender.fill(graph.inputs, host, tiles)
        graph.captured.replay()
        return graph.captured.output

    def drop(self, reason: str) -> None:
        """Free the memory of all graphs, and capture no more."""
        if self._capture is not None:
            log.warning("%s: forwards are launched kernel by kernel from now on", reason)
        self._capture = None
        self._graphs.clear()

    def _captured(self, shape: BatchShape, capture: Capture) -> Graph | None:
        """A new graph, or None if there is no memory for it. It is captured on a batch of padding
        alone, since the device part commits what it decides."""
        try:
            inputs = self._sender.fixed(shape)
            return Graph(inputs, capture(lambda: self._device_part(inputs.batch)))
        except (RuntimeError, MemoryError) as error:
            if not _is_for_lack_of_memory(error):
                raise
            return None


def padded_shape(host: HostBatch, tiles: Sequence[HostTiles]) -> BatchShape:
    """The shape that a plan is padded to. Padding query tokens costs up to 1/8, of long plans up to
    1/16, and half as much on average. Padding the others costs little: a few rows of the head, or
    nothing."""
    num_query_tokens = padded_query_tokens(host.positions_Q.size)
    exact = BatchShape.of(host, tiles)
    return exact._replace(
        num_query_tokens=num_query_tokens,
        num_asked=_padded_asked(exact.num_asked, num_query_tokens),
        num_softened=_padded_asked(exact.num_softened, num_query_tokens),
        # One more, which the padding positions belong to.
        num_sequences=_power_of_two(exact.num_sequences + 1),
        num_runs=_power_of_two(exact.num_runs),
        tiles=tuple((tile, _power_of_two(length)) for tile, length in exact.tiles),
    )


def padded_query_tokens(num_tokens: int) -> int:
    """Steps of 8 up to 128 query tokens, then of at most 1/8 of them, and above 1,024, where the
    GPU's time grows with every token, of at most 1/16."""
    parts = 16 if num_tokens <= 1024 else 32
    step = max(8, _power_of_two(num_tokens) // parts)
    return _rounded_up(num_tokens, step)


def _padded_asked(num_asked: int, num_query_tokens: int) -> int:
    if num_asked == 0 or num_query_tokens <= 128:
        return min(num_asked, 1) * num_query_tokens
    return min(_rounded_up(num_asked, 128), num_query_tokens)


def _rounded_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _power_of_two(number: int) -> int:
    """The least power of two that is at least `number`."""
    return 1 << max(number - 1, 0).bit_length()


def _is_for_lack_of_memory(error: BaseException | None) -> bool:
    """Whether an error, or one that it followed on, is out of memory: a capture that an allocation
    has broken cannot be ended in good order, and ending it raises another error."""
    return error is not None and (
        is_out_of_memory(error) or _is_for_lack_of_memory(error.__context__)
    )
