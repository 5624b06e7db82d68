"""Ids in the hands of other code: the lines of the README, and how DQ and DeepCore take them."""

import re

import numpy as np
import torch
import torchvision
from places import REPOSITORY

from dqas_lib.notebook import run_outputs


def test_three_lines_of_the_readme_load_published_ids(tmp_path, monkeypatch):
    section = (REPOSITORY / "README.md").read_text().split("### Ids for other code")[1]
    (lines,) = re.findall(r"```python\n(.*?)```", section.split("\n## ")[0], re.DOTALL)
    assert len([line for line in lines.splitlines() if line]) == 3
    file = re.search(r'"(reports/ids/.*\.npy)"', lines)[1]
    monkeypatch.setenv("DQAS_RUN_DIR", str(tmp_path))
    ids = np.random.default_rng(0).permutation(50_000)[:5]
    run_outputs.save_ids({"a-name": ids})
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / "ids" / "a-name.npy").rename(tmp_path / file)
    pictures = [(f"picture {place}", 7) for place in range(50_000)]
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", lambda root, train, download: pictures)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(lines, names)
    wanted = [(f"picture {place}", 7) for place in ids.tolist()]
    assert [*names["subset"]] == wanted
    # DQ appends what it loads to an empty array, so that one of two dimensions would be taken apart without a word
    appended = np.append(np.array([]).astype(int), np.load(tmp_path / file))
    assert [*torch.utils.data.Subset(pictures, appended)] == wanted
