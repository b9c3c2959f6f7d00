"""For all tests: hypothesis counts examples, not seconds; a busy machine is no failure."""

from hypothesis import settings

settings.register_profile("burnin", deadline=None)
settings.load_profile("burnin")
