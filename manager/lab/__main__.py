"""``python -m manager.lab up|status|down``."""

from manager.lab.cli import lab

if __name__ == "__main__":
    lab(prog_name="muster lab")
