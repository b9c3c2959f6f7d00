"""A rack that does not exist, standing behind the seams a real one is reached through.

    faults      what can be planted          model     one architecture as data (*.yaml beside this file)
    physics     power, heat, clocks, sensors  identity  serials, UUIDs, places
    hardware    one tray's silicon in motion, with its faults, published in `state`
    emulate/    NVML and CUDA at ctypes level, inside the tray's processes
    host, sshd, tray     a tray's files, its SSH server, its process
    up, rackfile         the whole rack: start, serve, take down; and the files a site would have of it

The twin does not know what judges it: nothing here imports or reads a limit.
"""
