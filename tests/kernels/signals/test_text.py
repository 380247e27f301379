from __future__ import annotations

import pytest

from mm_embed_kernels.modalities import get
from mm_embed_kernels.signals.text import repeated_share, text_signals
from tests.kernels.media_samples import ENGLISH, GERMAN, RUSSIAN


def signals(text: str) -> dict[str, float]:
    return text_signals(text, text.split())


@pytest.mark.parametrize("text", [ENGLISH, GERMAN, RUSSIAN, "", "x"])
def test_writing_has_none_of_it(text: str) -> None:
    assert signals(text) == dict.fromkeys(signals(""), 0)


def test_lines_that_stood_before() -> None:
    assert signals("buy\n\n buy \nnow\nbuy")["duplicate_line_share"] == 0.5


def test_sequences_that_stood_before() -> None:
    assert repeated_share(["a", "b", "c", "d", "e", "x", "a", "b", "c", "d", "e"]) == pytest.approx(10 / 11)
    assert repeated_share(["a", "b", "c", "d", "e"]) == 0.0
    assert repeated_share(["aa"] * 9) == 1.0
    assert repeated_share([]) == 0.0


def test_boilerplate() -> None:
    text = f"{ENGLISH}\nThis site uses cookies to improve your visit.\nPlease enable JavaScript."
    assert signals(text)["boilerplate_share"] == pytest.approx(
        1 - len(ENGLISH) / sum(map(len, text.splitlines()))
    )
    assert signals("She baked cookies.")["boilerplate_share"] == 0


def test_mojibake() -> None:
    assert signals(GERMAN.encode().decode("latin-1"))["mojibake"] >= 4
    assert signals(RUSSIAN.encode().decode("cp1252", "ignore"))["mojibake"] > 0


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("write to jane.doe+news@mail.example.org, or john@example.com.", {"emails": 2}),
        ("@home, a@b, x@@y.de and 5 @ 3.50 are none", {}),
        ("call +49 30 901820 or +1 650-253-0000 now", {"phone_numbers": 2}),
        ("1 + 1 = 2, C++ 17, +5 % and 030 901820", {}),
        ("from 8.8.8.8 and 2606:4700:4700::1111", {"ip_addresses": 2}),
        ("at 12:30:45 version 1.2.3.4.5 of 192.168.0.1, 127.0.0.1, 999.1.1.1 and ::", {}),
    ],
)
def test_personal_data(text: str, found: dict[str, int]) -> None:
    counted = {
        name: value
        for name, value in signals(text).items()
        if name in ("emails", "phone_numbers", "ip_addresses") and value
    }
    assert counted == found


def test_the_probe_measures_them() -> None:
    row = get("text").probe(b"mail me: a@b.example")
    assert (row["emails"], row["mojibake"]) == (1, 0)
