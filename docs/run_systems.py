"""Train and evaluate every overlay at a tiny budget: does each system run end to end? Its figures mean nothing else.

Usage: python docs/run_systems.py OUTPUT_DIR [OVERLAY ...]

Small demonstration subjects at 2 mm are generated in OUTPUT_DIR. Each overlay, and the contrastive model of train.yaml,
runs with our network and with the papers', by the commands that its header states. OUTPUT_DIR/systems.csv holds a row
per system, network, subject and method.
"""

from __future__ import annotations

import csv
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "bundle" / "configs"
PAPER = "bundle/configs/methods/paper_network.yaml"
TINY = ["--max_iterations", "2", "--iterations_per_epoch", "2", "--warmup_iterations", "1", "--batch_size", "2"]
TINY += ["--patch_size", "[32,32]", "--discriminator_features", "8"]


def run(run_id: str, configs: list[str], *options: str) -> None:
    """One bundle command; its output goes to the terminal only when it fails."""
    command = [sys.executable, "-m", "monai.bundle", "run", run_id, "--config_file", str(configs), *options]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if result.returncode:
        sys.exit(f"{' '.join(command)}\n{result.stdout}")


def stacks(overlay: Path, run_id: str) -> list[list[str]]:
    """The lists of config files with which the overlay's header says to run."""
    commands = re.findall(rf"run {run_id} --config_file (\"\[.*?\]\"|\S+)", overlay.read_text(encoding="utf-8"))
    return [re.findall(r"[^\"',\[\]]+", command) for command in commands]


def run_system(overlay: Path, network: list[str], cohort: Path, output: Path) -> Path:
    """Train where the system trains, evaluate, and return the table of subjects."""
    trained = stacks(overlay, "training")
    for configs in trained:
        run("training", configs + network, "--dataset_dir", str(cohort), "--output_dir", str(output), *TINY)
    trunk = ["bundle/configs/inference.yaml", "bundle/configs/evaluate.yaml"]
    own = [] if trained and "on inference" not in overlay.read_text(encoding="utf-8") else [str(overlay)]
    options = ["--ckpt_path", str(output / "model.pt")] if trained else []
    if overlay.stem == "zssr":
        options += ["--inferer#num_iterations", "2"]
    run("evaluating", trunk + network + own, "--dataset_dir", str(cohort), "--output_dir", str(output), *options)
    return output / "subjects.csv"


def main(output: Path, names: list[str]) -> None:
    sys.path.insert(0, str(ROOT / "bundle"))
    from scripts.demonstration import generate_cohort

    cohort = Path(generate_cohort(output / "cohort", 2, 2, 1, 1, spacing=2.0))
    overlays = [CONFIGS / "train.yaml", *sorted((CONFIGS / "methods").glob("*.yaml"))]
    skipped = {Path(PAPER).stem, "dasr_degradation"}  # not a system of its own, and the first stage of dasr
    rows: list[list[str]] = []
    for overlay in (path for path in overlays if path.stem not in skipped and (not names or path.stem in names)):
        for title, network in (("ours", []), ("papers'", [PAPER])):
            table = run_system(overlay, network, cohort, output / f"{overlay.stem}_{title.strip(chr(39))}")
            with open(table, newline="", encoding="utf-8") as file:
                header, *measured = csv.reader(file)
            rows = rows or [["system", "network", *header]]
            rows += [[overlay.stem, title, *row] for row in measured]
            with open(output / "systems.csv", "w", newline="", encoding="utf-8") as file:
                csv.writer(file).writerows(rows)
            print(overlay.stem, title, "ran", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:])
