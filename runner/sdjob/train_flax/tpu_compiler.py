"""Compiles a job's step for a TPU slice that is not there: PyPI's libtpu can, and no device is opened.

`python -m sdjob.train_flax.tpu_compiler TASK.json` is the child process of forecast.py, which tells it what environment it
needs.
"""

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sdjob.core.errors import SdjobError, UnavailableError, UsageError
from sdjob.spec.hardware import Accelerator, parse_accelerator
from sdjob.spec.task import TrainTask, read_task
from sdjob.train_flax.forecast import Forecast
from sdjob.train_flax.mesh import Layout
from sdjob.train_flax.shapes import StepShapes, step_shapes

# libtpu's names of generations, where they are not Google Cloud's.
LIBTPUS_NAMES = {"v7x": "tpu7x"}
# How the chips of one VM lie: https://cloud.google.com/tpu/docs/v5e, .../v5p, .../v6e
BOUNDS = {1: (1, 1, 1), 4: (2, 2, 1), 8: (2, 4, 1)}
TOO_LARGE_BYTES = 2**40  # of a program that no chip can hold
# "... the total memory required for HLO temporaries (25.10G) exceeds available HBM (15.75G)": arguments are among them.
EXCEEDS = re.compile(r"\(([\d.]+)([KMGT]?)\) exceeds available HBM \(([\d.]+)([KMGT]?)\)")
# "... Used 20.10G of 15.75G hbm", found later on.
USED = re.compile(r"Used ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm")
POWERS = {"": 0, "K": 1, "M": 2, "G": 3, "T": 4}


def print_forecast(shapes: StepShapes, *, layout: Layout, accelerator: str, dump: Path | None) -> None:
    """One line of what is known beforehand; then the compiler takes its time; then all."""
    figures = figures_beforehand(shapes, layout=layout, accelerator=accelerator)
    print(json.dumps(figures), flush=True)  # noqa: T201 - what the process is for
    options = {"xla_dump_to": str(dump), "xla_dump_hlo_as_text": True} if dump else None
    print(json.dumps(asdict(compiled_forecast(shapes, figures=figures, options=options))), flush=True)  # noqa: T201


def figures_beforehand(shapes: StepShapes, *, layout: Layout, accelerator: str) -> dict[str, Any]:
    size = layout.mesh.size
    return {
        "accelerator": accelerator,
        "num_devices": size,
        "hbm_bytes": hbm_bytes(layout.mesh.devices.flat[0]),
        "flops": shapes.products_flops() / size,
    }


def compiled_forecast(shapes: StepShapes, *, figures: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> Forecast:
    """A program that is too large has a forecast too."""
    try:
        compiled = shapes.lowered().compile(compiler_options=dict(options) if options else None)
    except jax.errors.JaxRuntimeError as error:
        return Forecast(**figures, needed_bytes=sizes_of(error)[0])
    memory: Any = compiled.memory_analysis()
    cost: Any = compiled.cost_analysis()
    arguments, output, temporary = memory.argument_size_in_bytes, memory.output_size_in_bytes, memory.temp_size_in_bytes
    return Forecast(
        **figures,
        needed_bytes=arguments + temporary + output - memory.alias_size_in_bytes,
        argument_bytes=arguments,
        output_bytes=output,
        temporary_bytes=temporary,
        code_bytes=memory.generated_code_size_in_bytes,
        peak_bytes=memory.peak_memory_in_bytes,
        accessed_bytes=cost["bytes accessed"],
    )


def sizes_of(error: Exception) -> tuple[int, int]:
    """(needed, available) of the compiler's complaint; any other failure is raised again."""
    found = EXCEEDS.search(str(error)) or USED.search(str(error))
    if found is None:
        raise error
    needed, its_unit, available, other_unit = found.groups()
    return in_bytes(needed, unit=its_unit), in_bytes(available, unit=other_unit)


def in_bytes(number: str, *, unit: str) -> int:
    return int(float(number) * 1024 ** POWERS[unit])


# ---- slices that are not there ---------------------------------------------------------------------------------------------


def layout_of(accelerator: Accelerator) -> Layout:
    """The layout that the trainers would make on this slice."""
    return Layout.of_hosts(devices_of(accelerator), num_hosts=accelerator.hosts)


def devices_of(accelerator: Accelerator) -> list[Any]:
    """Host after host."""
    generation = LIBTPUS_NAMES.get(accelerator.name or "", accelerator.name)
    topology = f"{generation}:{accelerator.topology}"
    bounds = BOUNDS[accelerator.chips_per_vm]
    try:
        described: Any = topologies.get_topology_desc(platform="tpu", topology_name=topology, chips_per_host_bounds=bounds)
    except (RuntimeError, ImportError) as error:
        raise UnavailableError(
            f"libtpu does not compile for {topology}: {error}", next_step="It comes with `pip install 'sdjob[tpu]'`."
        ) from error
    return sorted(described.devices, key=lambda device: (device.process_index, device.id))


def hbm_bytes(device: Any) -> int:
    """Asked of the compiler by a program that no chip can hold."""
    alone = NamedSharding(Mesh(np.array([device]), ("one",)), PartitionSpec())
    numbers = jax.ShapeDtypeStruct((TOO_LARGE_BYTES // 4,), jnp.float32, sharding=alone)
    too_large: Callable[..., Any] = jax.jit(lambda values: (2 * values).sum())
    try:
        too_large.lower(numbers).compile()
    except jax.errors.JaxRuntimeError as error:
        return sizes_of(error)[1]
    raise UnavailableError("the TPU's compiler refuses no program for its size, so what a chip holds cannot be told.")


# ---- the process -----------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m sdjob.train_flax.tpu_compiler")
    parser.add_argument("task", type=Path)
    parser.add_argument("--dump", type=Path)
    asked = parser.parse_args(arguments)
    try:
        task = read_task(asked.task)
        if not isinstance(task, TrainTask):
            raise UsageError("only training is compiled ahead.", where=str(asked.task))
        accelerator = parse_accelerator(task.job.run.accelerator)
        if accelerator.kind != "tpu":
            raise UsageError(f"only for a TPU is compiled ahead, and this is {accelerator.kind}.", where="run.accelerator")
        layout = layout_of(accelerator)
        shapes = step_shapes(task, layout=layout)
        print_forecast(shapes, layout=layout, accelerator=task.job.run.accelerator or "", dump=asked.dump)
    except SdjobError as error:
        print(error, file=sys.stderr)  # noqa: T201
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
