# Two commands for a newcomer: `make demo` shows the whole, `make test` proves it. Both build their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
BUNDLE := $(BIN)/python -m monai.bundle

.PHONY: demo test test-all test-reliability test-label test-deploy release clean

$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.complete  ## train briefly on the demonstration cohort, super-resolve an unseen subject, table and picture
	$(BUNDLE) run training --config_file "['bundle/configs/train.yaml','bundle/configs/recipes/fine_tuning.yaml','bundle/configs/recipes/demonstration.yaml']" \
	  --output_dir $(DEMO)/training
	$(BUNDLE) run evaluating --config_file "['bundle/configs/inference.yaml','bundle/configs/evaluate.yaml']" \
	  --dataset_dir $(DEMO)/training/datalist.json --ckpt_path $(DEMO)/training/model.pt --output_dir $(DEMO)/evaluation

test: $(VENV)/.complete  ## what continuous integration runs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow" -n auto

test-all: $(VENV)/.complete  ## with the tests that take minutes
	$(BIN)/python -m pytest -n auto

test-reliability: $(VENV)/.complete  ## try to break it, some minutes, and refresh the counts of docs/reliability.md
	$(BIN)/python -m experiments.studies.reliability -n auto
	$(BIN)/python -m experiments.pages

$(VENV)-%/.complete: tests/%/requirements.txt tests/%/constraints.txt deploy/requirements.txt
	$(PYTHON) -m venv $(VENV)-$*
	$(VENV)-$*/bin/pip install --quiet --constraint tests/$*/constraints.txt --requirement tests/$*/requirements.txt
	touch $@

test-label: $(VENV)-label/.complete  ## the bundle in MONAI Label's own server, in an environment of its own
	$(VENV)-label/bin/python -m pytest tests/label
	$(VENV)-label/bin/python -m experiments.pages

test-deploy: $(VENV)-deploy/.complete  ## the MONAI Deploy application on synthetic DICOM, in an environment of its own
	$(VENV)-deploy/bin/python -m pytest tests/deploy
	$(VENV)-deploy/bin/python -m experiments.pages

release: $(VENV)/.complete  ## dist/<name>.zip: the bundle as the model zoo distributes it, configs in YAML and JSON
	$(BIN)/python -m deploy.release dist

clean:
	rm -rf $(VENV) $(VENV)-label $(VENV)-deploy $(DEMO) dist bundle/outputs .pytest_cache .ruff_cache
