"""The shorthands ``is:word``, each a query itself."""

from __future__ import annotations

from dataclasses import dataclass

from manager.core.ids import Kind
from manager.core.query.parser import parse
from manager.core.query.query import Query


@dataclass(frozen=True, slots=True)
class FlagSpec:
    """A shorthand, what it stands for, and what that means."""

    word: str
    text: str
    doc: str

    @property
    def query(self) -> Query:
        """What it stands for."""
        return parse(self.text)


_VM = (
    FlagSpec("running", "status:running", "It runs."),
    FlagSpec("off", "status:off", "It is off."),
    FlagSpec("saved", "status:saved", "Its memory is saved; a start restores it."),
    FlagSpec("paused", "status:paused", "It is paused, by whom or by what ever."),
    FlagSpec("stale", "status:unknown", "Its node is silent: what is shown was true when it was last heard."),
    FlagSpec("migrating", "activity:Migrating*", "It is being moved, by Muster or by someone else."),
    FlagSpec("waiting", "activity:queued", "Work on it waits in the queue."),
    FlagSpec("busy", "not activity:none", "Something is being done to it, or waits."),
    FlagSpec("movable", "movable:yes", "Nothing of its own keeps it from being moved live."),
    FlagSpec("unmovable", "movable:no", "Something of its own keeps it from being moved live."),
    FlagSpec("attention", "attention:yes", "Someone should look at it."),
    FlagSpec("unrecoverable", "recoverable:no", "It could not be started elsewhere if its node were dead."),
)

_NODE = (
    FlagSpec("up", "status:up,paused", "Work can be asked of it, or could if it were not paused."),
    FlagSpec("paused", "status:paused", "It takes no VMs."),
    FlagSpec("stale", "status:unknown", "It is silent: what is shown was true when it was last heard."),
)

_OPERATION = (
    FlagSpec("waiting", "state:waiting", "It waits for its turn."),
    FlagSpec("running", "state:running", "It is being done."),
    FlagSpec("failed", "state:failed", "It did not come to what was asked."),
    FlagSpec("done", "state:done", "It came to what was asked."),
)

_POOL = (
    FlagSpec("shared", "reach:shared", "Nodes share it."),
    FlagSpec("local", "reach:local", "It is one node's own."),
    FlagSpec("missing", "not missing:none", "It is shared, and some node that is up does not have it."),
    FlagSpec("full", "used>=95%", "It is full, or nearly."),
)

_NETWORK = (FlagSpec("missing", "not missing:none", "Some node that is up does not have it."),)

_PROBLEM = (FlagSpec("new", "state:new", "Nobody has acknowledged or muted it."),)

_EVENT = (
    FlagSpec("error", "level:error", "Something failed or broke."),
    FlagSpec("attention", "level>=warning", "Someone should perhaps look at it."),
)

FLAGS: dict[Kind, dict[str, FlagSpec]] = {
    kind: {flag.word: flag for flag in flags}
    for kind, flags in (
        (Kind.VM, _VM),
        (Kind.NODE, _NODE),
        (Kind.OPERATION, _OPERATION),
        (Kind.POOL, _POOL),
        (Kind.NETWORK, _NETWORK),
        (Kind.PROBLEM, _PROBLEM),
        (Kind.EVENT, _EVENT),
    )
}
"""The shorthands by kind of object; some kinds have none."""
