"""Hooks of mkdocs.yml: links from a page to files outside of docs/ become links to the repository."""
import os
import re

REPOSITORY = os.environ.get("OCTET_REPOSITORY", "https://github.com/octet/octet/blob/main")


def on_page_markdown(markdown, page, config, files):
    folder = os.path.dirname(page.file.src_path)
    known = {f.src_path for f in files}

    def link(match):
        target, anchor = (match.group(2).split("#") + [""])[:2]
        if not target or "://" in target or target.startswith("mailto:"):
            return match.group(0)
        path = os.path.normpath(os.path.join(folder, target))
        if path in known:
            return match.group(0)
        source = os.path.normpath(os.path.join("docs", path))
        if not os.path.exists(source):
            raise SystemExit(f"docs/{page.file.src_path}: links to {target}, which is not there")
        return f"{match.group(1)}({REPOSITORY}/{source}{'#' + anchor if anchor else ''})"

    return re.sub(r"(\[[^\]]*\])\(([^)\s]+)\)", link, markdown)
