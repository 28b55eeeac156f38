"""Text of a page, as a reader sees it."""

import re
from html.parser import HTMLParser


def visible(text: str) -> str:
    """The page without its scripts, as one line."""
    return re.sub(r"\s+", " ", re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL))


def section(text: str, title: str) -> str:
    """The visible text from this heading to the next."""
    begin = text.index(f">{title}")
    return text[begin : text.index("<h2>", begin)]


class Elements(HTMLParser):
    """Every tag with its attributes, and the text inside scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        if (
            self.tags
            and self.tags[-1][0] == "script"
            and len(self.scripts) < sum(tag == "script" for tag, _ in self.tags)
        ):
            self.scripts.append(data)
