"""What is told of the invented world, a module a kind of thing."""

from importlib import import_module

from tools.demo.prose.kind import Kind

NAMES = (
    "town",
    "company",
    "expedition",
    "machine",
    "scientist",
    "bridge",
    "festival",
    "ship",
    "island",
    "musician",
    "newspaper",
    "museum",
)
KINDS: tuple[Kind, ...] = tuple(import_module(f"{__name__}.{name}").KIND for name in NAMES)
