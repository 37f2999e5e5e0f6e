"""The replay engine: history events in, commands out. No Django, no I/O, no clock, no threads."""
