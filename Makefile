# make demo    the whole pipeline on the built-in exam
# make exam DATA=folder    the whole pipeline on a folder of your own: passages and, if there are any, questions
# make test    all tests
# make lint    ruff, mypy and the layers of setup.cfg
# make docs    the pages of docs/ as a site that needs no network: site/index.html
# make check   lint, and the tests that train and load no model: a minute
# make clean   remove .venv, demo_run and caches (never oof/ and weights/)
#
# Each makes .venv first, and again when the lists of packages change. Another Python: make PYTHON=/path/to/python3.12

PYTHON ?=
VENV := .venv
EXTRA := $(if $(shell nvidia-smi >/dev/null 2>&1 && echo yes),gpu,cpu)
OTHER := $(if $(filter gpu,$(EXTRA)),cpu,gpu)
READY := $(VENV)/.ready-$(EXTRA)
RIGHT := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))
PIP := $(VENV)/bin/python -m pip --disable-pip-version-check

.PHONY: demo exam test lint check docs clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(VENV)/bin/python -m solution demo

# ARGS: further options and settings, see `python -m solution exam --help`.
exam: $(if $(DATA),$(READY))
	@$(if $(DATA),,echo "Name the folder with your passages and questions: make exam DATA=path/to/folder" >&2; exit 2)
	$(VENV)/bin/python -m solution exam "$(DATA)" $(ARGS)

test: $(READY)
	$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

lint: $(READY)
	$(VENV)/bin/python -m ruff check .
	$(VENV)/bin/python -m mypy
	$(VENV)/bin/lint-imports --no-logo

check: lint
	$(VENV)/bin/python -m pytest -q -n 2 --dist worksteal -m "not slow"

docs: $(VENV)/.ready-docs
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --quiet --strict
	@echo "open site/index.html"

$(VENV)/.ready-docs: $(READY)
	@$(PIP) install -q -c constraints.txt -e '.[docs]'
	@touch $@

# The two faiss packages share a folder: the other one leaves before this one is installed.
$(READY): setup.cfg constraints.txt requirements-demo.txt tests/requirements.txt
	@python=; \
	for candidate in $(or $(PYTHON),python3.11 python3.12 python3.13 python3 python); do \
	  if "$$candidate" -c '$(RIGHT)' >/dev/null 2>&1; then python="$$candidate"; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python 3.11, 3.12 or 3.13 with venv was found$(if $(PYTHON), at PYTHON=$(PYTHON)). Install one" >&2; \
	  echo "(on Debian and Ubuntu with its -venv package), or name it: make PYTHON=/path/to/python3.12" >&2; \
	  exit 2; \
	fi; \
	if ! $(VENV)/bin/python -c '$(RIGHT)' >/dev/null 2>&1; then \
	  echo "making $(VENV) with $$("$$python" --version)"; \
	  "$$python" -m venv --clear $(VENV) || exit; \
	fi
	@echo "installing the packages ($(EXTRA)) into $(VENV); the first time takes some minutes"
	@rm -f $(VENV)/.ready-*
	@$(PIP) uninstall -qq -y faiss-$(OTHER)
	@$(PIP) install -q -c constraints.txt -e '.[$(EXTRA),dev]'
	@$(PIP) install -q --no-deps -r requirements-demo.txt -r tests/requirements.txt
	@touch $@

clean:
	rm -rf $(VENV) demo_run site build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
