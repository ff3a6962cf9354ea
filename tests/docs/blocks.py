#!/usr/bin/env python3
"""Runs the code blocks of one page of docs/, in order, in a directory of its own.

    tests/docs/blocks.py docs/guides/cnn.md --build build

A page's blocks are:
    ```sh       run by bash -eu, each in a shell of its own, with BUILD/bin first in PATH
    ```python   run by this interpreter; the page's Python blocks share their names
    ```cpp, ```c, ```json whose first line is a comment `// NAME` or `/* NAME */`: written to the file NAME, which a later
                ```sh block of the page has to name (and so compiles), or a CMakeLists.txt
    ```cmake whose first line is `# CMakeLists.txt`: written to that file. Such a page has octet installed in $HOME/octet
    ```text     directly behind a block that was run: what it prints. Numbers may differ, a line `...` stands for any lines, and
                `...` at the end of a line for its rest
A block below a line `<!-- from: FILE -->` is a part of FILE, which the tests compile and run (of a header: of the code in its
comments, which they compile): its code has to stand there in the same order, comments and white space aside; a comment `// ...` stands for any code. One below `<!-- not run: REASON -->` is not
run. A page with a block of sh, python, cpp or c that is none of these fails. Blocks of other languages are not run.

The directory has net.onnx, images.npz and test.npz (the glyphs' network, its calibration and its test data), x.npy (one of its
images), examples/ and build/. Without the package octet for this Python, a page is run up to its first Python block.
"""
import argparse
import array
import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import traceback
import unittest
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
FENCE = re.compile(r"^( *)```(\w*)")
MARK = re.compile(r"^ *<!-- (not run|from): (.+) -->$")
FILE_NAME = re.compile(r"^(?://|/\*|#) *([\w.-]+\.\w+)(?: *\*/)?$")
NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:e[-+]?\d+)?")


class Block:
    """language, line (of its first line in the page, from 1), text, output (its ```text block or None), file (that it is
    written to), source (that it is a part of), skip (not run)."""

    def __init__(self, language, line, text, mark):
        kind, self.source = mark or ("", None)
        self.language, self.line, self.text, self.skip, self.output = language, line, text, bool(kind), None
        if kind == "not run":
            self.source = None
        named = FILE_NAME.match(text.split("\n", 1)[0]) if language in ("cpp", "c", "json", "cmake") else None
        self.file = named.group(1) if named else None


def blocks_of(page):
    """The blocks of a page's text, each with its printed output where that stands directly behind it."""
    found, lines, i, mark, end = [], page.split("\n"), 0, None, -2
    while i < len(lines):
        fence = FENCE.match(lines[i])
        if not fence:
            marked = MARK.match(lines[i])
            mark = marked.groups() if marked else mark if not lines[i].strip() else None
            i += 1
            continue
        indent, language, start = len(fence.group(1)), fence.group(2), i + 1
        i = start
        while i < len(lines) and lines[i].strip() != "```":
            i += 1
        if i == len(lines):
            raise AssertionError(f"line {start}: this block has no end")
        text = "\n".join(line[indent:] for line in lines[start:i]) + "\n"
        if language == "text" and found and not any(line.strip() for line in lines[end + 1:start - 1]):
            found[-1].output = text
        else:
            found.append(Block(language, start + 1, text, mark))
        end, mark = i, None
        i += 1
    return found


def bare(code):
    """Code without comments and white space."""
    return re.sub(r"\s", "", re.sub(r"//.*|/\*.*?\*/", "", code))


def missing_code(block, source, source_name):
    """The first part of a block that does not stand in the source (of a header: in its comments, which the tests compile),
    behind the part before; None if all do."""
    if source_name.endswith(".h"):
        source = "\n".join(line.strip()[5:] for line in source.split("\n") if line.strip().startswith("//   "))
    at, everything = 0, bare(source)
    for part in re.split(r"// \.\.\..*", block):
        code = bare(part)
        where = everything.find(code, at)
        if where < 0:
            return part.strip()
        at = where + len(code)
    return None


