"""What Kafka's errors mean, in words that say what to do.

    message or batch too large                   → `EnvelopeRefused`: trying again cannot help
    everything else that Kafka or the network says → `LogUnavailable`: spool, and try again

A missing right or topic and a wrong password are "not now" on purpose: a person mends them, and what was measured until then
should not be gone.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any, Final

from aiokafka import errors

from ..schemas.errors import EnvelopeRefused, LogUnavailable, TidegateError
from .kafka_loop import KafkaLoop

_TOO_LARGE: Final = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
# Says that something went wrong on the way, and not what.
_VAGUE: Final = (TimeoutError, errors.KafkaTimeoutError, errors.KafkaConnectionError, errors.NodeNotReadyError)
# A person has to act: asking more often only fills the brokers' logs.
_PATIENCE_S: Final = 30.0

# The first that fits: classes, what is said, and after how long to try again.
_MEANING: Final[tuple[tuple[tuple[type[BaseException], ...], str, float | None], ...]] = (
    (
        (errors.UnknownTopicOrPartitionError, errors.InvalidTopicError),
        "has no topic {topic}: run `tidegate topics create`",
        None,
    ),
    (
        (errors.TopicAuthorizationFailedError,),
        "does not let this user use {topic}: `tidegate topics acls` prints what it needs",
        _PATIENCE_S,
    ),
    (
        (errors.ClusterAuthorizationFailedError,),
        "does not let this user write to {topic} idempotently: `tidegate topics acls` prints what it needs",
        _PATIENCE_S,
    ),
    (
        (errors.SaslAuthenticationFailed, errors.AuthenticationFailedError),
        "does not know this user: check TIDEGATE_KAFKA_USERNAME and TIDEGATE_KAFKA_PASSWORD",
        _PATIENCE_S,
    ),
    (
        (errors.UnsupportedSaslMechanismError, errors.IllegalSaslStateError, errors.AuthenticationMethodNotSupported),
        "wants another mechanism of proof: check TIDEGATE_KAFKA_SASL_MECHANISM and TIDEGATE_KAFKA_SECURITY",
        _PATIENCE_S,
    ),
    (
        (ssl.SSLError,),
        "and we found no common TLS ({name}): check TIDEGATE_KAFKA_CA_FILE and TIDEGATE_KAFKA_SECURITY",
        _PATIENCE_S,
    ),
    (
        (errors.NotEnoughReplicasError, errors.NotEnoughReplicasAfterAppendError),
        "has too few replicas of {topic} in sync (min.insync.replicas): see to the brokers that are away",
        None,
    ),
    (
        (errors.NotLeaderForPartitionError, errors.LeaderNotAvailableError, errors.StaleMetadata),
        "is choosing a leader for {topic}",
        None,
    ),
    ((errors.RequestTimedOutError, errors.KafkaTimeoutError, TimeoutError), "does not answer in time", None),
    (
        (errors.UnsupportedCodecError,),
        "holds {topic} in a compression whose codec is missing here: pip install 'aiokafka[zstd]'",
        _PATIENCE_S,
    ),
    ((socket.gaierror,), "cannot be found by that name: check TIDEGATE_URL", None),
    (
        (OSError, EOFError, errors.KafkaConnectionError, errors.NodeNotReadyError, errors.NoBrokersAvailable),
        "cannot be reached ({name}): check that it runs and what it advertises, TIDEGATE_URL, TIDEGATE_KAFKA_SECURITY",
        None,
    ),
    ((errors.KafkaError,), "said {name}", None),
)

# What `translated` knows; anything else is a mistake of ours.
KAFKA_ERRORS: Final = (errors.KafkaError, OSError, EOFError, TimeoutError)


def translated(error: BaseException, bootstrap: str, topic: str, loop: KafkaLoop[Any] | None = None) -> TidegateError:
    """One of `KAFKA_ERRORS` as ours. `loop` may know more than the error says."""
    kind = type(error)
    if issubclass(kind, _TOO_LARGE):
        return EnvelopeRefused(
            f"Kafka at {bootstrap} takes no records as large in {topic}: `tidegate topics check` says what its limit should be"
        )
    if issubclass(kind, _VAGUE) and loop is not None and loop.trouble is not None:
        kind = loop.trouble if isinstance(loop.trouble, type) else type(loop.trouble)
    for classes, meaning, retry_after_s in _MEANING:
        if issubclass(kind, classes):
            said = meaning.format(topic=topic, name=kind.__name__)
            return LogUnavailable(f"Kafka at {bootstrap} {said}", retry_after_s)
    return LogUnavailable(f"Kafka at {bootstrap}: {kind.__name__}")
