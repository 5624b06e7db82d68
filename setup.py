"""Puts notebooks, profiles and published tables into the package, for those who install it without the checkout."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

KIT = ("notebooks/*.ipynb", "notebooks/profiles/*.yaml", "reports/*.json", "reports/tables/*/*/*", "reports/ids/*/*/*")


class WithNotebooks(build_py):
    """Copies KIT to dqas_lib/kit/, where dqas_lib/reproduce/places.py looks for it; a checkout has it anyway."""

    def run(self) -> None:
        """Build the package."""
        super().run()
        for path in [] if self.editable_mode else [path for pattern in KIT for path in sorted(Path().glob(pattern))]:
            target = Path(self.build_lib, "dqas_lib", "kit", path)
            self.mkpath(str(target.parent))
            self.copy_file(str(path), str(target))


setup(cmdclass={"build_py": WithNotebooks})
