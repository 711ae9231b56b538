"""docs/packs.md says what the packs say. `python tests/test_packs_doc.py` writes it anew."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from aiops import meaning
from aiops.meaning import Meanings, Pack

PAGE = Path(__file__).parents[1] / "docs" / "packs.md"
HEAD = """# Packs

What each pack watches. A pack says which raw metrics it knows, whom they belong to, and which signals are made of them; signals
are what is judged, shown, and named in policies. `packs` in the [configuration](configuration.md) adds a folder of your own,
and `packs` of a `prometheus` source chooses what is read. A metric that no pack knows is watched as it is.

*Bad* is the side from which a signal is bad. The smallest deviation worth telling must exceed both figures: in the signal's
unit, and as share of what is expected. Signals that run out are forecast
([decisions/011-exhaustion.md](decisions/011-exhaustion.md)).

This page is made from `aiops/packs/`: `.venv/bin/python tests/test_packs_doc.py` writes it anew.
"""
COMMON = "In common terms ([llm](#llm)): {}.\n"


def page(known: Meanings) -> str:
    """The whole page."""
    packs = sorted(known.packs, key=lambda p: p.pack)
    return "\n".join([HEAD, *("\n".join(section(p, known)) for p in packs)])


def section(pack: Pack, known: Meanings) -> Iterator[str]:
    """A heading, what the pack is, the signals it describes, and those of others that it defines."""
    yield f"## {pack.pack}\n\n{pack.help.strip()}\n"
    own = {**pack.terms, **{n: r for n, r in pack.signals.items() if not any(n in p.terms for p in known.packs)}}
    shared = sorted(pack.signals.keys() - own.keys())
    if shared:
        yield COMMON.format(", ".join(f"`{name}`" for name in shared))
    if own:
        yield "| Signal | What it is | Unit | Bad | Smallest effect |\n|---|---|---|---|---|"
        yield "\n".join(row(name, known) for name in sorted(own)) + "\n"


def row(name: str, known: Meanings) -> str:
    told = known.definitions[name][0]
    effect = " and ".join([*([f"{told.min_effect.abs:,.10g}"] if told.min_effect.abs else []),
                           *([f"{told.min_effect.rel:.0%}"] if told.min_effect.rel else [])])
    runs_out = f"; runs out at {told.limit.at:g}" if told.limit else ""
    made = " / ".join(f"`{part.metric}`" for part in told.parts)
    said = (told.help or (made if made != f"`{name}`" else "as it is")).replace("|", "\\|")
    return f"| `{name}` | {said}{runs_out} | {told.unit} | {told.direction} | {effect} |"


def test_the_page_says_what_the_packs_say() -> None:
    """A signal that nobody can look up, or one that is gone, fails here."""
    assert PAGE.read_text(encoding="utf-8") == page(meaning.shipped()), "write it anew: .venv/bin/python tests/test_packs_doc.py"


if __name__ == "__main__":
    PAGE.write_text(page(meaning.shipped()), encoding="utf-8")
