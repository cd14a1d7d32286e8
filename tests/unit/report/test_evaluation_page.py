"""The evaluation page holds every score and picture of a corpus, and shows text as text."""

from __future__ import annotations

import base64
from html.parser import HTMLParser

from cer_pipeline.evaluation.protocols import SEGMENT, MetricRow
from cer_pipeline.report import evaluation_page
from cer_pipeline.report.evaluation_page import Picture
from cer_pipeline.report.score_table import COLUMNS, interval, score_rows


class Page(HTMLParser):
    """Tables as lists of rows of cells, pictures by title, and tags with their number."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []
        self.pictures: dict[str, str] = {}
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
        elif tag == "img":
            values = dict(attrs)
            self.pictures[str(values["alt"])] = str(values["src"])

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] in ("td", "th") and data.strip():
            self.tables[-1][-1][-1] += data


CLASSES = {"fused": ("Anger", "Fear"), "face_static": ("Anger", "Fear"), "ppa": ("Fearfully Surprised",)}


def cells() -> list[MetricRow]:
    """Scores of three systems, two with basic classes and one with a compound."""
    made = []
    for split in ("dev", "train"):
        for k, (system, classes) in enumerate(CLASSES.items()):
            for metric in ("macro_f1", "uar", *(f"{score}/{name}" for score in ("f1", "recall") for name in classes)):
                value = 40.0 + len(made)
                made.append(MetricRow(split, SEGMENT, system, metric, value, value - 3, value + 3, 10 + k, 1.0))
    return made


def test_the_page_holds_every_score_and_every_picture() -> None:
    pictures = [
        Picture(split, kind, f"{split}_{kind}", f"{kind} of {split}", f"{split}{kind}".encode())
        for split in ("dev", "train")
        for kind in ("scores", "reliability", "confusion")
    ]
    page = Page(evaluation_page._page("toy", cells(), pictures))
    assert page.tables[0] == [list(COLUMNS), *map(list, score_rows(cells()))]
    intervals = {(c.split, c.system, c.metric): interval(c) for c in cells()}
    expected = [
        [
            [f"{score}, segments", *classes],
            *([system, *(intervals[split, system, f"{score}/{name}"] for name in classes)] for system in systems),
        ]
        for split in ("dev", "train")
        for score in ("f1", "recall")
        for classes, systems in ((CLASSES["fused"], ("face_static", "fused")), (CLASSES["ppa"], ("ppa",)))
    ]
    assert page.tables[1:] == expected
    decoded = {title: base64.b64decode(source.partition("base64,")[2]) for title, source in page.pictures.items()}
    assert decoded == {picture.title: picture.png for picture in pictures}


def test_text_of_the_page_is_not_markup() -> None:
    picture = Picture("dev", "scores", "x", 'title" onload="x', b"png")
    page = Page(evaluation_page._page("<script>alert(1)</script>", cells(), [picture]))
    assert "script" not in page.tags
    assert list(page.pictures) == [picture.title]
