from tests.loopback import no_waiting  # noqa: F401
