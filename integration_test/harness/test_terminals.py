"""What tests see of a terminal."""

from __future__ import annotations

from integration_test.harness.terminals import Terminal


def test_a_picture_is_seen_when_it_is_whole() -> None:
    terminal = Terminal(columns=5, lines=2)
    terminal.written = "\x1b[?1049h\x1b[Hfirst\r\nwhole\x1b[H\x1b[1mhalf \x1b[0m\r\ndra"
    assert terminal.screen == "first\r\nwhole"
    terminal.written += "wn"
    assert terminal.screen == "half \r\ndrawn"