def shape(line):
    """A line without its numbers, widths of columns, and whether 8 bits are faster, which differ from machine to machine."""
    return " ".join(NUMBER.sub("0", line).replace("slower", "faster").split())


def missing_line(expected, printed):
    """The first line of a page's ```text block that is not in what was printed, in order; None if all are."""
    lines, at, gap = [shape(line) for line in printed.split("\n")], 0, True
    for line in expected.rstrip("\n").split("\n"):
        if line.strip() == "...":
            gap = True
            continue
        if not line.strip():
            continue
        while at < len(lines) and not lines[at]:
            at += 1
        rest, wanted = lines[at:] if gap else lines[at:at + 1], shape(line)
        begins = wanted[:-3].rstrip() if wanted.endswith("...") else None
        where = next((i for i, got in enumerate(rest) if got == wanted or begins and got.startswith(begins)), None)
        if where is None:
            return line
        at += where + 1
        gap = False
    return None


class Runner:
    """Runs blocks in a scratch directory; run() gives what a block printed and raises AssertionError where it fails."""

    def __init__(self, build, compiler):
        self.work, self.names, self.build = tempfile.mkdtemp(prefix="octet-docs-"), {"__name__": "__main__"}, build
        os.makedirs(f"{self.work}/.tools")
        os.makedirs(f"{self.work}/build")
        for name in ("bin", "lib", "python"):
            os.symlink(f"{build}/{name}", f"{self.work}/build/{name}")
        os.symlink(f"{ROOT}/examples", f"{self.work}/examples")
        for source, name in (("glyphs.onnx", "net.onnx"), ("calibrate.npz", "images.npz"), ("test.npz", "test.npz")):
            shutil.copy(f"{ROOT}/examples/glyphs/{source}", f"{self.work}/{name}")
        self.write_image()
        # The build's compiler and library, under the names that a page knows them by.
        with open(f"{self.work}/.tools/g++", "w") as script:
            script.write(f'#!/bin/sh\nexec {compiler} "$@"\n')
        os.chmod(f"{self.work}/.tools/g++", 0o755)
        with open(f"{self.work}/.tools/octet.pc", "w") as pc:
            pc.write(f"Name: octet\nDescription: the build\nVersion: 0\nCflags: -I{ROOT}\n"
                     f"Libs: -L{build}/lib -Wl,-rpath,{build}/lib -loctet\n")
        self.environment = {
            **os.environ, "PATH": f"{self.work}/.tools:{build}/bin:{os.environ['PATH']}",
            "PKG_CONFIG_PATH": f"{self.work}/.tools", "HOME": f"{self.work}/.home", "CXX": compiler, "PYTHONPATH": f"{build}/python", "PYTHONDONTWRITEBYTECODE": "1",
            "OCTET_NUM_THREADS": "1", "NO_COLOR": "1"}

    def write_image(self):
        """x.npy: the first of the calibration images as float32, without NumPy."""
        with zipfile.ZipFile(f"{self.work}/images.npz") as archive:
            data = archive.read("images.npy")
        size = int.from_bytes(data[8:10], "little")
        header, start = data[10:10 + size].decode(), 10 + size
        sizes = [int(n) for n in re.search(r"'shape': \(([^)]*)\)", header).group(1).split(",") if n.strip()]
        count = sizes[1] * sizes[2] * sizes[3]
        pixels = array.array("f", list(data[start:start + count]))
        dictionary = f"{{'descr': '<f4', 'fortran_order': False, 'shape': (1, {sizes[1]}, {sizes[2]}, {sizes[3]}), }}"
        dictionary = dictionary.ljust(117) + "\n"
        with open(f"{self.work}/x.npy", "wb") as out:
            out.write(b"\x93NUMPY\x01\x00" + len(dictionary).to_bytes(2, "little") + dictionary.encode() + pixels.tobytes())

    def install(self):
        """octet in $HOME/octet."""
        subprocess.run(["cmake", "--install", self.build, "--prefix", f"{self.environment['HOME']}/octet"], check=True,
                       stdout=subprocess.DEVNULL)

    def close(self):
        shutil.rmtree(self.work)

    def run(self, block, page):
        if block.file:
            with open(f"{self.work}/{block.file}", "w") as out:
                out.write(block.text)
            return ""
        if block.language == "sh":
            done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.text], cwd=self.work, env=self.environment,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            if done.returncode:
                raise AssertionError(f"exit status {done.returncode}\n{done.stdout}")
            return done.stdout
        printed = io.StringIO()
        try:  # the empty lines make a traceback name the lines of the page
            code = compile("\n" * (block.line - 1) + block.text, page, "exec")
            with contextlib.redirect_stdout(printed), contextlib.chdir(self.work):
                exec(code, self.names)
        except Exception:
            raise AssertionError(f"{printed.getvalue()}{traceback.format_exc()}") from None
        return printed.getvalue()


