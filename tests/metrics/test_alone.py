"""The metrics need numpy, scipy and torch, and nothing else that is installed beside them."""

import subprocess
import sys

ALONE = """
import re, sys, warnings
from importlib import metadata

key = lambda name: re.sub(r"[-_.]+", "-", name).lower()
needed, queue = set(), ["numpy", "scipy", "torch"]
while queue:
    name = key(queue.pop())
    if name in needed:
        continue
    try:
        wanted = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        continue
    needed.add(name)
    queue += [re.split(r"[^\\w.-]", text)[0] for text in wanted if "extra ==" not in text]
for module, owners in metadata.packages_distributions().items():
    if module != "sparsegen" and not any(key(owner) in needed for owner in owners):
        sys.modules[module] = None

import numpy as np
import torch
from sparsegen import metrics
from sparsegen.events import Events

try:
    import yaml
except ImportError:
    pass
else:
    raise AssertionError("other packages are not out of reach")
warnings.simplefilter("ignore")
rng = np.random.default_rng(0)
sides = [
    Events(
        torch.tensor(rng.normal(0, 0.1, size=(600, 2))),
        torch.tensor(rng.exponential(size=(600, 1))),
        torch.arange(61) * 10,
        axes=("etarel", "phirel"),
        columns=("ptrel",),
    )
    for _ in range(3)
]
found = metrics.evaluate(*sides[:2], "full", train=sides[2])
print(len(found), sum("reason" in result.protocol for result in found))
"""


def test_every_metric_of_jets_runs_with_numpy_scipy_and_torch_alone():
    told = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    measured, without_value = map(int, told.stdout.split())
    assert measured > 25
    assert without_value == 0
