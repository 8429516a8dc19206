"""A server of one route whose every answer is scripted, and which remembers what it was asked."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from kar_aug.testing.http_server import HttpServer, Reply, Request, nowhere

# (server, body of the request, its number from 0) -> status, headers, body of the reply
Behaviour = Callable[[Any, dict[str, Any], int], Reply | tuple[int, Mapping[str, str], bytes]]


class ScriptedServer(HttpServer):
    """A server whose `behaviour` decides every reply. One that raises ConnectionError drops the connection.

    Args:
        route: the one that it answers.
        behaviour: (server, body of the request, its number from 0) -> (status, headers, body of the reply).
        latency: seconds between a request and its reply.

    Attributes:
        requests: bodies of all requests, in order.
        answered: how many got a reply with status 200.
        in_flight, most_in_flight: requests without a reply yet: now, and at most.
    """

    def __init__(self, route: str, behaviour: Behaviour, latency: float) -> None:
        super().__init__()
        self.route, self.behaviour, self.latency = route, behaviour, latency
        self.requests: list[dict[str, Any]] = []
        self.answered = self.in_flight = self.most_in_flight = 0

    def reply(self, request: Request) -> Reply:
        """What `behaviour` says."""
        if request.route != self.route:
            return nowhere(request)
        body = json.loads(request.body)
        with self.lock:
            number = len(self.requests)
            self.requests.append(body)
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            time.sleep(self.latency)
            said = Reply(*self.behaviour(self, body, number))
            with self.lock:
                self.answered += said.status == 200
            return said
        finally:
            with self.lock:
                self.in_flight -= 1
