"""The whole book as one page of HTML, which `tools/print_book.py` prints.

The articles of the built pages stand one after another. Links between pages become links
within the page, so that the browser keeps them in the PDF. What only works on a screen is
replaced: an explorer by its first picture, a folded solution by a reference to the last pages.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from bs4 import BeautifulSoup, Tag

# What a print has no use for: marks of headings, code folded away, pictures for dark screens,
# the frames of explorers that are not shown, and lists of pages.
SCREEN_ONLY = (
    "a.headerlink, script, details.hide, .only-dark, .pai-explorer [hidden], .toctree-wrapper"
)
EXPLORER_NOTE = "The book on the web has controls here that show the other pictures."

Parts = list[tuple[str, list[str]]]


def one_page(built: Path, parts: Parts, title: str, front: str) -> str:
    """The pages of the built book as one, after the front matter and a table of contents.

    `parts` are captions with the addresses of pages, relative to the folder `built`; solutions
    to exercises end the last part.
    """
    names = [name for _, pages in parts for name in pages]
    soups = {name: _read(built / name) for name in names}
    articles = {name: soup.select_one("article.bd-article") for name, soup in soups.items()}
    for article in articles.values():
        _make_printable(article)
    places = _name_apart(articles)
    for name, article in articles.items():
        _join(article, name, places)
    solutions = _solutions(articles.values())
    listed = [(caption, [articles[name] for name in pages]) for caption, pages in parts]
    listed[-1][1].append(solutions)
    bodies = [*articles.values(), solutions]
    body = "\n".join([front, _contents(listed), *map(str, bodies)])
    head = "\n".join([*_head(soups), _running_titles(bodies)])
    return (
        f'<!DOCTYPE html>\n<html lang="en" data-theme="light" data-mode="light">'
        f'<head><meta charset="utf-8"><title>{escape(title)}</title>{head}</head>'
        f'<body class="printed-book">{body}</body></html>'
    )


def _read(path: Path) -> BeautifulSoup:
    return BeautifulSoup(path.read_text(encoding="utf8"), "html.parser")


def _make_printable(article: Tag) -> None:
    for tag in article.select(SCREEN_ONLY):
        tag.decompose()
    for details in article.find_all("details"):
        details["open"] = ""
    for explorer in article.select(".pai-explorer"):
        _stop(explorer)
    for line in article.select(".chapter-links"):
        links = [str(a) for a in line.select("a.external")]
        line.replace_with(_tags(f'<p class="chapter-links">{" · ".join(links)}</p>'))


def _stop(explorer: Tag) -> None:
    """Replace the controls of an explorer by what they show at first."""
    for slider in explorer.find_all("input"):
        slider.decompose()
    for menu in explorer.find_all("select"):
        chosen = menu.select_one("option[selected]") or menu.option
        menu.find_previous("label").append(f": {chosen.get_text()}")
        menu.decompose()
    explorer.append(_tags(f'<p class="print-note">{EXPLORER_NOTE}</p>'))


def _name_apart(articles: dict[str, Tag]) -> dict[str, str]:
    """Let no id stand twice; return the id at which each address of the book now is."""
    places: dict[str, str] = {}
    taken: set[str] = set()
    for number, (name, article) in enumerate(articles.items(), start=1):
        article["id"] = places[name] = f"page-{number}"
        for tag in article.find_all(id=True):
            old = tag["id"]
            new = old if old not in taken else f"page-{number}-{old}"
            if new in taken:
                del tag["id"]
                continue
            tag["id"] = places[f"{name}#{old}"] = new
            taken.add(new)
    return places


def _join(article: Tag, name: str, places: dict[str, str]) -> None:
    """Point links and pictures of a page to where they are when all pages are one."""
    for image in article.find_all(src=True):
        image["src"] = urljoin(name, image["src"])
    for link in article.find_all("a", href=True):
        address = urljoin(name, link["href"])
        place = places.get(address) or places.get(address.partition("#")[0])
        if place:
            link["href"] = f"#{place}"
        elif not urlsplit(address).scheme:
            link.unwrap()  # a file beside the pages, which the PDF does not hold


def _solutions(articles: Iterable[Tag]) -> Tag:
    """Move the solutions to pages of their own, and leave at each exercise where it is solved."""
    chapter = _tags('<article class="bd-article" id="solutions"><h1>Solutions</h1></article>')
    for article in articles:
        found = article.select(".solution")
        if found:
            title = escape(_title(article))
            chapter.append(_tags(f'<h2 id="solutions-{article["id"]}">{title}</h2>'))
        for solution in found:
            link = f'<p class="print-note">{_reference(solution["id"], "Solution on page")}</p>'
            solution.replace_with(_tags(link))
            chapter.append(solution)
    return chapter


def _contents(parts: list[tuple[str, list[Tag]]]) -> str:
    lines = "\n".join(
        f"<p>{escape(caption)}</p><ol>{''.join(map(_entry, pages))}</ol>"
        for caption, pages in parts
    )
    return f'<nav class="print-contents"><h1 id="contents">Contents</h1>\n{lines}</nav>'


def _entry(article: Tag) -> str:
    """A page in the table of contents, with its sections."""
    sections = "".join(
        f"<li>{_reference(place, escape(title))}</li>" for place, title in _sections(article)
    )
    page = _reference(article["id"], escape(_title(article)))
    return f"<li>{page}<ol>{sections}</ol></li>"


def _sections(article: Tag) -> Iterator[tuple[str, str]]:
    for heading in article.find_all("h2"):
        yield heading.get("id") or heading.find_parent("section")["id"], heading.get_text()


def _reference(place: str, words: str) -> str:
    """A link with room for the number of the page; printing finds and fills it in."""
    return f'<a href="#{place}">{words} <span class="page-of" data-place="{place}"></span></a>'


def _head(soups: dict[str, BeautifulSoup]) -> list[str]:
    """The style sheets of all pages, and the scripts that set mathematics."""
    found: dict[str, None] = {}
    for name, soup in soups.items():
        for tag in soup.select('link[rel="stylesheet"], head script'):
            if tag.name == "script" and "mathjax" not in str(tag).lower():
                continue
            for attribute in ("href", "src"):
                if attribute in tag.attrs:
                    tag[attribute] = urljoin(name, tag[attribute])
            found[str(tag)] = None
    return list(found)


def _running_titles(articles: list[Tag]) -> str:
    """Let every page carry its chapter's title; a chapter begins on a page of its own."""
    rules = [
        f"#{article['id']} {{ page: {article['id']}; }}\n"
        f"@page {article['id']} {{ @top-right {{ content: {_css_string(_title(article))}; }} }}"
        for article in articles
    ]
    return "<style>\n" + "\n".join(rules) + "\n</style>"


def _css_string(words: str) -> str:
    return json.dumps(words, ensure_ascii=False)


def _title(article: Tag) -> str:
    return article.find("h1").get_text().strip()


def _tags(html: str) -> Tag:
    return BeautifulSoup(html, "html.parser").contents[0]
