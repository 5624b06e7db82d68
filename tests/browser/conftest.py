"""A real browser, a JupyterLab of its own, and notebook 07 executed; nothing of it reaches a network."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import nbformat
import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# Fewer positions than by default: what is tested is the explorer, not the trainings behind it.
SETTINGS = {"RATIOS": [0.05, 0.1, 0.2], "SEEDS": [0]}
ARGUMENTS = [
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    # nothing but this machine can be found
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]
LAB_SETTINGS = {
    "apputils-extension/themes": {"adaptive-theme": True},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}


@pytest.fixture(scope="session")
def screenshots() -> Path:
    """Where the pictures of a test go: $DQAS_SCREENSHOTS, else a folder beside the reports that git ignores."""
    folder = Path(os.environ.get("DQAS_SCREENSHOTS", REPOSITORY / "reports" / ".screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def browser():
    from playwright.sync_api import sync_playwright

    path = shutil.which(os.environ.get("CHROMIUM", "chromium"))
    assert path, "no chromium here: `make test-browser` installs it, or set CHROMIUM to its path"
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, headless=True)
        yield running
        running.close()


@pytest.fixture(scope="session")
def place(tmp_path_factory) -> Path:
    """The folder JupyterLab works in, with private settings, data and signatures."""
    folder = tmp_path_factory.mktemp("lab")
    for name, values in LAB_SETTINGS.items():
        path = folder / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="session")
def environment(place) -> dict[str, str]:
    values = {name: value for name, value in os.environ.items() if not name.startswith(("JUPYTER", "DQAS"))}
    private = {
        "JUPYTER_DATA_DIR": place / "jupyter",
        "JUPYTER_CONFIG_DIR": place / "config",
        "JUPYTER_RUNTIME_DIR": place / "runtime",
        "JUPYTERLAB_SETTINGS_DIR": place / "settings",
        "JUPYTERLAB_WORKSPACES_DIR": place / "workspaces",
        "IPYTHONDIR": place / "ipython",
        "DQAS_DATA": Path(os.environ.get("DQAS_DATA", place / "data")).resolve(),
        "PYTHONPATH": REPOSITORY,
    }
    return {
        **values,
        **{name: str(path) for name, path in private.items()},
        **{"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "DQAS_WORKERS": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"},
    }


@pytest.fixture(scope="session")
def executed(place, environment) -> Path:
    """Notebook 07 as papermill leaves it, signed."""
    path = place / "executed.ipynb"
    run = place / "run"
    run.mkdir()
    parameters = [part for name, value in SETTINGS.items() for part in ("-y", f"{name}: {json.dumps(value)}")]
    source = REPOSITORY / "notebooks" / "07_ratio_explorer.ipynb"
    command = [sys.executable, "-m", "papermill", "--no-progress-bar", str(source), str(path), *parameters]
    result = subprocess.run(
        command, cwd=place, env={**environment, "DQAS_RUN_DIR": str(run)}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr[-3000:]
    subprocess.run(
        [sys.executable, "-m", "jupyter", "trust", str(path)], env=environment, check=True, capture_output=True
    )
    plain = nbformat.read(source, as_version=4)
    tagged = next(i for i, cell in enumerate(plain.cells) if "parameters" in cell.metadata.get("tags", []))
    injected = "\n".join(f"{name} = {value!r}" for name, value in SETTINGS.items())
    plain.cells.insert(tagged + 1, nbformat.v4.new_code_cell(injected))
    nbformat.write(plain, place / "plain.ipynb")
    return path


@pytest.fixture(scope="session")
def lab(place, environment, executed):
    """The address of a JupyterLab on the executed notebook."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}"]
    command += ["--ip=127.0.0.1", "--ServerApp.port_retries=0"]
    command += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    with open(place / "lab.log", "wb") as log:
        server = subprocess.Popen(
            command, cwd=place, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, (place / "lab.log").read_text()[-3000:]
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/api/status", timeout=2):
                break
            time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
