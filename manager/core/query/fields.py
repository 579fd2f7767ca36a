"""One declaration per field: column, sort key, command-line column, JSON key, export, query term."""

from __future__ import annotations

from manager.core.ids import Kind
from manager.core.query.event_fields import EVENT_FIELDS
from manager.core.query.network_fields import NETWORK_FIELDS
from manager.core.query.node_fields import NODE_FIELDS
from manager.core.query.operation_fields import OPERATION_FIELDS
from manager.core.query.pool_fields import POOL_FIELDS, VOLUME_FIELDS
from manager.core.query.problem_fields import PROBLEM_FIELDS
from manager.core.query.spec import FieldSpec
from manager.core.query.vm_fields import VM_FIELDS

FIELDS: dict[Kind, dict[str, FieldSpec]] = {
    Kind.VM: {f.name: f for f in VM_FIELDS},
    Kind.NODE: {f.name: f for f in NODE_FIELDS},
    Kind.OPERATION: {f.name: f for f in OPERATION_FIELDS},
    Kind.PROBLEM: {f.name: f for f in PROBLEM_FIELDS},
    Kind.POOL: {f.name: f for f in POOL_FIELDS},
    Kind.VOLUME: {f.name: f for f in VOLUME_FIELDS},
    Kind.NETWORK: {f.name: f for f in NETWORK_FIELDS},
    Kind.EVENT: {f.name: f for f in EVENT_FIELDS},
}
"""All fields by kind and name."""


def _terms(fields: dict[str, FieldSpec]) -> dict[str, FieldSpec]:
    """Every word for a field; its own name wins over another's alias."""
    found: dict[str, FieldSpec] = {}
    for spec in fields.values():
        for word in (spec.name, spec.term, *spec.aliases):
            found.setdefault(word, spec)
    return found | fields


TERMS: dict[Kind, dict[str, FieldSpec]] = {kind: _terms(fields) for kind, fields in FIELDS.items()}
"""Fields by every word a query may use for them."""
