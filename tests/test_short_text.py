"""Questions from a short text: pages of prose and slides without a glossary."""

from __future__ import annotations

from pathlib import Path

import pytest

from solution.cli.serve import serve
from solution.errors import UserError
from solution.generation.cloze import cloze_drafts
from solution.generation.english import BLANK, stands_alone, without_bullet, without_references
from solution.generation.exam import Wish, generate_exam
from solution.generation.material import Material
from solution.generation.phrases import Phrases
from solution.generation.sample import draw_sample
from solution.generation.stems import Stems
from solution.generation.stored import with_fewer_options
from solution.questions import Questions
from solution.retrieval.corpus import Document
from solution.retrieval.readers.pdf import paragraphs
from solution.web.passages import PassageAnswerer, corpus_to_practise

_PARTS = [
    ("smelting hearth", "melts the ore", "charcoal", "brick"),
    ("cooling trough", "hardens the blades", "spring water", "granite"),
    ("grinding wheel", "sharpens the edges", "wet sandstone", "oak"),
    ("bellows chamber", "feeds air to the fire", "ox leather", "willow"),
    ("casting pit", "holds the molten bronze", "fine clay", "sand"),
    ("polishing drum", "smooths the rough castings", "walnut shells", "copper"),
    ("drawing bench", "stretches the soft wire", "tallow", "beech"),
    ("quenching bath", "cools the red-hot springs", "linseed oil", "slate"),
    ("tempering oven", "softens the brittle steel", "glowing peat", "limestone"),
    ("stamping mill", "crushes the raw stones", "river power", "elm"),
]


def chapter() -> list[Document]:
    """Two pages of prose about a forge, with headings; no glossary, and one title."""
    pages = []
    for half in (_PARTS[:5], _PARTS[5:]):
        lines = ["The Parts of the Old Forge"]
        for name, task, means, matter in half:
            lines += [
                name.title(),
                f"The {name} is the part of the forge that {task} for the smiths (Figure 3). "
                f"It needs {means} all day. Every evening the apprentice cleans the {name} with a broom of {matter}.",
                f"In winter the {means} for the {name} is stored in a shed of {matter} behind the {half[0][0]}. "
                f"Without {means}, the smiths of the valley can not work at the {name} in the cold months.",
            ]
        pages.append("\n".join(lines))
    return [Document(f"forge.pdf/p{row}", f"Forge > page {row}", text) for row, text in enumerate(pages, 1)]


@pytest.fixture(scope="module")
def material() -> Material:
    return Material.read(chapter(), 0)


@pytest.fixture(scope="module")
def exam() -> Questions:
    return generate_exam(chapter(), Wish(10))


def test_two_pages_of_prose_give_ten_questions(exam: Questions) -> None:
    assert len(exam) == 10 and exam.max_options == 5 and set(exam.extra["passage"]) == {"forge.pdf/p1", "forge.pdf/p2"}
    text = "\n".join(document.text for document in chapter()).replace(" (Figure 3)", "")
    for row, options in enumerate(exam.options):
        assert len(set(options)) == 5
        if exam.extra["kind"][row] == "cloze":
            assert exam.prompts[row].replace("a(n)", "a").replace(BLANK, options[exam.answers[row]]) in text


def test_terms_are_noun_phrases_that_say_something(material: Material) -> None:
    terms = {term.text for term in material.terms.terms}
    assert {"smelting hearth", "quenching bath", "tallow", "charcoal"} <= terms
    assert not {"part", "day", "evening", "smelting", "holds", "cold months", "old forge"} & terms


def test_pages_are_read_in_paragraphs_and_groups_of_them() -> None:
    page = " ".join(f"Sentence number {row} of this long page tells of the forge." for row in range(200))
    sample = draw_sample([Document("p1", "Forge > page 1", page)], Stems(), 0)
    assert sample.short and len(sample.passages) > 8 and max(len(part.text) for part in sample.passages) <= 1_000
    assert {part.id for part in sample.passages} == {"p1"} and len(set(sample.group)) == 3
    assert len(sample.sentences) == 200


