"""Readers, writers and sources by file format, and the embedded jets.

``open`` recognises a file by its content; ``formats`` lists what it knows. A new format is one file of this folder that
registers itself, imported here. ``write`` writes events with their conditions and labels to any format but meshes, PLY
and PC15k trees, which are read only.
"""

from sparsegen.data.api import EMBEDDED, open, write
from sparsegen.data.arrays import ImageStackReader, PointStackReader
from sparsegen.data.calochallenge import CaloChallengeReader, calochallenge_grid
from sparsegen.data.caloclouds import CaloCloudsReader
from sparsegen.data.calogan import CaloGANReader
from sparsegen.data.check import DataWarning, findings
from sparsegen.data.dense import DenseReader
from sparsegen.data.formats import Format, formats
from sparsegen.data.idx import IDXReader
from sparsegen.data.jetclass import JetClassReader
from sparsegen.data.jetnet import JetNetReader
from sparsegen.data.lagan import LAGANReader
from sparsegen.data.modelnet import ModelNetReader
from sparsegen.data.quarkgluon import QuarkGluonReader
from sparsegen.data.ragged import RaggedReader, RaggedWriter
from sparsegen.data.reader import Finding, HDF5Reader, Reader
from sparsegen.data.source import EventSource, EventsSource, FileSource
from sparsegen.data.toptagging import TopTaggingReader
from sparsegen.data.trees import MeshReader, PC15kReader, PLYReader
from sparsegen.data.views import VIEWS

__all__ = [
    "EMBEDDED",
    "VIEWS",
    "CaloChallengeReader",
    "CaloCloudsReader",
    "CaloGANReader",
    "DataWarning",
    "DenseReader",
    "EventSource",
    "EventsSource",
    "FileSource",
    "Finding",
    "Format",
    "HDF5Reader",
    "IDXReader",
    "ImageStackReader",
    "JetClassReader",
    "JetNetReader",
    "LAGANReader",
    "MeshReader",
    "ModelNetReader",
    "PC15kReader",
    "PLYReader",
    "PointStackReader",
    "QuarkGluonReader",
    "RaggedReader",
    "RaggedWriter",
    "Reader",
    "TopTaggingReader",
    "calochallenge_grid",
    "findings",
    "formats",
    "open",
    "write",
]
