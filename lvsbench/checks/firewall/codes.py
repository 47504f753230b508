"""What firewalls do to the packets of a cluster: the codes of :mod:`lvsbench.checks.firewall`."""

from __future__ import annotations

from lvsbench.checks.finding import Code

_SEE = (
    "nft -a list ruleset, iptables-save -c, iptables-legacy-save -c: the rule that the finding names, and whether its"
    " counter grows while a client asks."
)
_LASTING = (
    " For good: where the rules come from: /etc/nftables.conf, /etc/iptables/rules.v4, firewalld, ufw, or the"
    " orchestrator that writes them."
)

CLIENT = Code(
    "LVS-FW-001",
    "The client's own firewall stops requests or replies",
    "A rule or policy of the client drops what it sends to the VIP, or the replies that come from it.",
    "Requests of this client time out or are refused; other clients are served. In every mode.",
    _SEE,
    "Accept VIP and port before the rule, or narrow it." + _LASTING,
    "net/ipv4/ip_output.c:__ip_local_out; net/ipv4/ip_input.c:ip_local_deliver",
)
ROUTER = Code(
    "LVS-FW-002",
    "A router's firewall stops requests or replies",
    "What passes a router meets its forward chains: the request on its way to the director, a tunnelled one on its way"
    " to the real server, and the reply. In DR and TUN the reply does not come from where the request went.",
    "Requests time out or are refused for everybody behind that router.",
    _SEE,
    "Accept these packets before the rule, or narrow it." + _LASTING,
    "net/ipv4/ip_forward.c:ip_forward",
)
SHADOW = Code(
    "LVS-FW-003",
    "The director's NAT rules take requests away from IPVS",
    "A rule in PREROUTING writes another destination into the request before IPVS, which sits at LOCAL_IN, sees it. It"
    " finds no virtual service with that address, or the packet is forwarded and never comes to LOCAL_IN.",
    "The service is dead, or works from one place and is not balanced. IPVS counts no packet. In every mode.",
    _SEE + " ipvsadm -Ln --stats: the service's counters stand still.",
    "Accept VIP and port before the rule; kube-proxy, docker and old port forwardings leave such." + _LASTING,
    "net/netfilter/nf_nat_core.c:nf_nat_inet_fn; net/netfilter/ipvs/ip_vs_core.c:ip_vs_ops4",
)
INPUT = Code(
    "LVS-FW-004",
    "The director's firewall stops requests before IPVS sees them",
    "Requests to the VIP are for the director itself, so they meet its input chains, not its forward chains, and IPVS"
    " comes after these: at LOCAL_IN with priority 99.",
    "All requests time out, or are refused where the rule rejects. IPVS counts no packet. In every mode.",
    _SEE,
    "Accept VIP and port in the input chain before the rule, or narrow it. A rule in forward helps nothing." + _LASTING,
    "net/netfilter/ipvs/ip_vs_core.c:ip_vs_ops4",
)
UNMARKED = Code(
    "LVS-FW-005",
    "No rule marks the requests that a firewall-mark service waits for",
    "A service of `ipvsadm -A -f N` takes packets that bear the mark N when they come to LOCAL_IN. A mark is set by"
    " a rule in PREROUTING (or INPUT); rules in FORWARD, OUTPUT and POSTROUTING come too late or never.",
    "Requests are refused by the director itself, or time out; the service counts nothing. In every mode.",
    _SEE + " ipvsadm -Ln --stats: the service FWM counts nothing.",
    "Mark them in mangle PREROUTING: iptables -t mangle, -j MARK --set-mark N." + _LASTING,
    "net/netfilter/ipvs/ip_vs_ctl.c:ip_vs_service_find; ipvsadm(8), -f",
)
OUTPUT = Code(
    "LVS-FW-006",
    "The director's firewall stops what IPVS passes on",
    "What IPVS sends to a real server meets the director's output chains: addressed to the RIP in NAT, to the VIP in"
    " DR, as a tunnel packet (IP protocol 4, GRE, or UDP) in TUN. Without net.ipv4.vs.conntrack it is untracked there"
    " (measured), so that rules for new and established connections do not fit.",
    "Requests for these real servers time out. IPVS counts them as sent.",
    _SEE,
    "Accept these packets before the rule, or narrow it." + _LASTING,
    "net/netfilter/ipvs/ip_vs_xmit.c:ip_vs_nat_send_or_cont, ip_vs_send_or_cont, ip_vs_tunnel_xmit",
)
FORWARD = Code(
    "LVS-FW-007",
    "The director's firewall stops the replies of NAT",
    "Replies of NAT are forwarded: they meet the forward chains with the real server's address and port as source, not"
    " the VIP, because IPVS puts the VIP in after these. Without net.ipv4.vs.conntrack the SYN-ACK is INVALID to"
    " conntrack there (measured): the usual rule that drops such packets drops all replies.",
    "Connections time out for these real servers; IPVS counts packets in and none out. Only in NAT.",
    _SEE,
    "Accept the source RIP and port in the forward chain, before any rule that drops; where it drops by state,"
    " net.ipv4.vs.conntrack=1 lets conntrack know the connections." + _LASTING,
    "net/netfilter/ipvs/ip_vs_core.c:ip_vs_ops4 (FORWARD at 100), ip_vs_notrack; measured: kernel 6.1",
)
SERVER = Code(
    "LVS-FW-008",
    "A real server's firewall stops requests",
    "The request arrives addressed to the RIP in NAT, to the VIP in DR and TUN (there by the tunnel interface), always"
    " from the client's address: rules made for the director's address do not fit.",
    "This real server's share of the connections times out or is refused.",
    _SEE,
    "Accept the address and port before the rule, or narrow it." + _LASTING,
    "net/ipv4/ip_input.c:ip_local_deliver",
)
TUNNEL = Code(
    "LVS-FW-009",
    "A real server's firewall stops the tunnel from the director",
    "In TUN a request arrives inside a packet from the director: IP protocol 4 (ipip), GRE or UDP (gue). That one meets"
    " the input chains first, on the network interface.",
    "This real server's share of the connections times out, or is refused where the rule rejects. Only in TUN.",
    _SEE + " tcpdump on the network interface shows protocol 4, on tunl0 nothing.",
    "Accept the tunnel's protocol from the director before the rule, or narrow it." + _LASTING,
    "net/ipv4/ip_input.c:ip_local_deliver; net/ipv4/tunnel4.c:tunnel4_rcv",
)
REPLY = Code(
    "LVS-FW-010",
    "A real server's firewall stops its replies",
    "The reply leaves with the VIP (DR, TUN) or the RIP (NAT) as its source, addressed to the client.",
    "This real server's share of the connections times out.",
    _SEE,
    "Accept these packets before the rule, or narrow it." + _LASTING,
    "net/ipv4/ip_output.c:__ip_local_out",
)
BLACKHOLE = Code(
    "LVS-FW-011",
    "A firewall stops the ICMP messages that make clients send smaller packets",
    "A tunnel takes 20 bytes of every packet and more. The director answers a full-sized packet of a client, which may"
    " not be fragmented, by ICMP type 3 code 4. If that does not arrive, the client sends the same again.",
    "Small requests work, big ones (uploads, long cookies) hang. Only in TUN.",
    _SEE + " On the client: ip route get VIP shows no smaller mtu after a big request.",
    "Accept ICMP type 3 code 4. Or a smaller MSS on the real servers' routes (advmss 1440), a bigger MTU between"
    " director and real servers, or net.ipv4.vs.pmtu_disc=0." + _LASTING,
    "net/netfilter/ipvs/ip_vs_xmit.c:ensure_mtu_is_adequate; RFC 1191",
)
VRRP = Code(
    "LVS-FW-012",
    "A firewall stops VRRP between directors",
    "Directors that share a VIP by VRRP tell each other by IP protocol 112 to 224.0.0.18 who has it. One that hears"
    " nothing takes the VIP too.",
    "Two directors have the VIP; connections break by turns. Only where directors use VRRP.",
    _SEE + " tcpdump -ni IF proto 112 on both directors.",
    "Accept protocol 112 between the directors." + _LASTING,
    "RFC 5798, sections 5.1.1.2 and 6.4; keepalived.conf(5)",
)

ALL = (CLIENT, ROUTER, SHADOW, INPUT, UNMARKED, OUTPUT, FORWARD, SERVER, TUNNEL, REPLY, BLACKHOLE, VRRP)
