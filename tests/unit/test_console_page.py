"""The console's files: whole, small, in the wheel, and without a way for data to become markup."""

from __future__ import annotations

import gzip
import re
from pathlib import Path
from typing import Final

import pytest
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration
from tidegate.dashboards import console

FOLDER: Final = Path(console.__file__).parent
OURS: Final = sorted(
    path for path in FOLDER.iterdir() if path.suffix in {".js", ".css", ".html", ".svg"} and "uPlot" not in path.name
)
SCRIPTS: Final = [path for path in OURS if path.suffix == ".js"]
# What a telephone on a bad network loads in a second.
MOST_BYTES: Final = 60_000


@pytest.mark.filterwarnings("ignore")
def test_a_wheel_holds_every_file_of_the_page_and_the_license_of_what_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    root = FOLDER.parents[1]
    monkeypatch.chdir(root)
    wheel = Distribution()
    apply_configuration(wheel, root / "pyproject.toml")
    build = wheel.get_command_obj("build_py")
    build.ensure_finalized()

    shipped = {name for package, _, _, names in build.data_files if package == console.__name__ for name in names}

    assert shipped == {path.name for path in FOLDER.iterdir() if path.suffix not in {".py", ".pyc"} and path.is_file()}
    assert {"index.html", "console.js", "console.css", "uPlot.iife.min.js", "LICENSE-uPlot"} <= shipped


def test_the_page_is_small() -> None:
    assert sum(len(gzip.compress(path.read_bytes())) for path in OURS) < MOST_BYTES


def test_what_the_page_names_is_there_and_nothing_is_from_another_host() -> None:
    page = (FOLDER / "index.html").read_text()

    named = re.findall(r"""(?:src|href)="([^"#]+)\"""", page)

    assert named
    for name in named:
        assert name.startswith("/console/assets/"), name
        assert (FOLDER / name.removeprefix("/console/assets/")).is_file(), name
    assert not re.findall(r"<script(?![^>]*\ssrc=)|<style|\son\w+=|\sstyle=", page)


def test_every_import_and_every_element_that_scripts_ask_for_is_there() -> None:
    ids = set(re.findall(r'\bid="([^"]+)"', (FOLDER / "index.html").read_text()))

    for path in SCRIPTS:
        text = path.read_text()
        for imported, source in re.findall(r'import (?:\* as \w+|\{([^}]*)\}) from "\./([^"]+)"', text):
            exported = (FOLDER / source).read_text()
            for name in filter(None, (word.strip() for word in imported.split(","))):
                assert re.search(rf"export (?:async )?(?:function|const|class) {name}\b", exported), f"{path.name}: {name}"
        own = {*re.findall(r'\bid: "([^"]+)"', text), *re.findall(r'wide\("([^"]+)"', text)}
        assert set(re.findall(r'byId\("([^"]+)"\)', text)) <= ids | own, path.name


def test_no_script_makes_markup_or_code_of_text() -> None:
    for path in SCRIPTS:
        found = re.findall(
            r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser", path.read_text()
        )
        assert not found, path.name
