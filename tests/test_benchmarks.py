"""The benchmarks run (tiny, without a GPU), refuse where they cannot, and the report says what was measured."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from places import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "tests" / "benchmarks"))

import bench_gpu
import bench_large
import measure
import plain
import report

from dqas_lib.bins.graph_cut import greedy_graph_cut
from dqas_lib.training.features import unit_rows
from dqas_lib.training.networks import make_network


def test_the_gpu_half_runs_at_tiny_sizes_on_a_cpu_and_writes_its_table(tmp_path, capsys):
    assert bench_gpu.main(["--tiny", "--device", "cpu", "--reports", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "benchmarks" / "gpu.json").read_text())
    parts = [entry["part"] for entry in found["rows"]]
    assert list(dict.fromkeys(parts)) == ["Bins", "Training", "Patchify", "DQAS end to end"]
    (same,) = [entry for entry in found["rows"] if "bin and rank that the CPU gives" in entry["what"]]
    assert same["value"] == 100
    assert same["met"] is True
    assert all(entry["value"] > 0 for entry in found["rows"])
    text = (tmp_path / "benchmarks.md").read_text()
    assert "## On a CPU\n\nNot measured yet: `make bench`" in text
    assert "no GPU (a dry run)" in text
    assert all(entry["measured"] in text for entry in found["rows"])
    assert same["what"] in capsys.readouterr().out
    assert bench_gpu.main(["--tiny", "--device", "cpu", "--reports", str(tmp_path), "--parts", "bins"]) == 0
    again = json.loads((tmp_path / "benchmarks" / "gpu.json").read_text())
    assert [entry["part"] for entry in again["rows"]] == parts
    assert [entry for entry in again["rows"] if entry["part"] == "Training"] == [
        entry for entry in found["rows"] if entry["part"] == "Training"
    ]


def test_a_gpu_half_that_was_cut_off_goes_on_where_it_was(tmp_path, monkeypatch):
    command, tried = ["--tiny", "--device", "cpu", "--reports", str(tmp_path), "--parts", "bins", "training"], []

    def power_cut(pool, images):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(bench_gpu, "bench_recipe", power_cut)
        with pytest.raises(KeyboardInterrupt):
            bench_gpu.main(command)
    left = json.loads((tmp_path / "benchmarks" / "gpu-unfinished.json").read_text())["rows"]
    assert {entry["part"] for entry in left} == {"Bins"}
    monkeypatch.setattr(bench_gpu, "recursive_bins_on_device", lambda *given, **options: tried.append(1))
    assert bench_gpu.main(command) == 0
    assert not tried
    found = json.loads((tmp_path / "benchmarks" / "gpu.json").read_text())["rows"]
    assert [entry for entry in found if entry["part"] == "Bins"] == left
    assert not (tmp_path / "benchmarks" / "gpu-unfinished.json").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_without_a_cuda_device_the_gpu_half_refuses_in_one_sentence(tmp_path, capsys):
    assert bench_gpu.main(["--reports", str(tmp_path)]) == 2
    assert capsys.readouterr().err == "make bench-gpu needs a CUDA device, and PyTorch sees none on this machine.\n"
    assert list(tmp_path.iterdir()) == []


def test_padding_the_stem_changes_nothing_but_its_shape():
    network = make_network("small_cnn", 3, 8, 0).eval()
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 8, 8, 3), dtype=np.uint8))
    before = network(images)
    bench_gpu.pad_stem(network)
    assert network.stages[0][1].weight.shape[1] == 8
    torch.testing.assert_close(network(images), before)


def test_a_row_is_judged_by_the_bound_it_shows():
    met = measure.row("Bins", "a", "250 x", 250.0, at_least=200, unit=" x")
    missed = measure.row("Bins", "b", "6 s", 6.0, at_most=5, unit=" s")
    assert (met.wanted, met.met) == ("at least 200 x", True)
    assert (missed.wanted, missed.met) == ("at most 5 s", False)
    assert measure.row("Bins", "c", "1 s", 1.0).met is None


def test_the_report_keeps_the_half_that_was_not_run_again_and_marks_what_was_missed(tmp_path):
    rows = [measure.row("Bins", "speed", "3 x", 3.0, at_least=200, unit=" x")]
    measure.save(tmp_path / "benchmarks" / "cpu.json", rows, command="make bench", machine="a machine", seconds=7)
    text = report.write(tmp_path).read_text()
    assert "| speed | 3 x | at least 200 x | **missed** |" in text
    assert f"a machine; Python {sys.version.split()[0]}" in text
    assert f"torch {torch.__version__}" in text
    assert "Not measured yet: `make bench-gpu`" in text
    measure.save(tmp_path / "benchmarks" / "gpu.json", rows, command="make bench-gpu", machine="a card", seconds=8)
    text = report.write(tmp_path).read_text()
    assert text.index("a machine;") < text.index("a card;")


def test_the_plain_greedy_gives_the_picks_of_the_library():
    z = unit_rows(np.maximum(np.random.default_rng(3).normal(size=(150, 12)) + 0.5, 0))
    assert plain.naive_graph_cut(z, 60).tolist() == greedy_graph_cut(z, 60).tolist()


def test_a_measurement_that_fails_in_its_own_process_is_an_error_here():
    assert measure.in_fresh_process("give(value=float(sys.argv[1]))", "2.5") == {"value": 2.5}
    with pytest.raises(RuntimeError, match="no such figure"):
        measure.in_fresh_process("raise ValueError('no such figure')")


def test_a_part_of_the_benchmarks_writes_no_report(tmp_path):
    pool = REPOSITORY / "tests" / "benchmarks" / "bench_cpu.py"
    chosen = ["-q", "-s", "-p", "no:cacheprovider", "-k", "start_up", "--quick", "--reports", str(tmp_path), str(pool)]
    run = subprocess.run([sys.executable, "-m", "pytest", *chosen], capture_output=True, text=True, check=True)
    assert "only a part of the benchmarks ran: the report was not written" in run.stdout
    assert list(tmp_path.iterdir()) == []


def test_the_kit_for_a_card_brings_pinned_packages_and_data_in_parts(tmp_path):
    import gpu_kit

    (tmp_path / "data.npz").write_bytes(content := bytes(range(256)) * 10_000)
    made = gpu_kit.parts(tmp_path / "data.npz", tmp_path, 1)
    assert [path.name for path in made] == ["data.npz.part00", "data.npz.part01", "data.npz.part02"]
    assert b"".join(path.read_bytes() for path in made) == content
    names = gpu_kit.wheels((REPOSITORY / "requirements.lock").read_text())
    assert [name.split("==")[0] for name in names] == list(gpu_kit.BROUGHT)


@pytest.mark.slow
def test_the_large_half_runs_at_tiny_sizes_and_writes_its_table(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_large, "WHERE", tmp_path / "large")
    assert bench_large.main(["--tiny", "--reports", str(tmp_path)]) == 0
    found = json.loads((tmp_path / "benchmarks" / "large.json").read_text())["rows"]
    assert {entry["met"] for entry in found} == {True, None}
    text = (tmp_path / "benchmarks.md").read_text()
    assert "20 of 200 JPEG of 500 px" in text
    assert "dqas-plus of 2,560 images of 64 px in 2 classes" in text
    assert "Not measured yet: `make bench`" in text
