"""Remote-write from bytes to arrays: what the decoder in Python says, and that the one in Rust says the same of everything."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import cramjam
import numpy as np
import pytest
from fakes.remote_write import STALE, Request, block, double, label, number, packed, sample, series_v1, v1, v2, varint
from fuzz import remote_write as fuzz
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiops.remote_write.codec import CODES, V1, V2, Decoded, Decoder, Limits, TooLargeError, UnpackableError, Window
from aiops.remote_write.native import LIBRARY, Native, UnavailableError, load
from aiops.remote_write.reference import Reference
from aiops.remote_write.wire import OVERFLOW, TOO_MANY, TRUNCATED, WRONG_TYPE, MalformedError

NOW = 1_795_000_000.0
WINDOW = Window(int(NOW - 1000) * 1000, int(NOW + 1000) * 1000)
UP = {"__name__": "up", "job": "a"}
built = pytest.mark.skipif(not LIBRARY.is_file(), reason="the native decoder was not built")


class Book:
    """Hands out numbers, and remembers who asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[dict[str, str], str]] = []

    def __call__(self, labels: dict[str, str], kind: str) -> int:
        self.asked.append((labels, kind))
        return CODES["not_watched"] if "drop" in labels else len(self.asked) - 1


@pytest.fixture(params=["python", pytest.param("native", marks=built)])
def make(request: pytest.FixtureRequest) -> Callable[..., Decoder]:
    """Both decoders: what is said below holds for each."""
    return Reference if request.param == "python" else Native


@pytest.fixture
def decoder(make: Callable[..., Decoder]) -> Decoder:
    return make()


def decode(decoder: Decoder, body: bytes, book: Book | None = None, version: int = V1) -> Decoded:
    return decoder.decode(body, version, WINDOW, book or Book())


def rows(d: Decoded) -> list[tuple[int, float, float]]:
    return list(zip(d.series.tolist(), d.time.tolist(), d.value.tolist(), strict=True))


# ---------------------------------------------------------------------------------------------------------- what is decoded
@pytest.mark.parametrize(("version", "make_body"), [(V1, v1), (V2, v2)], ids=["1.0", "2.0"])
def test_samples_come_out_as_they_went_in(decoder: Decoder, version: int, make_body: Callable[..., bytes]) -> None:
    """Seconds, values, and one number a series; labels are asked for once, in the first request only."""
    book, node = Book(), {"__name__": "load1", "instance": "a:9100"}
    body = make_body([(UP, 1.0, NOW), (node, -2.5, NOW + 0.25), (UP, 0.0, NOW + 15)])
    first, second = decode(decoder, body, book, version), decode(decoder, body, book, version)
    assert rows(first) == rows(second) == [(0, NOW, 1.0), (1, NOW + 0.25, -2.5), (0, NOW + 15, 0.0)]
    assert [labels for labels, _ in book.asked] == [UP, node]
    assert (first.series.dtype, first.time.dtype, first.value.dtype) == (np.int32, np.float64, np.float64)
    assert len(decoder) == 2 and not first.skipped


def test_what_2_0_says_of_a_series_type_is_told(decoder: Decoder) -> None:
    """Counter and gauge; anything else is for the naming convention."""
    request, book = Request(), Book()
    for i, kind in enumerate((1, 2, 3, 0)):
        request.add({"__name__": f"m{i}"}, (1.0, NOW), kind=kind)
    decode(decoder, packed(request.message()), book, V2)
    assert [kind for _, kind in book.asked] == ["counter", "gauge", "unknown", "unknown"]


def test_symbols_may_stand_behind_the_series_that_use_them(decoder: Decoder) -> None:
    """The order of fields is the sender's."""
    request, book = Request(), Book()
    request.add(UP, (1.0, NOW))
    assert rows(decode(decoder, packed(request.message(symbols_first=False)), book, V2)) == [(0, NOW, 1.0)]
    assert book.asked[0][0] == UP