def check_sources(blocks, page):
    """The number of blocks that are parts of sources; AssertionError where one is not, or where code is neither run nor marked."""
    count = 0
    for block in blocks:
        if block.source:
            with open(f"{ROOT}/{block.source}") as source:
                missing = missing_code(block.text, source.read(), block.source)
            if missing is not None:
                raise AssertionError(f"{page}:{block.line}: this is not in {block.source}: {missing}")
            count += 1
        elif block.language in ("cpp", "c") and not block.file and not block.skip:
            raise AssertionError(f"{page}:{block.line}: this block is neither run nor marked: name its file in its first line, or "
                                 "mark it with <!-- from: FILE --> or <!-- not run: REASON -->")
    return count


def run_page(text, page, runner, python):
    """The number of blocks that were run, or found in sources. AssertionError with the page, the line and the output at the first
    that fails."""
    blocks = blocks_of(text)
    count = check_sources(blocks, page)
    if any(block.file == "CMakeLists.txt" for block in blocks):
        runner.install()
    for at, block in enumerate(blocks):
        runs = block.file or block.language in ("sh", "python")
        if block.skip or not runs:
            continue
        if block.language == "python" and not python:
            break
        users = [b for b in blocks if b.file == "CMakeLists.txt"] + [b for b in blocks[at + 1:] if b.language == "sh" and not b.skip]
        if block.file and block.language != "cmake" and not any(block.file in b.text for b in users):
            raise AssertionError(f"{page}:{block.line}: no later sh block names {block.file}")
        try:
            printed = runner.run(block, page)
            missing = missing_line(block.output, printed) if block.output else None
            if missing is not None:
                raise AssertionError(f"the page's next line is not in the output: {missing}\n{printed}")
        except AssertionError as e:
            raise AssertionError(f"{page}:{block.line}: this {block.language} block failed: {e}") from None
        count += 1
    return count


def main():
    parser = argparse.ArgumentParser(description="Runs the code blocks of a page.")
    parser.add_argument("page")
    parser.add_argument("--build", default=f"{ROOT}/build", help="the build directory")
    parser.add_argument("--compiler", default=os.environ.get("CXX", "c++"), help="what `g++` in a page stands for")
    parser.add_argument("--python", action="store_true", help="the package octet is there: run Python blocks")
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    os.environ.setdefault("OCTET_NUM_THREADS", "1")
    sys.path.insert(0, f"{build}/python")

    class Blocks(unittest.TestCase):
        def test_each_block_of_the_page_runs(self):
            runner = Runner(build, options.compiler)
            self.addCleanup(runner.close)
            page = os.path.relpath(options.page, ROOT) if os.path.isabs(options.page) else options.page
            with open(options.page) as text:
                count = run_page(text.read(), page, runner, options.python)
            if count == 0:
                self.skipTest("no block of this page runs without the Python package")
            print(f"{page}: {count} blocks run")

    result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(Blocks))
    sys.exit(1 if not result.wasSuccessful() else 77 if result.skipped else 0)


if __name__ == "__main__":
    main()
