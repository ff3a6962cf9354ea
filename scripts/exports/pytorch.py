#!/usr/bin/env python3
"""pytorch.py DIR: writes 60 networks with random weights as PyTorch's exporter writes them, each
NAME.onnx with NAME.npz beside it: "in.X" is the input X, "out.Y" PyTorch's result Y. tests/io/onnx
imports them where OCTET_EXPORTS names the directory (Debian: python3-torchvision, python3-onnx)."""
import sys
import warnings

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")
OUT = sys.argv[1]


class Fn(nn.Module):
    """A module of a function and some layers."""

    def __init__(self, fn, *layers):
        super().__init__()
        self.fn = fn
        self.layers = nn.ModuleList(layers)

    def forward(self, *xs):
        return self.fn(self, *xs)


def randomize(model):
    """Batch norms with statistics that change something."""
    for m in model.modules():
        if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)):
            nn.init.uniform_(m.running_mean, -0.2, 0.2)
            nn.init.uniform_(m.running_var, 0.5, 1.5)


class Attention(nn.Module):
    """Heads by view and transpose, a causal mask, and sizes from the input."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.qkv, self.out, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        n, t, c = x.shape
        q, k, v = self.qkv(x).view(n, t, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        a = q @ k.transpose(-2, -1) / (c // self.heads) ** 0.5
        a = a.masked_fill(torch.triu(torch.ones(t, t, dtype=torch.bool), 1), float("-inf"))
        return self.out((a.softmax(-1) @ v).transpose(1, 2).reshape(n, t, c))


class UNet(nn.Module):
    def __init__(self, mode):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, stride=2, padding=1)
        self.c, self.d = nn.Conv2d(24, 8, 3, padding=1), nn.Conv2d(8, 2, 1)
        self.mode = mode
        self.up = nn.ConvTranspose2d(16, 16, 2, stride=2)

    def forward(self, x):
        a = F.relu(self.a(x))
        b = F.relu(self.b(a))
        if self.mode == "transposed":
            b = self.up(b)
        elif self.mode == "scale":
            b = F.interpolate(b, scale_factor=2, mode="nearest")
        else:
            b = F.interpolate(b, size=a.shape[2:], mode="bilinear", align_corners=False)
        return self.d(F.relu(self.c(torch.cat([a, b], 1))))


class SqueezeExcite(nn.Module):
    def __init__(self, c=8):
        super().__init__()
        self.conv, self.a, self.b = nn.Conv2d(3, c, 3), nn.Conv2d(c, 4, 1), nn.Conv2d(4, c, 1)

    def forward(self, x):
        x = F.hardswish(self.conv(x))
        return x * F.hardsigmoid(self.b(F.relu(self.a(x.mean((2, 3), keepdim=True)))))


class ShuffleBlock(nn.Module):
    """Channel shuffle and split by chunk, with sizes from the input."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 1), nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def forward(self, x):
        x, y = self.a(x).chunk(2, 1)
        x = torch.cat([x, self.b(y)], 1)
        n, c, h, w = x.size()
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class PatchEmbed(nn.Module):
    """A vision transformer's stem: patches, a class token that is expanded, positions."""

    def __init__(self):
        super().__init__()
        self.proj = nn.Conv2d(3, 32, 4, 4)
        self.cls, self.pos = nn.Parameter(torch.randn(1, 1, 32)), nn.Parameter(torch.randn(1, 17, 32))
        self.block = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, activation="gelu")
        self.head = nn.Linear(32, 5)

    def forward(self, x):
        x = self.proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(x.shape[0], -1, -1), x], 1) + self.pos
        return self.head(self.block(x)[:, 0])


class WindowAttention(nn.Module):
    """A Swin block: windows by view, cyclic shift by roll."""

    def __init__(self):
        super().__init__()
        self.attention, self.norm = Attention(16, 2), nn.LayerNorm(16)

    def forward(self, x):
        b, h, w, c = x.shape
        y = torch.roll(self.norm(x), (-2, -2), (1, 2))
        y = y.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
        y = self.attention(y).view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5)
        return x + torch.roll(y.reshape(b, h, w, c), (2, 2), (1, 2))


