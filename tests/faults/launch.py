"""`python -m dqas_lib.reproduce` without the package's own imports: it starts without PyTorch, hence in a second."""

import sys
import types
from pathlib import Path

LIBRARY = Path(__file__).resolve().parents[2] / "dqas_lib"
package = types.ModuleType("dqas_lib")
package.__path__ = [str(LIBRARY)]
sys.modules["dqas_lib"] = package

from dqas_lib.reproduce.cli import main  # noqa: E402 - the package stands in first

if __name__ == "__main__":
    sys.exit(main())
