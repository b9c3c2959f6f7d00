"""What stands in for NVIDIA's libraries inside a tray's processes: emulated at the level of ctypes calls.

    boot    what a tray's `python3` really is: replaces the ctypes loader, then runs what was asked for
    abi     a library as ctypes sees one: symbols, and memory behind pointers
    nvml    libnvidia-ml.so.1: its calls; nvml_core what it holds, fields the field values
    cuda    libcuda.so.1: its calls; cuda_core what it holds, memory device memory

Standard library only, Python 3.9. On a tray these modules live under another package name (see boot), so that the
agent's own `burnin` is the one in its zipapp.
"""
