"""``python -m manager``: arguments in, bootstrap called, nothing else."""

from __future__ import annotations

from manager.bootstrap import leave
from manager.bootstrap import main as bootstrap_main


def main() -> None:
    """The console command ``muster``."""
    leave(bootstrap_main())


if __name__ == "__main__":
    main()
