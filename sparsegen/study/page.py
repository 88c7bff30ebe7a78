"""The page of a report: HTML without scripts and without anything from outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Section", "picture", "render"]

_CSS = """
:root { --ink: #20252b; --soft: #5d6671; --line: #e2e5e9; --paper: #ffffff; --wash: #f6f7f9;
  --accent: #2a9d6f; --bad: #b3261e; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--wash); color: var(--ink);
  font: 15px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1200px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 27px; line-height: 1.25; margin: 0 0 4px; letter-spacing: -0.01em; }
h2 { font-size: 18px; margin: 0 0 6px; }
.subtitle, .note, figcaption { color: var(--soft); }
.subtitle { margin: 0 0 20px; }
.banner { background: #fff6e0; border: 1px solid #f0d48a; border-radius: 8px; padding: 10px 14px;
  margin: 0 0 20px; }
nav { display: flex; flex-wrap: wrap; gap: 6px 16px; margin: 0 0 20px; font-size: 14px; }
nav a { color: #2e6fb7; text-decoration: none; } nav a:hover { text-decoration: underline; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; padding: 20px 22px;
  margin: 0 0 18px; }
.note { margin: 8px 0 0; font-size: 13.5px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(260px, 1fr)); gap: 12px;
  margin: 6px 0 16px; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: 12px 14px; background: var(--wash); }
.card b { display: block; font-size: 24px; color: var(--accent); } .card span { font-size: 13.5px;
  color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 8px; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line); }
tbody th { font-weight: 600; } td:last-child { white-space: normal; }
.n { text-align: right; }
th i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 8px; }
tr.real { background: #eef8f3; } tr.trivial { color: var(--soft); }
.bad { color: var(--bad); font-weight: 600; }
figure { margin: 14px 0 0; } figure img { display: block; max-width: 100%; height: auto; }
figcaption { font-size: 13.5px; margin-top: 4px; }
h3 { font-size: 15px; margin: 18px 0 0; }
details { margin-top: 10px; } summary { cursor: pointer; color: #2e6fb7; }
pre { background: var(--wash); border: 1px solid var(--line); border-radius: 8px; padding: 12px;
  overflow-x: auto; font-size: 13px; }
code { font-size: 0.92em; }
"""


@dataclass(frozen=True)
class Section:
    """One section of the page.

    Args:
        title: Heading.
        body: HTML.
        note: Plain text below it.
    """

    title: str
    body: str
    note: str = ""

    @property
    def anchor(self) -> str:
        """Its address on the page."""
        return "".join(c if c.isalnum() else "-" for c in self.title.lower())


def picture(address: str, width: float, text: str, caption: str = "") -> str:
    """A picture.

    Args:
        address: As :func:`sparsegen.study.figures.as_svg` gives it.
        width: In CSS pixels.
        text: What it shows, for those who do not see it.
        caption: Below it.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img src="{address}" alt="{escape(text, quote=True)}" width="{width:.0f}">{below}</figure>'


def render(title: str, subtitle: str, sections: Sequence[Section], banner: str = "") -> str:
    """The whole page."""
    links = "".join(f'<a href="#{s.anchor}">{escape(s.title)}</a>' for s in sections)
    parts = [
        f'<section id="{s.anchor}"><h2>{escape(s.title)}</h2>{s.body}'
        + (f'<p class="note">{escape(s.note)}</p>' if s.note else "")
        + "</section>"
        for s in sections
    ]
    warning = f'<p class="banner">{escape(banner)}</p>' if banner else ""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>\n"
        f'<h1>{escape(title)}</h1>\n<p class="subtitle">{escape(subtitle)}</p>\n{warning}\n<nav>{links}</nav>\n'
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )
