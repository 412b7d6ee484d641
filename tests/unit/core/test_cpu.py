"""Which instructions a CPU has."""

import pytest

from sdjob.core.cpu import instruction_sets, widest_isa

X86 = "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma avx512f amx_bf16\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\n"


def test_those_that_decide_how_it_adds_up(tmp_path):
    for text, expected in ((X86, ("amx_bf16", "avx2", "avx512f", "fma")), (ARM, ("asimd", "asimddp"))):
        (tmp_path / "cpuinfo").write_text(text)
        assert instruction_sets(tmp_path / "cpuinfo") == expected


def test_without_proc_there_is_nothing_to_tell(tmp_path):
    assert instruction_sets(tmp_path / "none") == ()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("avx2 fma avx512f avx512bw avx512cd avx512dq avx512vl", "avx512"),
        ("avx2 fma avx512f avx512cd avx512er avx512pf", "avx2"),  # Xeon Phi: oneDNN has no such kernels
        ("avx2 fma", "avx2"),
    ],
)
def test_the_widest_that_arithmetic_is_held_to(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: fpu {flags}\n")
    assert widest_isa(tmp_path / "cpuinfo") == expected
    assert widest_isa(tmp_path / "none") == "avx2"
