"""Bytes that flow: over links and disks that several streams share, fairly, each within its own cap."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterable
from enum import StrEnum

from manager.backends.sim.hosts import SimNode, Timer


class Way(StrEnum):
    """What of a host a stream occupies."""

    OUT = "out"  # its link, sending
    IN = "in"  # its link, receiving
    DISK = "disk"


Link = tuple[Way, SimNode]
Later = Callable[[float, Callable[[], None]], Timer]
"""Puts an action on the world's agenda, in so many seconds."""


def fair_rates(
    streams: Iterable[tuple[tuple[Link, ...], float]], capacity: Callable[[Link], float]
) -> list[float]:
    """Max-min fair rates: none can grow unless one that is not faster shrinks.

    Args:
        streams: of each, the links it uses (one may be used twice) and its own cap in bytes per second.
        capacity: of a link, in bytes per second.
    """
    wanted = list(streams)
    on: dict[Link, list[int]] = {}
    for index, (links, _) in enumerate(wanted):
        for link in links:
            users = on.get(link)
            if users is None:
                on[link] = [index]
            else:
                users.append(index)
    left = {link: capacity(link) for link in on}
    if all(sum(wanted[index][1] for index in users) <= left[link] for link, users in on.items()):
        return [cap for _, cap in wanted]
    count = {link: len(users) for link, users in on.items()}
    # Shares only grow while streams get their rates: an old entry is a lower bound, corrected when it is due.
    shares = [(left[link] / count[link], place, link) for place, link in enumerate(on)]
    heapq.heapify(shares)
    rates: list[float | None] = [None] * len(wanted)
    for index in sorted(range(len(wanted)), key=lambda index: wanted[index][1]):
        cap = wanted[index][1]
        while rates[index] is None:
            while shares:
                share, place, link = shares[0]
                if not count[link]:
                    heapq.heappop(shares)
                elif (now := left[link] / count[link]) > share:
                    heapq.heapreplace(shares, (now, place, link))
                else:
                    break
            if not shares or cap <= shares[0][0]:
                settled, rate = [index], cap
            else:
                rate, _, link = heapq.heappop(shares)
                settled = on[link]
            for user in settled:
                if rates[user] is None:
                    rates[user] = rate
                    for link in wanted[user][0]:
                        left[link] = max(0.0, left[link] - rate)
                        count[link] -= 1
    return [rate or 0.0 for rate in rates]


class Stream:
    """One flow. Its rate changes when others come, go or are cut, and `on_rate` is told before it does."""

    __slots__ = ("cap_bytes_per_s", "links", "on_rate", "rate")

    def __init__(
        self, links: tuple[Link, ...], cap_bytes_per_s: float, on_rate: Callable[[float], None]
    ) -> None:
        self.links = links
        self.cap_bytes_per_s = cap_bytes_per_s
        self.on_rate = on_rate
        self.rate = 0.0  # bytes per second


class Streams:
    """All streams of a world. What changes in one moment is shared out once, at the end of that moment."""

    def __init__(self, later: Later, capacity: Callable[[Link], float]) -> None:
        self._later = later
        self._capacity = capacity
        self._flowing: dict[Stream, None] = {}  # in the order in which they began
        self._due: Timer | None = None

    @property
    def flowing(self) -> int:
        """How many there are."""
        return len(self._flowing)

    def begin(self, stream: Stream) -> None:
        """It flows from now on."""
        self._flowing[stream] = None
        self.changed()

    def end(self, stream: Stream) -> None:
        """It flows no more; harmless if it did not."""
        if stream in self._flowing:
            del self._flowing[stream]
            stream.rate = 0.0
            self.changed()

    def changed(self) -> None:
        """A cap or a capacity is another one now."""
        if self._due is None or not self._due.is_set:
            self._due = self._later(0.0, self._share)

    def _share(self) -> None:
        flowing = tuple(self._flowing)
        rates = fair_rates(((s.links, s.cap_bytes_per_s) for s in flowing), self._capacity)
        for stream, rate in zip(flowing, rates, strict=True):
            if not math.isclose(rate, stream.rate, rel_tol=1e-12) and stream in self._flowing:
                stream.on_rate(rate)


class Transfer:
    """A known number of bytes, sent once; `done` comes when the last one is there, unless it is stopped."""

    def __init__(
        self,
        *,
        streams: Streams,
        later: Later,
        now_s: Callable[[], float],
        total: float,
        links: tuple[Link, ...],
        done: Callable[[], None],
        cap_bytes_per_s: float = math.inf,
    ) -> None:
        self._streams = streams
        self._later = later
        self._now_s = now_s
        self.done = done
        self.total = self._left = total
        self._synced_s = self.started_s = now_s()
        self._timer: Timer | None = None
        self.stream = Stream(links, cap_bytes_per_s, self._on_rate)
        streams.begin(self.stream)

    @property
    def left(self) -> float:
        """Bytes still to come."""
        return max(0.0, self._left - self.stream.rate * (self._now_s() - self._synced_s))

    def stop(self) -> None:
        """It goes no further."""
        self._left = self.left
        self._synced_s = self._now_s()
        self._streams.end(self.stream)
        if self._timer is not None:
            self._timer.cancel()

    def _on_rate(self, rate: float) -> None:
        self._left = self.left
        self._synced_s = self._now_s()
        self.stream.rate = rate
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._later(self._left / rate, self._arrived) if rate > 0 else None

    def _arrived(self) -> None:
        self._left = 0.0
        self._streams.end(self.stream)
        self.done()
