# Two commands for a newcomer: `make demo` shows it, `make test` tests it. Both build their own environment.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
BUNDLE := $(BIN)/python -m monai.bundle

.PHONY: demo demo-2x2x2 demo-slices train-demo test test-all test-reliability test-page test-notebook test-label test-deploy pages lock release clean

$(VENV)/.complete: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/.complete  ## restore the real scan of example/ from two acquisitions: tables, pictures and pages in demo/
	@echo "Restoring a real scan from voxels of 2 mm, and from slices of 4 mm. This takes about a minute. Log: $(DEMO)/*/log.txt"
	@$(MAKE) --no-print-directory --jobs 2 demo-2x2x2 demo-slices
	@for name in 2x2x2 slices; do echo; echo "from $$name:"; sed -n '/^| [^-]/p' $(DEMO)/$$name/summary.md | cut -d '|' -f 2-6; done
	@echo; echo "pictures: $(DEMO)/2x2x2/sub-03_T1w_comparison.png  $(DEMO)/slices/sub-03_T1w_comparison.png"
	@echo "pages, for a browser: $(DEMO)/2x2x2/report/index.html  $(DEMO)/slices/report/index.html"

demo-2x2x2: ACQUISITION := ['frequency 2','frequency 2','frequency 2']
demo-slices: ACQUISITION := ['unknown','slices 4/4','unknown']
demo-2x2x2 demo-slices: demo-%: $(VENV)/.complete
	@mkdir -p $(DEMO)/$*
	@$(BUNDLE) run evaluating --config_file bundle/configs/evaluate.yaml --dataset_dir example --acquisition "$(ACQUISITION)" \
	  --methods "{'tricubic':'tricubic','zero_filling':'zero-filling','pred':'super-resolution'}" --output_dir $(DEMO)/$* \
	  > $(DEMO)/$*/log.txt 2>&1 || { cat $(DEMO)/$*/log.txt; exit 1; }

train-demo: $(VENV)/.complete  ## train briefly on a generated cohort, super-resolve an unseen subject, table and page in demo/
	$(BUNDLE) run training --config_file "['bundle/configs/train.yaml','bundle/configs/recipes/fine_tuning.yaml']" \
	  --batch_size 4 --max_iterations 60 --iterations_per_epoch 30 --train::warmup_iterations 10 --output_dir $(DEMO)/training
	$(BUNDLE) run evaluating --config_file bundle/configs/evaluate.yaml \
	  --dataset_dir $(DEMO)/training/datalist.json --ckpt_path $(DEMO)/training/model.pt --output_dir $(DEMO)/evaluation
	@echo "table: $(DEMO)/evaluation/summary.md"
	@echo "pages, for a browser: $(DEMO)/training/report/index.html  $(DEMO)/evaluation/report/index.html"

test: $(VENV)/.complete  ## what continuous integration runs
	$(BIN)/pip check
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -m "not slow" -n auto

test-all: $(VENV)/.complete  ## with the tests that take minutes
	$(BIN)/python -m pytest -n auto

test-reliability: $(VENV)/.complete  ## takes minutes: try to break the bundle, and refresh the counts of docs/reliability.md
	$(BIN)/python -m experiments.studies.reliability -n auto
	$(BIN)/python -m experiments.pages

test-page: $(VENV)/.complete  ## the pages in a Chromium of the system, such as Debian's: apt-get install chromium
	$(BIN)/pip install --quiet --requirement tests/page/requirements.txt
	$(BIN)/python -m pytest tests/page

test-notebook: $(VENV)/.complete  ## takes minutes: execute docs/tutorial.ipynb
	$(BIN)/python -m pytest tests/notebook

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

pages: $(VENV)/.complete  ## put the committed results into the pages that quote them
	$(BIN)/python -m experiments.pages

lock:  ## pin every package of a fresh environment in constraints.txt
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --editable '.[dev]' "$$(grep '^torch==' constraints.txt)"
	{ grep '^\(#\|torch==\)' constraints.txt; $(VENV)-lock/bin/pip freeze --exclude-editable | grep -v '^torch==' \
	  | sed 's/$$/; python_version >= "3.11"/'; } > constraints.new
	mv constraints.new constraints.txt

release: $(VENV)/.complete  ## dist/<name>.zip: the bundle as the model zoo distributes it, configs in YAML and JSON
	$(BIN)/python -m deploy.release dist

clean:
	rm -rf $(VENV) $(VENV)-lock $(VENV)-label $(VENV)-deploy $(DEMO) dist bundle/outputs .pytest_cache .ruff_cache
