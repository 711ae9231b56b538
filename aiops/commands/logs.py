"""`aiops logs templates`: which lines are of one kind. A filter: a line out for each line in, in order."""

from __future__ import annotations

import json
import os
import select
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, Annotated

import typer

from aiops.commands.common import clean

if TYPE_CHECKING:
    from aiops.templates import Template, Templates

MAX_LINE_BYTES = 64 * 1024
BLOCK_BYTES = 2 * 1024 * 1024
SETTLE_S, CHUNK, SMALL, PATIENCE = 0.2, 1024 * 1024, 1024, 10
"""Lines that come at once are answered at once: when nothing came for SETTLE_S, or after PATIENCE small pieces."""


def templates(as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False) -> None:
    """Read log lines on stdin and say for each of which kind it is.

    A line out for each line in, in order: the template's id, and its text with <*> for what varies.
    """
    from aiops.templates import Templates

    miner, written = Templates(), sys.stdout.buffer
    sort = Sorter(miner)
    for lines in blocks(sys.stdin.fileno()):
        found = sort(lines)
        shown: dict[str, str] = {}
        for t in found:
            if t.id not in shown:
                shown[t.id] = told(t, as_json)
        written.write("".join([shown[t.id] for t in found]).encode("utf-8", "replace"))
        written.flush()


def told(template: Template, as_json: bool) -> str:
    """One line, with its end."""
    if as_json:
        return json.dumps({"template_id": template.id, "template": template.text}, ensure_ascii=False) + "\n"
    return f"{template.id}  {clean(template.text)}\n"


class Sorter:
    """Templates of blocks of raw lines. Lines of a trace have the template of the whole trace."""

    def __init__(self, miner: Templates) -> None:
        from aiops.logframes import Trace

        self._miner, self._trace = miner, Trace()
        self._last: Template | None = None

    def __call__(self, lines: list[str]) -> list[Template]:
        """One a line, each as general as it is after the last of these lines."""
        from aiops.logframes import condensed, message

        add, continues = self._miner.add, self._trace.continues
        texts = [message(line) for line in lines]
        heads = [k for k, text in enumerate(texts) if not continues(text)]
        if len(heads) == len(texts):
            found = [add(text) for text in texts]
        else:
            found = self._continued(texts[:heads[0] if heads else None])
            for start, end in pairwise([*heads, len(texts)]):
                found += [add(condensed(texts[start:end]))] * (end - start)
        found = [t if t.parent is None else t.root() for t in found]
        self._last = found[-1]
        self._miner.merged.clear()
        return found

    def _continued(self, texts: list[str]) -> list[Template]:
        """Of lines that belong to the last one of the block before."""
        from aiops.logframes import condensed

        if texts and self._last is None:
            self._last = self._miner.add(condensed(texts))
        return [self._last] * len(texts) if self._last else []


def blocks(fd: int, read: Callable[[int, int], bytes] = os.read) -> Iterator[list[str]]:
    """The lines that can be read by now, as text, without their ends; again and again until the end. The last one needs no end.

    Memory: one block of 2 MiB; of a line that has no end the first 64 KiB are kept.
    """
    rest, ended = b"", False
    while not ended:
        pieces, size, patience = [rest], 0, PATIENCE
        while not ended and size < BLOCK_BYTES and patience and (not size or select.select([fd], [], [], SETTLE_S)[0]):
            data = read(fd, CHUNK)
            ended = not data
            pieces.append(data)
            size += len(data)
            patience -= len(data) < SMALL
        block = b"".join(pieces)
        whole, end, rest = (block.removesuffix(b"\n"), block, b"") if ended else block.rpartition(b"\n")
        rest = rest[:MAX_LINE_BYTES]
        if end:
            yield lines_of(whole)


def lines_of(block: bytes) -> list[str]:
    """As text, each of at most 64 Ki characters."""
    text = block.decode("utf-8", "replace")
    lines = text.split("\n")
    if "\r" in text:
        lines = [line.removesuffix("\r") for line in lines]
    return [line[:MAX_LINE_BYTES] for line in lines]
