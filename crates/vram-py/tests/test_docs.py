"""The examples in the documentation run, and the stubs say what the module has."""

import doctest
import importlib.util
import os
import pathlib
import subprocess
import sys

import pytest

import vram
import vram.errors

FOLDER = pathlib.Path(__file__).resolve().parent.parent


def run(test):
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(test)
    assert result.attempted > 0 and result.failed == 0, test.name


@pytest.mark.parametrize("module", [vram, vram.errors])
def test_docstrings(module, example):
    finder = doctest.DocTestFinder(exclude_empty=True)
    names = {"vram": vram, "example": os.fspath(example)}
    found = [test for test in finder.find(module, extraglobs=names) if test.examples]
    if module is vram:
        named = {test.name for test in found}
        assert named >= {"vram", "vram.Manager", "vram.Manager.load", "vram.Manager.events", "vram.Model"}, named
    for test in found:
        run(test)


def test_the_page(example):
    text = (FOLDER / "README.md").read_text()
    names = {"example": os.fspath(example)}
    run(doctest.DocTestParser().get_doctest(text, names, "README.md", None, 0))


def test_stubs_say_what_the_module_has():
    if importlib.util.find_spec("mypy") is None:
        pytest.skip("mypy is not installed")
    command = [sys.executable, "-m", "mypy.stubtest", "vram._vram"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_package_says_that_it_is_typed():
    assert (pathlib.Path(vram.__file__).parent / "py.typed").is_file()
    assert (pathlib.Path(vram.__file__).parent / "_vram.pyi").is_file()
