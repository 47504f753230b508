"""What a mode's mechanics predict, to stand beside what was measured.

NAT rewrites addresses both ways, so request *and* reply pass the director. DR rewrites only the frame's destination MAC
and TUN puts an IPv4 header in front; their replies go straight to the client. Everything below follows from that.

Source: kernel, net/netfilter/ipvs/ip_vs_xmit.c: ip_vs_nat_xmit, ip_vs_dr_xmit, ip_vs_tunnel_xmit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from lvsbench.cluster import ForwardingMethod
from lvsbench.report.frames import Measured

FRAME_OVERHEAD = 66
"""Bytes around each full TCP segment: Ethernet 14, IPv4 20, TCP 20 with timestamps 12. Source: RFC 791, 9293, 7323."""
SEGMENT = 1448
"""Payload of a full segment at MTU 1500 with timestamps."""
REPLY_EXTRA = 1500
"""Allowance for what is not the object: the response's head, handshake, acknowledgements, the end of the connection."""
OUTER_HEADER = 20
"""An IPv4 header without options: what IPIP adds to each packet. Source: RFC 2003."""
TOLERANCE = 0.05


@dataclass(frozen=True, slots=True)
class Expectation:
    """One predicted number beside the measured one. ``words`` says why it must be so.

    ``low`` and ``high`` bound the prediction; a quantity in a range because counters of a network interface see frames
    before or after the kernel cuts them into segments, depending on the hardware.
    """

    mode: str
    quantity: str
    unit: str
    low: float
    high: float
    measured: float | None
    words: str

    @property
    def met(self) -> bool | None:
        """Whether the measured number is what was expected; None where nothing was measured."""
        return None if self.measured is None else self.low <= self.measured <= self.high


def reply_bytes(size: int) -> tuple[float, float]:
    """Return the least and the most bytes of frames that carry an object of this size."""
    return float(size), float(size + FRAME_OVERHEAD * math.ceil(size / SEGMENT) + REPLY_EXTRA)


def expectations(measured: Measured) -> list[Expectation]:
    """Return, for every IPVS mode with director readings, what its mechanics predict for bytes per request."""
    size = measured.run.asked.body_bytes
    found = []
    for mode in measured.modes:
        if mode not in set(ForwardingMethod) or size is None:
            continue
        rx, tx, packets = (_mean(measured, mode, f"{c}_per_request") for c in ("rx_bytes", "tx_bytes", "rx_packets"))
        if rx is None or tx is None or packets is None:
            continue
        found += _of_nat(measured, size, rx, tx) if mode == ForwardingMethod.NAT else _of_one_way(mode, rx, tx, packets)
        out = _mean(measured, mode, "ipvs_out_bytes_per_request")
        if mode != ForwardingMethod.NAT:
            words = "replies do not pass IPVS"
            found.append(Expectation(mode, "reply bytes through IPVS", "B", 0, 0, out, words))
    return found


def _of_nat(measured: Measured, size: int, rx: float, tx: float) -> list[Expectation]:
    """Bound NAT's bytes by the object, and where DR or TUN was measured add the request's share as seen there."""
    others = [_mean(measured, mode, "rx_bytes_per_request") for mode in ("dr", "tun") if mode in measured.modes]
    request = max((other for other in others if other is not None), default=0.0)
    low, high = (request + bound for bound in reply_bytes(size))
    words = "NAT carries the replies too: request and reply, in and out"
    return [
        Expectation("nat", "bytes in per request", "B", low, high, rx, words),
        Expectation("nat", "bytes out per request", "B", low, high, tx, words),
    ]


def _of_one_way(mode: str, rx: float, tx: float, packets: float) -> list[Expectation]:
    added = packets * OUTER_HEADER if mode == ForwardingMethod.TUN else 0.0
    what = (
        "every packet goes out with 20 bytes more, its outer IPv4 header; replies pass by"
        if mode == ForwardingMethod.TUN
        else "the request goes out as it came in, only its MAC addresses are new; replies pass by"
    )
    return [
        Expectation(
            mode, "bytes out per request", "B", (rx + added) * (1 - TOLERANCE), (rx + added) * (1 + TOLERANCE), tx, what
        )
    ]


@dataclass(frozen=True, slots=True)
class Projection:
    """How many real servers one director can feed, by CPU and by link, if all have the same CPU and the same link.

    A director can take 1 / (its cost per request) requests per second, a real server 1 / (its own cost): the quotient
    is the number of real servers. ``None`` where a cost was not measured.
    """

    by_cpu: float | None
    by_link: float | None

    @property
    def real_servers(self) -> float | None:
        """The smaller of the two: what runs out first."""
        known = [number for number in (self.by_cpu, self.by_link) if number is not None]
        return min(known) if known else None


def project(measured: Measured, mode: str) -> Projection | None:
    """Project how many real servers a director can feed in a mode, from the costs per request of both."""
    if mode not in set(ForwardingMethod):
        return None
    cost, server = (_mean(measured, mode, column) for column in ("cpu_s_per_request", "rs_cpu_s_per_request"))
    by_cpu = server / cost if cost and server else None
    rx, tx = (_mean(measured, mode, f"{way}_bytes_per_request") for way in ("rx", "tx"))
    sent = _mean(measured, mode, "rs_tx_bytes_per_request")
    # A full-duplex link is full when the busier direction is.
    by_link = sent / max(rx, tx) if rx and tx and sent else None
    return None if by_cpu is None and by_link is None else Projection(by_cpu, by_link)


def _mean(measured: Measured, mode: str, column: str) -> float | None:
    values = measured.of(mode, column)
    values = values[np.isfinite(values)]
    return float(values.mean()) if len(values) else None
