"""The pipeline's picture, and the lines at the top and the end of every notebook."""

import json
import re
import shutil
from pathlib import Path

import pytest
from places import REPOSITORY

from dqas_lib.notebook import pipeline

NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
def test_every_notebook_says_where_it_stands_and_where_to_go(path):
    texts = ["".join(c["source"]) for c in json.loads(path.read_text())["cells"] if c["cell_type"] == "markdown"]
    assert texts[0].split("\n", 2)[2].startswith(pipeline.strip(path.stem, NAMES)), (
        "run python -m dqas_lib.notebook.pipeline"
    )
    assert texts[-1].endswith(f"\n\n{pipeline.links(path.stem, NAMES)}")
    for name in re.findall(r"\]\((\w+\.(?:ipynb|md))\)", texts[0]):
        assert (path.parent / name).is_file()


def test_the_lines_by_hand():
    names = ["00_start_here", "03_features_and_bins", "06_train_and_evaluate"]
    assert pipeline.strip(names[1], names) == (
        "*You are here:* patchify → **bins** → class budget → active rounds → train and evaluate\n\n"
        "Before: [00 Start here](00_start_here.ipynb) · Next: [06 Train and evaluate](06_train_and_evaluate.ipynb) · "
        "[Glossary](GLOSSARY.md)"
    )
    assert pipeline.links(names[2], names).count("ipynb") == 1


def test_the_picture_names_every_stage_and_is_written_with_the_lines(tmp_path):
    texts = [text.get_text() for axis in pipeline.draw_pipeline().axes for text in (axis.title, *axis.texts)]
    for number, stage in enumerate(pipeline.STAGES, start=1):
        assert f"{number}  {stage}" in texts
        assert f"notebook 0{number + 1}" in texts
    (tmp_path / "notebooks").mkdir()
    copy = Path(shutil.copy(NOTEBOOKS[3], tmp_path / "notebooks"))
    pipeline.main(tmp_path)
    assert "Before: " not in copy.read_text()  # it is the only one
    assert "patchify" in (tmp_path / "reports" / "figures" / "pipeline.svg").read_text()
    assert "patchify" in (REPOSITORY / "reports" / "figures" / "pipeline.svg").read_text()
