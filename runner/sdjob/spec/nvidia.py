"""NVIDIA's accelerators by name, and which of them compute in bf16.

bf16 came with compute capability 8.0 (Ampere): https://docs.nvidia.com/cuda/cuda-c-programming-guide, "Arithmetic Instructions";
capabilities by product: https://developer.nvidia.com/cuda-gpus
"""

OLDER = """
k80 m40 m60 p4 p40 p100 v100 t4 titan-v titan-rtx gtx-1060 gtx-1070 gtx-1080 gtx-1080-ti
rtx-2060 rtx-2070 rtx-2080 rtx-2080-ti rtx-4000 rtx-5000 rtx-6000
"""
NEWER = """
a2 a10 a10g a16 a30 a40 a100 a100-40gb a100-80gb l4 l40 l40s
h100 h100-80gb h100-mega-80gb h200 h200-141gb gh200 b200 b300 gb200 gb300
rtx-a2000 rtx-a4000 rtx-a4500 rtx-a5000 rtx-a6000 rtx-4000-ada rtx-5000-ada rtx-6000-ada rtx-pro-6000
rtx-3050 rtx-3060 rtx-3060-ti rtx-3070 rtx-3070-ti rtx-3080 rtx-3080-ti rtx-3090 rtx-3090-ti
rtx-4050 rtx-4060 rtx-4060-ti rtx-4070 rtx-4070-ti rtx-4080 rtx-4090 rtx-5060 rtx-5070 rtx-5080 rtx-5090
"""
WITHOUT_BF16 = frozenset(OLDER.split())
NAMES = sorted({*OLDER.split(), *NEWER.split()})
IN_THE_CLOUDS = "t4, v100, p100, l4, l40s, a10g, a100, a100-80gb, h100-80gb, h100-mega-80gb, h200-141gb, b200"
