"""Measure ``lvsbench diagnose`` on a healthy cluster of many real servers: it must find nothing, and say how long.

    python benchmarks/crowd.py                             100 real servers, mode DR, three diagnoses
    python benchmarks/crowd.py --servers 24 --mode tun
    python benchmarks/crowd.py --write crowd.yaml          the topology alone

All nodes share the machine's CPUs, so what the probe itself costs shows here first. A node needs about 60 MiB. It boots
a lab in the cache folder of this user: none may be up.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

LVSBENCH = (sys.executable, "-m", "lvsbench")
DEADLINE_S = 900


def topology(servers: int) -> dict[str, Any]:
    """Return a topology of one segment with a director, a client and so many real servers."""
    names = [f"rs{number}" for number in range(1, servers + 1)]
    addresses = {"director": "10.70.0.10", "client": "10.70.0.40"}
    addresses |= {name: f"10.70.{1 + number // 200}.{1 + number % 200}" for number, name in enumerate(names)}
    roles = {"director": "director", "client": "client"}
    return {
        "name": f"crowd-{servers}",
        "segments": {"lan": {"network": "10.70.0.0/16"}},
        "nodes": {
            name: {
                "role": roles.get(name, "real-server"),
                "links": {"eth0": {"segment": "lan", "address": address, "mac": _mac(address)}},
            }
            for name, address in addresses.items()
        },
        "service": {"vip": "10.70.0.100", "port": 80, "real_servers": {name: {} for name in names}},
    }


def _mac(address: str) -> str:
    return ":".join(f"{part:02x}" for part in (2, 0, *map(int, address.split("."))))


def measure(file: Path, mode: str, times: int) -> int:
    """Boot the lab, set it up, and diagnose it some times. Return how many errors were found."""
    errors = 0
    _do("lab", "up", "-t", str(file))
    try:
        _do("setup", "-t", str(file), "--mode", mode, "--out", str(file.parent))
        for number in range(1, times + 1):
            found = json.loads(_do("diagnose", "-t", str(file), "--json"))
            outcomes = Counter(f"{each['kind']} {each['outcome']}" for each in found["requests"])
            said = Counter(cause["code"] for cause in found["causes"])
            errors += found["counts"]["error"]
            print(f"diagnosis {number}: {found['elapsed_s']:.1f} s, {dict(found['counts'])}")
            print(f"  requests {dict(outcomes)}; causes {dict(said)}; unread {len(found['unread'])}", flush=True)
    finally:
        _do("lab", "down")
    return errors


def _do(*words: str) -> str:
    began_s = time.monotonic()
    done = subprocess.run([*LVSBENCH, *words], stdout=subprocess.PIPE, text=True, timeout=DEADLINE_S, check=False)
    print(f"{words[0]} {words[1]}: {time.monotonic() - began_s:.1f} s, status {done.returncode}", flush=True)
    if done.returncode and words[0] != "diagnose":
        raise SystemExit(f"lvsbench {' '.join(words)} failed")
    return done.stdout


def main() -> None:
    """Measure, or write the topology."""
    parser = argparse.ArgumentParser(description="Diagnose a healthy cluster of many real servers.")
    parser.add_argument("--servers", type=int, default=100)
    parser.add_argument("--mode", choices=("nat", "dr", "tun"), default="dr")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--write", type=Path)
    chosen = parser.parse_args()
    text = json.dumps(topology(chosen.servers), indent=1)
    if chosen.write is not None:
        chosen.write.write_text(text + "\n", encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "crowd.yaml"
        file.write_text(text, encoding="utf-8")
        sys.exit(bool(measure(file, chosen.mode, chosen.times)))


if __name__ == "__main__":
    main()
