"""Collects the rows that benchmarks leave, and writes the report when all of them ran."""

import time
from pathlib import Path

import pytest
from measure import REPOSITORY, Row, processor, save
from report import write

ROWS: list[Row] = []
LEFT_OUT: list[str] = []  # benchmarks that the command line deselected
STARTED = time.perf_counter()
MACHINE = processor()
WHOLE = Path(__file__).resolve().with_name("bench_cpu.py")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("dqas benchmarks")
    group.addoption("--reports", type=Path, default=REPOSITORY / "reports", help="folder the report is written to")
    group.addoption("--quick", action="store_true", help="tiny sizes: checks the benchmarks, measures nothing of use")


@pytest.fixture(scope="session")
def quick(pytestconfig: pytest.Config) -> bool:
    return pytestconfig.getoption("--quick")


@pytest.fixture
def leave():
    """Takes the rows of one benchmark, in the order of the report."""

    def take(*rows: Row) -> None:
        for row in rows:
            print(f"{row.part}: {row.what}: {row.measured} {row.wanted}")
        ROWS.extend(rows)

    return take


def pytest_deselected(items: list[pytest.Item]) -> None:
    LEFT_OUT.extend(item.nodeid for item in items)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """A report of a run of which a part failed would look complete: only a whole run is written."""
    option = session.config.getoption
    whole = [Path(given).resolve() for given in session.config.args] == [WHOLE] and not LEFT_OUT
    if exitstatus != 0 or not ROWS or not whole:
        if exitstatus == 0 and ROWS:
            print("\nonly a part of the benchmarks ran: the report was not written")
        return
    folder = option("--reports")
    command = "make bench" + (" ARGS=--quick" if option("--quick") else "")
    seconds = time.perf_counter() - STARTED
    save(folder / "benchmarks" / "cpu.json", ROWS, command=command, machine=MACHINE, seconds=seconds)
    print(f"\nwrote {write(folder)}")
