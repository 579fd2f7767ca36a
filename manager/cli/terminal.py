"""Questions on the terminal that leave the loop running: the cluster goes on being watched meanwhile."""

from __future__ import annotations

import asyncio
import sys

import click

from manager.cli.output import printable


def is_terminal() -> bool:
    """Whether somebody can be asked: they see standard error and type on standard input."""
    return sys.stdin.isatty() and sys.stderr.isatty()


class Terminal:
    """Whoever sits there, asked one question at a time. Loop thread only."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._asked_s = 0.0
        self._began_s: float | None = None

    @property
    def is_asking(self) -> bool:
        """Whether a question is open right now."""
        return self._began_s is not None

    def asked_s(self) -> float:
        """For how long questions were open in all, in seconds."""
        now_s = asyncio.get_running_loop().time()
        return self._asked_s + (0.0 if self._began_s is None else now_s - self._began_s)

    async def ask_line(self, question: str, *, hidden: bool = False) -> str | None:
        """One line, or None at the end of input.

        Args:
            question: What is asked, on standard error.
            hidden: Do not show what is typed.
        """
        async with self._turn:
            self._began_s = asyncio.get_running_loop().time()
            try:
                return await _read(question, hidden)
            finally:
                self._asked_s, self._began_s = self.asked_s(), None

    async def confirm(self, question: str) -> bool:
        """A yes, typed out; anything else is a no."""
        answer = await self.ask_line(f"{question} [y/N] ")
        return answer is not None and answer.strip().lower() in ("y", "yes")

    async def ask_secret(self, node: str, user: str, prompt: str) -> str | None:
        """A password for a host, or None if nobody can be asked."""
        if not is_terminal():
            return None
        who = f"{user} on {node}" if user else node
        return await self.ask_line(f"{who}: {prompt.rstrip(': ')}: ", hidden=True)


async def _read(question: str, hidden: bool) -> str | None:
    import termios

    loop = asyncio.get_running_loop()
    stdin = sys.stdin.fileno()
    line: asyncio.Future[str] = loop.create_future()

    def readable() -> None:
        # A terminal gives a line at a time, so this does not block.
        if not line.done():
            line.set_result(sys.stdin.readline())

    click.echo(printable(question), err=True, nl=False)
    before = termios.tcgetattr(stdin)
    if hidden:
        quiet = termios.tcgetattr(stdin)
        quiet[3] &= ~termios.ECHO
        termios.tcsetattr(stdin, termios.TCSADRAIN, quiet)
    loop.add_reader(stdin, readable)
    try:
        answer = await line
    finally:
        loop.remove_reader(stdin)
        if hidden:
            termios.tcsetattr(stdin, termios.TCSADRAIN, before)
            click.echo(err=True)
    return answer.rstrip("\n") if answer else None
