"""Do firewalls let the cluster's packets through? Rules are read and walked, as the kernel would; nothing is sent."""

from lvsbench.checks.firewall.check import CHECK

__all__ = ["CHECK"]
