"""Fixtures that several files share."""

from tests.unit.gpu_jobs import still

__all__ = ["still"]
