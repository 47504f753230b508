"""What following a request can show, for ``lvsbench explain``: each code says where requests stop, not yet why."""

from __future__ import annotations

from lvsbench.checks.finding import Code

_MEASURED = "measured: captures on client, director and real servers of the lab"
_SEE = "lvsbench diagnose path draws the request; by hand, on each node: tcpdump -eni any 'tcp port 80 or ip proto 4'"


def _code(
    number: int, title: str, what: str, shows: str, mend: str, source: str = _MEASURED, confirm: str = _SEE
) -> Code:
    return Code(f"LVS-PATH-{number:03d}", title, what, shows, confirm, mend, source)


UNSENT = _code(
    1,
    "Requests do not leave the client",
    "Before a frame can leave, the client needs a route to the VIP and an answer to its ARP request for the VIP (or for"
    " its gateway). Without one of them the kernel fails the connection by itself.",
    "All modes. `No route to host` after about 3 s where ARP has no answer, `Network is unreachable` at once without a"
    " route, `Operation not permitted` or a timeout where a filter on the client drops it.",
    "See whether the director has the VIP on an interface of the client's segment and answers ARP for it.",
    "net/ipv4/arp.c:arp_error_report; measured: who-has without an answer, then EHOSTUNREACH",
    "On the client: ip route get VIP; ip neigh show VIP (FAILED or INCOMPLETE); arping VIP",
)
ASTRAY = _code(
    2,
    "Requests leave the client and do not reach the director",
    "The client sent frames, and no director saw one. The destination MAC of those frames says who got them: a wrong or"
    " permanent ARP entry, a second host with the VIP, a router with a route of its own.",
    "All modes: timeouts, or answers of a host that is not of this cluster.",
    "Correct the ARP entry on the client (or its router): ip neigh del VIP dev IF; remove the VIP from the other host.",
)
REFUSED_BY_DIRECTOR = _code(
    3,
    "The director itself refuses requests: no virtual service takes them",
    "IPVS looks at packets to local addresses before a socket does. What no virtual service matches goes on to the"
    " director's own stack, which has no socket on that port and answers RST.",
    "All modes: connection refused at once. The RST has the director's MAC and its full TTL, and IPVS counts nothing.",
    "Add the service for exactly this VIP, port and protocol; for a firewall mark, the rule that sets it in"
    " PREROUTING.",
    "net/netfilter/ipvs/ip_vs_core.c:ip_vs_in_hook (no service: NF_ACCEPT); net/ipv4/tcp_ipv4.c:tcp_v4_rcv",
    "On the director: ipvsadm -Ln (is there a service for VIP:PORT?); ss -ltn",
)
NO_DESTINATION = _code(
    4,
    "IPVS refuses requests: it has no real server to send them to",
    "A virtual service matches, and its scheduler finds no destination: there is none, or each has weight 0 or is over"
    " its upper threshold. IPVS then answers ICMP port unreachable.",
    "All modes: connection refused at once; ICMP 3/3 from the director, no RST.",
    "Add destinations, or give them a weight above 0. A health checker that took all of them out says why in its log.",
    "net/netfilter/ipvs/ip_vs_core.c:ip_vs_leave (icmp_send ICMP_PORT_UNREACH)",
    "On the director: ipvsadm -Ln (weights); dmesg: `no destination available`",
)
SWALLOWED = _code(
    5,
    "Requests reach the director and end there",
    "The director's network card saw the request, and IPVS sent nothing on. A filter in PREROUTING or INPUT drops it, a"
    " NAT rule sends it elsewhere, the reverse path filter or the table of martians takes it, or the director does not"
    " have the VIP and does not forward.",
    "All modes: timeouts.",
    "Let the VIP's port through INPUT: requests to IPVS never pass FORWARD.",
    "net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops (LOCAL_IN); net/ipv4/ip_input.c",
    "On the director: nstat -az | grep -e InAddrErrors -e ReversePathFilter; nft list ruleset (counters)",
)
NOT_SENT_ON = _code(
    6,
    "The director chose a real server and sent it nothing",
    "IPVS has a connection entry, so it scheduled the request; the packet was lost on its way out: the real"
    " server's MAC is not known, there is no route to it, or a filter in OUTPUT or POSTROUTING drops it.",
    "All modes: timeouts, or `No route to host`, for this real server's share.",
    "See that the director can resolve the real server: its primary address must not be the VIP.",
    "net/netfilter/ipvs/ip_vs_xmit.c:ip_vs_send_or_cont; net/ipv4/arp.c:arp_error_report",
    "On the director: ip neigh show RIP (FAILED?); ip route get RIP; ipvsadm -Lnc",
)
LOST_BEFORE_SERVER = _code(
    7,
    "Requests leave the director and do not arrive at the real server",
    "The director sent a frame and the real server's network card saw none. The frame's destination MAC says who"
    " got it: in DR it must be the real server's own, since the packet is still addressed to the VIP.",
    "DR, TUN, NAT: timeouts for this real server's share; in DR through a router also time-to-live exceeded.",
    "Delete a wrong ARP entry of the director; in DR put the real server on the director's own segment, or use TUN.",
    "net/netfilter/ipvs/ip_vs_xmit.c:ip_vs_dr_xmit",
)
UNANSWERED = _code(
    8,
    "Requests arrive at the real server and are not answered",
    "The request is on the real server's wire, and nothing comes back. The kernel drops what is not addressed to"
    " it (the VIP is missing), what fails the reverse path filter (TUN), what a filter drops, what no tunnel"
    " interface unwraps; and an answer without a route never leaves.",
    "All modes: timeouts for this real server's share.",
    "Depends on the cause: give it the VIP (DR, TUN), bring tunl0 up with rp_filter 2 (TUN), a route to the client.",
    "net/ipv4/ip_input.c, net/ipv4/fib_frontend.c:fib_validate_source, net/ipv4/ipip.c",
    "On the real server, before and after a request: nstat -az | grep -e InAddrErrors -e ReversePathFilter -e"
    " OutNoRoutes",
)
REFUSED_BY_SERVER = _code(
    9,
    "The real server refuses requests",
    "The request reached the real server's TCP, and no socket takes it: the service is down, on another port, or"
    " bound to an address other than the one that the request bears (the VIP in DR and TUN, the RIP in NAT).",
    "All modes: connection refused for this real server's share. The RST is the real server's own.",
    "Start the service and let it listen on 0.0.0.0 or on the VIP; DR and TUN cannot change the port.",
    "net/ipv4/tcp_ipv4.c:tcp_v4_rcv; net/netfilter/ipvs/ip_vs_ctl.c:ip_vs_update_dest (port is set to the service's)",
    "On the real server: ss -ltn",
)
ICMP_ERROR = _code(
    10,
    "A request is answered with an ICMP error",
    "Somebody behind the director says that he cannot deliver. Port unreachable about a tunnelled packet: no tunnel"
    " interface is up; protocol unreachable: no module for that tunnel; host or administratively prohibited: a firewall"
    " rejects. IPVS relays such an error to the client.",
    "All modes; errors are rate-limited, so refused connections mix with timeouts.",
    "Bring the tunnel interface up, load its module, or let the firewall accept.",
    "net/ipv4/tunnel4.c:tunnel4_rcv; net/ipv4/ip_input.c:ip_protocol_deliver_rcu; ip_vs_core.c:ip_vs_in_icmp",
)
LOOP = _code(
    11,
    "Requests go in circles until their time to live ends",
    "Whoever gets a packet for the VIP without having it and forwards sends it back to the director, which balances it"
    " again to the same host. Each round takes from the TTL.",
    "DR, TUN: timeouts or `time to live exceeded`; the director sends many times the packets that clients do.",
    "Give the real server the VIP, and turn its ip_forward off.",
    "net/ipv4/ip_forward.c; measured: one SYN seen about 30 times",
)
FROM_RIP = _code(
    12,
    "Replies reach the client from the real server's own address",
    "In NAT the director must put the VIP back into the reply, so the reply must pass it. A reply that takes"
    " another way reaches the client from the RIP, to which it has no connection: the client answers RST.",
    "NAT: timeouts. IPVS counts packets in and none out.",
    "Make the director the real server's gateway; for clients on the real server's own segment a route to them through"
    " the director, with redirects off on both.",
    "net/netfilter/ipvs/ip_vs_core.c:handle_response; measured",
    "On the client: tcpdump -n 'src host RIP'; on the real server: ip route get CIP from RIP",
)
LOST_REPLY = _code(
    13,
    "Replies leave and do not arrive",
    "The answer was sent, and neither the client nor (in NAT) the director saw it. Its destination MAC says who"
    " got it.",
    "All modes: timeouts.",
    "Correct the real server's route to the client.",
    confirm="On the real server: ip route get CIP from VIP (NAT: from RIP); ip neigh",
)
REPLY_SWALLOWED = _code(
    14,
    "Replies reach the director and end there",
    "In NAT a reply passes the director's FORWARD hook, where IPVS puts the VIP back: it needs ip_forward, and filters"
    " there see the RIP as its source. In DR and TUN a reply with the VIP as source is a martian to the director, which"
    " has the VIP itself, and is dropped.",
    "NAT, or DR and TUN with the director as gateway: timeouts. IPVS counts packets in and none out.",
    "NAT: net.ipv4.ip_forward=1, and accept the real servers' replies in FORWARD. DR, TUN: another gateway, or"
    " accept_local=1 on the director.",
    "net/netfilter/ipvs/ip_vs_core.c, ip_vs_ops (FORWARD); net/ipv4/fib_frontend.c:__fib_validate_source",
    "On the director: sysctl net.ipv4.ip_forward; nstat -az IpInAddrErrors; column in_martian_src of"
    " /proc/net/stat/rt_cache",
)
UNFINISHED = _code(
    15,
    "Replies arrive and requests fail nevertheless",
    "The way is whole in both directions, so this is not about forwarding: the service answers with an error status,"
    " closes early, resets, or the client does not accept the reply (a filter on the client).",
    "All modes: whatever the error says.",
    "Look into the log of the service on that real server.",
    confirm="curl -v http://VIP/ on the client; the service's log",
)
BYPASS = _code(
    16,
    "Requests reach a real server without the director",
    "The client (or its router) has the real server's MAC for the VIP, because the real server answered its ARP"
    " request, asked with the VIP as sender, or the entry was set by hand. The requests are served, and nothing"
    " is balanced.",
    "DR, TUN: it seems to work, one real server has all the load; NAT: timeouts. When the director or that real server"
    " fails, nobody takes over.",
    "On the real servers arp_ignore=1 and arp_announce=2 on `all`; then delete the entry on the client or its router.",
    "net/ipv4/arp.c:arp_process; measured: TTL 64 instead of 63 at the real server",
    "On the real server: tcpdump -eni IF dst host VIP; the source MAC must be the director's, the TTL one less"
    " than sent",
)
BIG_HANG = _code(
    17,
    "Small requests work and big ones hang",
    "Full segments do not fit into a tunnel: the director asks the sender by ICMP `fragmentation needed` to send"
    " smaller ones. Where that message is dropped, the sender repeats the same segment for ever.",
    "TUN: pages load, uploads hang.",
    "Let ICMP type 3 code 4 through everywhere; or advertise a smaller MSS on the real servers (ip route ... advmss).",
    "RFC 1191; RFC 2923, section 2.1; net/netfilter/ipvs/ip_vs_xmit.c:ensure_mtu_is_adequate",
    "On the client: tcpdump -nv 'icmp[0]=3 and icmp[1]=4'; ip route get VIP (mtu in the cache?)",
)
OTHER_WAY = _code(
    18,
    "Packets take another way than the forwarding method says",
    "The director's table says one method, the captured packets show the signature of another: replies that pass the"
    " director in DR or TUN, or do not in NAT; tunnelled packets or bare ones where the other is expected.",
    "It works, but loads the director or hides a mix of methods.",
    "See which gateway the real server uses, and that each real server is prepared for the method in the table.",
)
UNEVEN = _code(
    19,
    "A real server gets nothing, though the scheduler should send it a share",
    "The scheduler gives every destination with a weight its turn, and one had none.",
    "All modes: no balancing, no reserve.",
    "See weights, thresholds and persistence in ipvsadm -Ln, and whether connections pass the director at all.",
    "net/netfilter/ipvs/ip_vs_rr.c, ip_vs_wrr.c, ip_vs_lc.c, ip_vs_wlc.c",
    "On the director: ipvsadm -Ln --stats",
)
UNREACHED = _code(
    20,
    "No request of the probe was meant for a real server",
    "The path to a real server is judged by a request that the director sent there. None was, so nothing is"
    " known of it.",
    "Nothing by itself: this says what was not looked at.",
    "Ask again with more requests, or with a scheduler that spreads them.",
)
NOBODY_LOOKED = _code(
    21,
    "Requests fail where nobody could look",
    "A request failed, and the node at which it stopped could not capture packets.",
    "All modes.",
    "Install tcpdump on the nodes, or give the login the right to capture; see docs/nodes.md.",
)
ANOTHER = _code(
    22,
    "A server answers that the topology does not have",
    "The response names a server that is no real server of the topology, and neither packets nor the director's"
    " connections show one that is. Either the topology lacks it, or a host that is not of this cluster has the VIP.",
    "All modes. It works, and nothing was checked of that server: how it is set up, nor the way to it.",
    "Add the server to the topology and look again; or take it out of the table, if it is not meant to be there.",
    "the response header that the topology names in served_by; net/netfilter/ipvs/ip_vs_conn.c:ip_vs_conn_seq_show",
    "On the director: ipvsadm -Ln, ipvsadm -Lnc; on the client: curl -si http://VIP:PORT/",
)
PASSED = _code(
    25,
    "Requests failed, and went well when they were asked again alone",
    "A request that failed is asked again when nothing else of the probe is under way. Where all of these go well,"
    " something is at its limit, or loses packets now and then: a table that is full, a link, a node without CPU. It"
    " may be that the probe itself, with a few requests at a time, was what the cluster could not bear.",
    "All modes: some requests fail, under load more.",
    "Look at load, errors of interfaces and drops on the node that is named; diagnose again when nothing else runs.",
    confirm="lvsbench diagnose path, several times; on the node: uptime; ip -s link; nstat -az",
)
CODES = (
    UNSENT,
    ASTRAY,
    REFUSED_BY_DIRECTOR,
    NO_DESTINATION,
    SWALLOWED,
    NOT_SENT_ON,
    LOST_BEFORE_SERVER,
    UNANSWERED,
    REFUSED_BY_SERVER,
    ICMP_ERROR,
    LOOP,
    FROM_RIP,
    LOST_REPLY,
    REPLY_SWALLOWED,
    UNFINISHED,
    BYPASS,
    BIG_HANG,
    OTHER_WAY,
    UNEVEN,
    UNREACHED,
    NOBODY_LOOKED,
    ANOTHER,
    PASSED,
)
