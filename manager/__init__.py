"""Muster: clusters of libvirt/KVM hosts, in a window and on the command line."""

__version__ = "0.1.0"
