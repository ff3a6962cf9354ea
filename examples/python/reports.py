"""Reports as a notebook shows them: a script of cells (`# %%`), for Jupyter and editors that know them. In a notebook the last
line of a cell shows itself; run as a program, each page is written to a file.

    python3 examples/python/reports.py [DIRECTORY]
"""
import os
import sys
import tempfile

import numpy as np

import octet
from octet import nn, quantization

FOLDER = sys.argv[1] if len(sys.argv) > 1 and os.path.isdir(sys.argv[1]) else tempfile.mkdtemp(prefix="octet-reports-")


def show(name, report):
    """What a notebook draws for an object, as a file."""
    path = os.path.join(FOLDER, f"{name}.html")
    with open(path, "w") as page:
        page.write(report._repr_html_())
    print(f"{path}: {os.path.getsize(path)} bytes")
    return report


# %% A trained network, and samples of what it will see
network = octet.load("examples/glyphs/glyphs.onnx")
images = np.load("examples/glyphs/calibrate.npz")["images"][:64].astype(np.float32)
samples = [images[i:i + 16] for i in range(0, len(images), 16)]

# %% Quantized, and the typed graph: what is 8-bit, what is float and why
int8 = octet.quantize(network, samples)
show("graph", int8)

# %% Where accuracy goes, layer by layer
show("compare", octet.compare(network, int8, samples))

# %% What each step computed with
show("explain", octet.explain(octet.compile(int8), samples[:1], seconds=0.05))

# %% Which layers cost most
prepared = octet.prepare_fx(network, octet.get_default_qconfig_mapping())
for x in samples:
    prepared(x)
show("sensitivity", octet.sensitivity(prepared, samples))

# %% A poor quantization (octet warns of two samples), and what cures it
poor = octet.quantize(network, [images[:1], images[1:2]], qconfig_mapping=octet.get_default_qconfig_mapping("qnnpack"))
show("doctor", octet.doctor(network, poor, samples, seconds=5))

# %% The best one by trial
show("tune", octet.tune(network, samples[:2], samples[2:], minutes=0.05))

# %% Advice before quantizing, for models of modules
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
x = octet.randn(64, 8) * octet.tensor([100.0, 1, 1, 1, 1, 1, 1, 1])
report = quantization.ModelReport(
    octet.prepare_fx(model, octet.get_default_qconfig_mapping("qnnpack"), (x,)),
    {quantization.PerChannelDetector(), quantization.InputWeightEqualizationDetector(), quantization.OutlierDetector()})
report.prepare_detailed_calibration()(x)
report.generate_model_report(remove_inserted_observers=True)
show("model_report", report)

pages = sorted(os.listdir(FOLDER))
assert len(pages) >= 7, pages