def test_references_may_be_packed_or_single(decoder: Decoder) -> None:
    """Both are the same to protobuf, also mixed."""
    symbols = b"".join(block(4, s.encode()) for s in ("", "__name__", "up", "job", "a"))
    forms = [block(1, bytes([1, 2, 3, 4])), b"".join(number(1, i) for i in (1, 2, 3, 4)), block(1, bytes([1])) + number(1, 2)
             + block(1, bytes([3, 4]))]
    book = Book()
    for form in forms:
        body = packed(symbols + block(5, form + block(2, sample(1.0, NOW))))
        assert rows(decode(decoder, body, book, V2)) == [(0, NOW, 1.0)]
    assert len(book.asked) == 1


def test_labels_may_stand_between_samples(decoder: Decoder) -> None:
    """Unusual, and allowed: the labels are what counts, wherever they stand."""
    first, second = label("__name__", "up"), label("job", "a")
    apart = block(1, first + block(2, sample(1.0, NOW)) + second + block(2, sample(2.0, NOW + 1)))
    book = Book()
    assert rows(decode(decoder, packed(apart), book)) == [(0, NOW, 1.0), (0, NOW + 1, 2.0)]
    assert rows(decode(decoder, v1([(UP, 3.0, NOW)]), book)) == [(0, NOW, 3.0)]
    assert book.asked == [(UP, "unknown")]


def test_an_order_of_labels_has_an_entry_of_its_own_and_is_asked_for(decoder: Decoder) -> None:
    """Whoever gives the numbers sees the same labels, and gives the same one."""
    numbers: dict[object, int] = {}

    def resolve(labels: dict[str, str], kind: str) -> int:
        return numbers.setdefault(frozenset(labels.items()), len(numbers))

    body = v1([(list(UP.items()), 1.0, NOW), (list(UP.items())[::-1], 2.0, NOW + 1)])
    for _ in range(2):
        assert rows(decoder.decode(body, V1, WINDOW, resolve)) == [(0, NOW, 1.0), (0, NOW + 1, 2.0)]
    assert len(decoder) == 2


def test_a_field_left_out_is_zero_and_unknown_fields_are_skipped(decoder: Decoder) -> None:
    """As protobuf has it; the last of two counts."""
    twice = double(1, 1.0) + double(1, 7.0) + number(2, int(NOW * 1000)) + number(9, 1)
    series = series_v1(UP, more=block(2, b"") + block(2, twice))
    found = decode(decoder, packed(number(77, 5) + series + block(3, b"metadata") + varint(12 << 3 | 5) + b"1234"))
    assert rows(found) == [(0, NOW, 7.0)] and found.skipped == {"time_out_of_range": 1}


# ------------------------------------------------------------------------------------------------------ what is not handed on
def test_each_sample_that_is_left_out_is_counted_by_its_reason(decoder: Decoder) -> None:
    """1970, 2100, NaN, histograms, exemplars, what nobody watches."""
    body = packed(series_v1(UP, (1.0, NOW), (1.0, 0.0), (1.0, 4.1e9), (float("nan"), NOW), (float("inf"), NOW),
                            more=block(3, b"x") + block(4, b"y") + block(4, b"z")) + series_v1(UP | {"drop": "1"}, (1.0, NOW)))
    for _ in range(2):
        found = decode(decoder, body)
        assert rows(found) == [(0, NOW, 1.0), (0, NOW, float("inf"))]
        assert found.skipped == {"time_out_of_range": 2, "not_a_number": 1, "exemplar": 1, "histogram": 2, "not_watched": 1}


