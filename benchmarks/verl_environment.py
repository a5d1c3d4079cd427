"""A virtual environment beside ours that has verl and what its algorithms import on a CPU: its pins conflict with ours.

Knows uv, and that only a CPU's torch may get in.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / ".venv-verl"
PYTHON = FOLDER / "bin" / "python"

PEER = "verl==0.9.1"
# The ranges are verl's own, but for torch: the one that ours computes with. On Linux the plain version may mean the
# CUDA build; the tag cannot.
_TORCH = f"torch=={version('torch').split('+')[0]}{'+cpu' if sys.platform == 'linux' else ''}"
_IMPORTED = (
    _TORCH,
    "tensordict>=0.8,!=0.9.0,<=0.10",
    "transformers>=5.5.3,!=5.6.0,<5.11",
    "ray>=2.41",
    "numpy>=2.0",
    "omegaconf",
    "codetiming",
    "orjson",
    "safetensors",
)


def make() -> None:
    """Makes the environment, once for these requirements. Raises CalledProcessError, with what uv said above it."""
    done = FOLDER / ".installed"
    wanted = "\n".join((PEER, *_IMPORTED))
    if done.exists() and done.read_text() == wanted:
        return
    links = os.environ.get("UV_FIND_LINKS") or _local_wheels()
    index = () if links else ("--torch-backend", "cpu")
    _uv(links, "venv", "--quiet", "--allow-existing", "--python", sys.executable, str(FOLDER))
    _uv(links, "pip", "install", "--quiet", "--python", str(PYTHON), *index, *_IMPORTED)
    _uv(links, "pip", "install", "--quiet", "--python", str(PYTHON), "--no-deps", PEER)
    done.write_text(wanted)


def run(script: Path, *arguments: str) -> None:
    """Runs a script there, on the CPU. Raises CalledProcessError, with what it said on stderr printed first."""
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    command = [str(PYTHON), "-P", str(script), *arguments]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        print(ended.stderr, file=sys.stderr)
    ended.check_returncode()


def _uv(links: str, *arguments: str) -> None:
    command = [str(Path(sys.prefix) / "bin" / "uv"), *arguments]
    subprocess.run(command, env={**os.environ, "UV_FIND_LINKS": links}, check=True)


def _local_wheels() -> str:
    """The folder of local wheels, where pip has one: uv does not read pip's configuration."""
    if links := os.environ.get("PIP_FIND_LINKS"):
        return links
    command = [sys.executable, "-m", "pip", "config", "get", "global.find-links"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
