"""What runs on the tray: a holder that owns load, sampling, local limits and the spool, and channels that attach to it.

    main        argv -> channel | hold | work
    channel     one SSH exec: starts the holder if there is none, then copies bytes between SSH and the holder's socket
    holder      the resident process: orders in, records out; attachment: one channel as the holder sees it
    sampler     reads the tables on deadlines, in threads that a hung driver cannot take the holder down with
    nvml, host  the table of GPU metrics and how each is read; /proc, /sys and the kernel log
    load, lease load and work processes with their local limits, and the deadlines shared with them
    jobs        orders that are answered by what such processes say
    work, talk  one such process, and its conversation; cuda: the driver client
    hostdata    the tray around the GPUs: CPUs, network cards, drives, PCIe; sysfs, pcie, smart: how each is read
    kernel_log  what a line of the kernel log says went wrong with hardware, in one word
    spool       the last records, by sequence number

Standard library and pynvml only, Python 3.9, started as `python3 -I -S agent.pyz`. Only the twin imports this package;
`burnin.transport` copies its files.
"""