@pytest.mark.parametrize(("labels", "reason"), [
    ([("job", "a")], "no_name"), ([("__name__", "")], "no_name"), ([], "no_name"),
    ([("__name__", "up"), ("a", "1"), ("a", "2")], "duplicate_label"), ([("__name__", "up"), ("", "1")], "labels_malformed"),
    ([("__name__", "up"), ("n" * 513, "1")], "label_too_long"), ([("__name__", "up"), ("a", "v" * 4097)], "label_too_long"),
    ([("__name__", "up"), *((f"l{i:03}", "v" * 4000) for i in range(20))], "label_too_long"),
    ([("__name__", "up"), *((f"l{i:06}", "") for i in range(100_000))], "too_many_labels")],
    ids=lambda x: x if isinstance(x, str) else "")
@pytest.mark.parametrize(("version", "make_body"), [(V1, v1), (V2, v2)], ids=["1.0", "2.0"])
def test_a_series_with_unusable_labels_is_left_out_and_the_rest_is_taken(
        decoder: Decoder, version: int, make_body: Callable[..., bytes], labels: list[tuple[str, str]], reason: str) -> None:
    """It is remembered why, and never asked for."""
    book, body = Book(), make_body([(labels, 1.0, NOW), (UP, 1.0, NOW)])
    for _ in range(2):
        found = decode(decoder, body, book, version)
        assert (rows(found), found.skipped) == ([(0, NOW, 1.0)], {reason: 1})
    assert [asked for asked, _ in book.asked] == [UP]


def test_labels_that_are_no_text_or_no_labels_are_left_out(decoder: Decoder) -> None:
    """Bytes that are not UTF-8, surrogates, a label that ends in its middle, one of another type."""
    name = label("__name__", "up")
    odd = [label("a", b"\xff"), label(b"\xed\xa0\x80", "b"), block(1, b"\x0a\x05ab"), block(1, number(1, 3))]
    found = decode(decoder, packed(b"".join(block(1, name + o + block(2, sample(1.0, NOW))) for o in odd)))
    assert (rows(found), found.skipped) == ([], {"invalid_utf8": 2, "labels_malformed": 2})


def test_references_that_lead_nowhere_are_labels_malformed(decoder: Decoder) -> None:
    """An odd number of them, or one beyond the symbols."""
    symbols = b"".join(block(4, s.encode()) for s in ("", "__name__", "up"))
    odd = [bytes([1, 2, 1]), bytes([1, 3]), b"\x01" + varint(1 << 40)]
    series = b"".join(block(5, block(1, o) + block(2, sample(1.0, NOW))) for o in odd)
    found = decode(decoder, packed(symbols + series), version=V2)
    assert (rows(found), found.skipped) == ([], {"labels_malformed": 3})


def test_names_that_others_trip_over_are_labels_like_any_other(decoder: Decoder) -> None:
    """`value`, `timestamp`, `time` and the like."""
    book, labels = Book(), {"__name__": "up", "value": "1", "timestamp": "2", "time": "3", "entity": "4", "le": "+Inf"}
    assert rows(decode(decoder, v1([(labels, 1.0, NOW)]), book)) == [(0, NOW, 1.0)] and book.asked[0][0] == labels


def test_a_label_without_a_value_is_none(decoder: Decoder) -> None:
    """As in Prometheus' data model."""
    book = Book()
    decode(decoder, v1([(UP | {"pod": ""}, 1.0, NOW)]), book)
    assert book.asked[0][0] == UP


# ------------------------------------------------------------------------------------------------------------- staleness
def test_a_series_that_ended_is_told_and_is_no_sample(decoder: Decoder) -> None:
    """The NaN with Prometheus' own payload; a marker for a series that nobody knows makes no new one."""
    book = Book()
    assert decode(decoder, v1([(UP, STALE, NOW)]), book).skipped == {"stale_unknown": 1}
    assert book.asked == [] and len(decoder) == 0
    decode(decoder, v1([(UP, 1.0, NOW)]), book)
    found = decode(decoder, v1([(UP, STALE, NOW + 15)]), book)
    assert (found.ended.tolist(), found.ended_time.tolist(), rows(found)) == ([0], [NOW + 15], [])
    both = decode(decoder, packed(series_v1({"__name__": "new"}, (1.0, NOW), (STALE, NOW + 1))), book)
    assert (both.series.tolist(), both.ended.tolist()) == ([1], [1])


