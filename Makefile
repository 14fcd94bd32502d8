# Every target makes its own virtual environment first; `make help` lists them.
PYTHON ?= python3
PORT ?= 8000
BIN := .venv/bin
READY := .venv/.ready
BOOK := _build/.book

# Small networks are far slower with two threads than with one on a busy machine.
export OMP_NUM_THREADS := 1
export TQDM_DISABLE := 1

SOURCES := _config.yml _toc.yml LICENSE $(shell find book notebooks tools pai_lite -type f \
	\( -name '*.md' -o -name '*.py' -o -name '*.ipynb' -o -name '*.bib' -o -name '*.css' -o -name '*.js' \
	-o -name '*.yml' -o -name '*.toml' -o -name '*.csv' -o -name '*.png' -o -name '*.svg' \
	-o -name '*.html' -o -name '*.txt' \) \
	-not -path '*/.*' -not -path 'book/_figures/*' 2>/dev/null)

.PHONY: help book pdf test coverage mutants floors colab bench notebooks assignments results-pages \
	results-quick lab serve lint links clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 20

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or newer is needed, and '$(PYTHON)' is not: install it, then run make PYTHON=python3.11."; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "'$(PYTHON)' has no venv: install it (on Debian and Ubuntu: apt install python3-venv)."; exit 1; }
	@echo "Installing into .venv; the first time takes some minutes."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --editable ".[dev]"
	@touch $@

$(BOOK): $(READY) $(SOURCES)
	$(BIN)/python -m tools.build_book
	@touch $@

book: $(BOOK) ## build the book from the stored notebooks
	@echo "The book is at $(CURDIR)/_build/html/index.html"

pdf: book ## print the book to one PDF (needs Chromium or Chrome)
	$(BIN)/python -m tools.print_book

test: lint book ## check the code, the package, the notebooks and the built book
	$(BIN)/python -m pytest -n 2 --dist loadfile \
		--nbval-lax --nbval-current-env --nbval-cell-timeout=300 tests notebooks

coverage: $(READY) ## measure the branches that the tests take; less than 95% fails
	$(BIN)/python -m pytest -n 2 --dist loadfile tests \
		$(patsubst %,--ignore=tests/test_%.py,browser browser_scorecard book_build colab notebooks converter links pages print_book licences) \
		--cov --cov-report=term-missing:skip-covered --cov-fail-under=95

mutants: $(READY) ## break the core of the package in many ways; list what no test notices
	$(BIN)/python -m mutmut run --max-children 2
	$(BIN)/python -m mutmut results

floors: ## run the package's tests with the oldest versions that it allows (with Python 3.11)
	$(PYTHON) -m tools.floors

colab: $(READY) ## execute the notebooks in a kernel with Colab's versions (ten minutes; options: ARGS)
	$(BIN)/python -m tools.colab $(ARGS)

bench: $(READY) ## measure what scoring costs (ten minutes; options: ARGS="--quick")
	$(BIN)/python -m benchmarks $(ARGS)

notebooks: $(READY) ## make the notebooks again, executing those whose code changed
	$(BIN)/python -m tools.notebooks
	@echo "The notebooks are in $(CURDIR)/notebooks"

assignments: $(READY) ## make the assignments: student notebooks, and tests and solutions
	$(BIN)/python -m tools.assignments $(ARGS)
	@echo "For instructors alone: $(CURDIR)/_build/assignments"

results-pages: $(READY) ## write the pages that are made from measured results, and the cover
	$(BIN)/python -m tools.results_pages
	$(BIN)/python -m tools.cover

results-quick: $(READY) ## measure one figure again and compare (five minutes; options: ARGS)
	$(BIN)/python -m tools.results_quick $(ARGS)

lab: $(READY) ## open JupyterLab on the notebooks
	$(BIN)/jupyter lab --notebook-dir=notebooks

serve: book ## serve the built book on localhost
	@echo "Serving http://127.0.0.1:$(PORT)/ until you press Ctrl-C"
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory _build/html $(PORT)

lint: $(READY) ## check style and spelling of code, notebooks and text
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell *.md CITATION.cff .github book tools tests benchmarks pai_lite

links: book ## check that the addresses in the book answer
	PYTHONPATH=. $(BIN)/jupyter-book build --builder linkcheck .

clean: ## remove what was built; .venv stays
	rm -rf _build book/_figures build mutants .pytest_cache .ruff_cache .hypothesis .coverage
