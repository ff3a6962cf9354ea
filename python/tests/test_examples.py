"""The programs of examples/python run; each says in assertions what it shows."""
import contextlib
import glob
import io
import runpy
import unittest


class Examples(unittest.TestCase):
    def test_each_runs(self):
        programs = sorted(glob.glob("examples/python/*.py"))
        self.assertGreater(len(programs), 9)
        for path in programs:
            with self.subTest(path), contextlib.redirect_stdout(io.StringIO()) as printed:
                runpy.run_path(path, run_name="__main__")
                self.assertTrue(printed.getvalue())


if __name__ == "__main__":
    unittest.main()