# --------------------------------------------------------------------------------------------------------------- the table
def test_a_series_that_was_retired_is_asked_for_anew(decoder: Decoder) -> None:
    """And so is one for which there was no room, once that is forgotten."""
    book, body = Book(), v1([(UP, 1.0, NOW), ({"__name__": "b"}, 1.0, NOW)])
    decode(decoder, body, book)
    assert decoder.forget(np.array([0], np.int32)) == 1 and len(decoder) == 1
    assert decode(decoder, body, book).series.tolist() == [2, 1]
    answers = iter([CODES["no_room"], 5])
    other = v1([({"__name__": "c"}, 1.0, NOW)])
    for reason, asked in (({"no_room": 1}, True), ({"no_room": 1}, False)):
        found = decoder.decode(other, V1, WINDOW, lambda *_: next(answers) if asked else pytest.fail("asked again"))  # noqa: B023
        assert found.skipped == reason
    assert decoder.forget(np.array([CODES["no_room"]], np.int32)) == 1
    assert decoder.decode(other, V1, WINDOW, lambda *_: next(answers)).series.tolist() == [5]
    assert decoder.forget(np.array([], np.int32)) == 0


def test_the_table_is_bounded_and_the_oldest_gives_way(make: Callable[..., Decoder]) -> None:
    """The unwatched do not push the watched out; what gave way is asked for again."""
    decoder, book = make(Limits(watched=16, others=8)), Book()
    watched = [({"__name__": f"w{i}"}, 1.0, NOW) for i in range(16)]
    decode(decoder, v1(watched), book)
    decode(decoder, v1([({"__name__": f"o{i}", "drop": "1"}, 1.0, NOW) for i in range(100)]), book)
    assert 16 + 7 <= len(decoder) <= 16 + 8
    asked = len(book.asked)
    decode(decoder, v1(watched), book)
    assert len(book.asked) == asked, "all watched are still known"
    decode(decoder, v1([({"__name__": "o0", "drop": "1"}, 1.0, NOW), ({"__name__": "o99", "drop": "1"}, 1.0, NOW)]), book)
    assert [labels["__name__"] for labels, _ in book.asked[asked:]] == ["o0"]


# ----------------------------------------------------------------------------------------------------------- hostile bodies
@pytest.mark.parametrize(("message", "code", "at"), [
    (series_v1(UP, (1.0, NOW))[:-3], TRUNCATED, 0), (b"\x0a\x80", TRUNCATED, 0), (b"\x0a" + b"\xff" * 9 + b"\x02", OVERFLOW, 0),
    (b"\x0a" + b"\xff" * 11, OVERFLOW, 0), (number(1, 5), WRONG_TYPE, 0),
    (number(9, 5) + block(1, double(2, 1.0)), WRONG_TYPE, 4),
    (block(1, block(2, number(1, 5))), WRONG_TYPE, 4), (block(1, block(2, double(2, 5.0))), WRONG_TYPE, 4),
    (b"\x0b", 4, 0), (b"\x00\x01", 4, 0), (b"\x0f", 4, 0), (varint(1 << 35), 4, 0), (b"\x0a\x7f" + b"x" * 20, TRUNCATED, 0)])
def test_a_malformed_message_is_refused_whole_with_its_place(decoder: Decoder, message: bytes, code: int, at: int) -> None:
    """What stood before it changes nothing either."""
    before = series_v1({"__name__": "before"}, (1.0, NOW))
    with pytest.raises(MalformedError, match="malformed at byte") as e:
        decode(decoder, packed(before + message))
    assert (e.value.code, e.value.at) == (code, len(before) + at)
    assert len(decoder) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("version", "message"), [
    (V1, b"\x0a\x00" * 1_000_001), (V1, block(1, b"\x12\x00" * 1_000_001)), (V2, b"\x2a\x00" * 1_000_001),
    (V2, b"\x22\x00" * 1_000_001), (V2, block(5, block(1, b"\x00" * 1_000_001)))])
