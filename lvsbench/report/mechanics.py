"""What a mode's mechanics predict, to stand beside what was measured.

NAT rewrites addresses both ways, so request *and* reply pass the director. DR rewrites only the frame's destination MAC
and TUN puts an IPv4 header in front; their replies go straight to the client. Everything below follows from that.

Source: kernel, net/netfilter/ipvs/ip_vs_xmit.c: ip_vs_nat_xmit, ip_vs_dr_xmit, ip_vs_tunnel_xmit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from lvsbench.cluster import ForwardingMethod
from lvsbench.report import statistics
from lvsbench.report.language import msg, say
from lvsbench.report.measured import Measured

FRAME_OVERHEAD = 66
"""Bytes around each full TCP segment: Ethernet 14, IPv4 20, TCP 20 with timestamps 12. Source: RFC 791, 9293, 7323."""
SEGMENT = 1448
"""Payload of a full segment at MTU 1500 with timestamps."""
REPLY_EXTRA = 1500
"""Allowance for what is not the object: the response's head, handshake, acknowledgements, the end of the connection."""
OUTER_HEADER = 20
"""An IPv4 header without options: what IPIP adds to each packet. Source: RFC 2003."""
ETHERNET_HEADER = 14
"""Some drivers leave it out of the bytes of what comes in, and count it in what goes out: User-Mode Linux's does
(measured: 14 bytes a packet), and a director in DR mode then seems to send more than it got."""
TOLERANCE = 0.05
BYTES_IN = msg("bytes in per request")
BYTES_OUT = msg("bytes out per request")
PACKETS_OUT = msg("packets out per request")
CPU = msg("CPU per request")
REPLIES = msg("reply bytes through IPVS")


@dataclass(frozen=True, slots=True)
class Expectation:
    """One predicted number beside the measured one. ``words`` says why it must be so.

    ``low`` and ``high`` bound the prediction; a quantity in a range because counters of a network interface see frames
    before or after the kernel cuts them into segments, depending on the hardware. ``measured_low`` and
    ``measured_high`` are the 95 % interval of the measured one, None where there are too few trials.
    """

    mode: str
    quantity: str
    unit: str
    low: float
    high: float
    measured: float | None
    measured_low: float | None
    measured_high: float | None
    words: str

    @property
    def met(self) -> bool | None:
        """Whether the measured number may be what was expected: not for sure outside. None where nothing was."""
        if self.measured is None:
            return None
        low, high = (self.measured if end is None else end for end in (self.measured_low, self.measured_high))
        return low <= self.high and high >= self.low


def reply_bytes(size: int) -> tuple[float, float]:
    """Return the least and the most bytes of frames that carry an object of this size."""
    return float(size), float(size + FRAME_OVERHEAD * math.ceil(size / SEGMENT) + REPLY_EXTRA)


def expectations(measured: Measured) -> list[Expectation]:
    """Return, for every IPVS mode with director readings, what its mechanics predict for a request's costs."""
    size = measured.run.asked.body_bytes
    found = []
    for mode in measured.modes:
        if mode not in set(ForwardingMethod) or size is None:
            continue
        rx, packets = (_mean(measured, mode, f"rx_{unit}_per_request") for unit in ("bytes", "packets"))
        if rx is None or packets is None:
            continue
        found += _of_nat(measured, size) if mode == ForwardingMethod.NAT else _of_one_way(measured, mode, rx, packets)
    return found


def _of_nat(measured: Measured, size: int) -> list[Expectation]:
    """Bound NAT's bytes by the object, and where DR or TUN was measured add the request's share as seen there."""
    others = [_mean(measured, mode, "rx_bytes_per_request") for mode in ("dr", "tun") if mode in measured.modes]
    request = max((other for other in others if other is not None), default=0.0)
    low, high = (request + bound for bound in reply_bytes(size))
    words = say("NAT carries the replies too: request and reply, in and out")
    return [
        _expect(measured, "nat", quantity, f"{way}_bytes_per_request", (low, high), words)
        for quantity, way in ((BYTES_IN, "rx"), (BYTES_OUT, "tx"))
    ]


def _of_one_way(measured: Measured, mode: str, rx: float, packets: float) -> list[Expectation]:
    """Predict what goes out from what came in; and at most NAT's CPU, where NAT was measured in the same run."""
    added = packets * OUTER_HEADER if mode == ForwardingMethod.TUN else 0.0
    what = (
        say("every packet goes out with 20 bytes more, its outer IPv4 header; replies pass by")
        if mode == ForwardingMethod.TUN
        else say("the request goes out as it came in, only its MAC addresses are new; replies pass by")
    )
    once = say("each packet of the client goes out once, to a real server")
    found = [
        _expect(measured, mode, BYTES_OUT, "tx_bytes_per_request", _about(rx + added, ETHERNET_HEADER * packets), what),
        _expect(measured, mode, PACKETS_OUT, "tx_packets_per_request", _about(packets), once),
        _expect(measured, mode, REPLIES, "ipvs_out_bytes_per_request", (0.0, 0.0), say("replies do not pass IPVS")),
    ]
    nat = _mean(measured, ForwardingMethod.NAT, "cpu_s_per_request") if ForwardingMethod.NAT in measured.modes else None
    if nat is not None:
        less = say("fewer packets and bytes pass the director than in NAT: at most NAT's cost")
        found.append(_expect(measured, mode, CPU, "cpu_s_per_request", (0.0, nat), less))
    return found


