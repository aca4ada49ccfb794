"""Folds: groups stay whole, letters balance, a question keeps its fold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from solution import near_questions
from solution.errors import UserError
from solution.files import content_hash
from solution.folds import already_parted, assign_folds, folds_settings, group_questions, load_or_make_folds
from solution.near_questions import question_key, text_key
from solution.questions import Questions

LONG = (
    "A student pours a saturated solution of sodium chloride into a beaker of cold water and then stirs it slowly "
    "for ten minutes while recording the temperature at regular intervals. Which statement best describes what "
    "happens to the dissolved ions?"
)


def exam(prompts, **extra) -> Questions:
    n = len(prompts)
    return Questions([f"q{i}" for i in range(n)], list(prompts), [["a", "b"]] * n, np.arange(n) % 2, extra)


def groups_of(prompts, near_duplicate=0.9, **extra):
    column = next(iter(extra), None)
    return group_questions(exam(prompts, **extra), column, near_duplicate).tolist()


def joined(prompts, near_duplicate=0.9) -> bool:
    others = ["What is a mole of carbon?", "Why do leaves look green?"]
    groups = groups_of([*prompts, *others], near_duplicate)
    assert len(set(groups[2:])) == 2
    return groups[0] == groups[1]


# --- groups --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "other",
    [
        LONG,
        LONG.upper(),
        LONG.replace(" ", "  ").replace(".", " -").replace("?", ""),
        LONG.replace("beaker", "flask"),
        LONG.replace("slowly ", ""),
    ],
)
def test_near_duplicates_are_joined(other):
    assert joined([LONG, other])


@pytest.mark.parametrize(
    "pair",
    [
        ("What is the capital of France?", "What is the capital of Germany?"),
        ("What is 3 + 4?", "What is 5 + 6?"),
        ("Which blood cells carry type A antigens?", "Which blood cells carry type B antigens?"),
        (LONG, LONG.split(". ")[1]),
    ],
)
def test_questions_of_the_same_pattern_are_not_joined(pair):
    assert not joined(pair)


def test_the_threshold_is_the_setting():
    pair = [LONG, LONG.replace("beaker", "flask").replace("student", "chemist").replace("cold", "icy")]
    assert not joined(pair, 0.9)
    assert joined(pair, 0.5)
    assert not joined([LONG, LONG.replace("beaker", "flask")], 1.0)
    assert joined([LONG, LONG.lower().rstrip("?")], 1.0)


def test_prompts_without_any_word():
    assert groups_of(["?", "!", "?", "∑"]) == [0, 1, 0, 2]


def test_a_group_column_joins_equal_values_and_empty_ones_join_nothing():
    prompts = ["How do birds fly?", "Why is ice light?", "What is salt?", "Where is Etna?", "Who saw Neptune?"]
    assert groups_of(prompts, module=["m1", " m1 ", "m2", "", ""]) == [0, 0, 1, 2, 3]
    assert groups_of(prompts, module=[1, 2, 1, None, float("nan")]) == [0, 1, 0, 2, 3]


def test_joins_chain_through_column_and_prompts():
    prompts = [LONG, "How do birds fly?", LONG.replace("beaker", "flask"), "Why is ice light?", "What is salt?"]
    groups = groups_of(prompts, module=["m1", "m1", "m2", "m2", "m3"])
    assert groups == [0, 0, 0, 0, 1]


def test_a_missing_group_column_is_named():
    with pytest.raises(UserError, match=r"group_column is 'chapter'.*\(its extra columns: module\)"):
        group_questions(exam(["p", "q"], module=["a", "b"]), "chapter", 0.9)
    with pytest.raises(UserError, match=r"its extra columns: none"):
        group_questions(exam(["p", "q"]), "chapter", 0.9)


def test_duplicates_are_found_across_blocks(make_questions, monkeypatch):
    # Candidates come in blocks of a few rows: pairs inside the first and last block and across all of them.
    monkeypatch.setattr(near_questions, "_PRODUCTS_AT_ONCE", 4096)
    monkeypatch.setattr(near_questions, "_AT_ONCE", 7)
    prompts = make_questions(3000).prompts
    pairs = [(5, 6), (10, 1500), (1023, 1024), (20, 2999), (2047, 2048), (2990, 2995)]
    for number, (one, other) in enumerate(pairs):
        prompts[one] = f"{LONG} topic{number} field{number} case{number} place{number}"
        prompts[other] = prompts[one].replace("beaker", "flask")
        # Far from the other pairs: other words all through.
        for word in set(LONG.split()) - {"beaker"}:
            prompts[one] = prompts[one].replace(f"{word} ", f"{word}{number} ")
            prompts[other] = prompts[other].replace(f"{word} ", f"{word}{number} ")
    groups = group_questions(exam(prompts), None, 0.9)
    assert len(set(groups)) == 3000 - len(pairs)
    for one, other in pairs:
        assert groups[one] == groups[other]


SAME = ["a cat", "a dog", "a bird", "a fish"]


def groups(*rows: tuple[str, list[str], int]) -> list[int]:
    """The groups of questions (prompt, options, answer)."""
    prompts, options, answers = zip(*rows, strict=True)
    ids = [str(row) for row in range(len(rows))]
    questions = Questions(ids, list(prompts), list(options), np.array(answers), {})
    return group_questions(questions, "none", 0.9).tolist()


def test_one_prompt_of_all_questions_joins_none():
    prompt = "Which of the following statements is correct?"
    rows = [(prompt, [f"statement {row}", f"statement {row + 100}"], 0) for row in range(30)]
    assert groups(*rows) == list(range(30))


@pytest.mark.parametrize(
    ("options", "answer", "together"),
    [
        (SAME, 0, True),
        (["A dog.", "A cat.", "a fish", "a bird"], 3, True),  # in another order
        (["a cat", "an ant", "a bee", "a worm"], 0, True),  # the same answer
        (["an ant", "a cat", "a bee", "a worm"], 0, False),
        (["an ant", "a bee", "a cat"], -1, False),
    ],
)
@pytest.mark.parametrize("near", [LONG, LONG.replace("beaker", "flask")])
def test_questions_are_the_same_when_prompt_and_options_are(near, options, answer, together):
    assert groups((LONG, SAME, 0), (near, options, answer)) == ([0, 0] if together else [0, 1])


def test_an_answer_that_names_other_options_joins_nothing():
    rows = [("Which is true?", [f"fact {word}", f"claim {word}", "All of the above"], 2) for word in ("red", "blue")]
    assert groups(*rows) == [0, 1]


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("2 mol", "4 mol", False),
        ("-5", "5", False),
        ("2.5 g", "25 g", False),
        ("10³ K", "103 K", False),
        ("H₂O", "H2O", True),
        ("which is true", "which is not true", False),
        ("which is true", "which isn't true", False),
        ("which isn’t true", "which is not true", True),
        ("which is correct", "which is incorrect", False),
        ("welche richtig ist", "welche nicht richtig ist", False),
    ],
)
def test_numbers_and_negations_part_questions(one, other, together):
    rows = [(f"{LONG} {text} in that moment, said the student", SAME, 0) for text in (one, other)]
    assert groups(*rows) == ([0, 0] if together else [0, 1])
    assert groups((LONG, [one, "x"], 1), (LONG, [other, "x"], 1)) == [0, 0]  # another wrong option, the same answer
    same = together and "isn" not in one  # "is not" are other words, few of which an option has
    assert groups((LONG, [one, "x"], 0), (LONG, [other, "x"], 0)) == ([0, 0] if same else [0, 1])


def test_what_a_text_is_compared_by():
    assert text_key("12. Which ion is NOT Ca²⁺ at −5 °C, or 1,000 K?") == (
        "which ion is not ca²⁺ ca2 at 5 c or 1 000 k", ("²", "-5", "1,000", "not")
    )  # fmt: skip
    assert text_key("The __ is 3-4") == ("the is 3 4", ("3", "4"))
    assert question_key("Q?", ["b", "", "A"]) == question_key("q", ["a.", "B"])
    assert text_key("不是水") != text_key("是水") and text_key("هل هو؟")[0] == "هل هو"


def test_the_pairs_are_those_of_all_comparisons():
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"word{place}x" for place in "abcdefghijklmnopqrstuvwxyz"])

    def text(words: int) -> list[str]:
        return rng.choice(vocabulary, words).tolist()

    rows = [(text(12), [" ".join(text(3)) for _ in range(4)], 0)]
    while len(rows) < 150:
        prompt, options, answer = rows[rng.integers(len(rows))]
        prompt, options = list(prompt), list(options)
        prompt[rng.integers(12)], options[rng.integers(4)] = text(1)[0], " ".join(text(3))
        rows.append((prompt, options, int(rng.integers(4)) if rng.random() < 0.3 else answer))
    questions = Questions(
        [str(row) for row in range(150)], [" ".join(row[0]) for row in rows], [row[1] for row in rows],
        np.array([row[2] for row in rows]), {},
    )  # fmt: skip
    compared = near_questions._Compared.of(questions)
    prompts = near_questions._tf_idf(compared.prompt_texts, word_pairs=True)[compared.prompt].toarray()
    options = near_questions._tf_idf(compared.option_texts, word_pairs=False)[compared.options].toarray()
    answers = np.array([row[1][row[2]] for row in rows])
    for threshold in (0.5, 0.7, 0.9):
        near = (options @ options.T >= threshold) | (answers[:, None] == answers)
        near &= prompts @ prompts.T >= threshold
        assert near.sum() > 160
        expected = connected_components(near)[1]
        found = group_questions(questions, None, threshold)
        assert len(set(zip(found.tolist(), expected.tolist(), strict=True))) == len(set(found)) == len(set(expected))


def test_word_pairs_are_weighed_as_scikit_learn_weighs_them():
    from sklearn.feature_extraction.text import TfidfVectorizer

    texts = ["a b a b c", "b c d", "a", "d d d e"]
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    expected = vectorizer.fit_transform(texts).toarray()
    ours = near_questions._tf_idf(texts, word_pairs=True).toarray()
    np.testing.assert_allclose(ours @ ours.T, expected @ expected.T, atol=1e-6)


# --- contexts ------------------------------------------------------------------------------

ASKED = [f"What is said of {word}?" for word in "salt ice iron gold wood wool milk sand rust tin".split()]


@pytest.mark.parametrize("column", ["context", "passage", "Article"])
def test_questions_of_the_same_context_stay_together(column, tmp_path, capsys):
    values = ["One text.", "Another", "One  text.", "", "Another", "", "Third", "4", "5", "6"]
    questions = exam(ASKED, **{column: values})
    assert group_questions(questions, None, 0.9).tolist() == [0, 1, 0, 2, 1, 3, 4, 5, 6, 7]
    assert group_questions(questions, "none", 0.9).tolist() == list(range(10))
    folds = load_or_make_folds(questions, tmp_path / "folds.json", SETTINGS)
    assert folds[0] == folds[2] and folds[1] == folds[4]
    assert f"note: 4 of 10 questions share their {column} with others and stay in one fold" in capsys.readouterr().err


def test_a_context_of_most_questions_is_none(tmp_path, capsys):
    questions = exam(ASKED, context=["n/a"] * 6 + ["One", "One", "2", "3"], topic=["x"] * 10)
    groups = group_questions(questions, None, 0.9, folds=5)
    assert len(set(groups)) == 9 and groups[6] == groups[7]
    load_or_make_folds(questions, tmp_path / "folds.json", SETTINGS)
    assert "note: 6 questions have a context that more than a fold's share" in capsys.readouterr().err
    assert len(set(group_questions(questions, "context", 0.9, folds=5))) == 4


# --- folds ---------------------------------------------------------------------------------


def by_id(questions, folds):
    return dict(zip(questions.ids, folds.tolist(), strict=True))


def grouped_exam(make_questions, n=120):
    """Groups of several sizes by a column and by near-duplicate prompts."""
    questions = make_questions(n)
    questions.extra["module"] = [f"m{row // 7}" if row % 3 else "" for row in range(n)]
    for row in range(0, n - 40, 20):
        questions.prompts[row + 31] = questions.prompts[row].upper().replace("?", " .")
        questions.options[row + 31] = questions.options[row]
    return questions


def test_folds_do_not_depend_on_the_order_of_rows(make_questions):
    questions = grouped_exam(make_questions)
    expected = by_id(questions, assign_folds(questions, 5, group_questions(questions, "module", 0.9)))
    for seed in range(5):
        moved = questions.subset(np.random.default_rng(seed).permutation(len(questions)))
        assert by_id(moved, assign_folds(moved, 5, group_questions(moved, "module", 0.9))) == expected


def test_no_group_is_parted(make_questions):
    questions = grouped_exam(make_questions)
    groups = group_questions(questions, "module", 0.9)
    assert np.bincount(groups).max() >= 9  # chains made groups larger than a module
    folds = assign_folds(questions, 4, groups)
    assert set(folds) == {0, 1, 2, 3}
    for group in set(groups):
        assert len(set(folds[groups == group])) == 1


@pytest.mark.parametrize("count", [2, 3, 5, 10])
def test_letters_and_sizes_are_balanced(make_questions, count):
    questions = make_questions(500)
    questions.answers[:25] = -1
    groups = group_questions(questions, None, 0.9)
    assert len(set(groups)) == 500
    folds = assign_folds(questions, count, groups)
    sizes = np.bincount(folds, minlength=count)
    assert sizes.max() - sizes.min() <= 2
    for letter in range(-1, 5):
        counts = np.bincount(folds[questions.answers == letter], minlength=count)
        assert counts.max() - counts.min() <= 2


def test_letters_are_balanced_with_groups(make_questions):
    questions = make_questions(500)
    questions.extra["module"] = [f"m{row // 4}" for row in range(500)]
    folds = assign_folds(questions, 5, group_questions(questions, "module", 0.9))
    sizes = np.bincount(folds)
    assert sizes.max() - sizes.min() <= 4
    for letter in range(5):
        counts = np.bincount(folds[questions.answers == letter], minlength=5)
        assert counts.max() - counts.min() <= 6


def test_the_seed_changes_the_folds(make_questions):
    questions = make_questions(60)
    groups = group_questions(questions, None, 0.9)
    first, second = assign_folds(questions, 5, groups), assign_folds(questions, 5, groups, seed=1)
    assert (first == assign_folds(questions, 5, groups)).all()
    assert (first != second).any()


def test_fewer_groups_than_folds_is_refused():
    prompts = ["How do birds fly?", "Why is ice light?", "What is salt?", "How do birds fly!"]
    questions = exam(prompts)
    groups = group_questions(questions, None, 0.9)
    assert set(assign_folds(questions, 3, groups)) == {0, 1, 2}
    with pytest.raises(UserError, match="4 folds asked for, .* only 3 groups"):
        assign_folds(questions, 4, groups)


# --- the folds file ------------------------------------------------------------------------

SETTINGS = folds_settings(5, None, 0.9, 0)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "oof" / "folds.json"


def test_the_file_gives_the_same_folds_again(path, make_questions):
    questions = make_questions(100)
    folds = load_or_make_folds(questions, path, SETTINGS)
    content = path.read_bytes()
    moved = questions.subset(range(99, -1, -1))
    assert (load_or_make_folds(moved, path, SETTINGS) == folds[::-1]).all()
    assert (load_or_make_folds(questions.subset([7, 3]), path, SETTINGS) == folds[[7, 3]]).all()
    assert path.read_bytes() == content


def test_questions_keep_their_fold_when_rows_are_added(path, make_questions):
    questions = make_questions(200, seed=1)
    first = by_id(questions.subset(range(100)), load_or_make_folds(questions.subset(range(100)), path, SETTINGS))
    # Without the file some of them would go elsewhere.
    fresh = by_id(questions, assign_folds(questions, 5, group_questions(questions, None, 0.9)))
    assert any(fresh[id_] != fold for id_, fold in first.items())
    both = by_id(questions, load_or_make_folds(questions, path, SETTINGS))
    assert {id_: both[id_] for id_ in first} == first
    assert set(both.values()) == {0, 1, 2, 3, 4}
    sizes = np.bincount(list(both.values()))
    assert sizes.max() - sizes.min() <= 1
    # The old rows alone still have the folds that the file holds.
    assert by_id(questions.subset(range(50)), load_or_make_folds(questions.subset(range(50)), path, SETTINGS)) == {
        id_: both[id_] for id_ in questions.ids[:50]
    }


def test_a_new_near_duplicate_follows_the_old_question(path, make_questions):
    old = make_questions(50)
    folds = load_or_make_folds(old, path, SETTINGS)
    new = make_questions(50)
    for row in range(50):
        new.ids.append(f"new{row}")
        new.prompts.append(old.prompts[row].upper())
        new.options.append(old.options[row])
    new.answers = np.concatenate([old.answers, old.answers])
    again = load_or_make_folds(new, path, SETTINGS)
    assert (again[:50] == folds).all()
    assert (again[50:] == folds).all()


def test_a_new_question_that_joins_parted_ones_is_told(path, make_questions, capsys):
    settings = folds_settings(5, "module", 0.9, 0)
    questions = make_questions(40)
    questions.extra["module"] = [f"m{row}" for row in range(40)]
    old = questions.subset(range(39))
    folds = load_or_make_folds(old, path, settings)
    assert "note" not in capsys.readouterr().err
    other = int(np.flatnonzero(folds != folds[0])[0])
    # The last question has the prompt of the first and the module of another fold's question.
    questions.prompts[39], questions.extra["module"][39] = old.prompts[0], f"m{other}"
    questions.options[39] = old.options[0]
    again = load_or_make_folds(questions, path, settings)
    assert (again[:39] == folds).all()
    assert again[39] in (folds[0], folds[other])
    assert "1 groups lie in more than one fold" in capsys.readouterr().err


def test_a_new_question_goes_where_most_of_its_parted_group_is(make_questions):
    groups = np.array([0, 0, 0, 0, 1, 2])
    for previous in ({"q0": 0, "q1": 2, "q2": 2}, {"q0": 2, "q1": 0, "q2": 2}):
        folds = assign_folds(make_questions(6), 3, groups, previous=previous)
        assert {f"q{row}": folds[row] for row in range(3)} == previous
        assert folds[3] == 2


def test_folds_of_another_exam_are_refused(path, make_questions):
    """By its questions, not by their ids: many exams number theirs from 0."""
    load_or_make_folds(make_questions(60, seed=1), path, SETTINGS)
    before = path.read_bytes()
    with pytest.raises(UserError, match="parts another exam"):
        load_or_make_folds(make_questions(60, seed=2), path, SETTINGS)
    assert path.read_bytes() == before


def test_changed_questions_get_new_folds_and_a_note(path, make_questions, capsys):
    first = make_questions(61, seed=1)
    load_or_make_folds(first, path, SETTINGS)
    other = make_questions(61, seed=2)
    for row in range(0, 60, 2):
        other.prompts[row + 1], other.options[row + 1] = other.prompts[row].lower(), other.options[row]
    other.prompts[60], other.options[60] = first.prompts[60], first.options[60]
    groups = group_questions(other, None, 0.9)
    assert len(set(groups)) == 31
    folds = load_or_make_folds(other, path, SETTINGS)
    assert (folds[:60:2] == folds[1:60:2]).all()
    assert "60 questions have changed" in capsys.readouterr().err
    assert (load_or_make_folds(other, path, SETTINGS) == folds).all()
    assert "changed" not in capsys.readouterr().err


def test_new_questions_are_told(path, make_questions, capsys):
    questions = make_questions(40)
    load_or_make_folds(questions.subset(range(38)), path, SETTINGS)
    assert "note" not in capsys.readouterr().err
    load_or_make_folds(questions, path, SETTINGS)
    assert "2 questions are not in" in capsys.readouterr().err


def test_a_changed_question_moves_to_the_group_that_it_joins(path, make_questions):
    questions = make_questions(60)
    folds = load_or_make_folds(questions, path, SETTINGS)
    other = int(np.flatnonzero(folds != folds[0])[0])
    questions.prompts[0] = questions.prompts[other].replace("?", ".")
    questions.options[0] = questions.options[other]
    again = load_or_make_folds(questions, path, SETTINGS)
    assert again[0] == folds[other]
    assert (again[1:] == folds[1:]).all()


def test_a_file_of_the_version_before_is_valid(path, make_questions, capsys):
    questions = make_questions(30)
    folds = load_or_make_folds(questions.subset(range(25)), path, SETTINGS)
    content = json.loads(path.read_text())
    prints = {id_: print_[:8] for id_, print_ in content["print"].items()}  # of prompts and group values alone
    hash_ = content_hash(content["fold"], prints)
    path.write_text(json.dumps({**content, "print": prints, "hash": hash_}))
    before = path.read_bytes()
    assert already_parted(questions, path) == 25
    assert (load_or_make_folds(questions.subset(range(25)), path, SETTINGS) == folds).all()
    assert path.read_bytes() == before and capsys.readouterr().err == ""
    assert (load_or_make_folds(questions, path, SETTINGS)[:25] == folds).all()
    assert "5 questions are not in" in capsys.readouterr().err
    assert already_parted(questions, path) == 30


def test_other_options_make_another_question(path, make_questions, capsys):
    questions = make_questions(30)
    load_or_make_folds(questions, path, SETTINGS)
    questions.options[3] = questions.options[3][::-1]
    assert already_parted(questions, path) == 30
    questions.options[3] = ["another", *questions.options[3][1:]]
    assert already_parted(questions, path) == 29
    load_or_make_folds(questions, path, SETTINGS)
    assert "1 questions have changed" in capsys.readouterr().err


def test_a_changed_group_value_counts_too(path, make_questions):
    settings = folds_settings(5, "module", 0.9, 0)
    questions = make_questions(60)
    questions.extra["module"] = [f"m{row}" for row in range(60)]
    folds = load_or_make_folds(questions, path, settings)
    other = int(np.flatnonzero(folds != folds[0])[0])
    questions.extra["module"][0] = f"m{other}"
    assert load_or_make_folds(questions, path, settings)[0] == folds[other]


@pytest.mark.parametrize("column", [None, "module"])
def test_questions_that_are_parted_already_are_counted(path, make_questions, column):
    questions = make_questions(20)
    questions.extra["module"] = [f"m{row // 2}" for row in range(20)]
    assert already_parted(questions, path) == 0
    load_or_make_folds(questions, path, folds_settings(5, column, 0.9, 0))
    assert already_parted(questions, path) == 20
    assert already_parted(questions.subset([3, 5]), path) == 2
    questions.prompts[7] = "Another question under the same id?"
    assert already_parted(questions, path) == 19
    assert already_parted(make_questions(20, seed=1), path) == 0
    for text in ("{", "[]", '{"print": 3, "settings": {"group_column": null}}', '{"print": {}, "settings": null}'):
        path.write_text(text)
        assert already_parted(questions, path) == 0


def test_one_group_larger_than_a_fold_is_told(path, make_questions, capsys):
    questions = make_questions(20)
    questions.extra["module"] = ["same"] * 12 + [""] * 8
    load_or_make_folds(questions, path, folds_settings(5, "module", 0.9, 0))
    assert "one group holds 12 of 20 questions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"folds": 4}, "folds 5 there and 4 now"),
        ({"group_column": "module"}, "group_column None there and 'module' now"),
        ({"near_duplicate": 0.8}, "near_duplicate 0.9 there and 0.8 now"),
        ({"seed": 1}, "seed 0 there and 1 now"),
    ],
)
def test_other_settings_are_refused(path, make_questions, change, told):
    questions = make_questions(20)
    questions.extra["module"] = [""] * 20
    load_or_make_folds(questions, path, SETTINGS)
    with pytest.raises(UserError, match="was made with other settings") as caught:
        load_or_make_folds(questions, path, {**SETTINGS, **change})
    assert told in str(caught.value)
    assert f"Delete {path}" in str(caught.value)


def damages(content):
    text = json.dumps(content)
    yield text[: len(text) // 2]
    yield "[]"
    for key in content:
        yield json.dumps({name: value for name, value in content.items() if name != key})
        yield json.dumps({**content, key: [1]})
    for value in (5, -1, "0", None, 1.5):
        yield json.dumps({**content, "fold": {**content["fold"], "q0": value}})
    moved = {**content["fold"], "q0": (content["fold"]["q0"] + 1) % 5}
    yield json.dumps({**content, "fold": moved})
    yield json.dumps({**content, "print": {**content["print"], "q0": "0"}})


def test_a_damaged_file_is_refused_and_left_alone(path, make_questions):
    questions = make_questions(20)
    load_or_make_folds(questions, path, SETTINGS)
    texts = list(damages(json.loads(path.read_text())))
    assert len(texts) > 14
    for text in texts:
        path.write_text(text)
        with pytest.raises(UserError, match="the folds file is corrupt") as caught:
            load_or_make_folds(questions, path, SETTINGS)
        assert f"Delete {path}" in str(caught.value)
        assert path.read_text() == text


def test_nothing_is_written_when_the_folds_cannot_be_made(path):
    with pytest.raises(UserError):
        load_or_make_folds(exam(["the same", "The same!"]), path, folds_settings(2, None, 0.9, 0))
    assert not path.exists()
