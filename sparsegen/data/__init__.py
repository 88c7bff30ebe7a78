"""Readers, writers and sources by file format, and the embedded jets.

``open`` recognises a file by its content; ``formats`` lists what it knows. A new format is one file of this folder that
registers itself, imported here.
"""

from sparsegen.data.api import EMBEDDED, open, write
from sparsegen.data.check import Finding, findings
from sparsegen.data.formats import Format, formats
from sparsegen.data.jetnet import JetNetReader
from sparsegen.data.ragged import RaggedReader, RaggedWriter
from sparsegen.data.reader import HDF5Reader, Reader
from sparsegen.data.source import EventSource, EventsSource, FileSource
from sparsegen.data.views import VIEWS

__all__ = [
    "EMBEDDED",
    "VIEWS",
    "EventSource",
    "EventsSource",
    "FileSource",
    "Finding",
    "Format",
    "HDF5Reader",
    "JetNetReader",
    "RaggedReader",
    "RaggedWriter",
    "Reader",
    "findings",
    "formats",
    "open",
    "write",
]
