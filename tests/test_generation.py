"""Exams made from a corpus: what stands in a question, what may not, and how the command ends."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from minerals import mineral_documents, write_documents
from pipeline import ROOT

from solution.cli.generate import generate
from solution.generation.definitions import read_definitions
from solution.generation.english import (
    BLANK,
    definition_head,
    glossary_entry,
    glossary_lines,
    is_a_sentence,
    lowered,
    stands_alone,
)
from solution.generation.exam import Wish, generate_exam
from solution.generation.material import Material
from solution.generation.phrases import Phrases
from solution.generation.sample import draw_sample
from solution.generation.stems import Stems
from solution.questions import Questions, read_questions
from solution.retrieval.corpus import Document


@pytest.fixture(scope="module", autouse=True)
def as_a_large_corpus() -> Iterator[None]:
    """The rules for large corpora; those for short texts have tests in test_short_text.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("solution.generation.sample.SHORT_TEXT", 0)
        yield


@pytest.fixture(scope="module")
def material() -> Material:
    return Material.read(mineral_documents(), 0)


@pytest.fixture(scope="module")
def exam() -> Questions:
    return generate_exam(mineral_documents(), Wish(90))


def test_an_exam_has_its_columns_and_balanced_letters(exam: Questions) -> None:
    assert len(exam) == 90 == len(set(exam.ids)) == len(set(exam.prompts))
    assert list(exam.extra) == ["passage", "title", "kind"]
    assert set(exam.extra["kind"]) == {"cloze", "term", "definition"}
    assert np.bincount(exam.answers).tolist() == [18] * 5
    assert all(len(set(options)) == 5 for options in exam.options)


def test_the_answer_is_what_the_source_says_and_wrong_options_are_not_in_it(exam: Questions) -> None:
    text_of = {document.id: document.text for document in mineral_documents()}
    title_of = {document.id: document.title for document in mineral_documents()}
    for row, options in enumerate(exam.options):
        answer, source = options[exam.answers[row]], text_of[exam.extra["passage"][row]]
        assert exam.extra["title"][row] == title_of[exam.extra["passage"][row]]
        if exam.extra["kind"][row] == "cloze":
            assert exam.prompts[row].replace("a(n)", "a").replace(BLANK, answer) in source
        else:
            term, _, definition = source.partition(": ")
            assert answer == (term if exam.extra["kind"][row] == "term" else definition)
            assert (definition if exam.extra["kind"][row] == "term" else term) in exam.prompts[row]
        assert answer not in exam.prompts[row]
        assert not any(option in source for option in options if option != answer)


def test_the_answer_is_not_known_by_its_length(exam: Questions) -> None:
    lengths = exam.option_lengths()
    longer = (lengths > lengths[np.arange(len(exam)), exam.answers][:, None]).sum(axis=1)
    for kind in ("cloze", "term", "definition"):
        ranks = np.bincount(longer[np.array(exam.extra["kind"]) == kind], minlength=5)
        assert ranks.sum() >= 15 and ranks.max() <= ranks.sum() / 2, (kind, ranks)


def test_the_same_seed_gives_the_same_exam_and_another_one_another(exam: Questions) -> None:
    again, other = generate_exam(mineral_documents(), Wish(90)), generate_exam(mineral_documents(), Wish(90, seed=1))
    assert again.content_hash() == exam.content_hash() and again.ids == exam.ids
    assert other.content_hash() != exam.content_hash()


def test_questions_of_a_given_exam_are_not_asked_again(exam: Questions) -> None:
    new = generate_exam(mineral_documents(), Wish(30, without=exam))
    assert len(new) == 30 and not set(new.prompts) & set(exam.prompts)


