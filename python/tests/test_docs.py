"""The Python of docs/python.md runs."""
import re
import unittest


class Docs(unittest.TestCase):
    def test_each_block_runs(self):
        with open("docs/python.md") as page:
            blocks = re.findall(r"```python\n(.*?)```", page.read(), re.S)
        self.assertTrue(blocks)
        names = {}
        for block in blocks:
            exec(compile(block, "docs/python.md", "exec"), names)
        self.assertEqual(names["scores"].shape[0], 1)


if __name__ == "__main__":
    unittest.main()
