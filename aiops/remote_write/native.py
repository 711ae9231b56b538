"""The decoder in Rust (`native/`), loaded by ctypes where it was built. It agrees with `reference` in everything it answers.

Series are known by a keyed hash of 128 bits of their label bytes (`native/src/hash.rs`); the key is random and stays in the
process. Decompression is cramjam's, into one buffer that is used again.
"""

from __future__ import annotations

import ctypes as c
import os
from pathlib import Path
from typing import Any

import cramjam
import numpy as np
from numpy.typing import NDArray

from aiops.remote_write.codec import REASONS, Decoder, Limits, Scan, Unknown, UnpackableError, Window, declared
from aiops.remote_write.wire import MalformedError
from aiops.types import Ints

LIBRARY = Path(__file__).with_name("libaiops_remote_write.so")
_ABI = 1
_KEPT_BYTES = 8 << 20
"""A larger buffer is given back after use."""
_SLACK = 64


class UnavailableError(Exception):
    """The library is not there, or not the one that belongs to this version."""


class _Found(c.Structure):
    _fields_ = [("code", c.c_int32), ("fresh", c.c_uint32), ("at", c.c_uint64), ("rows", c.c_uint64), ("codes", c.c_void_p),
                ("kinds", c.c_void_p), ("ends", c.c_void_p), ("spans", c.c_void_p)]


class _Arrays(c.Structure):
    _fields_ = [("series", c.c_void_p), ("time", c.c_void_p), ("value", c.c_void_p), ("ended", c.c_void_p),
                ("ended_time", c.c_void_p), ("skipped", c.c_void_p), ("n", c.c_uint64), ("m", c.c_uint64)]


def load(path: Path = LIBRARY) -> c.CDLL:
    """The library with its signatures. Raises UnavailableError with the reason."""
    if not path.is_file():
        raise UnavailableError(f"{path} was not built")
    try:
        library = c.CDLL(str(path))
        library.rw_abi.restype = c.c_uint32
        if (abi := int(library.rw_abi())) != _ABI:
            raise UnavailableError(f"{path} is of another version ({abi}, not {_ABI}); build it anew")
    except (OSError, AttributeError) as e:
        raise UnavailableError(f"{path} cannot be loaded: {e}") from None
    for name, result, arguments in (
            ("rw_key_words", c.c_uint64, []), ("rw_new", c.c_void_p, [c.c_void_p, c.c_uint64, c.c_uint64, c.c_uint64]),
            ("rw_free", None, [c.c_void_p]), ("rw_fill", c.c_int64, [c.c_void_p, c.POINTER(_Arrays)]),
            ("rw_scan", c.c_int64, [c.c_void_p, c.c_void_p, c.c_uint64, c.c_uint32, c.c_int64, c.c_int64, c.POINTER(_Found)]),
            ("rw_intern", c.c_int64, [c.c_void_p, c.c_void_p]), ("rw_len", c.c_uint64, [c.c_void_p]),
            ("rw_forget", c.c_int64, [c.c_void_p, c.c_void_p, c.c_uint64])):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


class Native(Decoder):
    """Raises UnavailableError where the library cannot be used."""

    name = "native"

    def __init__(self, limits: Limits | None = None, path: Path = LIBRARY) -> None:
        super().__init__(limits or Limits())
        self._library = load(path)
        key = np.frombuffer(os.urandom(8 * int(self._library.rw_key_words())), np.uint64)
        self._codec = self._library.rw_new(key.ctypes.data, self.limits.labels, self.limits.watched, self.limits.others)
        self._buffer: NDArray[np.uint8] = np.empty(1 << 20, np.uint8)
        self._found, self._arrays = _Found(), _Arrays()

    def __del__(self) -> None:
        if codec := getattr(self, "_codec", None):
            self._codec = None
            self._library.rw_free(codec)

    def __len__(self) -> int:
        return int(self._library.rw_len(self._codec))

    def scan(self, body: bytes, version: int, window: Window) -> Scan:
        size = self._unpack(body)
        found = self._found
        self._checked(self._library.rw_scan(self._codec, self._buffer.ctypes.data, size, version, window.lower_ms,
                                            window.upper_ms, found))
        if found.code:
            raise MalformedError(found.code, found.at)
        fresh = self._fresh(found) if found.fresh else []
        scan = self._fill(int(found.rows), fresh)
        if len(self._buffer) > _KEPT_BYTES:
            self._buffer = np.empty(1 << 20, np.uint8)
        return scan

    def intern(self, numbers: Ints) -> None:
        numbers = np.ascontiguousarray(numbers, np.int32)
        self._checked(self._library.rw_intern(self._codec, numbers.ctypes.data))

    def forget(self, numbers: Ints) -> int:
        numbers = np.ascontiguousarray(numbers, np.int32)
        return self._checked(self._library.rw_forget(self._codec, numbers.ctypes.data, len(numbers))) if len(numbers) else 0

    def _unpack(self, body: bytes) -> int:
        """The message into the buffer; its length."""
        size = declared(body, self.limits.message)
        if size + _SLACK > len(self._buffer):
            self._buffer = np.empty(size + size // 4 + _SLACK, np.uint8)
        try:
            return int(cramjam.snappy.decompress_raw_into(body, self._buffer.data)) if size else 0
        except cramjam.DecompressionError as e:
            raise UnpackableError(str(e)) from None

    def _fill(self, rows: int, fresh: list[Unknown]) -> Scan:
        ids, floats = np.empty((2, rows), np.int32), np.empty((3, rows))
        skipped = np.zeros(len(REASONS), np.int64)
        out, at, of = self._arrays, ids.ctypes.data, floats.ctypes.data
        out.series, out.ended = at, at + 4 * rows
        out.time, out.value, out.ended_time = of, of + 8 * rows, of + 16 * rows
        out.skipped = skipped.ctypes.data
        self._checked(self._library.rw_fill(self._codec, out))
        n, m = int(out.n), int(out.m)
        return Scan(ids[0, :n], floats[0, :n], floats[1, :n], ids[1, :m], floats[2, :m], skipped.tolist(), fresh)

    def _fresh(self, found: _Found) -> list[Unknown]:
        """The labels of unknown series, cut from the message."""
        n = int(found.fresh)
        codes, kinds, ends = (_copied(a, n, t) for a, t in ((found.codes, c.c_int32), (found.kinds, c.c_int32),
                                                            (found.ends, c.c_uint32)))
        spans, data = _copied(found.spans, 4 * ends[-1], c.c_uint32), self._buffer.data
        pairs = [(bytes(data[spans[i]:spans[i + 1]]), bytes(data[spans[i + 2]:spans[i + 3]])) for i in range(0, len(spans), 4)]
        return [Unknown(tuple(pairs[begin:end]), code, kind)
                for begin, end, code, kind in zip([0, *ends], ends, codes, kinds, strict=False)]

    def _checked(self, answer: int) -> int:
        """Raises RuntimeError where the library gave up: a bug in it, and nothing more is asked of it."""
        if answer < 0:
            raise RuntimeError("the native decoder failed; the one in Python takes over")
        return int(answer)


def _copied(address: int, n: int, kind: Any) -> list[int]:
    return list((kind * n).from_address(address)) if n else []
