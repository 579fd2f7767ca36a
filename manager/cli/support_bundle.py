"""``muster support-bundle``."""

from __future__ import annotations

import logging
from pathlib import Path

import click

from manager.cli.app import App
from manager.cli.events_views import find_problems, remember
from manager.cli.options import Settings
from manager.cli.output import print_json, printable
from manager.cli.queue_views import KEPT, read_queue
from manager.cli.session import opened
from manager.core.units import size_text
from manager.services.support_bundle import LEFT_OUT, KeptLog, make_bundle, refuse_existing, write


async def write_bundle(app: App, settings: Settings, since_s: float, output: Path | None) -> int:
    """Read all there is, write it, say what it is.

    Raises:
        UserError: The file is there already, or cannot be written; or nothing of the cluster can be read.
    """
    refuse_existing(output)
    kept, ours = KeptLog(), logging.getLogger("manager")
    ours.addHandler(kept)
    try:
        async with opened(app, settings, reading=True, enough=lambda _: True) as session:
            await find_problems(session)
            await remember(session, since_s)
            queue = await read_queue(session, ended=KEPT)
            now_s = session.runtime.clock.now_s()
            known = (*queue.ended, *queue.left.values())
            bundle = await make_bundle(
                session.view, app.version, known, kept.lines, since_s=since_s, now_s=now_s
            )
    finally:
        ours.removeHandler(kept)
    path = output or Path(bundle.file_name)
    size = await write(bundle, path)
    if settings.as_json:
        rows = [{"file": each, "bytes": len(text.encode())} for each, text in bundle.texts.items()]
        print_json([{"bundle": str(path), "contents": rows}])
    else:
        click.echo(printable(f"{path} ({size_text(size)}) holds:"))
        for each, text in bundle.texts.items():
            click.echo(f"  {each:<18}{size_text(len(text.encode()))}")
        click.echo(LEFT_OUT.rstrip())
    return 0