def test_a_heading_is_not_read_with_the_sentence_behind_it(material: Material) -> None:
    texts = [sentence.text for sentence in material.sample.sentences]
    assert "Casting Pit" in texts and not any(text.startswith("Casting Pit The") for text in texts)


def test_a_sentence_cut_at_the_end_of_a_page_is_no_statement() -> None:
    cut = "The smith of the valley carried the heavy iron bars to the workshop of"
    rest = "Hanna Brandt has kept the books of the guild in the upper town of the region."
    whole = [f"The {name} of the forge needs some {means} on every day." for name, _, means, _ in _PARTS]
    sample = draw_sample([Document("1", "T", "\n".join([*whole, cut, rest]))], Stems(), 0)
    alone = {sentence.text: sentence.alone for sentence in sample.sentences}
    assert not alone[cut] and not alone[rest] and alone[whole[0]]


def test_bullets_of_slides_are_statements_without_their_full_stop() -> None:
    slides = [
        Document(f"p{row}", f"Lecture > page {row}", f"Forge\n• The {name} {task} with the help of {means}")
        for row, (name, task, means, _) in enumerate(_PARTS)
    ]
    sample = draw_sample(slides, Stems(), 0)
    assert sum(sentence.alone for sentence in sample.sentences) == len(_PARTS)
    assert without_bullet("• Iron melts late") == "Iron melts late." and without_bullet("Iron melts") == "Iron melts"


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The hearth (see Figure 3.2a) is hot [4, 5].", "The hearth is hot."),
        ("Iron rusts (Smith et al., 2010; Jones and Lee, 2011).", "Iron rusts."),
        ("It rained (October 2023) on the forge (a shed).", "It rained (October 2023) on the forge (a shed)."),
    ],
)
def test_references_to_other_places_are_left_out(sentence: str, expected: str) -> None:
    assert without_references(sentence) == expected


def test_what_is_ours_stands_alone_in_a_short_text_only() -> None:
    sentence = "The nearest star to our Sun has at least one planet of rock."
    tokens = sentence.lower().replace(".", " .").split()
    assert stands_alone(sentence, tokens, is_short=True) and not stands_alone(sentence, tokens)


def test_verbs_and_vague_subjects() -> None:
    text = (
        "A toxin enters the cell by a pore. Most of the toxins are gone. The toxin targets the wall of the cell. "
        "The heart pumps blood through the body. The rhythm of the heart is slow."
    )
    sample = draw_sample([Document("1", "T", text)], Stems(), 0)
    phrases = Phrases.of(sample)
    assert phrases.is_verb("targets", "the") and not phrases.is_verb("toxins", "the")
    vague = {sentence.text: phrases.is_vague(sentence) for sentence in sample.sentences}
    assert vague["The toxin targets the wall of the cell."] and not vague["The rhythm of the heart is slow."]


def test_names_keep_their_capitals_and_their_of() -> None:
    text = (
        "Hanna Brandt led the Guild of Smiths in the year of the flood. Hanna Brandt was a smith of the Elm Town. "
        "The town honoured the Guild of Smiths with a bell. The river passes the Elm Town."
    )
    terms = {term.text: term for term in Material.read([Document("1", "T", text)], 0).terms.terms}
    assert terms["Guild of Smiths"].is_name and terms["Elm Town"].is_name and "Hanna Brandt" in terms


def test_no_blank_at_the_head_of_a_list() -> None:
    text = (
        "The forge burns the charcoal, peat, and wood in the stone hearth. The price of charcoal rose. The smell of "
        "charcoal stays. A hearth of stone keeps the heat of charcoal in the stone hearth of the forge for hours."
    )
    found = Material.read([Document("1", "T", text)], 0)
    prompts = [draft.prompt for drafts in cloze_drafts(found) for draft in drafts]
    assert any("keeps the heat of _____" in prompt for prompt in prompts)
    assert not any(f"{BLANK}, peat" in prompt for prompt in prompts)


