"""`tidegate console`: into the console of the node that runs here, signed in as its operator."""

from __future__ import annotations

import sys
import webbrowser
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text
from tidegate.query_cli import must_exist
from tidegate.schemas.errors import UsageError
from tidegate.schemas.settings import Settings, has_display

out = Console()

DataOption = Annotated[
    Path | None, typer.Option("--data", "-d", metavar="DIR", help="Data folder. Default: TIDEGATE_DATA_DIR, or ./tidegate-data")
]


def console(
    data: DataOption = None,
    open_: Annotated[
        bool, typer.Option("--open/--print", help="Open a browser where there is a display, or print alone")
    ] = True,
) -> None:
    """Open the console of the node on a data folder, signed in as its operator: by a link that works once, for ten minutes."""
    from tidegate.processors.embedded.client import NodeFolder
    from tidegate.processors.folder import running_node

    settings = Settings.read(data_dir=data)
    must_exist(settings)
    node = running_node(settings.data_dir)
    if node is None:
        raise UsageError(f"no node runs on {settings.data_dir}, and only a node has a console: tidegate up")
    link = NodeFolder(settings.data_dir, node).console_link()
    if not (open_ and open_in_browser(link)):
        sys.stdout.write(f"{link}\n")
        return
    out.print(Text(f"{node.url} is open in the browser"), soft_wrap=True)


def open_in_browser(link: str) -> bool:
    """Whether there is one to open it."""
    try:
        return has_display() and webbrowser.open(link)
    except webbrowser.Error:
        return False
