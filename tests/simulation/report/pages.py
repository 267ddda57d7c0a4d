"""What a page holds, read with the standard library's parser."""

from html.parser import HTMLParser
from typing import final

VOID = frozenset({"meta", "img", "br", "line", "circle", "path", "polyline", "polygon", "rect", "link", "hr"})


@final
class Page(HTMLParser):
    """Walks a page: unbalanced tags, attributes by tag, and what stands within figures."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.figures: list[set[str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self._figures: list[set[str]] = []
        self.feed(text)
        self.close()
        if self._open:
            self.problems.append(f"never closed: {self._open}")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        for inside in self._figures:
            inside.add(tag)
        if tag == "figure":
            self._figures.append(set())
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        for inside in self._figures:
            inside.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in VOID:
            return
        if not self._open or self._open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self._open[-1:]}")
            return
        self._open.pop()
        if tag == "figure":
            self.figures.append(self._figures.pop())

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        """Return the attributes of every element with this tag."""
        return [attributes for name, attributes in self.elements if name == tag]

    @property
    def text(self) -> str:
        """What a reader sees, without tags."""
        return " ".join(" ".join(self.words).split())
