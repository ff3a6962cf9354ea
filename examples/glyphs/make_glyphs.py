#!/usr/bin/python3
"""Make the example network and data in this directory: glyphs.onnx, test.npz, calibrate.npz.

The three files are committed; this script is here so that they can be made again. It needs Debian's
python3-torch, python3-onnx, python3-numpy, python3-pil and fonts-dejavu-core, none of which is needed to
build, test or use octet:

    nice -n 10 /usr/bin/python3 examples/glyphs/make_glyphs.py

Every random draw is seeded. The images are the same to the byte with the same Pillow, FreeType and fonts;
the weights are the same on one machine, and may differ in the last digits (and so the accuracy by a few
images) on a processor for which PyTorch chooses other kernels.
"""

import argparse
import collections
import math
import pathlib
import time

import numpy as np
import onnx
import torch
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from torch import nn

# Ten digits and 22 letters. I and O are left out because they look like 1 and 0, Q because it is nearly O,
# and Z because it is nearly 2. What is left still has hard pairs: 5/S, 8/B, 6/G, U/V, D/0.
CLASSES = "0123456789ABCDEFGHJKLMNPRSTUVWXY"

FONT_DIR = pathlib.Path("/usr/share/fonts/truetype/dejavu")
FONTS = [
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansMono-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Bold.ttf",
]

SIDE = 28  # of an image, in pixels
SCALE = 3  # glyphs are drawn this many times larger, then reduced
GRAY_STEP = 8  # gray levels are rounded to multiples of this, so that the committed files compress

SEED_TRAIN, SEED_TEST, SEED_CALIBRATE, SEED_WEIGHTS = 1, 2, 3, 4


class Renderer:
    """Draws one random image after another from a seeded generator."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.fonts = [ImageFont.truetype(str(FONT_DIR / f), 22 * SCALE, layout_engine=ImageFont.Layout.BASIC)
                      for f in FONTS]

    def glyph(self, label):
        """A white glyph on black, centred, then turned, sheared, scaled and moved."""
        rng = self.rng
        side = SIDE * SCALE
        font = self.fonts[rng.integers(len(self.fonts))]
        image = Image.new("L", (side, side))
        left, top, right, bottom = font.getbbox(CLASSES[label])
        at = (side / 2 - (left + right) / 2, side / 2 - (top + bottom) / 2)
        ImageDraw.Draw(image).text(at, CLASSES[label], fill=255, font=font)

        turn = math.radians(rng.uniform(-20, 20))
        shear = rng.uniform(-0.3, 0.3)
        scale_x, scale_y = rng.uniform(0.7, 1.2, size=2)
        move = rng.uniform(-3, 3, size=2) * SCALE
        forward = (np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
                   @ np.array([[1, shear], [0, 1]]) @ np.diag([scale_x, scale_y]))
        inverse = np.linalg.inv(forward)  # PIL wants the map from output to input
        centre = np.full(2, side / 2)
        offset = centre - inverse @ (centre + move)
        matrix = (inverse[0, 0], inverse[0, 1], offset[0], inverse[1, 0], inverse[1, 1], offset[1])
        image = image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)
        return image

    def clutter(self, image):
        """Up to two strokes, drawn over the glyph in white or black."""
        rng = self.rng
        side = SIDE * SCALE
        draw = ImageDraw.Draw(image)
        for _ in range(rng.integers(0, 3)):
            ends = rng.uniform(-0.1 * side, 1.1 * side, size=4)
            width = int(rng.integers(SCALE, 2 * SCALE + 1))
            draw.line(tuple(ends), fill=int(rng.choice([0, 200])), width=width)

    def image(self, label):
        rng = self.rng
        image = self.glyph(label)
        self.clutter(image)
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.2, 1.1) * SCALE))
        image = image.resize((SIDE, SIDE), Image.Resampling.BOX)
        ink = rng.uniform(70, 255)
        paper = rng.uniform(0, 0.5) * ink
        pixels = paper + np.asarray(image, np.float32) / 255 * (ink - paper)
        pixels += rng.normal(0, rng.uniform(0, 10), size=pixels.shape)
        if rng.random() < 0.15:  # dark on light
            pixels = 255 - pixels
        pixels = np.rint(pixels / GRAY_STEP) * GRAY_STEP
        return np.clip(pixels, 0, 255).astype(np.uint8)

    def dataset(self, count):
        """Classes as even as `count` allows, in random order."""
        labels = self.rng.permutation(np.arange(count) % len(CLASSES)).astype(np.int64)
        images = np.stack([self.image(label) for label in labels])[:, None]
        return images, labels


def conv_bn(inputs, outputs, kernel, groups=1):
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False),
            nn.BatchNorm2d(outputs)]


def separable(inputs, outputs):
    return nn.Sequential(*conv_bn(inputs, inputs, 3, groups=inputs), nn.ReLU(),
                         *conv_bn(inputs, outputs, 1), nn.ReLU())


class Residual(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.body = nn.Sequential(*conv_bn(channels, channels, 3), nn.ReLU(), *conv_bn(channels, channels, 3))
        self.relu = nn.ReLU()

    def forward(self, x):
        return self.relu(self.body(x) + x)


class Glyphs(nn.Module):
    """Takes pixels in 0..1 while it is trained, and in 0..255 after take_raw_pixels()."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(*conv_bn(1, 24, 3), nn.ReLU(), nn.MaxPool2d(2))  # 24 x 14 x 14
        self.block1 = nn.Sequential(separable(24, 48), nn.MaxPool2d(2))  # 48 x 7 x 7
        self.block2 = Residual(48)
        self.block3 = separable(48, 96)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(96, len(CLASSES))

    def forward(self, images):
        x = self.block3(self.block2(self.block1(self.stem(images))))
        return self.head(torch.flatten(self.pool(x), 1))

    def take_raw_pixels(self):
        """Folds the division by 255 into the first convolution (exact: it pads with zeros)."""
        with torch.no_grad():
            self.stem[0].weight /= 255


