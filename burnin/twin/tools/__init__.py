"""What a compute tray's tools print: real formats, from the tray's own state, so that a fault shows in them as it would.

`said(name, argv, facts, state, peers)` -> (standard output, standard error, exit status), or None for a tool that hangs.
Standard library only, Python 3.9: it is run by the tray's own python3 (burnin.twin.tools.main).
"""
