"""Kafka's own commands, as Tidegate prints them for people, run for real: the broker's jars and one more from Maven."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Final

from tidegate.bench.kafka.broker import cache_dir, fetch_jars

_TOOLS: Final = {
    "kafka-acls.sh": "org.apache.kafka.tools.AclCommand",
    "kafka-configs.sh": "kafka.admin.ConfigCommand",
    "kafka-topics.sh": "org.apache.kafka.tools.TopicCommand",
}
# A JVM and one answer: two seconds, several times that on a busy machine. Fetching the jar comes on top, once.
_TIMEOUT_S: Final = 120.0


def run_kafka_command(command: str) -> str:
    """What a command says. Raises `CalledProcessError`, with its output, when it does not end well."""
    name, *arguments = shlex.split(command)
    jars = fetch_jars()
    classpath = f"{jars}/*:{_tools_jar(jars)}"
    done = subprocess.run(
        ["java", "-Xmx128m", "-XX:TieredStopAtLevel=1", "-cp", classpath, _TOOLS[name], *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=_TIMEOUT_S,
        text=True,
    )
    # Some of these tools report what went wrong and end with 0 all the same.
    if done.returncode or "Exception" in done.stdout or "Error while executing" in done.stdout:
        raise AssertionError(f"{command}\nended with {done.returncode}:\n{done.stdout}")
    return done.stdout


def _tools_jar(jars: Path) -> Path:
    """The tools of the broker's version; they are no part of the broker."""
    (core,) = jars.glob("kafka_*.jar")
    version = core.stem.partition("-")[2]
    jar = cache_dir() / f"kafka-tools-{version}.jar"
    if not jar.exists():
        with tempfile.TemporaryDirectory(dir=cache_dir(), prefix="fetching-") as draft:
            subprocess.run(
                [
                    *("mvn", "-q", "-B", "dependency:copy", f"-Dartifact=org.apache.kafka:kafka-tools:{version}"),
                    f"-DoutputDirectory={draft}",
                ],
                check=True,
                cwd=draft,
                stdin=subprocess.DEVNULL,
                timeout=_TIMEOUT_S,
            )
            shutil.move(Path(draft) / jar.name, jar)
    return jar
