"""Folds: groups stay whole, letters balance, a question keeps its fold."""

from __future__ import annotations

import json

import numpy as np
import pytest

from solution.errors import UserError
from solution.folds import already_parted, assign_folds, folds_settings, group_questions, load_or_make_folds
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


def test_duplicates_are_found_across_blocks(make_questions):
    # 3,000 prompts are compared in blocks of 1,024: pairs inside the first and last block and across all of them.
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


# --- folds ---------------------------------------------------------------------------------


def by_id(questions, folds):
    return dict(zip(questions.ids, folds.tolist(), strict=True))


def grouped_exam(make_questions, n=120):
    """Groups of several sizes by a column and by near-duplicate prompts."""
    questions = make_questions(n)
    questions.extra["module"] = [f"m{row // 7}" if row % 3 else "" for row in range(n)]
    for row in range(0, n - 40, 20):
        questions.prompts[row + 31] = questions.prompts[row].upper().replace("?", " .")
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
        other.prompts[row + 1] = other.prompts[row].lower()
    other.prompts[60] = first.prompts[60]
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
    again = load_or_make_folds(questions, path, SETTINGS)
    assert again[0] == folds[other]
    assert (again[1:] == folds[1:]).all()


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
