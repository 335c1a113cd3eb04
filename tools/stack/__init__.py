"""The programs of the stack: found or built (`python3 tools/stack`), waited for, and shown at work."""
