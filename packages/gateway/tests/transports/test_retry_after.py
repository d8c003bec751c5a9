"""The header Retry-After: seconds as Discord writes them, a date as others do, and nothing else."""

from __future__ import annotations

import time
from email.utils import formatdate

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rateway.transports.retry_after import read_retry_after


@pytest.mark.checklist("K72")
@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0), (" 65 ", 65.0), ("0", 0.0), ("0.457", 0.457), ("86401", 86_400.0), ("9" * 5_000, 86_400.0),
        (None, None), ("", None), ("-1", None), ("+1", None), ("1e3", None), ("inf", None), ("nan", None),
        ("0x10", None), ("1_000", None), ("١٢", None), ("soon", None), ("7 seconds", None),
        ("Fri, 31 Dec 1999 23:59:59 GMT", 0.0), ("Fri, 31 Dec 2199 23:59:59 GMT", 86_400.0),
        ("Fri, 99 Foo 1999 99:99:99 GMT", None),
    ],
)  # fmt: skip
def test_seconds_and_dates_are_read_and_a_day_is_the_most(header: str | None, seconds: float | None) -> None:
    assert read_retry_after(header) == seconds


@pytest.mark.checklist("K72")
def test_a_date_is_waited_for() -> None:
    found = read_retry_after(formatdate(time.time() + 600, usegmt=True))
    assert found is not None and 590 < found <= 600


@pytest.mark.checklist("K72")
@given(
    st.text(max_size=80)
    | st.from_regex(r"[A-Z][a-z]{2}, \d{1,12} [A-Z][a-z]{2} \d{1,12} [-\d:]{1,20} [-+]?\w{1,9}")
)
def test_no_header_raises_or_waits_for_longer_than_a_day(header: str) -> None:
    found = read_retry_after(header)
    assert found is None or 0.0 <= found <= 86_400.0
