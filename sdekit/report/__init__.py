"""The report of a study."""
from pathlib import Path
def check_installed() -> None: ...
def build(folder: str|Path) -> Path: return Path(folder)
