"""Ask a store with few rights: `python as_role.py STORE CONFIG`; statements in, answers out, as JSON lines."""

from __future__ import annotations

import json
import re
import sys

from chdb import session

_CODE = re.compile(r"Code: (\d+)")


def main() -> None:
    store, config = sys.argv[1:]
    opened = session.Session(f"{store}?config-file={config}")
    for line in sys.stdin:
        try:
            answer = opened.query(json.loads(line), "JSONCompactStrings").bytes()
        except RuntimeError as error:
            code = _CODE.search(str(error))
            told: object = int(code[1]) if code else str(error)
        else:
            told = json.loads(answer)["data"] if answer else []
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
