"""Check digits that Presidio does not know. Each takes what was written, separators and all, and says whether it adds up."""

from __future__ import annotations

from typing import Final

_VIN_WEIGHTS: Final = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)
_VIN_VALUES: Final = {
    letter: value
    for value, letters in enumerate(("", "AJ", "BKS", "CLT", "DMU", "ENV", "FW", "GPX", "HY", "RZ"))
    for letter in letters
}


def digits_of(written: str) -> str:
    """The ASCII digits, in order."""
    return "".join(character for character in written if "0" <= character <= "9")


def luhn(written: str) -> bool:
    """Cards and IMEIs: the last digit makes the Luhn sum a multiple of ten."""
    digits = digits_of(written)
    if len(set(digits)) < 2:
        return False
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (2 if place % 2 else 1)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


def npi(written: str) -> bool:
    """National Provider Identifier: ten digits, Luhn behind the prefix 80840 (CMS)."""
    digits = digits_of(written)
    return len(digits) == 10 and digits[0] in "12" and luhn("80840" + digits)


def dea(written: str) -> bool:
    """DEA registration: two letters (or a letter and 9), six digits and their check digit."""
    digits = digits_of(written)[-7:]
    if len(digits) != 7 or digits == "0000000":
        return False
    odd, even = (int(digits[0]) + int(digits[2]) + int(digits[4])), (int(digits[1]) + int(digits[3]) + int(digits[5]))
    return (odd + 2 * even) % 10 == int(digits[6])


def vin(written: str) -> bool:
    """Vehicle identification number: 17 characters without I, O and Q; the ninth checks the others (49 CFR 565)."""
    letters = written.upper()
    if len(letters) != 17 or len(set(letters)) < 5:
        return False
    total = 0
    for character, weight in zip(letters, _VIN_WEIGHTS, strict=True):
        value = int(character) if "0" <= character <= "9" else _VIN_VALUES.get(character)
        if value is None:
            return False
        total += value * weight
    return letters[8] == "0123456789X"[total % 11]


def gs1(written: str) -> bool:
    """GTIN of a device identifier (UDI): the last digit checks the others, weights 3 and 1 from the right."""
    digits = digits_of(written)
    if len(digits) not in (8, 12, 13, 14) or not int(digits):
        return False
    total = sum(int(digit) * (3 if place % 2 == 0 else 1) for place, digit in enumerate(reversed(digits[:-1])))
    return (10 - total % 10) % 10 == int(digits[-1])


def iban(written: str) -> bool:
    """International bank account: rearranged and read as a number, one more than a multiple of 97."""
    letters = "".join(character for character in written.upper() if character.isalnum())
    if not 15 <= len(letters) <= 34 or not letters.isascii():
        return False
    return int("".join(str(int(character, 36)) for character in letters[4:] + letters[:4])) % 97 == 1
