#!/usr/bin/env python3
"""tests/docs/blocks.py finds blocks, and fails where a block does."""
import re
import sys
import unittest

import blocks

BUILD = sys.argv.pop(1) if len(sys.argv) > 1 else "build"


class Blocks(unittest.TestCase):
    def run_page(self, text, python=True):
        runner = blocks.Runner(BUILD, "c++")
        self.addCleanup(runner.close)
        return blocks.run_page(text, "page.md", runner, python)

    def test_a_block_is_run(self):
        self.assertEqual(self.run_page("```sh\ntest -f net.onnx\n```\n```python\nx = 1\n```\n```diff\nfragment;\n```\n"), 2)

    def test_a_failing_shell_command_is_named_by_page_and_line(self):
        with self.assertRaisesRegex(AssertionError, r"page\.md:3: this sh block failed: exit status 1\nhello"):
            self.run_page("words\n```sh\necho hello\nfalse\necho not reached\n```\n")

    def test_a_failing_python_block_is_named_by_its_line(self):
        with self.assertRaisesRegex(AssertionError, r'page\.md", line 3'):
            self.run_page("```python\nx = 1\nassert x == 2\n```\n")

    def test_python_blocks_share_names_and_the_directory(self):
        self.run_page("```python\nopen('a', 'w').close(); x = 5\n```\n```sh\ntest -f a\n```\n```python\nassert x == 5\n```\n")

    def test_output_that_the_page_does_not_have_fails(self):
        self.assertEqual(self.run_page("```sh\necho a 17 ms; echo b\n```\n```text\na 3.5  ms\nb\n```\n"), 1)
        for wrong in ("c", "b\na 17 ms", "a 17 us"):
            with self.assertRaisesRegex(AssertionError, "not in the output"):
                self.run_page(f"```sh\necho a 17 ms; echo b\n```\n```text\n{wrong}\n```\n")

    def test_dots_stand_for_any_lines_of_output(self):
        self.run_page("```sh\nprintf 'a\\nb\\nc\\n'\n```\n```text\na\n...\nc\n```\n")
        with self.assertRaisesRegex(AssertionError, "not in the output: c"):
            self.run_page("```sh\nprintf 'a\\nb\\nc\\n'\n```\n```text\na\nc\n```\n")

    def test_dots_at_the_end_of_a_line_stand_for_its_rest(self):
        self.run_page("```sh\necho error: all of it\n```\n```text\nerror: ...\n```\n")
        with self.assertRaisesRegex(AssertionError, "not in the output: warning"):
            self.run_page("```sh\necho error: all of it\n```\n```text\nwarning: ...\n```\n")

    def test_a_named_file_is_written_and_must_be_used(self):
        self.run_page("```cpp\n// a.cpp\nint main() {}\n```\n```sh\ng++ a.cpp -o a && ./a\n```\n")
        with self.assertRaisesRegex(AssertionError, r"no later sh block names a\.cpp"):
            self.run_page("```cpp\n// a.cpp\nint main() {}\n```\n")

    def test_the_pages_of_tasks_have_commands_that_run(self):
        """Each task of a reader is done by the commands of one page, which Docs.blocks_PAGE runs as they stand."""
        with open(f"{blocks.ROOT}/docs/index.md") as index:
            rows = dict(re.findall(r"^\| (.+?) \| .*?\]\((\S+?\.md)", index.read(), re.MULTILINE))
        for task, page in (("install it, or use it from CMake, pkg-config or C", "install.md"),
                           ("quantize a first network in five minutes", "guides/getting-started.md"),
                           ("quantize my ONNX network", "onnx.md"), ("find the layer that loses accuracy", "compare.md"),
                           ("know why accuracy dropped, and cure it", "doctor.md"),
                           ("add an operator, a backend, an engine, a tensor type", "guides/own-operator.md")):
            self.assertEqual(rows[task], page)
            with open(f"{blocks.ROOT}/docs/{page}") as text:
                run = [b for b in blocks.blocks_of(text.read()) if b.language == "sh" and not b.skip]
            self.assertTrue(run, page)

    def test_a_block_marked_as_not_run_is_not_run(self):
        self.assertEqual(self.run_page("<!-- not run: installs packages -->\n```sh\nfalse\n```\n```sh\ntrue\n```\n"), 1)

    def test_a_block_that_is_neither_run_nor_marked_fails(self):
        for language in ("cpp", "c"):
            with self.assertRaisesRegex(AssertionError, r"page\.md:3: this block is neither run nor marked"):
                self.run_page(f"words\n```{language}\nf();\n```\n")
        self.assertEqual(self.run_page("```text\nwords\n```\n<!-- not run: yours -->\n```cpp\nf();\n```\n"), 0)

    def test_a_block_from_a_source_has_to_stand_there(self):
        here = "<!-- from: examples/quantize_onnx.cpp -->\n```cpp\n"
        part = "auto prepared =\n  quant::prepare_fx(network, quant::get_default_qconfig(\"native\"));   // why\n"
        self.assertEqual(self.run_page(f"{here}{part}// ...\ngraph::Graph int8 = quant::convert_fx(\n```\n"), 1)
        with self.assertRaisesRegex(AssertionError, r"page\.md:3: this is not in examples/quantize_onnx\.cpp: f\(\);"):
            self.run_page(f"{here}f();\n```\n")
        with self.assertRaisesRegex(AssertionError, "this is not in"):  # the order counts
            self.run_page(f"{here}graph::Graph int8 = quant::convert_fx(\n// ...\n{part}```\n")

    def test_without_the_package_a_page_ends_at_its_first_python_block(self):
        self.assertEqual(self.run_page("```sh\ntrue\n```\n```python\n1 / 0\n```\n```sh\nfalse\n```\n", python=False), 1)


if __name__ == "__main__":
    unittest.main()
