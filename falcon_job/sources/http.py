"""The HTTP library under huggingface_hub, for its exceptions: httpx2 from version 2 on, httpx before."""

from importlib.metadata import version

from packaging.version import Version

if Version(version("huggingface-hub")) >= Version("2"):
    import httpx2 as httpx
else:
    import httpx  # type: ignore[no-redef, import-not-found]

__all__ = ["httpx"]
