"""What the ARP probe says of a card by its address alone; what it hears is shown on the lab."""

from __future__ import annotations

import pytest

from lvsbench.probes.arp import _maker


@pytest.mark.parametrize(
    ("mac", "maker"),
    [("00:50:56:aa:bb:cc", "VMware, Inc."), ("02:00:00:00:7f:0a", ""), ("52:54:00:12:34:56", "")],
)
def test_the_maker_of_a_card(mac: str, maker: str) -> None:
    """The register of manufacturers is asked; an address that was made locally has none."""
    assert _maker(mac) == maker
