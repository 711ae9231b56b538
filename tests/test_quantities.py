"""Kubernetes quantities: read as the API server reads them, written as it writes them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from aiops.quantities import format_quantity, is_binary, parse_quantity


@pytest.mark.parametrize(("text", "number", "canonical"), [
    ("500m", "0.5", "500m"), ("0.5", "0.5", "500m"), ("2", "2", "2"), (2, "2", "2"), ("1000m", "1", "1"), ("1000", "1000", "1k"),
    ("1Gi", "1073741824", "1Gi"), ("1024Mi", "1073741824", "1Gi"), ("1.5Gi", "1610612736", "1536Mi"),
    ("512M", "512000000", "512M"),
    ("1e3", "1000", "1k"), ("100n", "0.0000001", "100n"), ("0", "0", "0"), (".5", "0.5", "500m"), ("0.1Ki", "102.4", "103"),
])
def test_a_quantity_is_read_and_written(text, number, canonical):
    """The canonical form is that of the API server: the largest unit with a whole number."""
    assert parse_quantity(text) == Decimal(number)
    assert format_quantity(parse_quantity(text), is_binary(text)) == canonical


@pytest.mark.parametrize("text", ["", "-1", "2GB", "1 Gi", "Gi", "1.2.3", "1e999", "nan", True, None, "1" * 40])
def test_what_is_no_quantity_is_refused(text):
    """With the value and an example."""
    with pytest.raises(ValueError, match=r"is not a quantity\. Write for example"):
        parse_quantity(text)
