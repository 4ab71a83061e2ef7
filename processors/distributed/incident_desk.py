"""The incidents on Kafka, for a person at a command line."""

from __future__ import annotations

from ...schemas.notice import Delivery, GivenUp
from ...schemas.settings import Settings
from ...schemas.signal import Alert
from ...schemas.topics import ALERTS, INCIDENTS
from ..alert_rows import alert_record
from ..incidents import Incident, Window
from ..notifier import Notifier, last_words
from ..on_call_file import OnCall
from .topic_reading import TopicReading


class KafkaDesk(TopicReading):
    """`Desk` on the Kafka of these settings."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, INCIDENTS, "on-call")

    def _kept(self) -> Notifier:
        [tp] = self.partitions()
        records = self.records(tp, *self.bounds(tp))
        return Notifier(last_words((record.key or b"", record.value or b"") for record in records).items(), OnCall())

    def incidents(self) -> list[Incident]:
        return self._kept().incidents

    def windows(self) -> list[Window]:
        return self._kept().windows

    def deliveries(self) -> list[Delivery]:
        return sorted(self._kept().deliveries.values(), key=lambda delivery: delivery.order)

    def given_up(self) -> list[GivenUp]:
        return list(self._kept().given_up.values())

    def say(self, word: Alert) -> None:
        key, headers, value = alert_record([word])
        producer = self.producer()
        try:
            encoded = [(name, text.encode()) for name, text in headers.items()]
            self.run(producer.send_and_wait(self.address.topic(ALERTS), value, key=key, partition=0, headers=encoded))
        finally:
            self.run(producer.stop())
