"""Makes the README the first page, with links that are good there as well."""

import pathlib
import re

from mkdocs.structure.files import File

_LINK = re.compile(r"\]\((?!https?:|#)([^)\s]+)\)")


def on_files(files, config):
    """Adds the README as the first page."""
    readme = pathlib.Path(config.config_file_path).parent / "README.md"
    text = _LINK.sub(
        lambda link: f"]({_seen_from_docs(link[1])})", readme.read_text("utf-8")
    )
    files.append(File.generated(config, "index.md", content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """Lets links out of the folder lead into the repository."""
    blob = f"{config.repo_url}/blob/main/"

    def led(link):
        target = link[1]
        if target.startswith("../README.md"):
            return f"](index.md{target.removeprefix('../README.md')})"
        if target.startswith("../") and "/" not in page.file.src_uri:
            return f"]({blob}{target.removeprefix('../')})"
        return link[0]

    return _LINK.sub(led, markdown)


def _seen_from_docs(target):
    """A link of the README, from the folder that the pages are in."""
    return target[5:] if target.startswith("docs/") else f"../{target}"
