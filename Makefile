# Every target sets up .venv by itself. Settings: make setup PYTHON=/path/to/python3.12 PIP_ARGS="--no-cache-dir"
VENV := .venv
PY := $(VENV)/bin/python
PYTHON ?= $(shell command -v python3.11 || command -v python3)
PIP_ARGS ?=
WORKERS ?= 2
CORPUS := corpora/quickstart
RUN := runs/quickstart
MINI := corpora/sharechat_mini
DAILYTALK ?= corpora/dailytalk_lists
SEEDS ?= 0

.DEFAULT_GOAL := help
.PHONY: help setup quickstart sharechat-mini experiments test test-full lint format bench drill clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^#]*## \(.*\)/make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

setup: $(VENV)/.setup ## make .venv with all that the other targets need; does nothing where that is done

$(VENV)/.setup: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "make: no Python found; install 3.11 or newer, or name one: make setup PYTHON=PATH" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "make: $(PYTHON) is $$($(PYTHON) -V 2>&1); 3.11 or newer is needed, name one: make setup PYTHON=PATH" >&2; exit 1; }
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PY) -m pip install $(PIP_ARGS) -c constraints.txt -e '.[dev,tts]'
	touch $@

quickstart: setup ## a whole experiment on a CPU: corpus, training, scores, report
	$(PY) -m data_prep.synthesis run $(CORPUS) recipe=quickstart
	$(PY) train.py recipe=quickstart
	$(PY) eval/run_store.py run=$(RUN)
	@echo "report: $(CURDIR)/$(RUN)/report.html"

sharechat-mini: setup ## the synthesis pipeline in small: three corpora like ShareChatX's parts, with their reports
	$(PY) -m data_prep.synthesis run $(MINI)/emotion recipe=sharechat_emotion_mini
	$(PY) -m data_prep.synthesis run $(MINI)/audio recipe=sharechat_audio_mini
	$(PY) -m data_prep.synthesis run $(MINI)/music recipe=sharechat_music_mini
	@echo "next: $(PY) train.py recipe=sharechat_emotion_mini; reports: $(CURDIR)/$(MINI)/*/report.html"

experiments: sharechat-mini ## the paper's tables and figures at tiny size: make experiments DAILYTALK=FOLDER SEEDS="0 1 2"
	@test -d $(DAILYTALK) || { \
	  echo "make: $(DAILYTALK) is not there; name the folder of DailyTalk's lists (docs/experiments.md): make experiments DAILYTALK=FOLDER" >&2; exit 1; }
	$(PY) -m data_prep.synthesis run corpora/dailytalk_tiny recipe=dailytalk_respoken \
	  writing.corpus=$(DAILYTALK) speech.kind=flite scripts=240
	$(PY) eval/experiment.py all --jobs $(WORKERS) --seeds $(SEEDS) --text docs/results-tiny.md

test: setup ## the tests
	$(PY) -m pytest -q -n $(WORKERS)

test-full: setup ## the tests, with the whole of each matrix
	$(PY) -m pytest -q -n $(WORKERS) -m "full or not full"

lint: setup ## style and types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy

format: setup ## put the code into the style that lint asks for
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

bench: setup ## speed and memory, each against a baseline in the same run
	$(PY) -m benchmarks
	$(PY) -m data_prep.synthesis.benchmarks

drill: setup ## kill training 200 times, half of them inside a save; each run has to end as if undisturbed
	$(PY) -m benchmarks.drill

clean: ## remove what tools left behind; runs/, corpora/ and .venv/ stay
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
