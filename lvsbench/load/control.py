"""The controller's side of the load: start the agent on the client host, give it a spec, collect what it says."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Self

from lvsbench import __version__
from lvsbench.errors import CommandFailed, NodeLost
from lvsbench.load.samples import join, unpack
from lvsbench.load.wire import Chunk, Event, Failed, Finished, LoadSpec, Ready, parse
from lvsbench.results import Samples
from lvsbench.shell import Shell

if TYPE_CHECKING:
    from numpy.typing import NDArray

START_S = 60.0
"""How long importing Locust and starting the users may take: a second on a real host, ten in a small guest."""


class Agent:
    """A load agent that is ready. Use it in a ``with`` statement, for one trial after the other; leaving it ends it.

    Starting it takes a second or more: the time to import Locust.

    Args:
        shell: a shell on the client host.
        python: an interpreter there that can import lvsbench.

    Raises:
        NodeLost: no agent came about.
        CommandFailed: it is another version.
    """

    def __init__(self, shell: Shell, python: str = "python3") -> None:
        self._node = shell.node
        self._command = f"exec {shlex.quote(python)} -m lvsbench.load.agent"
        self._process = shell.start(self._command)
        try:
            self.ready = self._wait_until_ready()
            if self.ready.lvsbench != __version__:
                raise CommandFailed(
                    self._node,
                    f"the load agent is lvsbench {self.ready.lvsbench}, not {__version__}",
                    command=self._command,
                    advice="Install the same lvsbench for the Python that the topology names for the client.",
                )
        except BaseException:
            self._process.close()
            raise
        self._is_ready = True

    def _wait_until_ready(self) -> Ready:
        first = next(self._read(START_S), None)
        if first is None:
            raise self._lost("the load agent did not start")
        if not isinstance(first, Ready):
            raise self._lost(f"the load agent began with {first.name}")
        return first

    def run(self, spec: LoadSpec, tell: Callable[[Event], None] = lambda _: None) -> tuple[Samples, Finished]:
        """Make the load of one trial.

        Args:
            spec: the load.
            tell: called with every event as it comes, ``started`` (t = 0) and each ``tick`` among them.

        Returns:
            every request, and the agent's account of the trial.

        Raises:
            CommandFailed: the agent says that the load could not be made.
            NodeLost: it fell silent, ended early, or said what nobody understands.
        """
        if not self._is_ready:
            self._wait_until_ready()
        self._is_ready = False
        self._process.write(spec.to_json() + "\n")
        chunks: list[tuple[NDArray[Any], ...]] = []
        # While the last requests are waited for it says nothing.
        for event in self._read(START_S + spec.timeout_s):
            tell(event)
            if isinstance(event, Chunk):
                if event.number != len(chunks):
                    raise self._lost(f"the load agent sent chunk {event.number} instead of {len(chunks)}")
                chunks.append(self._unpack(event))
            elif isinstance(event, Failed):
                raise CommandFailed(
                    self._node, "no load", command=self._command, answer=event.message, advice=event.advice
                )
            elif isinstance(event, Finished):
                try:
                    samples = join(chunks, event.servers, event.begin_s, event.end_s)
                except ValueError as error:
                    raise self._lost("the load agent sent damaged samples", str(error)) from error
                if len(samples) != event.requests:
                    raise self._lost(f"the load agent sent {len(samples)} of {event.requests} samples")
                return samples, event
        raise self._lost("the load agent ended before the load did")

    def close(self) -> None:
        """End the agent."""
        self._process.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, silence_s: float) -> Iterator[Event]:
        """Yield what the agent says. Raises NodeLost when it says nothing for ``silence_s``, or nonsense."""
        for line in self._process.lines(silence_s):
            try:
                event = parse(line)
            except ValueError as error:
                raise self._lost("the load agent said what nobody understands", str(error)) from error
            yield event

    def _unpack(self, chunk: Chunk) -> tuple[NDArray[Any], ...]:
        try:
            return unpack(chunk.data, chunk.count)
        except ValueError as error:
            raise self._lost("the load agent sent a damaged chunk of samples", str(error)) from error

    def _lost(self, summary: str, answer: str = "") -> NodeLost:
        # The agent's own words are the last thing that it wrote to standard error, a traceback perhaps.
        said = self._process.errors()[-2000:]
        return NodeLost(self._node, summary, command=self._command, answer=f"{answer}\n{said}".strip())
