"""The engine: runs planned files, in bounded memory, and publishes them complete or not at all."""
