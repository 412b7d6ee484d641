"""What decides the arithmetic of the flax trainer on a CPU, and that the fingerprint tells it."""

import os
import subprocess
import sys
from pathlib import Path

from sdjob.job.launch import GangShape, trainer_commands
from sdjob.train_flax.fingerprint import compiler_flags

# A mean over a picture, which XLA divides among its threads.
MEAN = """\
import hashlib, os, sys
os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(sys.argv[1])])
import jax, numpy as np
image, kernel = (np.random.default_rng(1).standard_normal(shape, dtype=np.float32) for shape in ((4, 32, 32, 64), (3, 3, 64, 64)))
def spread(kernel):
    made = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    return ((made - made.mean()) ** 2).mean()
print(hashlib.sha256(np.asarray(jax.jit(jax.grad(spread))(kernel)).tobytes()).hexdigest())
"""


def digest(*, threads, cores):
    shape = GangShape(
        backend="flax", num_processes=1, devices=1, device="cpu", threads=threads, deterministic=True, port=0
    )  # fmt: skip
    (command,) = trainer_commands(Path("none"), shape=shape, environment={**os.environ, "XLA_FLAGS": ""})
    argv = [sys.executable, "-c", MEAN, str(cores)]
    return subprocess.run(argv, env=command.environment, stdout=subprocess.PIPE, check=True).stdout


def test_threads_decide_and_not_the_cores():
    on_all_cores = digest(threads=2, cores=2)
    assert digest(threads=2, cores=1) == on_all_cores
    assert digest(threads=1, cores=2) != on_all_cores


def test_flags_that_may_change_arithmetic():
    flags = (
        "--xla_b --xla_a=1 --xla_dump_to=/dump --xla_cpu_collective_timeout_seconds=9 --xla_force_host_platform_device_count=8"
    )
    assert compiler_flags({"XLA_FLAGS": flags, "LIBTPU_INIT_ARGS": "--xla_tpu_c"}) == ["--xla_a=1", "--xla_b", "--xla_tpu_c"]
