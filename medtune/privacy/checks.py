"""Check digits and ranges of identity numbers; pure functions on strings of digits."""

from __future__ import annotations

import datetime

RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
RESIDENT_CHECKS = "10X98765432"
PROVINCES = frozenset(map(str, (*range(11, 16), *range(21, 24), *range(31, 38), *range(41, 47), *range(50, 55))))
PROVINCES |= frozenset(map(str, (*range(61, 66), 71, 81, 82, 83)))
TAIWAN_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"  # A is 10, B is 11, ... O is 35


def is_date(year: int, month: int, day: int) -> bool:
    """Whether the calendar has this day, in the years people alive or on record were born: 1800 to 2099.

    >>> is_date(2024, 2, 29), is_date(2023, 2, 29), is_date(1700, 1, 1)
    (True, False, False)
    """
    try:
        return 1800 <= datetime.date(year, month, day).year <= 2099
    except ValueError:
        return False


def resident_check(digits: str) -> str:
    """Check character of the first 17 digits of a Chinese resident ID (GB 11643-1999, ISO 7064 MOD 11-2).

    >>> resident_check("11010519491231002")
    'X'
    """
    total = sum(weight * int(digit) for weight, digit in zip(RESIDENT_WEIGHTS, digits, strict=False))
    return RESIDENT_CHECKS[total % 11]


def is_resident_id(number: str, strict: bool = False) -> bool:
    """Whether 15 or 18 characters are a Chinese resident ID: a province, and a day of birth.

    A wrong check digit is most often a slip in a person's number, so it counts only when `strict`.

    >>> is_resident_id("11010519491231002X", strict=True), is_resident_id("110105194912310021", strict=True)
    (True, False)
    >>> is_resident_id("110105194912310021"), is_resident_id("991001199003071234")
    (True, False)
    """
    if number[:2] not in PROVINCES or not number[:-1].isdigit():
        return False
    if len(number) == 15:
        return number.isdigit() and is_date(1900 + int(number[6:8]), int(number[8:10]), int(number[10:12]))
    if len(number) != 18 or not is_date(int(number[6:10]), int(number[10:12]), int(number[12:14])):
        return False
    return not strict or resident_check(number) == number[-1].upper()


def is_ssn(digits: str) -> bool:
    """Whether 9 digits are in the ranges that US social security numbers are taken from.

    >>> is_ssn("123456789"), is_ssn("666456789"), is_ssn("123006789")
    (True, False, False)
    """
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in ("000", "666") and area < "900" and group != "00" and serial != "0000"


def nhs_check(digits: str) -> int:
    """Check digit of the first 9 digits of an NHS number, modulo 11; 10 where there can be none.

    >>> nhs_check("943476591")
    9
    """
    return -sum((10 - i) * int(digit) for i, digit in enumerate(digits[:9])) % 11


def is_nhs_number(digits: str) -> bool:
    """Whether 10 digits are an NHS number; those that begin with 999 are for tests and never a person's.

    >>> is_nhs_number("9434765919"), is_nhs_number("9434765918")
    (True, False)
    """
    return nhs_check(digits) == int(digits[9]) and not digits.startswith("999")


def luhn_check(digits: str) -> str:
    """Check digit that the Luhn rule (ISO/IEC 7812-1) puts behind `digits`.

    >>> luhn_check("453201511283036")
    '6'
    """
    doubled = (int(digit) * (2 - i % 2) for i, digit in enumerate(reversed(digits)))
    return str(-sum(value // 10 + value % 10 for value in doubled) % 10)


def is_luhn(digits: str) -> bool:
    """Whether the last digit is the Luhn check digit of the others, and they are not all the same."""
    return luhn_check(digits[:-1]) == digits[-1] and len(set(digits)) > 1


def is_hong_kong_id(letters: str, digits: str, check: str) -> bool:
    """Whether letters, 6 digits and a check character are a Hong Kong identity card number.

    >>> is_hong_kong_id("A", "123456", "3"), is_hong_kong_id("A", "123456", "4")
    (True, False)
    """
    values = [36] * (2 - len(letters)) + [ord(letter) - 55 for letter in letters] + [int(digit) for digit in digits]
    total = sum(weight * value for weight, value in zip(range(9, 1, -1), values, strict=True))
    return "0123456789A"[-total % 11] == check


def is_taiwan_id(number: str) -> bool:
    """Whether a letter and 9 digits are a Taiwan identity card or residence number.

    >>> is_taiwan_id("A123456789"), is_taiwan_id("A123456788")
    (True, False)
    """
    tens, ones = divmod(TAIWAN_LETTERS.index(number[0]) + 10, 10)
    values = [tens, ones, *(int(digit) for digit in number[1:])]
    weights = (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    return sum(weight * value for weight, value in zip(weights, values, strict=True)) % 10 == 0
