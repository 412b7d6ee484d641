"""`train.compile`: the UNet's blocks as programs that torch.compile makes, each at the first step that needs it.

A program serves one shape: one that was made for several would depend on which of them came first, and a run that goes on meets
them in another order than one that never stopped.

attempt/programs-RANK/      torch's own cache, this process's alone: in one that is shared, nobody vouches for what a kill left
attempt/inductor/NAME       packs of such files: unpacked at the start, and written after a step that compiled something
"""

import os
import platform
import re
import sys
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from diffusers.models.attention import BasicTransformerBlock
from diffusers.models.resnet import ResnetBlock2D

from sdjob.core.cpu import Isa
from sdjob.link import Link
from sdjob.spec.task import TrainTask
from sdjob.train_torch.packs import pack, unpack

BLOCKS = (BasicTransformerBlock, ResnetBlock2D)
# Dynamo gives up on a piece of code after so many programs for it: a block has one for each width and each size of picture.
MOST_PROGRAMS = 512
# The compiler would take what the CPU has; code for these runs wherever the run's arithmetic does. Its own instructions for
# vectors torch chooses by ATEN_CPU_CAPABILITY. https://gcc.gnu.org/onlinedocs/gcc/x86-Options.html
MARCH: dict[Isa, str] = {"avx2": "x86-64-v3", "avx512": "x86-64-v4"}
HEADERS = "headers"
# Neither is worth keeping: locks, and a header of 100 MB that spares half of the time as long as something is compiled.
PASSING = {HEADERS, "locks"}


def compile_blocks(model: torch.nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, BLOCKS):
            module.compile(dynamic=False)


def uncompiled() -> AbstractContextManager[object]:
    """Around what is computed now and then, without gradients or in other shapes: no programs are made for it."""
    return torch.compiler.set_stance("force_eager")


def settle(folder: Path, *, deterministic: bool, isa: Isa) -> None:
    """Before anything is compiled: where torch's compiler keeps what it makes, and what it must not choose by itself."""
    from torch._dynamo import config as tracing  # noqa: PLC0415 - some seconds, and few jobs compile
    from torch._inductor import codecache  # noqa: PLC0415
    from torch._inductor import config as programs  # noqa: PLC0415

    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    os.environ["TRITON_CACHE_DIR"] = str(folder / "triton")
    # Else a folder under /tmp that everything of this user shares.
    codecache._HEADER_DIR = str(folder / HEADERS)
    codecache._HEADER_LOCK_DIR = str(folder / HEADERS / "locks")
    tracing.recompile_limit = tracing.accumulated_recompile_limit = MOST_PROGRAMS
    programs.fallback_random = True  # dropout draws what it draws without a compiler
    programs.deterministic = deterministic  # else the fastest of several kernels is chosen by a clock
    programs.cpp.march = MARCH[isa] if deterministic and platform.machine() == "x86_64" else None


def compiler(device: torch.device) -> str:
    """What the arithmetic of compiled programs depends on beside torch."""
    if device.type == "cuda":
        import triton  # noqa: PLC0415  # pyright: ignore[reportMissingImports] (comes with torch's CUDA build alone)

        return f"triton {triton.__version__}"
    from torch._inductor import config as programs  # noqa: PLC0415
    from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler  # noqa: PLC0415
    from torch._inductor.cpu_vec_isa import pick_vec_isa  # noqa: PLC0415

    told = get_compiler_version_info(get_cpp_compiler())
    version = re.search(r"(gcc|clang) version [0-9.]+", told)
    return f"{version[0] if version else told}, {pick_vec_isa()}, {programs.cpp.march or 'native'}"


@dataclass
class Compilation:
    """What torch compiles: told to the parent with the seconds that it took, and packed for the next attempt."""

    link: Link
    accelerator: Accelerator
    own: Path
    packs: Path | None
    """None: nothing was brought, and nothing is kept."""

    _seconds: float = 0.0
    _packed: set[str] = field(default_factory=set[str])
    _brought: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Of each pack that was unpacked the names of its files."""

    _told: set[str] = field(default_factory=set[str])

    @classmethod
    def begun(cls, task: TrainTask, *, model: torch.nn.Module, accelerator: Accelerator, link: Link) -> "Compilation":
        own = task.scratch / f"programs-{accelerator.process_index}"
        compilation = cls(link, accelerator, own, task.compiled)
        compilation.bring()
        settle(own, deterministic=bool(task.job.train.deterministic), isa=task.isa)
        compile_blocks(model)
        return compilation

    def bring(self) -> None:
        self.own.mkdir(mode=0o700)
        for path in sorted(self.packs.glob("*-cache")) if self.packs else ():
            self._brought[path.name] = unpack(path, into=self.own)
        self._packed = set().union(*self._brought.values())

    def fingerprint(self) -> dict[str, Any]:
        return {"compiler": compiler(self.accelerator.device)}

    def tell(self) -> None:
        """Between two steps of the training thread, which compiles: what the folder has then is whole.

        On a CPU the programs of all ranks are the same; a GPU's own number is a part of their names.
        """
        from torch._dynamo.utils import calculate_time_spent  # noqa: PLC0415 - as above

        seconds, main = calculate_time_spent()["total_wall_time"], self.accelerator.is_main_process
        if seconds == self._seconds or not (main or self.accelerator.device.type == "cuda"):
            return
        since, self._seconds = seconds - self._seconds, seconds
        self.link.send("compiled", seconds=round(since, 3) if main else None, new=self._new(), read=self._read())

    def _new(self) -> list[str]:
        files = {str(path.relative_to(self.own)) for path in self.own.rglob("*") if path.is_file()}
        files = {name for name in files if name.split("/")[0] not in PASSING} - self._packed
        if self.packs is None or not files:
            return []
        self._packed |= files
        try:
            return [pack(sorted(files), of=self.own, into=self.packs)]
        except OSError as error:  # no reason to end a training
            sys.stderr.write(f"what was compiled is not kept for the next attempt: {error}\n")
            return []

    def _read(self) -> list[str]:
        """What was brought may have come from this machine, and the run's place may lack it."""
        from torch._inductor.codecache import PyCodeCache  # noqa: PLC0415 - as above

        loaded = {Path(module.__file__).name for module in PyCodeCache.modules if module.__file__}
        used = {name for name, files in self._brought.items() if loaded & {file.rpartition("/")[2] for file in files}}
        read = sorted(used - self._told)
        self._told |= used
        return read
