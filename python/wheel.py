#!/usr/bin/env python3
"""Packs the Python package of a build as a wheel: python/wheel.py BUILD FOLDER. Prints the wheel's path.

The wheel has liboctet beside the compiled module. Both are linked with Debian 12's libraries, so it is for machines that have those
(`scripts/setup.sh --libraries` names their packages).
"""
import base64
import hashlib
import pathlib
import re
import subprocess
import sys
import tempfile
import zipfile

METADATA = """Metadata-Version: 2.1
Name: octet
Version: {version}
Summary: Quantizes neural networks and runs them in 8 bits
License: Apache-2.0
Requires-Python: =={python}.*
Requires-Dist: numpy
"""
WHEEL = """Wheel-Version: 1.0
Generator: octet
Root-Is-Purelib: false
Tag: {tag}
"""


def package_of(build: pathlib.Path, stage: pathlib.Path) -> pathlib.Path:
    """The package as it is installed, with the library in it, where its module looks for it."""
    for component in ("core", "python"):
        subprocess.run(["cmake", "--install", build, "--component", component, "--prefix", stage], check=True,
                       stdout=subprocess.DEVNULL)
    package = stage / "lib/python3/dist-packages/octet"
    library = next(path for path in stage.glob("lib/**/liboctet.so.*") if path.is_symlink())   # named as programs ask for it
    (package / library.name).write_bytes(library.read_bytes())
    module = next(package.glob("_octet.*.so"))
    script = stage / "rpath.cmake"
    script.write_text(f'file(RPATH_SET FILE "{module}" NEW_RPATH "$ORIGIN")\n')
    subprocess.run(["cmake", "-P", script], check=True, stdout=subprocess.DEVNULL)
    return package


def pack(build: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
    version = re.search(r"^CMAKE_PROJECT_VERSION:STATIC=(.+)$", (build / "CMakeCache.txt").read_text(), re.M)[1]
    with tempfile.TemporaryDirectory() as work:
        package = package_of(build, pathlib.Path(work))
        module = next(package.glob("_octet.*.so")).name
        digits, machine = re.match(r"_octet\.cpython-(\d+)-(\w+)-linux-gnu\.so$", module).groups()
        tag = f"cp{digits}-cp{digits}-linux_{machine}"
        info = f"octet-{version}.dist-info"
        files = {f"octet/{path.relative_to(package)}": path.read_bytes()
                 for path in sorted(package.rglob("*")) if path.is_file() and "__pycache__" not in path.parts}
    files[f"{info}/METADATA"] = METADATA.format(version=version, python=f"{digits[0]}.{digits[1:]}").encode()
    files[f"{info}/WHEEL"] = WHEEL.format(tag=tag).encode()
    record = ""
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        record += f"{name},sha256={digest},{len(content)}\n"
    files[f"{info}/RECORD"] = (record + f"{info}/RECORD,,\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"octet-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, content in files.items():
            wheel.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)   # the same bytes whenever it is made
    return path


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit("usage: python/wheel.py BUILD FOLDER")
    print(pack(pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2])))
