"""The wheel of python/wheel.py: what pip installs is a package that works, with the library that is in it."""
import base64
import hashlib
import importlib.util
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
import zipfile

import octet

SOURCE = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(octet.__file__).resolve().parents[2]

PROGRAM = """
import octet, numpy as np
images = np.load("examples/glyphs/calibrate.npz")["images"][:32].astype(np.float32)
int8 = octet.quantize("examples/glyphs/glyphs.onnx", [images])
scores = octet.compile(int8)(images).numpy()
maps = open("/proc/self/maps").read()
print(octet.__file__, "|", next(line.split()[-1] for line in maps.splitlines() if "/liboctet" in line), "|", scores.sum())
"""


class Wheel(unittest.TestCase):
    @classmethod
    def setUpClass(cls) -> None:
        cls.work = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.work.cleanup)
        path = subprocess.run([SOURCE / "python/wheel.py", BUILD, cls.work.name], check=True, capture_output=True, text=True)
        cls.wheel = pathlib.Path(path.stdout.strip())

    def run_program(self, path: pathlib.Path) -> list[str]:
        environment = {**os.environ, "PYTHONPATH": str(path)}
        ran = subprocess.run([sys.executable, "-c", PROGRAM], cwd=SOURCE, env=environment, check=True, capture_output=True, text=True)
        return ran.stdout.strip().split(" | ")

    def test_what_is_installed_works_by_itself(self) -> None:
        target = pathlib.Path(self.work.name) / "target"
        if importlib.util.find_spec("pip"):
            subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--target", target, self.wheel],
                           check=True, capture_output=True)
        else:   # pip unpacks it, too
            zipfile.ZipFile(self.wheel).extractall(target)
        module, library, scores = self.run_program(target)
        self.assertEqual(pathlib.Path(module), target / "octet/__init__.py")
        self.assertEqual(pathlib.Path(library).parent, target / "octet")
        self.assertEqual(scores, self.run_program(BUILD / "python")[2])

    def test_its_record_says_what_it_holds(self) -> None:
        with zipfile.ZipFile(self.wheel) as wheel:
            record = next(name for name in wheel.namelist() if name.endswith("/RECORD"))
            rows = [line.split(",") for line in wheel.read(record).decode().splitlines()]
            self.assertEqual([row[0] for row in rows], wheel.namelist())
            for name, digest, size in rows[:-1]:
                content = wheel.read(name)
                expected = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
                self.assertEqual((digest, int(size)), (f"sha256={expected}", len(content)), name)


if __name__ == "__main__":
    unittest.main()
