"""Forms of question files: one module a form, and one list of them (`forms.py`). Above them are only `Questions`."""