@pytest.mark.parametrize("options", [2, 8])
def test_other_numbers_of_options(options: int) -> None:
    made = generate_exam(mineral_documents(), Wish(16, options, kinds=["term"]))
    assert len(made) == 16 and {len(row) for row in made.options} == {options}
    assert np.bincount(made.answers).tolist() == [16 // options] * options


def test_a_term_of_which_the_statement_is_true_too_is_no_wrong_option() -> None:
    """Two names have nearly the same definition."""
    extra = [
        Document("t0", "Minerals > Glossary", "vorlane: spongy rock of chalk pits that is quarried for bleaching silk"),
        Document("t1", "Minerals > Glossary", "brenlane: spongy rock of chalk pits, quarried for bleaching raw silk"),
    ]
    made = generate_exam([*mineral_documents(), *extra], Wish(500))
    assert any("spongy rock" in prompt for prompt in made.prompts)
    for row, options in enumerate(made.options):
        assert not {"vorlane", "brenlane"} <= set(options), made.prompts[row]
        assert sum("spongy rock" in option for option in options) <= 1, made.prompts[row]


def test_names_of_one_thing_are_not_options_together(material: Material) -> None:
    extra = [
        Document("a0", "Minerals > Glossary", "kelpstone (KST): brown stone of tidal flats that holds dried algae"),
        Document("a1", "Minerals > Glossary", "KST: soft matter that ship owners bought as ballast in wartime"),
        Document("a2", "Trade", "Ships brought the kelpstone, or tidestone, across the western sea to many ports."),
        Document("a3", "Minerals > Glossary", "tidestone: cargo which merchants weighed twice at every harbour"),
    ]
    found = Material.read([*mineral_documents(), *extra], 0)
    numbers = [found.terms.of(name) for name in ("kelpstone", "KST", "tidestone", "vorolite")]
    stone, short, other, mineral = [number for number in numbers if number is not None]
    assert found.kin.same_thing(stone, short) and found.kin.same_thing(stone, other)
    assert not found.kin.same_thing(stone, mineral)


def test_terms_alike_come_before_others(material: Material) -> None:
    number = material.terms.of("vorolite")
    assert number is not None
    alike = material.kin.alike(number, np.arange(len(material.terms.terms)), 10)
    assert len(alike) == 10
    assert all(material.terms.terms[other].text.endswith(("ite", "felspar", "gangue")) for other in alike)


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The heart pumps blood through the arteries of the whole body.", True),
        ("It pumps blood through the arteries of the whole body.", False),
        ("The heart pumps blood through arteries, as shown in the figure.", False),
        ("The heart of this animal pumps blood through the whole body.", False),
        ("The latter pumps blood through the arteries of the whole body.", False),
        ("The heart pumps blood through .", False),
        ("The heart pumps blood through the arteries ( ) of the whole body.", False),
        ("The force is given by F = ma for a body of constant mass.", False),
        ("The heart pumps blood.", False),
        ("Does the heart pump blood through the arteries of the body?", False),
        ("Blood is pumped through the arteries of the body by Dr.", False),
        ("the heart pumps blood through the arteries of the whole body.", False),
    ],
)
def test_sentences_that_stand_alone(sentence: str, expected: bool) -> None:
    assert stands_alone(sentence, lowered(sentence)) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("osteon: basic unit of compact bone.", ("osteon", "basic unit of compact bone", [])),
        ("patella: (also, kneecap) bone in front of the knee", ("patella", "bone in front of the knee", ["kneecap"])),
        ("potential of hydrogen (pH): a scale", ("potential of hydrogen", "a scale", ["pH"])),
        ("The heart pumps blood. It has this task: pumping", None),
        ("one two three four five six: too long a head", None),
        ("no colon here", None),
    ],
)
def test_glossary_entries(text: str, expected: object) -> None:
    assert glossary_entry(text) == expected


def test_the_glossary_of_a_chapter_is_a_list_of_entries() -> None:
    lines = ["- **lava**: molten rock on the surface", "* ash – fine dust of a volcano", "1. tuff: rock made of ash"]
    entries = ["lava: molten rock on the surface", "ash – fine dust of a volcano", "tuff: rock made of ash"]
    assert glossary_lines("\n\n".join(["Words of this chapter", *lines])) == (entries, "Words of this chapter")
    for prose in ("\n".join([*lines, "Rock melts.", "Ash falls.", "It cools."]), "\n".join(lines[:2])):
        assert glossary_lines(prose) == ([], prose)


def test_the_entries_of_a_text_become_questions() -> None:
    entries = [document for document in mineral_documents() if document.title == "Minerals > Glossary"]
    text = "\n\n".join(f"- **{document.text.replace(': ', '**: ', 1)}" for document in entries)
    made = generate_exam([Document("book.md/3", "Minerals > Glossary", text)], Wish(20))
    assert len(made) == 20 and set(made.extra["kind"]) == {"term", "definition"}
    assert set(made.extra["passage"]) == {"book.md/3"}


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("The Dead Sea is a salt lake.", ("Dead Sea", "is", "a salt lake")),
        ("Ada Lovelace (1815 – 1852) was an English writer.", ("Ada Lovelace", "was", "an English writer")),
        ("Salt, also called halite, is a mineral.", ("Salt", "is", "a mineral")),
        ("Salt is a mineral", None),
        ("Salt dissolves in water.", None),
    ],
)
def test_sentences_that_define(sentence: str, expected: object) -> None:
    assert is_a_sentence(sentence) == expected


