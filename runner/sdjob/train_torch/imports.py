"""What diffusers, transformers and accelerate import for others than this trainer, and what is spared of it: a sixth of them all.

They ask which packages are installed, and import scipy and boto3 where they are: for losses of object detection, for two kinds of
sampling that few models name, and for SageMaker. Who asks for the first and the last does not find them; the second a model may
need, so that it is imported when it does. Nothing in these packages changes; tests/unit/train_torch/test_imports.py holds both.
"""

import importlib
import sys
from collections.abc import Generator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from typing import Any, cast

# Diffusers' schedulers import them at once: for beta sigmas, and for LMS.
LATER = ("scipy.integrate", "scipy.stats")


def import_packages() -> None:
    """Before anything else has imported them."""
    importlib.import_module("diffusers")  # it has looked for scipy from here on
    with without("scipy", "boto3"):
        importlib.import_module("accelerate")
        importlib.import_module("transformers.modeling_utils")
    if find_spec("scipy"):
        sys.modules.update({name: Later(name) for name in LATER if name not in sys.modules})


@contextmanager
def without(*names: str) -> Generator[None]:
    """As if these packages were not installed: https://docs.python.org/3/reference/import.html#the-module-cache"""
    modules = cast("dict[str, ModuleType | None]", sys.modules)
    found = {name: modules[name] for name in names if name in modules}
    modules.update(dict.fromkeys(names))
    try:
        yield
    finally:
        for name in names:
            del modules[name]
        modules.update(found)


class Later(ModuleType):
    """Stands for a module until something in it is asked for; then the module itself takes its place."""

    def __getattr__(self, name: str) -> Any:
        # Whoever looks through all modules, as inspect does for the source of a class, asks each of them for such names.
        if name.startswith("__") and name != "__path__":
            raise AttributeError(name)
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return getattr(importlib.import_module(self.__name__), name)
