"""Lets a torchvision built for CUDA be imported beside a torch built for the CPU.

MONAI Label imports torchvision for pictures alone, but torchvision declares shapes of two compiled operators on import,
which exist only with a torch of its own kind. ``conftest.py`` installs this module where that import fails.
"""

import sys
from importlib.abc import MetaPathFinder

SIGNATURE = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")


class _DeclareOperators(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            self.library = torch.library.Library("torchvision", "FRAGMENT")
            for name in OPERATORS:
                self.library.define(name + SIGNATURE)
            sys.modules["_torchvision_operators"] = self  # the declarations live as long as this object


sys.meta_path.insert(0, _DeclareOperators())