class Tcn(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.utils.weight_norm(nn.Conv1d(4, 8, 3, padding=2, dilation=2))
        self.b, self.skip = nn.Conv1d(8, 8, 3), nn.Conv1d(4, 8, 1)

    def forward(self, x):
        y = F.gelu(self.a(F.pad(x, (2, 0))))
        y = self.b(F.pad(y, (2, 0)))
        return F.relu(y[..., -x.shape[-1]:] + self.skip(x))


class Tagger(nn.Module):
    def __init__(self, kind, bidirectional, layers):
        super().__init__()
        self.embed = nn.Embedding(50, 12)
        self.rnn = kind(12, 10, layers, batch_first=True, bidirectional=bidirectional)
        self.out = nn.Linear(10 * (1 + bidirectional), 7)

    def forward(self, tokens):
        return self.out(self.rnn(self.embed(tokens))[0]).log_softmax(-1)


def image(n=2, c=3, h=32, w=32):
    return torch.randn(n, c, h, w)


def tokens(n=2, t=9):
    return torch.randint(0, 50, (n, t))


tv = torchvision.models
HW = {0: "N", 2: "H", 3: "W"}  # the dynamic axes of images
NT = {0: "N", 1: "T"}


def conv(*layers):
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), *layers)


# name: (model, inputs, dynamic axes of the inputs)
NETWORKS = {
    "alexnet": (lambda: tv.alexnet().features, [image(1, 3, 64, 64)], HW),
    "vgg11_bn": (lambda: nn.Sequential(tv.vgg11_bn().features[:12]), [image()], HW),
    "resnet18": (lambda: tv.resnet18(num_classes=10), [image(1, 3, 64, 64)], HW),
    "resnext": (lambda: tv.ResNet(tv.resnet.Bottleneck, [1, 1, 1, 1], num_classes=10, groups=4,
                                  width_per_group=8), [image(1, 3, 64, 64)], HW),
    "squeezenet1_1": (lambda: tv.squeezenet1_1(num_classes=10), [image(1, 3, 64, 64)], HW),
    "mobilenet_v2": (lambda: tv.mobilenet_v2(num_classes=10), [image(1, 3, 64, 64)], HW),
    "mobilenet_v3_small": (lambda: tv.mobilenet_v3_small(num_classes=10), [image(1, 3, 64, 64)], HW),
    "mnasnet0_5": (lambda: tv.mnasnet0_5(num_classes=10), [image(1, 3, 64, 64)], HW),
    "shufflenet_v2": (lambda: tv.shufflenet_v2_x0_5(num_classes=10), [image(1, 3, 64, 64)], HW),
    "efficientnet_b0": (lambda: tv.efficientnet_b0(num_classes=10), [image(1, 3, 64, 64)], HW),
    "regnet_y_400mf": (lambda: tv.regnet_y_400mf(num_classes=10), [image(1, 3, 64, 64)], HW),
    "convnext_block": (lambda: tv.convnext.CNBlock(16, 1.0, 0.0), [image(2, 16, 8, 8)], HW),
    "densenet": (lambda: tv.DenseNet(8, (2, 2), 16, num_classes=10), [image(1, 3, 64, 64)], HW),
    "googlenet": (lambda: tv.googlenet(num_classes=10, aux_logits=False, init_weights=False),
                  [image(1, 3, 64, 64)], HW),
    "vit": (lambda: tv.VisionTransformer(32, 8, 2, 4, 32, 64, num_classes=10), [image()], {0: "N"}),
    "swin": (lambda: tv.SwinTransformer([4, 4], 16, [2], [2], [4, 4], num_classes=5), [image()],
             {0: "N"}),
    "lraspp": (lambda: LastOut(tv.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=4)), [image(1, 3, 64, 64)], HW),
    "deeplab_head": (lambda: tv.segmentation.deeplabv3.DeepLabHead(16, 4), [image(1, 16, 16, 16)], HW),
    "unet_size": (lambda: UNet("size"), [image(1, 3, 16, 20)], HW),
    "unet_scale": (lambda: UNet("scale"), [image(1, 3, 16, 20)], HW),
    "unet_transposed": (lambda: UNet("transposed"), [image(1, 3, 16, 20)], HW),
    "squeeze_excite": (SqueezeExcite, [image()], HW),
    "channel_shuffle": (ShuffleBlock, [image()], HW),
    "patch_embed": (PatchEmbed, [image(2, 3, 16, 16)], {0: "N"}),
    "window_attention": (WindowAttention, [torch.randn(2, 8, 8, 16)], {0: "N"}),
    "attention": (Attention, [torch.randn(2, 7, 32)], NT),
    "multihead_attention": (lambda: Fn(lambda m, x: m.layers[0](x, x, x)[0],
                                       nn.MultiheadAttention(32, 4, batch_first=True)),
                            [torch.randn(2, 7, 32)], {0: "N"}),
    "encoder": (lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), 2), [torch.randn(2, 7, 32)], {0: "N"}),
    "encoder_norm_first": (lambda: nn.TransformerEncoderLayer(
        32, 4, 64, batch_first=True, norm_first=True, activation="gelu"), [torch.randn(2, 7, 32)],
        {0: "N"}),
    "decoder": (lambda: nn.TransformerDecoderLayer(32, 4, 64, batch_first=True),
                [torch.randn(2, 5, 32), torch.randn(2, 7, 32)], {0: "N"}),
    "lstm": (lambda: Tagger(nn.LSTM, False, 1), [tokens()], NT),
    "lstm_bidirectional": (lambda: Tagger(nn.LSTM, True, 2), [tokens()], NT),
    "gru": (lambda: Tagger(nn.GRU, False, 2), [tokens()], NT),
    "gru_bidirectional": (lambda: Tagger(nn.GRU, True, 1), [tokens()], NT),
    "rnn_tanh": (lambda: Tagger(nn.RNN, False, 1), [tokens()], NT),
    "lstm_states": (lambda: Fn(lambda m, x, h, c: m.layers[0](x, (h, c)), nn.LSTM(6, 5)),
                    [torch.randn(4, 2, 6), torch.randn(1, 2, 5), torch.randn(1, 2, 5)], None),
    "conv_lstm": (lambda: Fn(lambda m, x: m.layers[1](m.layers[0](x).mean(2).permute(2, 0, 1))[0],
                             nn.Conv2d(3, 8, 3, padding=1), nn.LSTM(8, 6)), [image(2, 3, 8, 12)], HW),
    "tcn": (Tcn, [torch.randn(2, 4, 20)], {0: "N", 2: "T"}),
    "conv1d_net": (lambda: nn.Sequential(nn.Conv1d(4, 8, 5, 2), nn.BatchNorm1d(8), nn.ReLU(),
                                         nn.MaxPool1d(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(),
                                         nn.Linear(8, 3)), [torch.randn(2, 4, 40)], {0: "N", 2: "T"}),
    "conv3d_net": (lambda: nn.Sequential(nn.Conv3d(2, 4, 3), nn.BatchNorm3d(4), nn.ReLU(),
                                         nn.MaxPool3d(2), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
                                         nn.Linear(4, 3)), [torch.randn(1, 2, 8, 9, 10)], {0: "N"}),
    "deconv3d": (lambda: nn.ConvTranspose3d(2, 3, 3, 2, 1, output_padding=1),
                 [torch.randn(1, 2, 4, 4, 4)], {0: "N"}),
    "autoencoder": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ELU(),
                                          nn.ConvTranspose2d(8, 8, 4, 2, 1, groups=2), nn.SiLU(),
                                          nn.Conv2d(8, 3, 3, padding=1), nn.Tanh()), [image()], HW),
    "super_resolution": (lambda: conv(nn.PReLU(8), nn.Conv2d(8, 12, 3, padding=1), nn.PixelShuffle(2)),
                         [image(1, 3, 9, 11)], HW),
    "pixel_unshuffle": (lambda: nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 1)),
                        [image(1, 3, 8, 12)], None),
    "norms": (lambda: conv(nn.GroupNorm(2, 8), nn.Mish(), nn.InstanceNorm2d(8, affine=True), nn.GELU()),
              [image()], {0: "N"}),
    "instance_norm_open": (lambda: conv(nn.InstanceNorm2d(8), nn.LeakyReLU(0.1)), [image()], HW),
    "layer_norm_nd": (lambda: nn.Sequential(nn.LayerNorm([3, 8, 8]), nn.Conv2d(3, 4, 1)),
                      [image(2, 3, 8, 8)], {0: "N"}),
    "pools": (lambda: conv(nn.MaxPool2d(3, 2, 1, ceil_mode=True),
                           nn.AvgPool2d(2, 2, 1, count_include_pad=False), nn.AdaptiveMaxPool2d(1)),
              [image(1, 3, 33, 30)], {0: "N"}),
    "activations": (lambda: conv(nn.CELU(0.7), nn.Softplus(), nn.Hardtanh(-1, 2), nn.SELU(),
                                 nn.Softsign(), nn.LogSigmoid()), [image()], HW),
    "upsample_modes": (lambda: Fn(lambda m, x: torch.cat([
        F.interpolate(x, scale_factor=2.5, mode="nearest"),
        F.interpolate(x, scale_factor=2.5, mode="bilinear", align_corners=True),
        F.interpolate(x, scale_factor=2.5, mode="bicubic")], 1)), [image(1, 2, 6, 7)], HW),
    "pads": (lambda: Fn(lambda m, x: F.pad(x, (1, 2, 0, 1), "reflect") + F.pad(x, (1, 2, 0, 1), "replicate")
                        + F.pad(x, (1, 2, 0, 1), value=0.5)), [image(1, 3, 6, 7)], HW),
    "slices": (lambda: Fn(lambda m, x: torch.cat([x[:, :, ::2, 1:], x[:, :, 1::2, :-1]], 1)),
               [image(1, 3, 6, 7)], {0: "N"}),
    "grid_positions": (lambda: Fn(lambda m, x: x + torch.arange(x.shape[3]).float()
                                  + torch.arange(x.shape[2]).float()[:, None]), [image(1, 3, 6, 7)], HW),
    "coordinates": (lambda: Fn(lambda m, x: m.layers[0](torch.cat([x, torch.linspace(-1, 1, 8).expand(
        x.shape[0], 1, 8, 8)], 1)), nn.Conv2d(4, 4, 3)), [image(2, 3, 8, 8)], {0: "N"}),
    "topk_gather": (lambda: Fn(lambda m, x: x.gather(1, x.topk(3, 1)[1])), [torch.randn(4, 9)], {0: "N"}),
    "masked_mean": (lambda: Fn(lambda m, x, k: (x * k.unsqueeze(-1)).sum(1) / k.sum(1, keepdim=True)),
                    [torch.randn(2, 5, 6), torch.ones(2, 5)], {0: "N"}),
    "einsum": (lambda: Fn(lambda m, a, b: torch.einsum("bij,bkj->bik", a, b)),
               [torch.randn(2, 3, 4), torch.randn(2, 5, 4)], {0: "N"}),
    "where_clamp": (lambda: Fn(lambda m, x: torch.where(x > 0, x.clamp(max=1), x.abs().sqrt())),
                    [torch.randn(4, 9)], {0: "N"}),
    "embedding_bag_like": (lambda: Fn(lambda m, t: m.layers[0](t).mean(1), nn.Embedding(50, 8)),
                           [tokens()], NT),
    "two_towers": (lambda: Fn(lambda m, a, b: F.cosine_similarity(m.layers[0](a), m.layers[0](b)),
                              nn.Linear(6, 4)), [torch.randn(3, 6), torch.randn(3, 6)], {0: "N"}),
    "cumulative": (lambda: Fn(lambda m, x: x.cumsum(1) / torch.arange(1, x.shape[1] + 1)),
                   [torch.randn(2, 6)], NT),
}


class LastOut(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x)["out"]


def main():
    for i, (name, (make, inputs, axes)) in enumerate(NETWORKS.items()):
        torch.manual_seed(i)
        model = make().eval()
        randomize(model)
        with torch.no_grad():
            results = model(*inputs)
        results = results if isinstance(results, (tuple, list)) else [results]
        flat = []
        for r in results:
            flat += list(r) if isinstance(r, (tuple, list)) else [r]
        names = [f"x{k}" for k in range(len(inputs))]
        outs = [f"y{k}" for k in range(len(flat))]
        torch.onnx.export(model, tuple(inputs), f"{OUT}/{name}.onnx", input_names=names,
                          output_names=outs, opset_version=14 + i % 3,
                          dynamic_axes={n: axes for n in names} if axes else None)
        arrays = {f"in.{n}": x.numpy() for n, x in zip(names, inputs)}
        arrays.update({f"out.{n}": r.detach().numpy() for n, r in zip(outs, flat)})
        np.savez(f"{OUT}/{name}.npz", **arrays)
        print(name, flush=True)
    print(len(NETWORKS), "networks")


main()
