"""C kernels are compiled once per machine, into a folder that nobody else can write to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from executor.native import native_library
from executor.native.native_library import compiled_library

SOURCE = "int answer(void) { return 42; }\n"
SWITCH = "NO_SUCH_SWITCH"

needs_compiler = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture
def source(tmp_path, monkeypatch):
    """A source, and an empty cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CC", raising=False)
    compiled_library.cache_clear()
    path = tmp_path / "answer.c"
    path.write_text(SOURCE)
    yield path
    compiled_library.cache_clear()


def kept(tmp_path: Path) -> list[Path]:
    """The files in the cache folder."""
    return sorted((tmp_path / "cache" / "tightfit").iterdir())


@needs_compiler
def test_a_header_that_changed_is_another_library(source, tmp_path):
    """A source that only includes its headers stays the same when they do not"""
    source.write_text('#include "number.h"\nint answer(void) { return NUMBER; }\n')
    for number in (42, 43):
        (tmp_path / "number.h").write_text(f"#define NUMBER {number}\n")
        compiled_library.cache_clear()
        assert compiled_library(source, switch=SWITCH).answer() == number
    assert len(kept(tmp_path)) == 2


@needs_compiler
def test_a_second_process_finds_what_the_first_compiled(source, tmp_path, monkeypatch):
    assert compiled_library(source, switch=SWITCH).answer() == 42
    (library,) = kept(tmp_path)
    compiled_at = library.stat().st_mtime_ns
    compiled_library.cache_clear()  # as in another process
    assert compiled_library(source, switch=SWITCH).answer() == 42
    assert [library.stat().st_mtime_ns for library in kept(tmp_path)] == [compiled_at]


@needs_compiler
def test_another_source_is_another_library(source, tmp_path):
    compiled_library(source, switch=SWITCH)
    source.write_text(SOURCE.replace("42", "43"))
    compiled_library.cache_clear()
    assert compiled_library(source, switch=SWITCH).answer() == 43
    assert len(kept(tmp_path)) == 2


@needs_compiler
def test_a_folder_that_others_can_write_to_is_not_used(source, tmp_path):
    folder = tmp_path / "cache" / "tightfit"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    assert compiled_library(source, switch=SWITCH).answer() == 42
    assert kept(tmp_path) == []


@needs_compiler
def test_what_does_not_compile_is_no_library_and_leaves_nothing(source, tmp_path):
    source.write_text("this is no C")
    assert compiled_library(source, switch=SWITCH) is None
    assert kept(tmp_path) == []


@needs_compiler
def test_a_compiler_without_openmp_compiles_too(source, tmp_path, monkeypatch):
    """Once: the next process does not try the other way again"""
    tries = tmp_path / "tries"
    compiler = tmp_path / "compiler"
    compiler.write_text(
        f"#!/bin/sh\necho >> '{tries}'\ncase \" $* \" in *' -fopenmp '*) exit 1;; esac\nexec cc \"$@\"\n"
    )
    compiler.chmod(0o755)
    monkeypatch.setenv("CC", str(compiler))
    source.write_text("#ifdef _OPENMP\nint answer(void) { return 0; }\n#else\n" + SOURCE + "#endif\n")
    for _process in range(2):
        compiled_library.cache_clear()
        assert compiled_library(source, switch=SWITCH).answer() == 42
    assert len(tries.read_text()) == 2


@needs_compiler
@pytest.mark.parametrize(
    "spoil",
    [
        lambda library: library.write_bytes(b""),
        lambda library: library.write_bytes(b"this is no library"),
        lambda library: os.truncate(library, library.stat().st_size // 2),
        lambda library: library.write_bytes(another_library(library.parents[2])),
    ],
    ids=["empty", "garbage", "half", "another"],
)
def test_a_kept_library_that_is_not_what_was_compiled_is_compiled_again(source, tmp_path, spoil):
    """In a process of its own: half a library ends whoever loads it"""
    assert answer_of_a_process(source) == "42"
    (library,) = kept(tmp_path)
    spoil(library)
    assert answer_of_a_process(source) == "42"
    assert kept(tmp_path) == [library]  # and the next process finds it whole
    compiled_at = library.stat().st_mtime_ns
    assert answer_of_a_process(source) == "42"
    assert library.stat().st_mtime_ns == compiled_at


def another_library(folder):
    """The bytes of a library without our function."""
    source = folder / "other.c"
    source.write_text("int other(void) { return 1; }\n")
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", folder / "other.so"], check=True)
    return (folder / "other.so").read_bytes()


def answer_of_a_process(source):
    """What the library answers in a new process, which loads nothing else."""
    code = (
        "import pathlib, runpy, sys; load = runpy.run_path(sys.argv[1])['compiled_library']; "
        f"print(load(pathlib.Path(sys.argv[2]), switch='{SWITCH}').answer())"
    )
    arguments = [sys.executable, "-c", code, native_library.__file__, source]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@needs_compiler
def test_a_compiler_that_writes_nothing_leaves_nothing(source, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "true")
    assert compiled_library(source, switch=SWITCH) is None
    assert kept(tmp_path) == []


@needs_compiler
@pytest.mark.parametrize(
    "given", ["cc -O2", "env LC_ALL=C cc", "no-such-compiler", "no-such-compiler -O2", "'cc", ""]
)
def test_a_compiler_is_a_command_and_cc_where_there_is_none(source, monkeypatch, given):
    """With options, behind a launcher such as ccache; one that cannot be found is passed over"""
    monkeypatch.setenv("CC", given)
    assert compiled_library(source, switch=SWITCH).answer() == 42


@needs_compiler
def test_a_library_without_our_functions_is_none(source, monkeypatch):
    kernels = pytest.importorskip("executor.fused.kernels")
    library = compiled_library(source, switch=SWITCH)
    choice = pytest.importorskip("executor.reversible.choice")
    native = pytest.importorskip("executor.sparse.native")
    for module in (kernels, choice, native):
        monkeypatch.setattr(module, "compiled_library", lambda *_, **__: library)
    assert kernels.kernels_for.__wrapped__(kernels.DTYPES[0]) is None
    chosen = choice.kernels_for(choice.torch.device("cpu"), kernels.DTYPES[0])
    assert isinstance(chosen, choice.TorchKernels)
    assert native._kernel.__wrapped__("lstm_fill_float", (4, 1, 1, 1, 1, 4), 4) is None


def test_a_machine_without_a_compiler_has_no_library(source, monkeypatch, tmp_path):
    monkeypatch.setenv("CC", "no-such-compiler")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert compiled_library(source, switch=SWITCH) is None


def test_the_switch_turns_it_off(source, monkeypatch):
    monkeypatch.setenv(SWITCH, "off")
    assert compiled_library(source, switch=SWITCH) is None
