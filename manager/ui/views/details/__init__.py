"""Below a list: what is known of the selected object, or the counts of many."""

from __future__ import annotations

from manager.ui.views.details.page import Details, many_title

__all__ = ["Details", "many_title"]
