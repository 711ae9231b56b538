"""Objects with resource versions, behind the methods of `aiops.cluster.transport.Api`: for what is written by path."""

from __future__ import annotations

import copy
from collections import Counter

from aiops.cluster.transport import Conflict, Missing


class Store:
    """What several connections share."""

    def __init__(self):
        self.objects, self.version = {}, 0

    def keep(self, path, body):
        self.version += 1
        body = copy.deepcopy(body)
        body["metadata"]["resourceVersion"] = str(self.version)
        self.objects[path] = body
        return copy.deepcopy(body)


class Connection:
    """One client's. `failing`: raised by the next request, before it did anything; `silent`: afterwards."""

    def __init__(self, store, fence=None):
        self.store, self.fence = store, fence
        self.failing, self.silent, self.sent = None, None, Counter()

    def get(self, path):
        self._begin("get")
        if path not in self.store.objects:
            raise Missing(f"GET {path}: 404")
        return copy.deepcopy(self.store.objects[path])

    def post(self, path, body):
        self._begin("post")
        path = f"{path}/{body['metadata']['name']}"
        if path in self.store.objects:
            raise Conflict(f"POST {path}: 409")
        return self._end(self.store.keep(path, body))

    def put(self, path, body):
        self._begin("put")
        if path not in self.store.objects:
            raise Missing(f"PUT {path}: 404")
        if self.store.objects[path]["metadata"]["resourceVersion"] != body["metadata"]["resourceVersion"]:
            raise Conflict(f"PUT {path}: 409")
        return self._end(self.store.keep(path, body))

    def _begin(self, verb):
        if verb != "get" and self.fence:
            self.fence()
        self.sent[verb] += 1
        error, self.failing = self.failing, None
        if error:
            raise error

    def _end(self, answer):
        error, self.silent = self.silent, None
        if error:
            raise error
        return answer
