"""Measurements, findings, coverage and waivers -> one word with all its reasons, and whether a rack may ship. Pure."""
