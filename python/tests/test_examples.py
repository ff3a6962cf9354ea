"""The programs of examples/python run; each says in assertions what it shows."""
import contextlib
import glob
import html.parser
import io
import os
import runpy
import sys
import tempfile
import unittest


class Examples(unittest.TestCase):
    def test_each_runs(self):
        programs = sorted(glob.glob("examples/python/*.py"))
        self.assertGreater(len(programs), 9)
        for path in programs:
            with self.subTest(path), contextlib.redirect_stdout(io.StringIO()) as printed:
                runpy.run_path(path, run_name="__main__")
                self.assertTrue(printed.getvalue())

    def test_the_pages_of_reports_are_html_that_loads_nothing(self):
        with tempfile.TemporaryDirectory() as folder:
            arguments, sys.argv = sys.argv, ["reports.py", folder]
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    runpy.run_path("examples/python/reports.py", run_name="__main__")
            finally:
                sys.argv = arguments
            pages = sorted(os.listdir(folder))
            self.assertEqual(pages, [f"{name}.html" for name in (
                "compare", "doctor", "explain", "graph", "model_report", "sensitivity", "tune")])
            for name in pages:
                with open(os.path.join(folder, name)) as file:
                    text = file.read()
                page = Page()
                page.feed(text)
                page.close()
                self.assertEqual((page.open, page.outside), ([], []), name)
                self.assertTrue(page.rows > 2 or "<script" in text, name)  # some pages draw themselves


class Page(html.parser.HTMLParser):
    """Elements that were not closed, addresses that would be loaded, and rows of tables."""

    def __init__(self):
        super().__init__()
        self.open, self.outside, self.rows = [], [], 0

    def handle_starttag(self, tag, attributes):
        self.rows += tag in ("tr", "rect")
        self.outside += [value for name, value in attributes if name in ("src", "href") and value and "//" in value]
        if tag in ("html", "body", "table", "tbody", "tr", "td", "th", "pre"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()


if __name__ == "__main__":
    unittest.main()
