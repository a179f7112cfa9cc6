"""A pytest plugin: why a test failed is told when it fails. A run that is ended, or waits for a device that
will not answer, has no summary.
"""

from __future__ import annotations

import pytest


def pytest_configure(config: pytest.Config) -> None:
    """Watch this run."""
    config.pluginmanager.register(Telling(config))


class Telling:
    """Writes the line that the summary would have for a test."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    @pytest.hookimpl(trylast=True)  # the terminal's own line of the test comes first
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Of its call, or of what was set up for it."""
        terminal = self._config.pluginmanager.get_plugin("terminalreporter")
        if report.failed and terminal is not None:
            word = "FAILED" if report.when == "call" else "ERROR"
            crash = getattr(report.longrepr, "reprcrash", None)
            reason = report.longreprtext if crash is None else crash.message
            terminal.write_line(f"{word} {report.nodeid} - {reason.partition(chr(10))[0]}")
