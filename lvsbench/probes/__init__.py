"""Packets sent on purpose and packets seen. GPL-2.0-only, for scapy is; each probe is a process that speaks JSON."""
