"""The Python of docs/python.md and docs/from_pytorch.md runs."""
import contextlib
import io
import re
import unittest


class Docs(unittest.TestCase):
    def run_blocks(self, path):
        with open(path) as page:
            blocks = re.findall(r"```python\n(.*?)```", page.read(), re.S)
        self.assertTrue(blocks)
        names = {}
        with contextlib.redirect_stdout(io.StringIO()):
            for block in blocks:
                exec(compile(block, path, "exec"), names)
        return names

    def test_each_block_of_the_page_on_python_runs(self):
        names = self.run_blocks("docs/python.md")
        self.assertEqual(names["scores"].shape[0], 1)
        self.assertIn("octet.nn", str(type(names["int8"])))

    def test_each_block_of_the_page_on_pytorch_runs(self):
        self.run_blocks("docs/from_pytorch.md")

    def test_the_page_on_pytorch_names_each_example(self):
        import glob
        import os
        with open("docs/from_pytorch.md") as page:
            text = page.read()
        for path in glob.glob("examples/python/*.py"):
            self.assertIn(f"`{os.path.basename(path)}`", text)


if __name__ == "__main__":
    unittest.main()
