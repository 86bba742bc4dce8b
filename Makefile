# Two commands: `make book` builds the site and prints where it is, `make test` runs everything that CI runs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SITE = $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['site'])")

export STARTED := $(shell date +%s)

.PHONY: book test lab notebooks export bench clean url

book: .venv/site.stamp  ## build the site from the committed outputs
	@$(BIN)/python tools/check.py book

test: .venv/full.stamp  ## every check: style, tests, every cell of every chapter, results
	@$(BIN)/python tools/check.py

lab: .venv/full.stamp  ## the chapters in JupyterLab
	$(BIN)/jupyter lab notebooks

notebooks: .venv/full.stamp export  ## run all chapters afresh, two at a time; NAMES="02_evaluation" for some
	$(BIN)/python tools/notebooks.py run $(NAMES)

export: .venv/full.stamp  ## copy the chapters' #@export cells to recsys_utils/models
	$(BIN)/python tools/export.py

bench: .venv/full.stamp  ## speed and published tables: minutes to hours
	for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

url: .venv/site.stamp  ## show the repository's address; URL=https://github.com/OWNER/NAME changes every copy
	$(BIN)/python tools/repository.py $(URL)

clean:  ## remove what was built; the environment in .venv stays
	rm -rf build dist book/_build .pytest_cache .ruff_cache .hypothesis

build/constraints.txt: requirements.txt
	@mkdir -p build && grep -v '^-e' requirements.txt > $@

.venv/site.stamp: build/constraints.txt pyproject.toml
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what the site needs" && $(PIP) -c build/constraints.txt $(SITE) && touch $@

.venv/full.stamp: .venv/site.stamp
	@echo "installing the full environment" && $(PIP) -r requirements.txt && touch $@