def _about(value: float, more: float = 0.0) -> tuple[float, float]:
    return value * (1 - TOLERANCE), (value + more) * (1 + TOLERANCE)


def _expect(
    measured: Measured, mode: str, quantity: str, column: str, bounds: tuple[float, float], words: str
) -> Expectation:
    unit = "s" if column.startswith("cpu_s") else "" if "packets" in column else "B"
    found = statistics.interval(measured.of(mode, column))
    return Expectation(mode, quantity, unit, *bounds, found.value, found.low, found.high, words)


EFFECTS: Mapping[str, str] = {
    "throughput_rps": msg(
        "DR and TUN at least as many as NAT: a reply that passes by costs the director nothing. Equal where the real "
        "servers or the client are the limit"
    ),
    "latency_p50_s": msg("NAT longest: its replies take two ways and wait for the director's CPU"),
    "latency_p99_s": msg("as the median, and more so: a busy director is a queue"),
    "cpu_s_per_request": msg("NAT most: request and reply. TUN a little more than DR: one header more for each packet"),
    "connections_per_s": msg("as IPVS counts them: one for each request, or for each user that keeps its connection"),
    "ipvs_entries": msg("also those of connections that have ended: an entry stays for up to two minutes more"),
    "cpu_busy": msg("CPU per request × requests per second"),
    "rx_bytes_per_request": msg("NAT: request and reply. DR and TUN: the request alone"),
    "tx_bytes_per_request": msg("NAT: as in. DR: as in. TUN: 20 B more for each packet"),
    "rx_packets_per_request": msg(
        "NAT: both directions. DR and TUN: the client's packets alone, mostly ACKs: from one for each second segment "
        "to one for many, as the client's GRO merges them"
    ),
    "tx_packets_per_request": msg(
        "DR and TUN: as many as come in. NAT: the same packets, but GRO merges them on the way in, and TSO counts what "
        "the card cuts as one"
    ),
}
"""What the mechanics say about each column of the trials, to stand beside the numbers of all modes."""


@dataclass(frozen=True, slots=True)
class Projection:
    """How many real servers one director can feed, by CPU and by link, if all have the same CPU and the same link.

    A director can take 1 / (its cost per request) requests per second, a real server 1 / (its own cost): the quotient
    is the number of real servers. ``None`` where a cost was not measured.

    Attributes:
        director_cpu_s: CPU of the director per request.
        server_cpu_s: CPU of a real server per request.
        director_bytes: bytes per request through the director in the busier direction: a full-duplex link is full when
            that is.
        server_bytes: bytes that a real server sends per request.
    """

    director_cpu_s: float | None
    server_cpu_s: float | None
    director_bytes: float | None
    server_bytes: float | None

    @property
    def by_cpu(self) -> float | None:
        """While the director's CPU is full, so many real servers' CPUs are."""
        return _quotient(self.server_cpu_s, self.director_cpu_s)

    @property
    def by_link(self) -> float | None:
        """While the director's link is full, so many real servers' links are."""
        return _quotient(self.server_bytes, self.director_bytes)

    @property
    def real_servers(self) -> float | None:
        """The smaller of the two: what runs out first."""
        known = [number for number in (self.by_cpu, self.by_link) if number is not None]
        return min(known) if known else None

    def bytes_per_cpu_s(self, size: int | None) -> float | None:
        """Return how many bytes of objects a director can forward in a second of CPU."""
        return _quotient(size, self.director_cpu_s)


def project(measured: Measured, mode: str) -> Projection | None:
    """Project how many real servers a director can feed in a mode, from the costs per request of both."""
    if mode not in set(ForwardingMethod):
        return None
    rx, tx = (_mean(measured, mode, f"{way}_bytes_per_request") for way in ("rx", "tx"))
    found = Projection(
        _mean(measured, mode, "cpu_s_per_request"),
        _mean(measured, mode, "rs_cpu_s_per_request"),
        max(rx, tx) if rx and tx else None,
        _mean(measured, mode, "rs_tx_bytes_per_request"),
    )
    return None if found.real_servers is None else found


PUBLISHED_PACKET_B, PUBLISHED_REWRITE_S, PUBLISHED_SERVER_BPS = 536, 60e-6, 400e3
"""Where "10 to 20" comes from: the average packet, the time to rewrite one, and what a real server of then served.

Source: Zhang, Linux Virtual Server for Scalable Network Services, Ottawa Linux Symposium 2000, on VS/NAT.
"""


def _quotient(above: float | None, below: float | None) -> float | None:
    return above / below if above and below else None


def _mean(measured: Measured, mode: str, column: str) -> float | None:
    values = measured.of(mode, column)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None
