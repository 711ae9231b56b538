"""Both decoders of remote-write on the same mutated bodies: they must answer alike, in everything, for as long as you like.

usage: python -m tests.fuzz.remote_write [SECONDS [SEED]]      It ends with 1 and writes the input down where they differ.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from aiops.remote_write.codec import V1, V2, Decoded, Decoder, Limits, TooLargeError, UnpackableError, Window
from aiops.remote_write.native import Native
from aiops.remote_write.reference import Reference
from aiops.remote_write.wire import MalformedError
from tests.fakes.remote_write import STALE, Request, block, label, number, packed, series_v1, varint

NOW_S = 1_795_000_000.0
WINDOW = Window(int(NOW_S - 1000) * 1000, int(NOW_S + 1000) * 1000)
SMALL = Limits(message=1 << 20, labels=6, watched=40, others=12)
EDGES = (0, 1, 2, 5, 0x7F, 0x80, 0xFF, 0x0A, 0x12, 0x1A, 0x22, 0x2A, 0x08, 0x09, 0x10)


def outcome(decoder: Decoder, body: bytes, version: int, resolve: object) -> object:
    """Everything that a decoder answers, in a form that can be compared: NaN never leaves it."""
    try:
        d = decoder.decode(body, version, WINDOW, resolve)  # type: ignore[arg-type]
    except MalformedError as e:
        return "malformed", e.code, e.at
    except (UnpackableError, TooLargeError) as e:
        return type(e).__name__
    return as_lists(d)


def as_lists(d: Decoded) -> object:
    return (d.series.tolist(), d.time.tolist(), d.value.view(np.int64).tolist(), d.ended.tolist(), d.ended_time.tolist(),
            dict(d.skipped))


class Pair:
    """Both decoders side by side, each with a numbering of its own that is the same in both as long as they agree."""

    def __init__(self, limits: Limits = SMALL) -> None:
        self.decoders: tuple[Decoder, Decoder] = (Reference(limits), Native(limits))
        self.numbers: tuple[dict[object, int], dict[object, int]] = ({}, {})

    def agree(self, body: bytes, version: int) -> bool:
        """Whether they answer alike, and know equally much afterwards."""
        answers = []
        for decoder, numbers in zip(self.decoders, self.numbers, strict=True):
            def resolve(labels: dict[str, str], kind: str, numbers: dict[object, int] = numbers) -> int:
                if "drop" in labels:
                    return -1
                return numbers.setdefault((*sorted(labels.items()), kind), len(numbers))
            answers.append((outcome(decoder, body, version, resolve), len(decoder), len(numbers)))
        return answers[0] == answers[1]

    def forget(self, numbers: list[int]) -> bool:
        a, b = (d.forget(np.array(numbers, np.int32)) for d in self.decoders)
        return a == b


class Maker:
    """Messages of both versions, well formed; and what becomes of them."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)

    def pick(self, n: int) -> int:
        return int(self.random.integers(n))

    def labels(self) -> list[tuple[str, str]]:
        names = ["__name__", "job", "pod", "drop", "ü", "value", "x" * 520]
        out = [("__name__", f"m{self.pick(6)}")] if self.pick(12) else []
        out += [(names[self.pick(7 if not self.pick(30) else 4)], f"v{self.pick(4)}" * self.pick(3)) for _ in range(self.pick(4))]
        return out if not self.pick(5) else list(dict(sorted(out)).items())

    def samples(self) -> list[tuple[float | int, float]]:
        values = [1.5, -0.0, float("inf"), STALE, 0x7FF8000000000000, 0x7FF0000000000001, 0xFFF0000000000002]
        times = [NOW_S, NOW_S + 1, 0.0, 4.1e9, -5.0, NOW_S - 1000, NOW_S + 1000.001]
        usual = self.pick(3)
        return [(values[0 if usual else self.pick(7)], times[0 if usual else self.pick(7)])
                for _ in range(1 if usual else self.pick(4))]

    def more(self) -> bytes:
        odd = [block(3, b"ex"), block(4, b"hist"), number(9, 7), block(1, label("late", "1")[2:]), b"", b"", b"", b"", b""]
        return odd[self.pick(len(odd))]

    def message(self, version: int) -> bytes:
        if version == V1:
            return b"".join(series_v1(self.labels(), *self.samples(), more=self.more()) for _ in range(1 + self.pick(6)))
        request = Request()
        for _ in range(1 + self.pick(6)):
            more = [number(1, self.pick(9)), block(1, varint(self.pick(300))), b"", b"", b"", self.more()][self.pick(6)]
            request.add(self.labels(), *self.samples(), kind=self.pick(9), more=more)
        return request.message(bool(self.pick(4)))

    def mutated(self, message: bytes) -> bytes:
        """A few bytes changed, put in, taken out, repeated or cut off."""
        data = bytearray(message)
        for _ in range(max(0, self.pick(5) - 2)):
            at, how = self.pick(len(data) + 1), self.pick(6)
            if how == 0:
                data[at:at + 1] = bytes([EDGES[self.pick(len(EDGES))]])
            elif how == 1:
                data[at:at] = bytes([self.pick(256)])
            elif how == 2:
                del data[at:at + 1 + self.pick(4)]
            elif how == 3:
                data[at:at] = data[self.pick(len(data) + 1):][:self.pick(24)]
            elif how == 4:
                data[at:at] = varint(1 << self.pick(70))
            else:
                del data[at:]
        return bytes(data)


def main(seconds: float, seed: int) -> int:
    maker, pair, end = Maker(seed), Pair(), time.monotonic() + seconds
    runs = kept = 0
    started = told = time.monotonic()
    while time.monotonic() < end:
        version = V2 if maker.pick(2) else V1
        message = maker.mutated(maker.message(version)) if maker.pick(20) else maker.random.bytes(maker.pick(40))
        body = packed(message) if maker.pick(16) else maker.mutated(packed(message))
        version = version if maker.pick(20) else V1 + V2 - version
        if not pair.agree(body, version):
            Path("remote-write-finding.bin").write_bytes(bytes([version]) + body)
            print(f"they differ after {runs} runs, seed {seed}: version {version}, body {body.hex()}")
            return 1
        runs += 1
        kept = max(kept, len(pair.decoders[0]))
        if not maker.pick(500) and not pair.forget([maker.pick(60) for _ in range(3)]):
            print(f"they forget differently after {runs} runs, seed {seed}")
            return 1
        if runs % 5000 == 0:
            pair = Pair()
        if time.monotonic() - told > 300:
            told = time.monotonic()
            print(f"{told - started:.0f} s: {runs} runs, no finding", flush=True)
    print(f"{runs} runs in {seconds:.0f} s, seed {seed}: no finding; at most {kept} entries in the table")
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, int(sys.argv[2]) if len(sys.argv) > 2 else 0))
