"""A card's PCIe link: what it runs at, what both its ends can do, and the errors that Linux counted (AER)."""

from __future__ import annotations

import os

from burnin.agent.sysfs import Absent, Card, File, Found, Read, Row, never, one, total

_GENERATION = {"2.5": 1.0, "5": 2.0, "5.0": 2.0, "8": 3.0, "8.0": 3.0, "16": 4.0, "16.0": 4.0, "32.0": 5.0, "64.0": 6.0}
_WIDTHS = (1, 2, 4, 8, 12, 16, 32)
_BEST = ("pcie.gen_max", "pcie.width_max")
_AER = ("pcie.aer_correctable", "pcie.aer_nonfatal", "pcie.aer_fatal")


def link(found: Found, card: Card) -> list[Row]:
    """The link of a card, and its errors."""
    device = found.device(card[0])
    now = [one("pcie.gen", _generation(device, "current_link_speed")), one("pcie.width", _width(device, "current_link_width"))]
    return [*now, *ends(found, card)]


def ends(found: Found, card: Card | None) -> list[Row]:
    """What NVML does not say of a GPU's link: what both its ends can do, and the errors of all functions."""
    if card is None:
        return [one(metric, never("missing")) for metric in (*_BEST, *_AER)]
    device = found.device(card[0])
    port = os.path.dirname(os.path.realpath(device))  # a link is no better than its weaker end
    best = [
        _weaker(_generation(device, "max_link_speed"), _generation(port, "max_link_speed")),
        _weaker(_width(device, "max_link_width"), _width(port, "max_link_width")),
    ]
    errors = [total([_aer(found.device(bdf, metric[5:].replace("aer_", "aer_dev_"))) for bdf in card]) for metric in _AER]
    return [one(metric, read) for metric, read in zip((*_BEST, *_AER), [*best, *errors])]


def _generation(folder: str, name: str) -> Read:
    file = File(folder, name)

    def read() -> float:
        word = file.word()
        if word not in _GENERATION:
            raise Absent("not_supported" if word == "Unknown" else "missing")
        return _GENERATION[word]

    return read


def _width(folder: str, name: str) -> Read:
    file = File(folder, name)

    def read() -> float:
        lanes = file.number()
        if lanes not in _WIDTHS:  # 0: no link, it sits inside the root complex; 63: all ones, nobody answers
            raise Absent("missing" if lanes else "not_supported")
        return lanes

    return read


def _weaker(own: Read, above: Read) -> Read:
    """The lower of two; where there is no port above that says what it can, the device's own."""

    def read() -> float:
        best = own()
        try:
            return min(best, above())
        except Absent as absent:
            if str(absent) != "not_supported":
                raise
            return best

    return read


def _aer(path: str) -> Read:
    file = File(path)

    def read() -> float:
        for line in file.text().splitlines():
            words = line.split()
            if len(words) == 2 and words[0].startswith("TOTAL_ERR_") and words[1].isdigit():
                return float(words[1])
        raise Absent("missing")

    return read
