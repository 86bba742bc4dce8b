# Two commands: `make book` builds the site and prints where it is, `make test` runs everything that CI runs.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SITE = $$($(BIN)/python -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['optional-dependencies']['site'])")

export STARTED := $(shell date +%s)

.PHONY: book pdf test lab notebooks export bench matrix diff clean url

book: .venv/site.stamp  ## build the site from the committed outputs
	@$(BIN)/python tools/check.py book

pdf: .venv/site.stamp  ## the whole book as one PDF, printed by Chromium
	@$(PIP) -c build/constraints.txt playwright pypdf
	@$(BIN)/python tools/pdf.py

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

matrix: .venv/full.stamp  ## the chapters at the oldest and the newest versions that pyproject.toml allows; NAMES= for some
	$(BIN)/python tools/matrix.py $(NAMES)

diff:  ## which measured numbers moved: the working tree against REV=origin/main, by default against HEAD
	@$(PYTHON) tools/diff.py "$(or $(REV),HEAD)"

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
