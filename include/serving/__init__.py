"""The model server: one process, one slot, one port."""

VERSION = "0.1.0"
