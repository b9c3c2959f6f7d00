"""burnin: burn-in and commissioning of NVL72 racks, from one controller, over SSH.

This file travels to the trays with the agent: standard library only, Python 3.9.
"""

__version__ = "0.1.0"
