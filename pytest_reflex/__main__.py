"""``python -m pytest_reflex`` is ``reflex``."""

from pytest_reflex.cli import main

if __name__ == "__main__":
    main()
