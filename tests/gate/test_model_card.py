"""The card of a version: complete, escaped, and one file."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from include import manifest as manifests
from include.gate.model_card import CardFacts, render_card, render_documents, render_summary
from include.model.blessing.blessing import Blessing
from tests.blessed import CHECK, REPORT, document

EVIL = "<script>alert(1)</script>|[x](javascript:1)"
METRICS = {"auc": [0.8, 0.75, 0.85], "cost": [0.47, 0.41, 0.53], "ece": [0.02, 0.01, 0.03]}
UNFAIR = CHECK | {"name": "parity Age", "family": "fairness", "verdict": "refused", "blocks": False, "reason": "0.667"}
SMALL = CHECK | {"name": "slice Job=others", "family": "slices", "verdict": "inconclusive", "blocks": False}
DAYS = {"train": {"first": "2026-08-01", "last": "2026-08-03", "rows": 3341, "snapshots": ["c2cd4449" * 8]}}


def facts(report: dict[str, Any] | None = None, drawing: str = "", **blessing: Any) -> CardFacts:
    told = {
        "champion_version": "6",
        "intervals": {"challenger": METRICS, "champion": METRICS},
        "slices": [
            {
                "name": "Job=others",
                "rows": 37,
                "positives": 15,
                **{m: {"auc": None, "cost": 0.5} for m in ("challenger", "champion")},
            }
        ],
        "data": DAYS,
        "checks": [CHECK, UNFAIR, SMALL],
    }
    content = Blessing.model_validate(document(**blessing))
    params = {"candidate": "boosting", "rows": "3341", "max_iter": "120"}
    return CardFacts(manifests.load(), content, REPORT | told | (report or {}), params, "http://mlflow/run", drawing)


class Page(HTMLParser):
    """Which elements there are, which addresses they load, and the text between them."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [
            value or "" for name, value in attrs if name in ("src", "srcset") or (name, tag) == ("href", "link")
        ]

    def handle_data(self, data: str) -> None:
        self.words += data


SECTIONS = (
    "Intended use",
    "Limits",
    "Data",
    "Metrics",
    "Fairness",
    "Slices",
    "Every check of the gate",
    "Lineage",
)


@pytest.mark.parametrize("name", ["model_card.html", "model_card.md"])
def test_both_forms_say_the_same_in_every_section(name):
    text = render_card(facts())[name]
    words = Page(text).words if name.endswith("html") else text
    assert all(section in words for section in SECTIONS)
    for said in (
        "0.800",
        "0.750",
        "parity Age",
        "Job=others",
        "2026-08-01 to 2026-08-03",
        "7" * 64,
        "max",
        "an officer",
    ):
        assert said in words, said


def test_neither_form_says_a_word_that_the_other_does_not():
    approval = {"who": "ada_b", "why": "better | wiser", "at": "2026-08-02T10:00:00Z"}
    found = render_card(facts(approval=approval))
    html = Page(re.sub(r"(?s)<head>.*</head>", "", found["model_card.html"]).replace("<", " <")).words
    markdown = re.sub(r"\\(.)", r"\1", found["model_card.md"]).replace("(http://mlflow/run)", "")
    said = [re.findall(r"\w+", text) for text in (html, markdown)]
    assert set(said[0]) == set(said[1]) and len(set(said[0])) > 200


def test_the_page_is_one_file_without_scripts_and_loads_nothing():
    page = Page(render_card(facts(drawing="<svg/>"))["model_card.html"])
    assert not {"script", "link", "iframe", "object"} & set(page.tags)
    assert [address.split(",")[0] for address in page.loaded] == ["data:image/svg+xml;base64"]


def test_what_comes_from_data_and_people_is_text_in_both_forms():
    odd = CHECK | {"name": EVIL, "reason": EVIL}
    approval = {"who": EVIL, "why": EVIL, "at": "2026-08-02T10:00:00Z"}
    found = facts({"checks": [odd], "sentence": EVIL}, drawing=EVIL, approval=approval, gate=EVIL)
    html, markdown = render_card(found)["model_card.html"], render_card(found)["model_card.md"]
    assert "script" not in Page(html).tags and EVIL in Page(html).words
    assert not re.search(r"(?<!\\)<script", markdown + render_summary(found))
    assert not re.search(r"(?<!\\)\]\(javascript", markdown + render_summary(found))
    assert all(row.replace(r"\|", "").count("|") == 4 for row in markdown.splitlines() if row.startswith("| \\<"))


def test_the_one_who_approved_is_named():
    approval = {"who": "ada", "why": "better for the young", "at": "2026-08-02T10:00:00Z"}
    found = facts(approval=approval)
    assert (
        "Approved by ada on 2026-08-02 10:00: better for the young" in Page(render_card(found)["model_card.html"]).words
    )
    assert "approved by ada" in render_summary(found)


def test_a_first_model_judged_by_floors_alone_has_a_card_too():
    bare = {"intervals": {"challenger": METRICS}, "slices": [], "champion_version": None, "checks": [CHECK], "data": {}}
    words = Page(render_card(facts(bare))["model_card.html"]).words
    assert "there was no rival" in words and "names no groups" in words and "Not measured" in words


def test_slices_the_rows_cannot_tell_about_are_one_line_of_the_limits():
    many = [SMALL | {"name": f"slice Home={number}"} for number in range(20)]
    words = Page(render_card(facts({"checks": [CHECK, *many]}))["model_card.html"]).words
    limits = words.split("Limits")[1].split("Predicts")[0]
    assert "20 slices: inconclusive." in limits and limits.count("inconclusive") == 1


def test_the_same_facts_give_the_same_bytes_and_the_blessing_lies_beside():
    assert render_documents(facts()) == render_documents(facts())
    assert Blessing.model_validate_json(render_documents(facts())["blessing.json"]) == facts().blessing
