"""Real libvirt daemons with real guests on one machine: `muster lab`, and the ground of `tests/lab`."""
