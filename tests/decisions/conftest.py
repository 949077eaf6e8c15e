from tests.training.conftest import environment, project, sampler

__all__ = ["environment", "project", "sampler"]
