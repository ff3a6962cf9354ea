"""docs/from_pytorch.md names each example (tests/docs/blocks.py runs its code)."""
import glob
import os
import unittest


class Docs(unittest.TestCase):
    def test_the_page_on_pytorch_names_each_example(self):
        with open("docs/from_pytorch.md") as page:
            text = page.read()
        for path in glob.glob("examples/python/*.py"):
            self.assertIn(f"`{os.path.basename(path)}`", text)


if __name__ == "__main__":
    unittest.main()
