"""Run a matrix of systems and report its results.

Usage: python -m experiments.benchmark COMMAND MATRIX.yaml [--dataset_dir DIR] [--output_dir OUT] [--rows "[0,3]"]

    list     print the rows in the order in which they run, and which are done
    run      execute the missing rows. Stop it in any way and run it again. Several processes share the rows
    pictures evaluate the median test subject again and draw its error maps for the report
    report   write tables, figures and text from the complete rows

Several GPUs: ``torchrun --nproc_per_node=2 -m experiments.benchmark run MATRIX.yaml``. A scheduler's array:
``python -m experiments.benchmark run MATRIX.yaml --rows $SLURM_ARRAY_TASK_ID``.
"""

from __future__ import annotations

import fire


def main() -> None:
    from experiments.benchmark import error_maps, page, runner

    commands = {"list": runner.overview, "run": runner.run, "pictures": error_maps.draw, "report": page.report}
    fire.Fire(commands)


if __name__ == "__main__":
    main()
