"""Floor 4: the embedded engine. Runs the pure steps on the SQLite log and chDB, in one process, with no servers."""
