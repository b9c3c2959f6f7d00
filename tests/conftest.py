"""For all tests: hypothesis counts examples, not seconds, and draws the same ones each time: what is green stays green."""

from hypothesis import settings

settings.register_profile("burnin", deadline=None, derandomize=True)
settings.load_profile("burnin")
