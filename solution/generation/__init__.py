"""Multiple-choice questions made from the passages of a corpus, by rules and term statistics, without a model.

The steps, a module each: `sample` draws passages and parts them into sentences; `definitions` reads glossary entries
and "X is a ..." sentences; `terms` finds the key terms and where they stand; `kin` knows which terms are alike, by
their `vectors`; `cloze` and `meaning` write questions, `options` chooses their wrong options, with `truth` against
those that may be right too; `exam` puts the exam together. `english` holds the rules of the language, the only one
that questions are made in.
"""
