"""Do firewalls let the cluster's packets through? Rules are read and walked, as the kernel would; nothing is sent.

The check is :data:`lvsbench.checks.firewall.check.CHECK`. It is not named here, since what a firewall does to a packet
is also asked below it: by what the table aims at, and by ARP.
"""
