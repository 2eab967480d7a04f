# Two commands for a newcomer: `make demo` shows the whole, `make test` proves it. Both build their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
BUNDLE := $(BIN)/python -m monai.bundle

.PHONY: demo test test-all release clean

$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.complete  ## train briefly on the demonstration cohort, super-resolve an unseen subject, table and picture
	$(BUNDLE) run training --config_file "['bundle/configs/train.yaml','bundle/configs/demonstration.yaml']" \
	  --output_dir $(DEMO)/training
	$(BUNDLE) run evaluating --config_file "['bundle/configs/inference.yaml','bundle/configs/evaluate.yaml']" \
	  --dataset_dir $(DEMO)/training/datalist.json --ckpt_path $(DEMO)/training/model.pt --output_dir $(DEMO)/evaluation

test: $(VENV)/.complete  ## what continuous integration runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow" -n auto

test-all: $(VENV)/.complete  ## with the tests that take minutes
	$(BIN)/python -m pytest -n auto

release: $(VENV)/.complete  ## dist/<name>.zip: the bundle as the model zoo distributes it, configs in YAML and JSON
	$(BIN)/python docs/release.py dist

clean:
	rm -rf $(VENV) $(DEMO) dist bundle/outputs .pytest_cache .ruff_cache
