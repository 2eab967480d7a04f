"""ITK, whose modules load without changing the working directory of the process."""

from __future__ import annotations

import os
import sys
from types import ModuleType
from typing import Any

__all__ = ["import_itk"]


def import_itk() -> ModuleType:
    """Import ITK when it is needed first, because it is slow to load.

    ITK loads its modules when they are used, and changes the working directory while it does so. Relative paths of
    another thread would then lead elsewhere. The search path alone suffices to find the modules.

    Example:
        >>> import_itk().Version.GetITKMajorVersion()
        5
    """
    import itk
    from itk.support.base import LibraryLoader

    LibraryLoader.setup = _extend_search_path
    return itk


def _extend_search_path(loader: Any) -> None:
    import itkConfig

    loader.old_cwd, loader.old_path = os.getcwd(), sys.path
    sys.path = [itkConfig.swig_lib, itkConfig.swig_py, *sys.path]