def test_too_many_things_in_one_request_are_refused(decoder: Decoder, version: int, message: bytes) -> None:
    """Two bytes on the wire must not become a hundred in memory, a million times."""
    with pytest.raises(MalformedError, match="lower max_samples_per_send") as e:
        decode(decoder, packed(message), version=version)
    assert e.value.code == TOO_MANY


def test_a_bomb_is_refused_before_anything_is_uncompressed(make: Callable[..., Decoder], monkeypatch: pytest.MonkeyPatch) -> None:
    """By the length that it declares, true or not."""
    decoder = make(Limits(message=1000))
    monkeypatch.setattr(cramjam.snappy, "decompress_raw", lambda *_: pytest.fail("uncompressed"), raising=False)
    monkeypatch.setattr(cramjam.snappy, "decompress_raw_into", lambda *_: pytest.fail("uncompressed"), raising=False)
    for body in (bytes(cramjam.snappy.compress_raw(bytes(1001))), varint(1 << 31) + b"\x00"):
        with pytest.raises(TooLargeError, match="at most 1000"):
            decode(decoder, body)


@pytest.mark.parametrize("body", [b"", b"\xff" * 8, b"\x05\x10hi", packed(b"x" * 100)[:-4], b"not snappy at all",
                                  bytes(cramjam.snappy.compress(b"framed"))])
def test_what_is_no_snappy_block_is_refused(decoder: Decoder, body: bytes) -> None:
    """Cut off, framed, or something else; and the decoder works on."""
    with pytest.raises((UnpackableError, TooLargeError)):
        decode(decoder, body)
    assert rows(decode(decoder, v1([(UP, 1.0, NOW)]))) == [(0, NOW, 1.0)]


def test_an_empty_message_holds_nothing(decoder: Decoder) -> None:
    """Senders probe with it."""
    for version in (V1, V2):
        found = decode(decoder, packed(b""), version=version)
        assert (len(found.series), len(found.ended), len(found.skipped)) == (0, 0, 0)


# ------------------------------------------------------------------------------------------------------------ both alike
@pytest.mark.slow
@built
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32 - 1), st.sampled_from([V1, V2]))
def test_both_decoders_answer_alike_on_mutated_bodies(seed: int, version: int) -> None:
    """Twelve requests in a row, into tables so small that entries give way, with things forgotten in between."""
    maker, pair = fuzz.Maker(seed), fuzz.Pair()
    for k in range(12):
        assert pair.agree(packed(maker.mutated(maker.message(version))), version)
        assert k % 5 or pair.forget([maker.pick(20), CODES["not_watched"]])


@built
@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200), st.sampled_from([V1, V2]), st.booleans())
def test_both_decoders_answer_alike_on_any_bytes(data: bytes, version: int, pack: bool) -> None:
    """Whether they unpack or not."""
    assert fuzz.Pair().agree(packed(data) if pack else data, version)


def test_a_library_that_is_not_there_or_another_is_told(tmp_path: object) -> None:
    """The reason is for the log; the program goes on with the one in Python."""
    from pathlib import Path

    folder = Path(str(tmp_path))
    with pytest.raises(UnavailableError, match="was not built"):
        load(folder / "none.so")
    (folder / "text.so").write_text("no library")
    with pytest.raises(UnavailableError, match="cannot be loaded"):
        load(folder / "text.so")


@pytest.mark.skipif(not shutil.which("cargo") and not shutil.which("rustc"), reason="no Rust here")
def test_where_there_is_a_compiler_the_native_decoder_is_there() -> None:
    """`make setup` built it."""
    assert LIBRARY.is_file(), "run scripts/build-native"
