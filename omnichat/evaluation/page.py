"""The frame of a page: one self-contained HTML file, light or dark as the reader's system, no script of its own."""

from collections.abc import Sequence
from html import escape
from pathlib import Path

STYLE = Path(__file__).with_name("report.css")


def page(title: str, body: Sequence[str]) -> str:
    """The whole file."""
    style = STYLE.read_text(encoding="utf-8")
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # without it a browser would ask for /favicon.ico
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def section(title: str, *parts: str) -> str:
    """A headed part of the page; nothing where it has no content."""
    content = "\n".join(part for part in parts if part)
    return f"<section>\n<h2>{escape(title)}</h2>\n{content}\n</section>" if content else ""


def panel(content: str, title: str = "") -> str:
    """A box; nothing where it has no content."""
    heading = f"<h3>{escape(title)}</h3>\n" if title else ""
    return f'<div class="panel">{heading}{content}</div>' if content else ""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of ready HTML cells; the first cell of a row is its heading. `kind` is a class of the style sheet."""
    heads = "".join(f"<th>{content}</th>" for content in head)
    lines = [f"<th>{first}</th>" + "".join(f"<td>{content}</td>" for content in rest) for first, *rest in rows]
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    opening = f'<table class="{kind}">' if kind else "<table>"
    return f'<div class="scroll">{opening}<thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table></div>'


def facts(pairs: Sequence[tuple[str, str]]) -> str:
    """Names and values (ready HTML) in two columns; without those that have no value."""
    rows = "".join(f"<tr><th>{escape(name)}</th><td>{value}</td></tr>" for name, value in pairs if value)
    return f'<div class="scroll"><table class="facts"><tbody>{rows}</tbody></table></div>'


def bullets(items: Sequence[str]) -> str:
    """A list of plain texts; nothing where there are none."""
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""
