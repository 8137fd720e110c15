"""Follows the tutorial to the letter in an empty directory, its installation included: ``make tutorial``.

The one thing that is not as it is for a reader: `pytest-reflex` comes from a wheel of this working tree.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from test_docs import ROOT, blocks, expecting


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="tutorial-") as temporary:
        wheels, place = Path(temporary, "wheels"), Path(temporary, "empty")
        place.mkdir()
        build = [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--wheel-dir",
            str(wheels),
            str(ROOT),
        ]
        subprocess.run(build, check=True)
        env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
        env["PIP_FIND_LINKS"] = f"{env.get('PIP_FIND_LINKS', '')} {wheels}".strip()
        env["PIP_CONSTRAINT"] = str(ROOT / "constraints" / "newest.txt")
        # One shell for all of it, as a reader has one: what is activated stays so.
        script = ["set -exo pipefail"]
        for block in blocks("tutorial.md"):
            if block.title:
                script.append(f"cat > {block.title} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
            elif block.language == "sh":
                script.append(expecting(block.text))
        return subprocess.run(["bash", "-c", "\n".join(script)], cwd=place, env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
