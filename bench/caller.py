"""A client that costs little: signed requests over one connection that is kept open."""

from __future__ import annotations

import configparser
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx

from controlplane.api.signature import canonical, sign

PAUSE = 0.01
"""Seconds between two looks at a job. Each look costs the control plane 3 ms: with less of a pause it would be the
looking that is measured."""


class Failed(RuntimeError):
    """A call or its job ended with an error."""


class Caller:
    """Calls the API as one user. For one thread at a time."""

    def __init__(self, ini: Path) -> None:
        """Read endpoint and keys."""
        parser = configparser.ConfigParser(interpolation=None)
        parser.read(ini)
        section = parser["cloudstack"]
        self._endpoint, self._key, self._secret = section["endpoint"], section["key"], section["secret"]
        self._client = httpx.Client(timeout=60, trust_env=False)

    def close(self) -> None:
        """Hang up."""
        self._client.close()

    def call(self, command: str, **parameters: object) -> dict[str, Any]:
        """Call a command, and return what is in its envelope.

        :raises Failed: it was refused.
        """
        given = {"command": command, "response": "json", "apiKey": self._key}
        given |= {name: str(value) for name, value in parameters.items()}
        given["signature"] = sign(self._secret, canonical(given))
        query = "&".join(f"{name}={quote(value, safe='')}" for name, value in given.items())
        answer = self._client.get(f"{self._endpoint}?{query}")
        body: dict[str, Any] = next(iter(answer.json().values()))
        if answer.is_error:
            raise Failed(f"{command}: {body.get('errortext', answer.text[:200])}")
        return body

    def health(self) -> None:
        """Ask whether the control plane is there: a request with one look into the database and no signature."""
        self._client.get(self._endpoint.removesuffix("client/api") + "healthz").raise_for_status()

    def job(self, command: str, **parameters: object) -> dict[str, Any]:
        """Call a command and stay until its job has ended; return the job's result.

        :raises Failed: it was refused, or the job failed.
        """
        return self.result(self.call(command, **parameters)["jobid"], command)

    def result(self, job: str, command: str = "The job", seconds: float = 60.0) -> dict[str, Any]:
        """Stay until a job has ended, and return its result.

        :raises Failed: it ended badly, or not in this time.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = self.call("queryAsyncJobResult", jobid=job)
            if found["jobstatus"] == 1:
                result: dict[str, Any] = found["jobresult"]
                return result
            if found["jobstatus"]:
                raise Failed(f"{command}: {found['jobresult']}")
            time.sleep(PAUSE)
        raise Failed(f"{command} had no end after {seconds:g} s.")
