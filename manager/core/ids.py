"""Names for things: typed ids that every layer passes around instead of objects."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NewType

ClusterId = NewType("ClusterId", str)
"""The cluster's name, as its file gives it."""

NodeId = NewType("NodeId", str)
"""A node's name, unique in its cluster."""

VmId = NewType("VmId", str)
"""A VM's UUID, lower case with dashes; the same on every node."""

NO_VM = VmId("")
"""In place of a VM: it is about a node itself."""

OperationId = NewType("OperationId", str)
"""An operation's id, unique in the journal; sorts by age."""

PoolId = NewType("PoolId", str)
"""A storage pool of the cluster: ``netfs:nas:/vms`` where nodes share it, ``n1/default`` where one has it."""

NetworkId = NewType("NetworkId", str)
"""A network of the cluster by its kind and name: ``network:default``, ``bridge:br0``."""

TraceId = NewType("TraceId", str)
"""Joins everything that came from one request: events, effects, log records."""


class Kind(StrEnum):
    """What an object reference points at; a list of the window each."""

    VM = "vm"
    NODE = "node"
    OPERATION = "operation"
    PROBLEM = "problem"
    POOL = "pool"
    VOLUME = "volume"
    NETWORK = "network"
    EVENT = "event"

    @property
    def plural(self) -> str:
        """In the middle of a sentence: ``nodes``."""
        return "VMs" if self is Kind.VM else f"{self.value}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class ObjectRef:
    """One object of one cluster."""

    cluster: ClusterId
    kind: Kind
    key: str