# --- the PDF reader's lines ----------------------------------------------------------------


def _joined(*lines: str) -> str:
    import re
    from collections import Counter

    words = Counter(re.findall(r"[^\W\d_]+(?:-[^\W\d_]+)?", "\n".join(lines)))
    return paragraphs(list(lines), words)


def test_headings_and_unmarked_bullets_are_lines_of_their_own() -> None:
    text = _joined(
        "Bacterial Infections of the Gastrointestinal Tract",
        "A wide range of diseases are caused by bacteria in the food",
        "that people eat, and most of them are harmless in the end.",
        "The Water of the Northern Town",
        "Wells give the town of the valley its water all the year, says",
        "Hanna Brandt, who tests the wells of the town for the guild",
        "When wells are dry the town takes the water of the river now.",
    )
    assert text.split("\n") == [
        "Bacterial Infections of the Gastrointestinal Tract",
        "A wide range of diseases are caused by bacteria in the food that people eat, and most of them are harmless in "
        "the end.",
        "The Water of the Northern Town",
        "Wells give the town of the valley its water all the year, says Hanna Brandt, who tests the wells of the town "
        "for the guild",
        "When wells are dry the town takes the water of the river now.",
    ]


def test_a_compound_at_a_lines_end_keeps_its_hyphen() -> None:
    text = _joined(
        "The pathogen binds to molecules that are associated with cells, pathogen-",
        "associated ones, and each pathogen is associated with some intes-",
        "tinal cells of the patient who carries the pathogen for a long time.",
    )
    assert "pathogen-associated ones" in text and "some intestinal cells" in text


# --- practice without an ensemble ----------------------------------------------------------


def test_the_passages_of_a_question_are_shown_and_marked(exam: Questions) -> None:
    answerer = PassageAnswerer(chapter(), lambda line: None)
    right = 0
    for row in range(len(exam)):
        answer = answerer.explain(exam.prompts[row], exam.options[row], lambda line: None)
        assert answer.passages and answer.mark_kind == "terms" and abs(sum(answer.probabilities) - 1) < 1e-6
        right += answer.best.text == exam.options[row][exam.answers[row]]
    assert right >= len(exam) // 2 and answerer.about().rankers == ("words in common",)


def test_fewer_options_where_these_give_more_questions() -> None:
    sizes = {5: 6, 4: 8, 3: 20}
    made: list[int] = []

    def make(wish: Wish) -> Questions:
        made.append(wish.options)
        return _exam(min(sizes[wish.options], wish.count), wish.options)

    assert with_fewer_options(make, Wish(5)).max_options == 5
    assert with_fewer_options(make, Wish(7)).max_options == 4
    assert with_fewer_options(make, Wish(30)).max_options == 3 and made[-3:] == [5, 4, 3]
    sizes[3] = 8
    assert with_fewer_options(make, Wish(30)).max_options == 5  # not enough more
    assert with_fewer_options(make, Wish(30), least=7).max_options == 4


def _exam(count: int, options: int) -> Questions:
    import numpy as np

    texts = [[f"o{place}" for place in range(options)] for _ in range(count)]
    ids = [str(row) for row in range(count)]
    return Questions(ids, [f"q{row}" for row in ids], texts, np.zeros(count, dtype=np.int64))


def test_the_questions_of_a_file_and_a_file_without_any(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "forge.txt"
    place.write_text("\n\n".join(document.text for document in chapter()))
    documents, made = corpus_to_practise(str(place), 12)
    assert documents and 10 <= len(made) <= 12 and made.max_options == 5
    corpus_to_practise(str(place), 500)
    assert "questions to practise with, not 500; more text gives more" in capsys.readouterr().err
    place.write_text("It is so. Nothing more stands here.")
    with pytest.raises(UserError, match="no question can be made from"):
        corpus_to_practise(str(place), 10)


def test_a_corpus_is_practised_without_an_ensemble(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        serve(Path("run"), corpus="forge.txt")
    assert stop.value.code == 2 and "leave out --workdir" in capsys.readouterr().err
