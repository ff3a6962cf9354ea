"""Hooks of mkdocs.yml: links from a page to files outside of docs/ become links to the repository, and links whose text is the
file name of a page get its title."""
import os
import re

REPOSITORY = os.environ.get("OCTET_REPOSITORY", "https://github.com/octet/octet/blob/main")


def titles_of(nav):
    """The titles of mkdocs.yml's pages, by path."""
    found = {}
    for entry in nav:
        for title, what in entry.items():
            found.update({what: title} if isinstance(what, str) else titles_of(what))
    return found


def on_page_markdown(markdown, page, config, files):
    folder = os.path.dirname(page.file.src_path)
    known = {f.src_path for f in files}
    titles = titles_of(config["nav"])

    def link(match):
        target, anchor = (match.group(2).split("#") + [""])[:2]
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group(0)
        path = os.path.normpath(os.path.join(folder, target))
        if path in known:
            names_file = re.fullmatch(r"\[[\w./-]+\.md\]", match.group(1))
            text = f"[{titles[path]}]" if names_file and path in titles else match.group(1)
            return f"{text}({match.group(2)})"
        source = os.path.normpath(os.path.join("docs", path))
        if not os.path.exists(source):
            raise SystemExit(f"docs/{page.file.src_path}: links to {target}, which is not there")
        return f"{match.group(1)}({REPOSITORY}/{source}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", link, markdown)
