"""The three Locust users, one for each client. Each has a single task, which lasts as long as the trial.

None inherits from another: a subclass would run the tasks of its base too.
"""

from __future__ import annotations

from typing import Any, ClassVar

from locust import FastHttpUser, HttpUser, User, constant, task
from locust.exception import StopUser

from lvsbench.load.clients import LocustClient
from lvsbench.load.trial import Trial

# Only ever waited for if a task fails as a whole, which Locust repeats: at once, over and over, without this.
_PAUSE = constant(1)


class RawUser(User):  # type: ignore[misc]  # locust is not typed for us
    """A user with lvsbench's own client."""

    abstract = True
    wait_time = _PAUSE
    trial: ClassVar[Trial]

    @task  # type: ignore[untyped-decorator]
    def load(self) -> None:
        """Fetch until the trial stops."""
        self.trial.drive(self.trial.raw_client())
        raise StopUser


class FastUser(FastHttpUser):  # type: ignore[misc]
    """A user with Locust's FastHttpUser. It repeats a GET by itself when the server closed before the response."""

    abstract = True
    wait_time = _PAUSE
    trial: ClassVar[Trial]

    def __init__(self, environment: Any) -> None:
        self.host = f"http://{self.trial.next_target()}"
        super().__init__(environment)

    @task  # type: ignore[untyped-decorator]
    def load(self) -> None:
        """Fetch until the trial stops."""
        self.trial.drive(LocustClient(self.client.get, self.trial.spec, self.trial.servers))
        raise StopUser


class RequestsUser(HttpUser):  # type: ignore[misc]
    """A user with Locust's HttpUser, which is requests."""

    abstract = True
    wait_time = _PAUSE
    trial: ClassVar[Trial]

    def __init__(self, environment: Any) -> None:
        self.host = f"http://{self.trial.next_target()}"
        super().__init__(environment)

    @task  # type: ignore[untyped-decorator]
    def load(self) -> None:
        """Fetch until the trial stops."""
        timeout_s = self.trial.spec.timeout_s

        def get(*args: Any, **kwargs: Any) -> Any:
            return self.client.get(*args, timeout=timeout_s, **kwargs)

        # A proxy in the environment must not come between the client and the VIP.
        self.client.trust_env = False
        self.trial.drive(LocustClient(get, self.trial.spec, self.trial.servers))
        raise StopUser


def user_class(trial: Trial) -> type[Any]:
    """Return the class whose instances Locust is to run for a trial."""
    spec = trial.spec
    content = {"abstract": False, "trial": trial}
    if spec.client == "fast":
        # One connection: a user does one request at a time.
        limits = {"connection_timeout": spec.timeout_s, "network_timeout": spec.timeout_s, "concurrency": 1}
        return type("Fast", (FastUser,), {**content, **limits})
    return type("Raw", (RawUser,), content) if spec.client == "raw" else type("Requests", (RequestsUser,), content)
