"""Quantization-aware training: the model learns with its weights and results rounded to codes."""
import octet


class M(octet.nn.Module):
    def __init__(self):
        super().__init__()
        self.quant = octet.quantization.QuantStub()
        self.conv = octet.nn.Conv2d(1, 8, 3)
        self.bn = octet.nn.BatchNorm2d(8)
        self.relu = octet.nn.ReLU()
        self.fc = octet.nn.Linear(8, 2)
        self.dequant = octet.quantization.DeQuantStub()

    def forward(self, x):
        x = self.relu(self.bn(self.conv(self.quant(x))))
        return self.dequant(self.fc(x.mean((2, 3))))


def training_loop(model, images, labels, steps=200):
    optimizer = octet.optim.Adam(model.parameters(), lr=0.05)
    for step in range(steps):
        optimizer.zero_grad()
        loss = octet.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if step == 0:
            first = loss.item()
    return first, loss.item()


octet.manual_seed(0)
images = octet.randn(64, 1, 8, 8)
labels = (images.mean((1, 2, 3)) > 0).long()

model = M().train()
model.qconfig = octet.quantization.get_default_qat_qconfig("native")
fused = octet.quantization.fuse_modules(model, [["conv", "bn", "relu"]])
prepared = octet.quantization.prepare_qat(fused)
first, last = training_loop(prepared, images, labels)
print(f"loss {first:.2f} -> {last:.2f}")
assert last < first / 2

prepared.eval()
int8 = octet.quantization.convert(prepared)
right = (int8(images).argmax(1) == labels).float().mean().item()
print(int8)
print(f"{right:.0%} right in 8 bits")
