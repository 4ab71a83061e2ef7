"""The incidents of a data folder, whether a node runs on it or not: the log takes several at once."""

from __future__ import annotations

from pathlib import Path

from ...producers.sqlite_log import SqliteLog
from ...schemas.errors import UsageError
from ...schemas.notice import Delivery, GivenUp
from ...schemas.signal import Alert
from ...schemas.topics import ALERTS
from ..alert_rows import alert_record
from ..incidents import Incident, Window
from ..notifier import Notifier
from ..on_call_file import OnCall
from .notifier import kept


class FolderDesk:
    """`Desk` in the log of a data folder. Raises `UsageError` where there is none."""

    def __init__(self, data_dir: Path) -> None:
        if not SqliteLog.exists(data_dir):
            raise UsageError(f"{data_dir} is no data folder of a node; give --data DIR")
        self.where = str(data_dir)
        self._log = SqliteLog(data_dir)

    def _kept(self) -> Notifier:
        return Notifier(kept(self._log).items(), OnCall())

    def incidents(self) -> list[Incident]:
        return self._kept().incidents

    def windows(self) -> list[Window]:
        return self._kept().windows

    def deliveries(self) -> list[Delivery]:
        return sorted(self._kept().deliveries.values(), key=lambda delivery: delivery.order)

    def given_up(self) -> list[GivenUp]:
        return list(self._kept().given_up.values())

    def say(self, word: Alert) -> None:
        with self._log.transaction():
            self._log.append(ALERTS.name, 0, [alert_record([word])])

    def close(self) -> None:
        self._log.close()
