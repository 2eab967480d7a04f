"""Run a matrix of systems and report it.

Usage: python -m experiments.benchmark COMMAND MATRIX.yaml [--dataset_dir DIR] [--output_dir OUT] [--rows "[0,3]"]

    list     the rows, in the order in which they run, and what is done
    run      what is missing; stop it in any way and run it again. Several processes on one folder share the rows
    report   tables, figures and docs/results.md of the rows that are done

With torchrun (``torchrun --nproc_per_node=2 -m experiments.benchmark run MATRIX.yaml``) or from the array of a
scheduler (``python -m experiments.benchmark run MATRIX.yaml --rows $SLURM_ARRAY_TASK_ID``) nothing else is needed.
"""

from __future__ import annotations

import fire


def main() -> None:
    from experiments.benchmark import page, runner

    fire.Fire({"list": runner.overview, "run": runner.run, "report": page.report})


if __name__ == "__main__":
    main()