def train(model, images, labels, epochs, batch=128):
    images = torch.from_numpy(images).float() / 255
    labels = torch.from_numpy(labels)
    steps = epochs * (len(labels) // batch)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=8e-3, total_steps=steps)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for epoch in range(epochs):
        model.train()
        total = 0.0
        for pick in torch.randperm(len(labels))[:len(labels) // batch * batch].split(batch):
            optimizer.zero_grad()
            loss = loss_of(model(images[pick]), labels[pick])
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() * batch
        print(f"epoch {epoch + 1:2} of {epochs}: loss {total / len(labels):.4f}", flush=True)
    model.eval()


def predict(model, images):
    with torch.no_grad():
        return torch.cat([model(part.float()) for part in torch.from_numpy(images).split(500)]).numpy()


def export(model, path):
    """Opset 13, BatchNormalization kept (PRESERVE on a model in eval mode), so that octet folds it."""
    torch.onnx.export(model, torch.zeros(1, 1, SIDE, SIDE), str(path), opset_version=13,
                      training=torch.onnx.TrainingMode.PRESERVE, do_constant_folding=False,
                      input_names=["images"], output_names=["logits"],
                      dynamic_axes={"images": {0: "N"}, "logits": {0: "N"}})
    graph = onnx.load(str(path))
    onnx.checker.check_model(graph, full_check=True)
    counts = collections.Counter(node.op_type for node in graph.graph.node)
    print("ops:", ", ".join(f"{op} {n}" for op, n in sorted(counts.items())))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path(__file__).resolve().parent)
    parser.add_argument("--train-images", type=int, default=32000)
    parser.add_argument("--epochs", type=int, default=10)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)

    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(SEED_WEIGHTS)

    start = time.monotonic()
    train_set = Renderer(SEED_TRAIN).dataset(args.train_images)
    test_set = Renderer(SEED_TEST).dataset(2000)
    calibrate_set = Renderer(SEED_CALIBRATE).dataset(512)
    print(f"rendered in {time.monotonic() - start:.1f} s", flush=True)

    start = time.monotonic()
    model = Glyphs()
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    train(model, *train_set, epochs=args.epochs)
    print(f"trained in {time.monotonic() - start:.1f} s")
    model.take_raw_pixels()

    for name, (images, labels) in [("test", test_set), ("calibrate", calibrate_set)]:
        np.savez_compressed(args.out / f"{name}.npz", images=images, labels=labels)
        right = predict(model, images).argmax(1) == labels
        print(f"{name}: {right.sum()} of {len(labels)} right, {100 * right.mean():.2f} %")
    export(model, args.out / "glyphs.onnx")
    for name in ["glyphs.onnx", "test.npz", "calibrate.npz"]:
        print(f"{name}: {(args.out / name).stat().st_size} bytes")

    images, labels = test_set
    wrong = collections.Counter()
    for label, guess in zip(labels, predict(model, images).argmax(1)):
        if label != guess:
            wrong["".join(sorted(CLASSES[label] + CLASSES[guess]))] += 1
    print("most confused:", ", ".join(f"{pair[0]}/{pair[1]} {n}" for pair, n in wrong.most_common(8)))


if __name__ == "__main__":
    main()
