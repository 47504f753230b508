"""What became of the requests: failures, the load offered, real servers that answer otherwise than the others."""

from __future__ import annotations

from lvsbench.report import servers, words
from lvsbench.report.language import apart, listed, msg, say, together
from lvsbench.report.measured import Measured
from lvsbench.report.validity.judgement import Judgement, Word, some

ERROR_SHARE = 0.001
HELD_SHARE = 0.03
"""Of the users' time in a closed loop: so much less throughput is of practical importance."""
ACHIEVED_WARNING, ACHIEVED_ERROR = 0.98, 0.9


def errors(measured: Measured) -> Judgement:
    """Judge failed requests: any is worth a warning, more than one in a thousand of a trial is too many."""
    trials = measured.trials
    if trials.empty or (trials["completed"] == 0).any():
        return Judgement("errors", "error", say("a trial without a single successful request"))
    count, total = int(trials["errors"].sum()), int(trials["requests"].sum())
    older = (
        say("; an older run: what had no end when a trial ended was not counted") if measured.run.schema_ < 2 else ""
    )
    if not count:
        return Judgement("errors", "ok", say("none of {count} requests failed", count=f"{total:,}") + older)
    worst = float((trials["errors"] / trials["requests"]).max())
    held = 0.0 if measured.open_loop else float(trials["failed_time"].max())
    text = say(
        "{count} of {total} requests failed, up to {share} % of a trial: {kinds}",
        count=f"{count:,}",
        total=f"{total:,}",
        share=words.number(worst * 100, 2),
        kinds=_kinds(measured),
    )
    at = servers.failures(measured)
    if at:
        text = apart([text, say("as far as is known at {servers}", servers=listed(at))])
    if held > HELD_SHARE:
        # A user of a closed loop asks nothing while it waits: few failures may be most of its time.
        share = words.number(held * 100, 2)
        text = apart([text, say("users waited for them up to {share} % of their time, and asked nothing", share=share)])
    return Judgement("errors", "error" if worst > ERROR_SHARE or held > HELD_SHARE else "warning", text + older)


def _kinds(measured: Measured) -> str:
    kinds: dict[str, int] = {}
    for of_mode in measured.error_kinds.values():
        for kind, number in of_mode.items():
            kinds[kind] = kinds.get(kind, 0) + number
    return listed(f"{kind} ({number:,})" for kind, number in sorted(kinds.items(), key=lambda item: -item[1])[:3])


def load_achieved(measured: Measured) -> Judgement:
    """Judge whether an offered rate was carried."""
    if not measured.open_loop:
        users = measured.run.asked.users
        text = say("closed loop: {users} users, each waits for its response", users=users)
        return Judgement("load-achieved", "ok", text)
    trials = measured.trials
    share = float((trials["throughput_rps"] / trials["due_rps"]).min()) if len(trials) else 0.0
    offered = [f"{rate:,.0f}" for rate in dict.fromkeys(trials["offered_rps"])] if len(trials) else []
    told = together(offered) if offered else words.NONE
    verdict: Word = "error" if share < ACHIEVED_ERROR else "warning" if share < ACHIEVED_WARNING else "ok"
    text = say(
        "at least {share} % of the offered {rate} requests/s were carried", share=f"{share * 100:.1f}", rate=told
    )
    return Judgement("load-achieved", verdict, text)


def servers_alike(measured: Measured) -> Judgement:
    """Judge whether the real servers answer alike: the slowest of them is in every percentile of the whole."""
    if measured.servers.empty or measured.servers["server"].nunique() < 2:
        return Judgement("servers-alike", "ok", say("one real server"))
    odd = servers.odd(measured)
    if not odd:
        return Judgement("servers-alike", "ok", say("no real server's median latency surely differs from the others'"))
    first = odd[0]
    slower = first.mine_s > first.others_s
    text = say(
        msg("{server} answers slower than the other real servers in {mode}: median latency {mine} against {others}")
        if slower
        else msg(
            "{server} answers faster than the other real servers in {mode}: median latency {mine} against {others}"
        ),
        server=first.server,
        mode=words.name(first.mode),
        mine=words.quantity(first.mine_s, "s"),
        others=words.quantity(first.others_s, "s"),
    )
    more = sorted({words.name(each.mode) for each in odd[1:]} - {words.name(first.mode)})
    if more:
        text = apart([text, say("in {modes} too", modes=listed(more))])
    return Judgement("servers-alike", "warning", text)


def saturation(measured: Measured) -> Judgement:
    """Judge whether every mode carried every load of a sweep; where not, that is what the sweep was to find."""
    sweep = measured.run.asked.sweep
    if sweep is None:
        return Judgement("saturation", "ok", say("one load, no sweep"))
    beyond = []
    for point in sorted({int(each) for each in measured.trials["point"]}):
        carried = measured.at(point).carried()
        at = sweep.values[point]
        beyond += [
            say("{mode} at {load}", mode=words.name(str(mode)), load=at) for mode, yes in carried.items() if not yes
        ]
    if not beyond:
        return Judgement("saturation", "ok", say("every mode carried every load of the sweep"))
    if not measured.headline.carried().all():
        text = say("No load of this sweep was carried by every mode ({modes})", modes=some(beyond))
        return Judgement("saturation", "warning", text)
    text = say("saturated: {modes}; what is not saturated is compared", modes=some(beyond))
    return Judgement("saturation", "ok", text)