def test_the_head_of_a_definition_is_its_noun() -> None:
    assert definition_head(lowered("small, round bone embedded in a tendon"))[-1] == "bone"
    assert definition_head(lowered("an Indian actor and producer who sings"))[-1] == "producer"


def test_definitions_of_a_sample(material: Material) -> None:
    found = {definition.term: definition for definition in read_definitions(material.sample, Phrases()).definitions}
    assert found["tomograph"].verb == "is" and found["tomograph"].text.startswith("a machine that draws slices")
    assert "Note" not in found  # its text points elsewhere


def test_a_sample_is_bounded_and_does_not_depend_on_the_order_of_the_corpus() -> None:
    corpus = mineral_documents()
    size = sum(len(document.text) for document in corpus)
    small = draw_sample(corpus, Stems(), 0, size // 3)
    turned = draw_sample(corpus[::-1], Stems(), 0, size // 3)
    ids = {passage.id for passage in small.passages}
    assert not small.whole and size // 4 < sum(len(passage.text) for passage in small.passages) <= size // 3
    assert ids == {passage.id for passage in turned.passages}
    assert ids != {passage.id for passage in draw_sample(corpus, Stems(), 1, size // 3).passages}
    assert draw_sample(corpus, Stems(), 0).whole


def test_a_long_document_is_drawn_in_pieces_that_keep_its_id() -> None:
    text = " ".join(f"Sentence number {row} of the book tells of minerals." for row in range(400))
    sample = draw_sample([Document("book", "Book", text)], Stems(), 0)
    assert len(sample.passages) > 3 and {passage.id for passage in sample.passages} == {"book"}
    assert [sentence.text for sentence in sample.sentences][7] == "Sentence number 7 of the book tells of minerals."


# --- the command ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_documents(tmp_path_factory.mktemp("corpus") / "corpus.csv", mineral_documents())


def test_the_command_writes_an_exam(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "exam.csv"
    generate(9, output, corpus=str(corpus), options=4, kinds="cloze", configs=ROOT / "configs")
    made = read_questions(output)
    assert len(made) == 9 and made.max_options == 4 and set(made.extra["kind"]) == {"cloze"}
    assert "9 questions (9 cloze)" in capsys.readouterr().out


def test_the_command_writes_gift(corpus: Path, tmp_path: Path) -> None:
    for name in ("exam.csv", "exam.gift"):
        generate(6, tmp_path / name, corpus=str(corpus), options=3, configs=ROOT / "configs")
    made, gift = read_questions(tmp_path / "exam.csv"), read_questions(tmp_path / "exam.gift")
    assert (gift.ids, gift.prompts, gift.options) == (made.ids, made.prompts, made.options)
    assert gift.answers.tolist() == made.answers.tolist()


def test_a_corpus_with_too_few_questions(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "exam.csv"
    with pytest.raises(SystemExit) as stop:
        generate(5000, output, corpus=str(corpus), configs=ROOT / "configs")
    message = capsys.readouterr().err
    assert stop.value.code == 2 and "--at-most" in message and not any(tmp_path.iterdir())
    generate(5000, output, corpus=str(corpus), at_most=True, configs=ROOT / "configs")
    assert f"gives {len(read_questions(output))} questions, not 5000" in message


def test_a_corpus_without_questions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    poor = write_documents(tmp_path / "poor.csv", [Document("1", "", "Nothing."), Document("2", "", "It is so.")])
    with pytest.raises(SystemExit):
        generate(5, tmp_path / "exam.csv", corpus=str(poor), at_most=True, configs=ROOT / "configs")
    message = capsys.readouterr().err
    assert (
        "no question can be made" in message and "fewer --options" in message and not (tmp_path / "exam.csv").exists()
    )


@pytest.mark.parametrize(
    ("name", "kinds", "words"),
    [
        ("exam.doc", "cloze", "exam.doc"),
        ("folder.csv", "cloze", "is a folder"),
        ("exam.csv", "essay", "cloze, term, definition"),
        ("exam.csv", ",", "cloze, term, definition"),
        ("corpus.csv", "cloze", "made from"),
    ],
)
def test_wrong_arguments(name: str, kinds: str, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "folder.csv").mkdir()
    own = write_documents(tmp_path / "corpus.csv", mineral_documents()[:2])
    before = own.read_text()
    with pytest.raises(SystemExit) as stop:
        generate(5, tmp_path / name, corpus=str(own), kinds=kinds, configs=ROOT / "configs")
    assert stop.value.code == 2 and words in capsys.readouterr().err
    assert own.read_text() == before and not (tmp_path / "exam.csv").exists()
