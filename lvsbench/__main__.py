"""``python -m lvsbench``: the command line."""

from lvsbench.cli import main

main()
