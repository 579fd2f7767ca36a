"""Hosts that are a dump: they say what they said when it was made."""
