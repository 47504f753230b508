"""What the controller and the load agent say to each other: one JSON object a line.

For each trial the controller sends one :class:`LoadSpec`. The agent sends events: ``ready``, then once it has the spec
``started``, a ``tick`` each second, at the end ``samples`` in chunks and ``finished``, and then it is ``ready`` again;
or ``failed`` at any time, after which nothing follows.
"""

from __future__ import annotations

import json
import re
import types
import typing
from dataclasses import asdict, dataclass, field, fields
from ipaddress import IPv4Address
from typing import Any, ClassVar, Literal, TypeVar

from lvsbench.errors import UsageError

Client = Literal["raw", "fast", "requests"]
Connections = Literal["per-request", "keepalive"]
Arrivals = Literal["constant", "poisson"]
CLIENTS: tuple[Client, ...] = ("raw", "fast", "requests")
CONNECTIONS: tuple[Connections, ...] = ("per-request", "keepalive")
ARRIVALS: tuple[Arrivals, ...] = ("constant", "poisson")

LONGEST_S = 3600.0
"""The longest trial, warm-up included: the agent keeps every request of it in memory."""
MOST_USERS = 20_000
MOST_CPUS = 8192
"""Source: arch/x86/Kconfig, NR_CPUS."""
LARGEST = 1e18
"""No number that is said is as large: the most are microseconds and seconds since the epoch."""
LONGEST_VALUE = 200
"""Characters of a wrong value that an error quotes."""
MOST_RATE = 1e6
REST_US_PER_USER = 60
"""How long an agent should rest between two looks, for each user, where it shares its CPU with real servers.

Without a rest the agent and the real servers of a two-CPU lab take turns for every single response, with cold caches.
16 users got 3,280 objects of 64 KiB a second over DR, with a rest of 1 ms 4,620 (measured, keepalive; wrk 3,700). Real
servers on the same CPU take 150 µs and more for a request, so a user waits at least that long times the number of users
in any case, and the rest shortens the latency (median 3.4 ms instead of 4.5) instead of adding to it.
"""
MOST_REST_US = 1000
# Source: RFC 3986, section 3.3 and 3.4: a path and query in origin form holds no space and no control character.
_PATH = re.compile(r"/[!-~]*")
# Source: RFC 9110, section 5.6.2: token.
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadSpec:
    """One trial's load. Raises UsageError naming every field that makes no sense.

    Args:
        targets: ``ADDRESS:PORT`` of what is connected to, each user to one of them, by turns: the VIP, or for a control
            without a director the real servers.
        path: path of the object, with its query.
        body_bytes: size that the object must have; None accepts any.
        users: how many users ask at the same time; each waits for its response before it asks again. In an open loop,
            how many requests can be under way at most: those that are due meanwhile wait, and their time counts.
        rate: requests per second of an open loop, whose requests are due at times fixed beforehand, whatever becomes of
            the earlier ones; None for a closed loop.
        arrivals: when the requests of an open loop are due: ``constant`` spacing, or ``poisson``, drawn with ``seed``.
        client: ``raw`` is lvsbench's own, ``fast`` Locust's FastHttpUser, ``requests`` Locust's HttpUser.
        connections: ``per-request`` opens one for each request, ``keepalive`` one for each user.
        warmup_s: seconds of load before the window.
        duration_s: length of the window.
        seed: of everything random in the load.
        timeout_s: how long a connection, or a response, may take.
        served_by: the response header in which a real server says its name.
        cpus: numbers of the CPUs that the agent may run on; None leaves it to the kernel.
        source_addresses: the client's own addresses to connect from, by turns; empty leaves it to the kernel.
        rest_us: how long the agent rests between two looks at its connections; see :data:`REST_US_PER_USER`.
    """

    targets: tuple[str, ...]
    path: str = "/"
    body_bytes: int | None = None
    users: int = 32
    rate: float | None = None
    arrivals: Arrivals = "constant"
    client: Client = "raw"
    connections: Connections = "per-request"
    warmup_s: float = 5.0
    duration_s: float = 20.0
    seed: int = 0
    timeout_s: float = 10.0
    served_by: str = "X-Served-By"
    cpus: tuple[int, ...] | None = None
    source_addresses: tuple[str, ...] = ()
    rest_us: int = 0

    def __post_init__(self) -> None:
        wrong = [f"{name}: {text}" for name, text, right in self._demands() if not right]
        if wrong:
            raise UsageError("the load makes no sense", answer="\n".join(wrong))

    def _demands(self) -> list[tuple[str, str, bool]]:
        length_s = self.warmup_s + self.duration_s
        cpus = self.cpus
        return [
            ("targets", "there is none", len(self.targets) > 0),
            *(("targets", f"{text!r} is no IPv4 address and port", _is_target(text)) for text in self.targets),
            ("path", f"{self.path!r} is no path of a URL", _PATH.fullmatch(self.path) is not None),
            ("body_bytes", f"{self.body_bytes} is negative", self.body_bytes is None or self.body_bytes >= 0),
            ("users", f"{self.users} is not in 1-{MOST_USERS}", 1 <= self.users <= MOST_USERS),
            ("rate", f"{self.rate} is not in 0-{MOST_RATE:,.0f}", self.rate is None or 0 < self.rate <= MOST_RATE),
            ("arrivals", f"{self.arrivals!r} is none of {', '.join(ARRIVALS)}", self.arrivals in ARRIVALS),
            ("client", f"{self.client!r} is none of {', '.join(CLIENTS)}", self.client in CLIENTS),
            (
                "connections",
                f"{self.connections!r} is none of {', '.join(CONNECTIONS)}",
                self.connections in CONNECTIONS,
            ),
            ("warmup_s", f"{self.warmup_s:g} is negative", self.warmup_s >= 0),
            ("duration_s", f"{self.duration_s:g} is not over 0", self.duration_s > 0),
            ("duration_s", f"with the warm-up it is not under {LONGEST_S:g} s", length_s <= LONGEST_S),
            ("seed", f"{self.seed} is negative", self.seed >= 0),
            ("timeout_s", f"{self.timeout_s:g} is not in 0.01-600", 0.01 <= self.timeout_s <= 600),
            ("served_by", f"{self.served_by!r} is no name of a header", _TOKEN.fullmatch(self.served_by) is not None),
            ("rest_us", f"{self.rest_us} is not in 0-{MOST_REST_US}", 0 <= self.rest_us <= MOST_REST_US),
            ("cpus", "names no CPU, or one that cannot be", cpus is None or _are_cpus(cpus)),
            *(
                ("source_addresses", f"{text!r} is no IPv4 address", _is_address(text))
                for text in self.source_addresses
            ),
            (
                "source_addresses",
                f"the client {self.client!r} cannot choose its own address, only 'raw' can",
                not self.source_addresses or self.client == "raw",
            ),
        ]

    def to_json(self) -> str:
        """Return the line that :meth:`from_json` reads, without its line end."""
        return _dump(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> LoadSpec:
        """Read what :meth:`to_json` wrote.

        Raises:
            UsageError: no JSON, a field missing, unknown or of the wrong type, or values that make no sense.
        """
        try:
            return _build(cls, _loads(line))
        except ValueError as error:
            raise UsageError("the load is not described as lvsbench does it", answer=str(error)) from error


# ------------------------------------------------------------------------------------------------------------- events


@dataclass(frozen=True, slots=True)
class Ready:
    """The agent has imported what it needs, and waits for its spec. Versions of what makes the load."""

    name: ClassVar[str] = "ready"
    lvsbench: str
    python: str
    locust: str
    gevent: str


@dataclass(frozen=True, slots=True)
class Started:
    """All users run: the agent's t = 0, from which all its times count. ``unix_s`` is the client's wall clock then."""

    name: ClassVar[str] = "started"
    unix_s: float


@dataclass(frozen=True, slots=True)
class Tick:
    """A second of load, for the progress display.

    Args:
        t_s: when it ended, seconds since t = 0.
        requests: requests ended in it, failed ones included.
        errors: how many of them failed.
        p50_us: median latency of those that did not fail, from at most 1,000 of them; None if there are none.
        p99_us: their 99th percentile.
        cpu_s: CPU seconds that the agent used in it, user and system.
    """

    name: ClassVar[str] = "tick"
    t_s: float
    requests: int
    errors: int
    p50_us: int | None
    p99_us: int | None
    cpu_s: float


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some of the samples, packed by :func:`lvsbench.load.samples.pack`. ``number`` counts from 0."""

    name: ClassVar[str] = "samples"
    number: int
    count: int
    data: str


@dataclass(frozen=True, slots=True)
class Lateness:
    """How much later than asked a timer of the agent fired, every 10 ms inside the window. Microseconds."""

    count: int
    p50_us: int
    p99_us: int
    max_us: int


@dataclass(frozen=True, slots=True)
class LocustSummary:
    """Locust's own statistics of the whole trial. Its percentiles are whole milliseconds below 100 ms."""

    requests: int
    failures: int
    mean_ms: float
    min_ms: float
    max_ms: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Finished:
    """The trial's end, after its last chunk. Counts are of the whole trial, warm-up included.

    Args:
        begin_s: the window's beginning, seconds since t = 0.
        end_s: its end; no request starts after it.
        requests: the number of samples: every request that was asked, or was due in an open loop.
        errors: how many failed, by kind; only kinds that occurred.
        servers: the names that the samples' ``server`` column counts through.
        connections: connections opened, or tried (0 where Locust's clients keep that to themselves).
        reconnects: keepalive connections that had to be replaced, because the server closed or the request failed.
        client_closed_first: connections that the server left open although the request said ``close``, so that
            TIME_WAIT stays with the client.
        unfinished: how many of the errors had no end when the agent gave up on them: still under way, or due and never
            asked.
        agent_cpu_s: CPU seconds of the agent, user and system, inside the window.
        agent_wait_s: seconds in it that the agent was ready to run and had no CPU; None if the kernel does not say.
        agent_throttled_s: seconds in it that a CPU quota of its control group kept it from running; None likewise.
        lateness: the agent's own punctuality.
        start_lateness: in an open loop, how much later than due requests started that a free user waited for.
        time_wait_before: connections of the client host in TIME_WAIT before the load; None if the kernel does not say.
        time_wait_after: the same after it.
        ephemeral_ports: how many ports the client host gives to outgoing connections; None if the kernel does not say.
        locust: Locust's own statistics.
    """

    name: ClassVar[str] = "finished"
    begin_s: float
    end_s: float
    requests: int
    errors: dict[str, int]
    servers: tuple[str, ...]
    connections: int
    reconnects: int
    client_closed_first: int
    unfinished: int
    agent_cpu_s: float
    agent_wait_s: float | None
    agent_throttled_s: float | None
    lateness: Lateness
    start_lateness: Lateness | None
    time_wait_before: int | None
    time_wait_after: int | None
    ephemeral_ports: int | None
    locust: LocustSummary

    def __post_init__(self) -> None:
        if not 0 <= self.begin_s < self.end_s or self.requests < 0:
            raise ValueError(f"Finished: a window of {self.begin_s} to {self.end_s} s, {self.requests} requests")


@dataclass(frozen=True, slots=True)
class Failed:
    """The load could not be made. Nothing follows."""

    name: ClassVar[str] = "failed"
    message: str
    advice: str = field(default="")


Event = Ready | Started | Tick | Chunk | Finished | Failed
_EVENTS: dict[str, type[Event]] = {kind.name: kind for kind in (Ready, Started, Tick, Chunk, Finished, Failed)}


def to_line(event: Event) -> str:
    """Return an event as the line that :func:`parse` reads, with its line end."""
    return _dump({"event": event.name, **asdict(event)}) + "\n"


def parse(line: str) -> Event:
    """Read one line of the agent.

    Raises:
        ValueError: it is no event.
    """
    content = _loads(line)
    if not isinstance(content, dict) or str(content.get("event")) not in _EVENTS:
        raise ValueError(f"no event of the load agent: {line[:200]!r}")
    kind = _EVENTS[content.pop("event")]
    return _build(kind, content)


# ------------------------------------------------------------------------------------------- JSON to dataclass, checked


def _dump(content: dict[str, Any]) -> str:
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def _loads(line: str) -> Any:
    try:
        return json.loads(line)
    except RecursionError:
        raise ValueError("nested too deep") from None


def _types(kind: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    return {each.name: hints[each.name] for each in fields(kind)}


def _build(kind: type[T], content: object) -> T:
    """Make a dataclass of parsed JSON. Raises ValueError, with the field's name, for what does not fit its types."""
    if not isinstance(content, dict):
        raise ValueError(f"{kind.__name__}: not an object: {repr(content)[:LONGEST_VALUE]}")
    known = _types(kind)
    unknown = sorted(content.keys() - known.keys())
    if unknown:
        raise ValueError(f"{kind.__name__}: unknown: {', '.join(unknown)[:LONGEST_VALUE]}")
    values = {name: _fit(f"{kind.__name__}.{name}", known[name], value) for name, value in content.items()}
    try:
        return kind(**values)
    except TypeError as error:
        raise ValueError(str(error)) from error


def _fit(where: str, wanted: Any, value: Any) -> Any:
    """Return a JSON value as the wanted type: only what the dataclasses above use."""
    origin, inner = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is types.UnionType:
        return None if value is None else _fit(where, inner[0], value)
    if origin is tuple and isinstance(value, list):
        return tuple(_fit(where, inner[0], each) for each in value)
    if origin is dict and isinstance(value, dict):
        return {_fit(where, inner[0], name): _fit(where, inner[1], each) for name, each in value.items()}
    if origin is Literal and isinstance(value, str):
        # Which words there are is a matter of sense, and said with the rest of what makes none.
        return value
    if origin is None:
        if hasattr(wanted, "__dataclass_fields__"):
            return _build(wanted, value)
        number = isinstance(value, int | float) and not isinstance(value, bool)
        # Not a number is not smaller either.
        if number and not abs(value) < LARGEST:
            raise ValueError(f"{where}: a number that is too large")
        if wanted is float and number:
            return float(value)
        if wanted is not float and type(value) is wanted:
            return value
    raise ValueError(f"{where}: {repr(value)[:LONGEST_VALUE]} is not of type {getattr(wanted, '__name__', wanted)}")


def _is_target(text: str) -> bool:
    address, _, port = text.partition(":")
    return _is_address(address) and port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535


def _are_cpus(numbers: tuple[int, ...]) -> bool:
    return len(numbers) > 0 and 0 <= min(numbers) <= max(numbers) < MOST_CPUS


def _is_address(text: str) -> bool:
    try:
        IPv4Address(text)
    except ValueError:
        return False
    return True
