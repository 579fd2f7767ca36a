"""One lab for all tests of a session."""

from __future__ import annotations

from tests.lab.support import lab_session

lab = lab_session()
