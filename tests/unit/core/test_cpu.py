"""Which instructions a CPU has."""

from sdjob.core.cpu import instruction_sets

X86 = "processor\t: 0\nflags\t\t: fpu sse2 avx2 fma avx512f amx_bf16\nbugs\t\t: none\n\nprocessor\t: 1\nflags\t\t: fpu\n"
ARM = "processor\t: 0\nFeatures\t: fp asimd asimddp crc32\n"


def test_those_that_decide_how_it_adds_up(tmp_path):
    for text, expected in ((X86, ("amx_bf16", "avx2", "avx512f", "fma")), (ARM, ("asimd", "asimddp"))):
        (tmp_path / "cpuinfo").write_text(text)
        assert instruction_sets(tmp_path / "cpuinfo") == expected


def test_without_proc_there_is_nothing_to_tell(tmp_path):
    assert instruction_sets(tmp_path / "none") == ()
