"""Comparative benchmarking and diagnostics for Linux Virtual Server (IPVS) clusters in NAT, DR and TUN mode."""

__version__ = "0.1.0"
