"""What a machine with a card and no network needs, in build/gpu-kit: `make gpu-kit`, then copy the folder there.

project.tar.gz: the files that git tracks; wheels/: what runs notebooks, for that machine's Python (`--python`),
which has PyTorch and the packages for numbers and figures; data/: a prepared data set in parts that a narrow way takes.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
BROUGHT = (
    "papermill",
    "ipykernel",
    "ipywidgets",
    "nbformat",
    "filelock",
    "jinja2",
    "pooch",
    "psutil",
    "pydantic",
    "pyyaml",
)
README = """\
cat data/{data}.npz.part* > data/{data}.npz && tar xzf project.tar.gz
python -m pip install --no-index --find-links wheels --no-deps --target site wheels/*.whl
export PYTHONPATH=$PWD:$PWD/site DQAS_DATA=$PWD/data
python -m pytest -q -n 0 tests/cuda tests/bins/test_on_gpu.py                          # minutes 0 to 4
python -m dqas_lib.reproduce --profile quick --device cuda                             # 4 to 8
python tests/benchmarks/bench_gpu.py --parts training bins                             # 8 to 14; goes on when cut off
python -m dqas_lib.reproduce --profile {data} --run 06_at_20                             # 14 to 24
python tests/benchmarks/bench_gpu.py --parts dqas patchify                             # 24 to 30
"""


def parts(path: Path, target: Path, megabytes: int) -> list[Path]:
    """The file cut into parts of so many MiB."""
    made = []
    with open(path, "rb") as file:
        while block := file.read(megabytes << 20):
            made.append(target / f"{path.name}.part{len(made):02d}")
            made[-1].write_bytes(block)
    return made


def wheels(lock: str) -> list[str]:
    """The packages to bring, as requirements.lock pins them; pip adds what they need."""
    return [re.search(rf"^{name}==[^\s;]+", lock, re.MULTILINE)[0] for name in BROUGHT]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", default="3.11", help="of the machine with the card")
    parser.add_argument("--data", default="cifar10", help="name of a prepared data set in data/")
    parser.add_argument("--megabytes", type=int, default=40, help="of a part")
    parser.add_argument("--without-wheels", action="store_true")
    parser.add_argument("--target", type=Path, default=REPOSITORY / "build" / "gpu-kit")
    options = parser.parse_args(arguments)
    data = REPOSITORY / "data" / f"{options.data}.npz"
    if not data.is_file():
        print(f"{data} is not there: dqas_lib.load_images({options.data!r}) prepares it", file=sys.stderr)
        return 2
    (options.target / "data").mkdir(parents=True, exist_ok=True)
    archive = ["git", "-C", str(REPOSITORY), "archive", "--output", str(options.target / "project.tar.gz"), "HEAD"]
    subprocess.run(archive, check=True)
    parts(data, options.target / "data", options.megabytes)
    if not options.without_wheels:
        platforms = [f"--platform=manylinux{kind}_x86_64" for kind in ("2014", "_2_17", "_2_28")]
        fetch = ["--only-binary=:all:", "--python-version", options.python, "--dest", str(options.target / "wheels")]
        needed = wheels((REPOSITORY / "requirements.lock").read_text(encoding="utf-8"))
        subprocess.run([sys.executable, "-m", "pip", "download", *fetch, *platforms, *needed], check=True)
    (options.target / "README").write_text(README.format(data=options.data), encoding="utf-8")
    print(f"{options.target}: its README has the commands of the first thirty minutes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
